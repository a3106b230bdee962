"""Derive the states of a campaign's steps from its own journal and its runs' journals, and from nothing else.

``$CAMPAIGN_HOME/campaigns/<name>/`` holds the document as it was run, the logs
of its steps, and ``journal.jsonl``: one line a decision.  The state of a run is
read from the run's own folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from campaign.campaigns.document import Campaign, kept
from campaign.errors import SubmissionRefused, UsageError
from campaign.home import Home
from campaign.jobs.file import write_text
from campaign.journal import claim
from campaign.journal.books import DOCUMENT, VARIABLES, Books, Decisions, decisions, folder_of
from campaign.journal.status import state_of
from campaign.limited import from_json
from campaign.template.config import StepConfig
from campaign.template.vocabulary import objection

State = Literal["waiting", "ready", "running", "left", "failed", "gate", "made", "done", "blocked"]
#: States in words.
WORDS: Mapping[State, str] = {
    "waiting": "waits for what it needs",
    "ready": "can begin",
    "running": "runs",
    "left": "was left unfinished",
    "failed": "failed",
    "gate": "waits for a person",
    "made": "is made, to be certified",
    "done": "done",
    "blocked": "waits for a step that failed",
}
_RERUN = re.compile(r"^(.*?)([a-y])$")


def next_rerun(rerun: str) -> str:
    """Raise a RERUN's letter: ``20250207a`` becomes ``20250207b``.

    Raises
    ------
    UsageError
        The RERUN does not end in a letter that another follows.
    """
    found = _RERUN.match(rerun)
    if not found:
        raise UsageError(f"RERUN {rerun} does not end in a letter from a to y", do="give the next one with --rerun")
    return found[1] + chr(ord(found[2]) + 1)


def books_of(home: Home, campaign: Campaign) -> Books:
    """Open a campaign's books."""
    return Books(folder_of(home, campaign.name))


@dataclass(frozen=True)
class StepState:
    """State of a step."""

    name: str
    #: See `WORDS`.
    state: State
    #: The RERUN that the step is made under.
    rerun: str

    config: StepConfig | None = field(repr=False, default=None)
    #: The newest run; empty where there is none.
    run: str = ""
    #: The run's.
    folder: str = ""
    output_run: str = ""
    #: The reason, the person who decided, or a driver of which this machine cannot see whether it lives.
    note: str = ""


def _run_state(folder: Path) -> tuple[State, str]:
    """Read the state of a run from its folder; while its driver lives, or may live, the run is not over."""
    owner, state = claim.holder(folder), state_of(folder)
    if state == "running" or owner:
        unseen = owner is not None and owner.alive is None
        return "running", f"it is made by {owner.text}: {claim.advice(owner, folder)}" if owner and unseen else ""
    ends: Mapping[str, State] = {"done": "made", "failed": "failed"}
    return ends.get(state, "left"), ""


def look(campaign: Campaign, home: Home, lines: Sequence[Mapping[str, Any]]) -> dict[str, StepState]:
    """Derive the state of every step, in the campaign's order, from the lines of the campaign's journal."""
    decided = decisions(lines)
    reruns = _reruns(campaign, decided)
    configs = {name: campaign.config(name, reruns[name]) for name in campaign.order}
    return _states(campaign, home.runs(), decided, configs)


def _reruns(campaign: Campaign, decided: Decisions) -> dict[str, str]:
    """Find the RERUN of every step; the variables that a campaign's books keep need not name the first."""
    found = dict.fromkeys(campaign.steps, campaign.environment.get("RERUN") or decided.rerun)
    for step, rerun in decided.raised:
        if step in found:
            found |= dict.fromkeys((step, *campaign.descendants(step)), rerun)
    return found


def _states(
    campaign: Campaign,
    runs: Sequence[Mapping[str, Any]],
    decided: Decisions,
    configs: Mapping[str, StepConfig],
) -> dict[str, StepState]:
    found: dict[str, StepState] = {}
    reruns = _reruns(campaign, decided)
    for name in campaign.order:
        config, key = configs.get(name), (name, reruns[name])
        own = [r for r in runs if _is_own(r, key, config, decided) and r["run"] not in decided.rejected]
        found[name] = _step(campaign, key, config, own[-1] if own else None, decided, found)
    return found


def _is_own(entry: Mapping[str, Any], key: tuple[str, str], config: StepConfig | None, decided: Decisions) -> bool:
    """Whether a run is the campaign's: its submission carried a nonce of the step; clocks are not compared.

    Submissions of earlier releases carried none: their runs are the step's if listed after the step was begun.
    """
    if config is not None and entry["output"] != config.output:
        return False
    if "nonce" in entry:
        return entry["nonce"] in decided.nonces.get(key, ())
    if config is None:
        return entry["run"] in decided.named.get(key[0], ())
    since = decided.begun.get(key)
    return since is not None and entry["t"] >= since


