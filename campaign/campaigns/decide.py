"""Gates: find the runs that wait for a person, and decide on them; no driver of the campaign is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.campaigns.state import WORDS, CampaignState, StepState, campaign_state
from campaign.errors import CampaignError, SubmissionRefused, UsageError
from campaign.home import Home
from campaign.journal.books import Books
from campaign.journal.plan import load as load_plan
from campaign.problems import suggest
from campaign.wording import command, count, listed

if TYPE_CHECKING:
    from campaign.butler.repository import Repository

WAITING = "campaign status --waiting shows what waits"
#: Digits of a gate's digest, in the word that `campaign accept --all-shown` takes.
DIGITS = 8


def decision(what: str, step: str, run: str) -> str:
    """Write the command that decides on a run: ``accept`` or ``reject``."""
    return f"{command(what, step, '--run', run)} --reason '...'"


@dataclass(frozen=True)
class Gate:
    """A run that waits for a person."""

    campaign: str
    #: Its step.
    state: StepState

    books: Books = field(compare=False, repr=False)
    #: The campaign's; empty where its books do not name one.
    repository: str = ""

    @property
    def step(self) -> str:
        """The step's name."""
        return self.state.name

    @property
    def run(self) -> str:
        """The run's id."""
        return self.state.run

    @property
    def digest(self) -> str:
        """A short name for campaign, step and run."""
        text = "\n".join((self.campaign, self.step, self.run))
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]

    @property
    def text(self) -> str:
        """The gate, for messages."""
        return f"{self.step} of {self.campaign} (run {self.run})"

    def command(self, what: str) -> str:
        """Write the command that decides on the gate: ``accept`` or ``reject``."""
        return decision(what, self.step, self.run)

    @property
    def plain(self) -> dict[str, Any]:
        """The gate, for JSON."""
        pictures = sorted(Path(self.state.folder).glob("pictures/*.png"))
        return {
            "campaign": self.campaign,
            "step": self.step,
            "run": self.run,
            "rerun": self.state.rerun,
            "output_run": self.state.output_run,
            "submit_path": self.state.folder,
            "pictures": [str(path) for path in pictures],
            "accept": self.command("accept"),
            "reject": self.command("reject"),
        }


def standings(home: Home) -> tuple[list[CampaignState], list[str]]:
    """Read the books of every campaign; list those that cannot be read, with the reason."""
    found, wrong = [], []
    for name in home.campaigns:
        try:
            found.append(campaign_state(home, name))
        except (CampaignError, OSError) as error:
            wrong.append(f"campaign {name} is left out: {str(error).splitlines()[0]}")
    return found, wrong


def gates_of(campaigns: Sequence[CampaignState]) -> list[Gate]:
    """List the gates of these campaigns that wait, in the order of their steps."""
    return [
        Gate(one.books.folder.name, state, one.books, one.campaign.environment.get("REPO", ""))
        for one in campaigns
        for state in one.states.values()
        if state.state == "gate"
    ]


def token(gates: Sequence[Gate]) -> str:
    """Name these gates, each by its run, for `shown`."""
    return "-".join(gate.digest for gate in gates)


def accept_all(gates: Sequence[Gate]) -> str:
    """Write the command that accepts these gates, and no others."""
    return f"{command('accept', '--all-shown', token(gates))} --reason '...'"


def shown(home: Home, text: str) -> tuple[list[Gate], list[str]]:
    """Find the gates that a person was shown, and no others.

    Parameters
    ----------
    text : `str`
        The word that `token` gave then.

    Returns
    -------
    gates : `list` [`Gate`]
        Those that still wait.
    notes : `list` [`str`]
        Gates that were accepted since, and gates that wait now and were not shown.

    Raises
    ------
    UsageError
        A gate was rejected, or its run made again, since; or the text names no gates.
    """
    campaigns, notes = standings(home)
    waiting = {gate.digest: gate for gate in gates_of(campaigns)}
    decided = {_digest(one, step, run): words for one, step, run, words in _accepted(campaigns)}
    asked = [word for word in text.split("-") if word]
    lost = [word for word in asked if word not in waiting and word not in decided]
    if lost or not asked:
        what = (
            f"{listed(lost)} of {text!r} waits no longer: it was rejected, or made again" if lost else "none is named"
        )
        raise UsageError(what, where="--all-shown", do=f"{WAITING}: look again, and give the command shown then")
    notes += [f"note: {decided[word]}" for word in asked if word not in waiting]
    notes += [f"note: {gate.text} waits too; it was not shown" for d, gate in waiting.items() if d not in asked]
    return [waiting[word] for word in dict.fromkeys(asked) if word in waiting], notes


def _accepted(campaigns: Sequence[CampaignState]) -> Iterator[tuple[str, str, str, str]]:
    for one in campaigns:
        for step, state in one.states.items():
            if state.run in one.accepted:
                name = one.books.folder.name
                yield name, step, state.run, f"{step} of {name} was {one.accepted[state.run]}"


def _digest(campaign: str, step: str, run: str) -> str:
    return Gate(campaign, StepState(step, "gate", "", run=run), Books(Path())).digest


