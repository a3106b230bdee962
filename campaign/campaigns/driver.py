"""Run a campaign: begin every step that can begin, show what is made, certify and chain it.

A `campaign submit` or `restart`, in a process of its own, makes each step: the
end of this driver does not touch it, and the next driver finds it by its run.
Nothing is remembered here that is not in the journals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from campaign.campaigns.document import Campaign
from campaign.campaigns.gatekeeper import Gatekeeper
from campaign.campaigns.processes import Processes
from campaign.campaigns.state import WORDS, StepState, keep_document, look
from campaign.errors import Drained, SubmissionRefused, TasksFailed, UsageError
from campaign.home import Home, typed_line
from campaign.journal import control
from campaign.journal.books import Books, Decisions
from campaign.journal.events import Decision
from campaign.problems import suggest
from campaign.runs.listing import list_unlisted, unlisted
from campaign.wording import count

POLL_S = 0.1
#: Interval at which runs of other drivers are examined, second.
LOOK_S = 2.0


@dataclass(frozen=True)
class Chosen:
    """Choices of the command line."""

    #: Steps; those that do not need the first, or that the last does not need, are left alone.
    first: str | None = None
    last: str | None = None
    #: Accept every gate.
    yes: bool = False
    #: Most steps that are made at the same time.
    jobs: int = 2
    #: Resume with another plan, or other variables, than at first.
    changed: bool = False
    #: Further arguments of `campaign submit`: sites, ranks.
    arguments: tuple[str, ...] = ()


def chosen_steps(campaign: Campaign, chosen: Chosen) -> list[str]:
    """List the steps that are wanted, in their order.

    Raises
    ------
    UsageError
        There is no such step, or nothing between the two.
    """
    wanted = set(campaign.order)
    for name, others in ((chosen.first, campaign.descendants), (chosen.last, campaign.ancestors)):
        if name is None:
            continue
        if name not in campaign.steps:
            raise UsageError(f"the plan has no step {name}", do=suggest(name, campaign.steps))
        wanted &= others(name) | {name}
    if not wanted:
        raise UsageError(f"{chosen.last} does not need {chosen.first}: no step is between them")
    return [name for name in campaign.order if name in wanted]


@dataclass
class Driver:
    """Drives one campaign to its end, or as far as it goes."""

    campaign: Campaign
    home: Home
    books: Books
    chosen: Chosen
    say: Callable[[str], None]
    _tried: set[str] = field(default_factory=set)
    _told: set[tuple[str, str]] = field(default_factory=set)
    _asked: int = 0
    _ending: bool = False

    def __post_init__(self) -> None:
        self._processes = Processes(self.campaign, self.books, self.chosen.arguments, self.say)
        self._gatekeeper = Gatekeeper(self.campaign, self.home, self.books, self.chosen.yes, self.say)

    @property
    def at(self) -> list[str]:
        """Steps that this driver is making now."""
        return self._processes.steps

    def run(self) -> dict[str, StepState]:
        """Drive the campaign; return the state of every step.

        Raises
        ------
        UsageError
            See `chosen_steps`.
        SubmissionRefused
            Another driver is at work; the plan has changed; or a step before the first is not done.
        TasksFailed
            A step failed; the steps that do not need it were made.
        Drained
            The operator ended it; every process that was begun here has ended.
        """
        wanted = chosen_steps(self.campaign, self.chosen)
        with self.books.driving():
            text = self.campaign.path.read_text(encoding="utf-8")
            keep_document(self.books, text, self.campaign.chosen_variables, self.chosen.changed)
            self._list_unlisted()
            self._require_before(wanted)
            detail = {"campaign": self.campaign.name, "plan": str(self.campaign.path), "steps": wanted}
            self.home.record("run", self.campaign.environment["TICKET"], detail)
            with control.heard(self._hear):
                try:
                    states = self._drive(wanted)
                except KeyboardInterrupt:
                    self._asked = max(self._asked, 1)
                if self._asked:
                    self._end()
                    raise self._ended_by_operator()
        lost = [name for name in wanted if states[name].state != "done"]
        if lost:
            first = states[lost[0]]
            why = first.note or WORDS[first.state]
            raise TasksFailed(
                f"{len(lost)} of {count(len(wanted), 'step')} are not done; the first: {first.name}: {why}",
                where=str(self.books.folder),
                do="mend the cause and give the same command again: it resumes with the steps that are left",
            )
        return states

    def _list_unlisted(self) -> None:
        """List runs of steps whose submission was killed too early for it: they are resumed."""
        folders = {Path(s.config.submit_path).parent for s in self._look().values() if s.config}
        if any(unlisted(self.home, folder) for folder in folders):
            from campaign.butler.repository import open_repository

            with open_repository(self.campaign.environment["REPO"]) as repository:
                for folder in folders:
                    list_unlisted(self.home, repository, folder)

    def _require_before(self, wanted: list[str]) -> None:
        states = self._look()
        before = {n for name in wanted for n in self.campaign.steps[name].needs} - set(wanted)
        late = [name for name in self.campaign.order if name in before and states[name].state != "done"]
        if late:
            raise SubmissionRefused(f"{', '.join(late)} must be done before", do="run from an earlier step")

    def _look(self) -> dict[str, StepState]:
        return look(self.campaign, self.home, self.books.lines())

    def _drive(self, wanted: list[str]) -> dict[str, StepState]:
        looked, written, states = 0.0, -1.0, dict[str, StepState]()
        while not self._asked:
            changed = self._processes.reap()
            if changed or self._written() != written or time.monotonic() - looked > LOOK_S:
                states, looked = self._look(), time.monotonic()
                self._note_made(states)
                written = self._written()
                if self._advance(wanted, states):
                    written = -1.0
                    continue
                if not self.at and all(self._ended(states[name], states) for name in wanted):
                    return states
            time.sleep(POLL_S)
        return states

    def _written(self) -> float:
        """When a decision was last written; 0 for never."""
        return self.books.journal.stat().st_mtime if self.books.journal.exists() else 0.0

    def _ended(self, state: StepState, states: Mapping[str, StepState]) -> bool:
        """Whether a step cannot change here any more; a gate may still open, another driver may still end."""
        if state.name in self._gatekeeper.refused:
            return True
        if state.state in ("left", "failed"):
            return state.name in self._tried or not self._needs_met(state.name, states)
        if state.state == "running":  # by a driver on another machine, which may be gone
            return bool(state.note)
        return state.state in ("done", "blocked", "waiting")

    def _note_made(self, states: Mapping[str, StepState]) -> None:
        """Write down the runs that are made: their folders may be cleared before the campaign is over."""
        made = [state for state in states.values() if state.state in ("gate", "made", "done")]
        decided = self.books.decisions if made else Decisions()
        for state in made:
            if state.run not in decided.made and state.run not in decided.certified:
                self.books.write(Decision.MADE, state.name, run=state.run)

    def _advance(self, wanted: list[str], states: Mapping[str, StepState]) -> bool:
        """Begin, show and certify every possible step; return whether a decision has changed a state."""
        for name in wanted:
            state = states[name]
            if self._asked:
                return False
            if name in self.at:
                continue
            if state.state != "blocked" or self._blocked_for_good(name, states):
                self._tell(state)
            again = state.state in ("left", "failed") and name not in self._tried and self._needs_met(name, states)
            if (state.state == "ready" or again) and len(self.at) < self.chosen.jobs:
                self._tried.add(name)
                self._told.discard((name, "done"))
                self._processes.begin(state, states)
            elif state.state == "gate":
                if self._gatekeeper.show(state):
                    return True
            elif state.state == "made" and name not in self._gatekeeper.refused:
                self._gatekeeper.certify(state)
                return True
        return False

    def _needs_met(self, name: str, states: Mapping[str, StepState]) -> bool:
        return all(states[n].state == "done" for n in self.campaign.steps[name].needs)

    def _blocked_for_good(self, name: str, states: Mapping[str, StepState]) -> bool:
        """Whether no failed step behind a blocked one is being made again here, or can be."""
        for need in self.campaign.steps[name].needs:
            if states[need].state == "failed" and (need in self.at or need not in self._tried):
                return False
            if states[need].state == "blocked" and not self._blocked_for_good(need, states):
                return False
        return True

    def _tell(self, state: StepState) -> None:
        """Say a step's state once, where it is of interest."""
        if state.state in ("done", "running", "blocked") and (state.name, state.state) not in self._told:
            self._told.add((state.name, state.state))
            words = {
                "done": "done",
                "running": state.note or "is made by another process",
                "blocked": f"not begun: {state.note} failed",
            }
            self.say(f"{state.name:14s} {words[state.state]}")

    def _hear(self) -> None:
        """At ^C, SIGTERM, SIGHUP: begin no more steps; at the second, leave the present work of this process too."""
        self._asked += 1
        if self._asked == 1:
            self.say("draining: no more steps are begun, running steps drain; once more ends them at once")
        elif not self._ending:
            raise KeyboardInterrupt

    def _end(self) -> None:
        """End every process that was begun here: the first request drains it, the second stops it."""
        told, self._ending = 0, True
        while self.at:
            if told < self._asked:
                told += 1
                self._processes.interrupt()
            self._processes.reap()
            time.sleep(POLL_S)

    def _ended_by_operator(self) -> Drained:
        states = self._look()
        done = sum(state.state == "done" for state in states.values())
        return Drained(
            f"drained: {done} of {count(len(states), 'step')} {'is' if 1 in (done, len(states)) else 'are'} done, "
            "nothing that was begun here is left running",
            where=self.campaign.name,
            do=f"{typed_line()} resumes",
        )
