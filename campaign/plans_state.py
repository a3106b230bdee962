"""What has become of a campaign's steps: its own journal, the runs' journals, and nothing else.

``$CAMPAIGN_HOME/campaigns/<name>/`` holds the plan as it was run, the logs of
its steps, and ``journal.jsonl``: one line a decision.  What a run has come to
is looked up where the run is.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from campaign import claim
from campaign.errors import SubmissionRefused, UsageError, naming
from campaign.home import Home, now
from campaign.jobs import write_text
from campaign.plans import Campaign
from campaign.problems import suggest
from campaign.status import state_of
from campaign.template_config import StepConfig

State = Literal["waiting", "ready", "running", "left", "failed", "gate", "made", "done", "blocked"]
#: What a run's state is called for a person.
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
    """``20250207a`` becomes ``20250207b``.

    Raises
    ------
    UsageError
        It does not end in a letter that another follows.
    """
    found = _RERUN.match(rerun)
    if not found:
        raise UsageError(f"RERUN {rerun} does not end in a letter from a to y", do="give the next one with --rerun")
    return found[1] + chr(ord(found[2]) + 1)


@dataclass(frozen=True)
class Books:
    """A campaign's folder."""

    folder: Path

    @property
    def journal(self) -> Path:
        """One line a decision."""
        return self.folder / "journal.jsonl"

    def write(self, event: str, step: str = "", **detail: Any) -> None:
        """Add a line; several commands may do so at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        who = {"user": getpass.getuser(), "host": socket.gethostname()}
        line = json.dumps({"t": now(), "event": event, "step": step, **who, **detail}, separators=(",", ":"))
        with naming(self.journal), self.journal.open("a", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.write(line + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """All of them, oldest first; a line that is cut has never been said."""
        if not self.journal.exists():
            return []
        found = []
        for line in self.journal.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Be the only one who drives the campaign.

        Raises
        ------
        SubmissionRefused
            Somebody else does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "driver.lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = claim.read(self.folder)
                who = f" by {owner.text}" if owner else ""
                raise SubmissionRefused(
                    f"the campaign is being run{who}", where=str(self.folder), do="campaign plan shows where it is"
                ) from error
            claim.write(self.folder)
            yield


def folder_of(home: Home, name: str) -> Path:
    """Where a campaign keeps its books."""
    return home.path / "campaigns" / name


def books_of(home: Home, campaign: Campaign) -> Books:
    """A campaign's books."""
    return Books(folder_of(home, campaign.name))


@dataclass(frozen=True)
class StepState:
    """What a step has come to.

    Parameters
    ----------
    name : `str`
    state : `str`
        See `WORDS`.
    rerun : `str`
        The RERUN that it is made under.
    run : `str`
        Its newest run; empty where it has none.
    folder : `str`
        The run's.
    note : `str`
        Why, or who decided it.
    """

    name: str
    state: State
    rerun: str
    config: StepConfig | None = field(repr=False, default=None)
    run: str = ""
    folder: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Decisions:
    """A campaign's journal, folded."""

    reruns: Mapping[str, str]
    accepted: Mapping[str, str]
    certified: Mapping[str, str]
    failed: Mapping[str, str]


def _decisions(campaign: Campaign, lines: Sequence[Mapping[str, Any]]) -> _Decisions:
    reruns = dict.fromkeys(campaign.steps, campaign.environment["RERUN"])
    accepted: dict[str, str] = {}
    certified: dict[str, str] = {}
    failed: dict[str, str] = {}
    for line in lines:
        step, run = line["step"], line.get("run", "")
        if step not in campaign.steps:
            continue
        if line["event"] == "rejected":
            for name in (step, *campaign.descendants(step)):
                reruns[name] = line["rerun"]
        elif line["event"] == "accepted":
            accepted[run] = f"accepted by {line['user']}: {line['reason']}"
        elif line["event"] == "certified":
            certified[run] = line["target"]
        elif line["event"] in ("failed", "begun"):
            failed[step] = line.get("error", "")
    return _Decisions(reruns, accepted, certified, failed)