def _step(
    campaign: Campaign,
    key: tuple[str, str],
    config: StepConfig | None,
    entry: Mapping[str, Any] | None,
    decided: Decisions,
    before: Mapping[str, StepState],
) -> StepState:
    name, rerun = key
    step = campaign.steps[name]
    needs = {n: before[n].state for n in step.needs}

    def at(state: State, note: str = "") -> StepState:
        run, folder, output_run = (entry[k] if entry else "" for k in ("run", "submit_path", "output_run"))
        return StepState(name, state, rerun, config, run, folder, output_run, note)

    child = decided.processes.get(name)
    begun = child is not None and child.alive is True  # the process may not have listed, or claimed, its run yet
    if entry is None:
        if begun:
            return at("running")
        lost = [n for n, state in needs.items() if state in ("failed", "blocked")]
        if decided.failed.get(name):
            return at("failed", decided.failed[name])
        if lost:
            return at("blocked", ", ".join(lost))
        late = [n for n, state in needs.items() if state != "done"]
        return at("waiting", ", ".join(late)) if late else at("ready")
    if entry["run"] in decided.certified:
        return at("done", decided.accepted.get(entry["run"], ""))
    folder = Path(entry["submit_path"])
    run_state, note = _run_state(folder)
    if entry["run"] in decided.made and not folder.exists():  # scratch space was cleared; products lie elsewhere
        run_state = "made"
    if run_state in ("left", "failed") and begun:
        return at("running")
    if run_state != "made":
        return at(run_state, decided.failed.get(name, "") if run_state in ("failed", "left") else note)
    if step.gate and entry["run"] not in decided.accepted:
        return at("gate")
    if step.certify:
        return at("made", decided.failed.get(name, ""))
    return at("done", decided.accepted.get(entry["run"], ""))


@dataclass(frozen=True)
class CampaignState:
    """A campaign by its books alone: the states of its steps, and the decisions on its runs."""

    books: Books
    #: The steps; see `campaign.campaigns.document.kept`.
    campaign: Campaign

    states: Mapping[str, StepState]
    #: By run: person, time and reason.
    accepted: Mapping[str, str]
    rejected: Mapping[str, str]


def campaign_state(home: Home, name: str) -> CampaignState:
    """Derive a campaign's states from its books alone, whether a driver is at work or not.

    Raises
    ------
    DocumentErrors, ConfigurationError
        The document in its books cannot be read.
    """
    books = Books(folder_of(home, name))
    campaign, decided = kept(books.folder / DOCUMENT, books.variables()), books.decisions
    states = _states(campaign, home.runs(), decided, {})
    return CampaignState(books, campaign, states, decided.accepted, decided.rejected)


def following(home: Home, books: Books, run: str, rerun: str, wanted: str | None) -> str:
    """Choose the RERUN under which a rejected run is made again.

    Parameters
    ----------
    run, rerun : `str`
        The run, and its RERUN.
    wanted : `str`, optional
        The operator's choice; by default the next letter that nobody has used.

    Raises
    ------
    UsageError
        The choice cannot be a RERUN, or runs of this ticket and tag have it.
    """
    output = next((entry["output"] for entry in home.runs() if entry["run"] == run), "")
    folder = output.rpartition("/")[0]
    outputs = {entry["output"] for entry in home.runs() if entry["output"].startswith(f"{folder}/")}
    used = {name.rpartition(".")[2] for name in outputs} | {one["rerun"] for one in books.lines() if one.get("rerun")}
    if wanted is None:
        found = next_rerun(rerun)
        while found in used:
            found = next_rerun(found)
        return found
    if wrong := objection("word", wanted):
        raise UsageError(f"--rerun {wanted!r} {wrong}")
    if wanted in used:
        raise UsageError(f"--rerun {wanted}: there are runs of that RERUN", do="take one that was never used")
    return wanted


def _variables(path: Path) -> Mapping[str, str] | None:
    """Read the variables in a campaign's books; `None` where the file is damaged."""
    try:
        found = from_json(path.read_bytes())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def keep_document(books: Books, text: str, variables: Mapping[str, str], changed: bool) -> None:
    """Keep the campaign's document and variables, as they were at first, in its books; ``changed`` replaces them.

    Raises
    ------
    SubmissionRefused
        The campaign was begun with others.
    """
    plan, known = books.folder / DOCUMENT, books.folder / VARIABLES
    other = ["the plan"] if plan.exists() and plan.read_text(encoding="utf-8") != text else []
    before = _variables(known) if known.exists() else variables
    if before is None:
        other.append(f"{known.name}, which is damaged,")
        before = variables
    other += [f"${name}" for name in sorted({*before, *variables}) if before.get(name) != variables.get(name)]
    if other and not changed:
        raise SubmissionRefused(
            f"{', '.join(other)} {'has' if len(other) == 1 else 'have'} changed since the campaign was begun",
            where=str(books.folder),
            do="raise RERUN for another campaign; or --changed resumes with them as they are now",
        )
    books.folder.mkdir(parents=True, exist_ok=True)
    write_text(plan, text)
    write_text(known, json.dumps(variables, indent=1))