def waiting_gate(home: Home, step: str, name: str | None, run: str | None = None) -> Gate:
    """Find the gate that a person decides on.

    ``name`` is the campaign, where several have such a step; ``run`` is what the person looked at, as `Home.find_run`
    takes it.

    Raises
    ------
    UsageError
        No campaign waits there, or several do, or with another run; the error says who has decided already.
    """
    campaigns, wrong = standings(home)
    having = [one for one in campaigns if step in one.campaign.steps and name in (None, one.books.folder.name)]
    looked = home.find_run(run)["run"] if run else None
    found = [gate for gate in gates_of(having) if gate.step == step]
    if looked and any(gate.run == looked for gate in found):
        found = [gate for gate in found if gate.run == looked]
    elif looked:
        raise _not_with(having, step, looked, found)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(gate.campaign for gate in found)
        raise UsageError(f"{len(found)} campaigns wait at {step}: {names}", do="say which with --campaign, or --run")
    raise _nowhere(campaigns, having, step, name, wrong)


def _not_with(having: Sequence[CampaignState], step: str, run: str, found: Sequence[Gate]) -> UsageError:
    """Say why a run does not wait: it was decided on, is not over, or another one waits in its place."""
    for one in having:
        if words := one.accepted.get(run) or one.rejected.get(run):
            return UsageError(f"{step} of {one.books.folder.name}, run {run}, was {words}", do=WAITING)
    if found:
        waits = " and ".join(gate.run for gate in found)
        do = f"look at that one first: {command('status', '--waiting')}"
        return UsageError(f"{step} waits with run {waits}, not with {run}", do=do)
    state = next((one.states[step] for one in having if one.states[step].run == run), None)
    if state is not None:
        return UsageError(f"{step} does not wait: run {run} {_words(state)}", do=_what_then(state))
    return UsageError(f"no campaign waits with run {run} at {step}", do=WAITING)


def _nowhere(
    campaigns: Sequence[CampaignState],
    having: Sequence[CampaignState],
    step: str,
    name: str | None,
    wrong: Sequence[str],
) -> UsageError:
    """Say that no campaign waits there, and give the states of such steps."""
    if not having:
        steps = {one for some in campaigns for one in some.campaign.steps}
        where = f" of {name}" if name else ""
        do = (
            suggest(step, steps)
            if step not in steps
            else f"campaigns: {', '.join(s.books.folder.name for s in campaigns)}"
        )
        return UsageError(
            "\n  ".join([f"no gate {step}{where} waits for a decision", *wrong]), do=do if steps else WAITING
        )
    texts = []
    for one in having:
        state = one.states[step]
        words = one.accepted.get(state.run, "")
        has = "" if one.campaign.steps[step].gate else " (it has no gate)"
        texts.append(f"{step} of {one.books.folder.name} " + (f"was {words}" if words else f"{_words(state)}{has}"))
    what = "\n  ".join([f"no gate {step} waits for a decision: {texts[0]}", *texts[1:], *wrong])
    return UsageError(what, do=_what_then(having[0].states[step]) if len(having) == 1 else WAITING)


def _words(state: StepState) -> str:
    first = state.note.splitlines()[0] if state.note else ""
    return WORDS[state.state] + (f": {first}" if first else "")


def _what_then(state: StepState) -> str:
    if state.state == "running" and state.run:
        return f"{command('status', state.run)} --watch follows it"
    if state.state == "failed" and state.run:
        return f"{command('errors', state.run)} says why; then campaign run PLAN resumes"
    return f"{WAITING}; campaign run PLAN resumes with the other steps"


def require_products(gate: Gate, home: Home, repository: Repository) -> None:
    """Refuse a run whose products are not there: acceptance leads to certification.

    Raises
    ------
    SubmissionRefused
        Products are gone from the repository or from the disk, or are not as they were published.
    """
    entry = home.find_run(gate.run)
    kind, output_run = entry["product"], entry["output_run"]
    there = repository.datasets(kind, [output_run]) if repository.collection_type(output_run) else ()
    whole = [one for one in there if Path(one.path).is_file()]
    lost = sorted(set(entry["detectors"]) - {one.data_id.get("detector") for one in whole})
    wrong = [f"{kind} of detector {listed(lost)} is not there any more"] if lost else []
    if not wrong:
        wrong = list(_damaged(Path(gate.state.folder)).values())[:1]
    if wrong:
        raise SubmissionRefused(
            f"{gate.text} cannot be accepted: {wrong[0]}",
            where=output_run,
            do=f"{gate.command('reject')} has it made again under the next RERUN",
        )


def _damaged(folder: Path) -> Mapping[str, str]:
    """Find products that are not as they were published; none where scratch space was cleared."""
    from campaign.planning.standing import standing

    if not (folder / "plan.json").is_file():
        return {}
    return standing(load_plan(folder / "plan.json"), None).damaged


@contextmanager
def deciding(gates: Sequence[Gate]) -> Iterator[None]:
    """Hold the locks of decisions at these gates.

    Raises
    ------
    UsageError
        Somebody was quicker: a gate waits no longer.
    """
    with ExitStack() as locks:
        for books in sorted({gate.books for gate in gates}, key=lambda books: books.folder):
            locks.enter_context(books.deciding())
        yield


def describe(gates: Sequence[Gate]) -> str:
    """Say how many gates wait."""
    if not gates:
        return "nothing waits for a person"
    return f"{count(len(gates), 'step')} {'waits' if len(gates) == 1 else 'wait'} for a person"