def _run_state(folder: Path) -> State:
    """What a run has come to, from its own folder; while its driver lives it is not over."""
    owner, state = claim.read(folder), state_of(folder)
    if state == "running" or (owner is not None and owner.alive is not False):
        return "running"
    ends: Mapping[str, State] = {"done": "made", "failed": "failed"}
    return ends.get(state, "left")


def look(campaign: Campaign, home: Home, lines: Sequence[Mapping[str, Any]]) -> dict[str, StepState]:
    """What every step has come to, in the campaign's order.

    Parameters
    ----------
    lines : sequence of `dict`
        The campaign's journal.
    """
    decided, runs = _decisions(campaign, lines), home.runs()
    found: dict[str, StepState] = {}
    for name in campaign.order:
        config = campaign.config(name, decided.reruns[name])
        own = [r for r in runs if r["output"] == config.output]
        found[name] = _step(campaign, name, config, own[-1] if own else None, decided, found)
    return found


def _step(
    campaign: Campaign,
    name: str,
    config: StepConfig,
    entry: Mapping[str, Any] | None,
    decided: _Decisions,
    before: Mapping[str, StepState],
) -> StepState:
    step, rerun = campaign.steps[name], decided.reruns[name]
    needs = {n: before[n].state for n in step.needs}

    def at(state: State, note: str = "") -> StepState:
        run, folder = (entry["run"], entry["submit_path"]) if entry else ("", "")
        return StepState(name, state, rerun, config, run, folder, note)

    if entry is None:
        lost = [n for n, state in needs.items() if state in ("failed", "blocked")]
        if decided.failed.get(name):
            return at("failed", decided.failed[name])
        if lost:
            return at("blocked", ", ".join(lost))
        late = [n for n, state in needs.items() if state != "done"]
        return at("waiting", ", ".join(late)) if late else at("ready")
    run_state = _run_state(Path(entry["submit_path"]))
    if run_state != "made":
        return at(run_state, decided.failed.get(name, "") if run_state == "failed" else "")
    if step.gate and entry["run"] not in decided.accepted:
        return at("gate")
    if step.certify and entry["run"] not in decided.certified:
        return at("made", decided.failed.get(name, ""))
    return at("done", decided.accepted.get(entry["run"], ""))


def waiting_gate(home: Home, step: str, name: str | None) -> tuple[Books, dict[str, Any]]:
    """The campaign whose gate a person decides on, and the line that says that it waits.

    Parameters
    ----------
    name : `str`, optional
        The campaign, where several have such a step.

    Raises
    ------
    UsageError
        No campaign waits there, or several do.
    """
    found = []
    for one in home.campaigns:
        books = Books(folder_of(home, one))
        lines = [line for line in books.lines() if line["step"] == step]
        ends = [line for line in lines if line["event"] in ("gate", "accepted", "rejected")]
        if ends and ends[-1]["event"] == "gate" and name in (None, one):
            found.append((books, ends[-1]))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(books.folder.name for books, _ in found)
        raise UsageError(f"{len(found)} campaigns wait at {step}: {names}", do="say which with --campaign")
    steps = {line["step"] for one in home.campaigns for line in Books(folder_of(home, one)).lines() if line["step"]}
    where = f" of {name}" if name else ""
    what = f"no gate {step}{where} waits for a decision"
    if step in steps or not steps:
        raise UsageError(what, do="campaign plan PLAN shows where the campaign is")
    raise UsageError(what, do=suggest(step, steps))


def keep_plan(books: Books, text: str, changed: bool) -> None:
    """Keep the plan as it was run first.

    Parameters
    ----------
    changed : `bool`
        Another one takes its place.

    Raises
    ------
    SubmissionRefused
        The campaign was begun with another one.
    """
    kept = books.folder / "plan.yaml"
    if kept.exists() and not changed and kept.read_text(encoding="utf-8") != text:
        raise SubmissionRefused(
            "the plan has changed since the campaign was begun",
            where=str(kept),
            do="raise RERUN for another campaign; or --changed goes on with the plan as it is now",
        )
    books.folder.mkdir(parents=True, exist_ok=True)
    write_text(kept, text)
