"""Runs a campaign: every step that can begin is begun, what is made is looked at, certified and chained.

A step is made by a `campaign submit`, or `restart`, of its own, in a process
of its own: what becomes of this driver does not touch it, and the next driver
finds it by its run.  Nothing is remembered here that is not in the journals.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from campaign.campaigns.decide import Gate, require_products
from campaign.campaigns.document import Campaign, PlanStep
from campaign.campaigns.gate import gate_text
from campaign.campaigns.state import WORDS, StepState, keep_plan, look
from campaign.certification.command import run as certify
from campaign.errors import CampaignError, ConfigurationError, Drained, SubmissionRefused, TasksFailed, UsageError
from campaign.home import Home, typed_line
from campaign.journal import claim, control
from campaign.journal.books import Books, Decisions
from campaign.journal.events import Decision
from campaign.planning.order import NONCE
from campaign.planning.order import read as read_order
from campaign.problems import suggest
from campaign.wording import count

POLL_S = 0.1
#: How often it is looked at what other drivers make, second.
LOOK_S = 2.0


@dataclass(frozen=True)
class Chosen:
    """What the command line says.

    Parameters
    ----------
    first, last : `str`, optional
        Steps: what does not need the first, and what the last does not need, is left alone.
    yes : `bool`
        Accept every gate.
    jobs : `int`
        Steps that are made at the same time.
    changed : `bool`
        Go on with a plan, or variables, that are others than at first.
    arguments : `tuple` [`str`]
        Further ones for `campaign submit`: sites, ranks.
    """

    first: str | None = None
    last: str | None = None
    yes: bool = False
    jobs: int = 2
    changed: bool = False
    arguments: tuple[str, ...] = ()


def chosen_steps(campaign: Campaign, chosen: Chosen) -> list[str]:
    """The steps that are wanted, in their order.

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
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)
    _tried: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)
    _told: set[tuple[str, str]] = field(default_factory=set)
    _asked: int = 0
    _ending: bool = False

    @property
    def at(self) -> list[str]:
        """The steps that are being made here now."""
        return list(self._children)

    def run(self) -> dict[str, StepState]:
        """Drive; returns what every step has come to.

        Raises
        ------
        UsageError
            See `chosen_steps`.
        SubmissionRefused
            Another driver does; the plan has changed; or what the first step needs is not done.
        TasksFailed
            A step failed; those that do not need it were made.
        Drained
            The operator ended it; what was begun here has come to its end.
        """
        wanted = chosen_steps(self.campaign, self.chosen)
        with self.books.driving():
            text = self.campaign.path.read_text(encoding="utf-8")
            keep_plan(self.books, text, self.campaign.chosen_variables, self.chosen.changed)
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
                do="mend the cause and give the same command again: it goes on with what is left",
            )
        return states

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
            changed = self._reap()
            latest = self.books.journal.stat().st_mtime if self.books.journal.exists() else 0.0
            if changed or latest != written or time.monotonic() - looked > LOOK_S:
                states, looked = self._look(), time.monotonic()
                self._note_made(states)
                written = self.books.journal.stat().st_mtime if self.books.journal.exists() else 0.0
                if self._advance(wanted, states):
                    written = -1.0
                    continue
                if not self._children and all(self._ended(states[name], states) for name in wanted):
                    return states
            time.sleep(POLL_S)
        return states

    def _ended(self, state: StepState, states: Mapping[str, StepState]) -> bool:
        """Whether nothing more can become of a step here; a gate can be opened, another's driver can end."""
        if state.name in self._refused:
            return True
        if state.state in ("left", "failed"):
            return state.name in self._tried or not self._needs_met(state.name, states)
        if state.state == "running":  # by a driver on another machine, which may be gone
            return bool(state.note)
        return state.state in ("done", "blocked", "waiting")

    def _note_made(self, states: Mapping[str, StepState]) -> None:
        """Remember what is made: its folder may be cleared before the campaign is over."""
        made = [state for state in states.values() if state.state in ("gate", "made", "done")]
        decided = self.books.decisions if made else Decisions()
        for state in made:
            if state.run not in decided.made and state.run not in decided.certified:
                self.books.write(Decision.MADE, state.name, run=state.run)

    def _advance(self, wanted: list[str], states: Mapping[str, StepState]) -> bool:
        """Do what can be done now; whether something has changed by it."""
        for name in wanted:
            state = states[name]
            if self._asked:
                return False
            if name in self._children:
                continue
            self._tell(state)
            again = state.state in ("left", "failed") and name not in self._tried and self._needs_met(name, states)
            if (state.state == "ready" or again) and len(self._children) < self.chosen.jobs:
                self._begin(state)
            elif state.state == "gate":
                if self._gate(state):
                    return True
            elif state.state == "made" and name not in self._refused:
                self._certify(state)
                return True
        return False

    def _needs_met(self, name: str, states: Mapping[str, StepState]) -> bool:
        return all(states[n].state == "done" for n in self.campaign.steps[name].needs)

    def _tell(self, state: StepState) -> None:
        """Say once what a step has come to, where that is of interest."""
        if state.state in ("done", "running", "blocked") and (state.name, state.state) not in self._told:
            self._told.add((state.name, state.state))
            words = {
                "done": "done",
                "running": state.note or "is made by another process",
                "blocked": f"not begun: {state.note} failed",
            }
            self.say(f"{state.name:14s} {words[state.state]}")

    # A step's run

    def _begin(self, state: StepState) -> None:
        step, name = self.campaign.steps[state.name], state.name
        self._tried.add(name)
        self._told.discard((name, "done"))
        logs = self.books.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{name}.{1 + len(list(logs.glob(f'{name}.*.log')))}.log"
        settings = self._settings(state)
        again = bool(state.run) and self._asked_as(state, settings)
        words = ["restart", state.run] if again else self._submission(step, settings)
        nonce = "" if again else secrets.token_hex(8)  # a run that is restarted has that of its submission
        self.books.write(Decision.BEGUN, name, rerun=state.rerun, log=str(log), command=words[0], nonce=nonce)
        environment = {**self.campaign.environment, "RERUN": state.rerun, NONCE: nonce}
        with log.open("wb") as output:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", "campaign", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C comes through this process, once
            )
        self._began[name] = time.monotonic()
        self.books.write(Decision.PROCESS, name, process=asdict(claim.of(self._children[name].pid)))
        self.say(f"{name:14s} {'goes on' if again else 'begun'}, log {log}")

    def _submission(self, step: PlanStep, settings: Mapping[str, str]) -> list[str]:
        """What `campaign` is told to make a step."""
        words = ["submit", step.template, *self.chosen.arguments]
        words += [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]
        words += [w for e in step.exclude for w in ("--exclude", str(e))]
        words += ["--allow-missing"] * step.allow_missing
        words += [w for kind, name in step.calibrations.items() for w in ("--calibration", f"{kind}={name}")]
        return words + [w for key in ("site", "sites") if (v := getattr(step, key)) for w in (f"--{key}", v)]

    def _asked_as(self, state: StepState, settings: Mapping[str, str]) -> bool:
        """Whether a step's run was asked for as the plan would ask today; else another one is made."""
        step, config = self.campaign.steps[state.name], state.config
        assert config is not None
        try:
            order = read_order(Path(state.folder))
        except ConfigurationError:
            return False
        today = (sorted(step.exclude), step.allow_missing, dict(step.calibrations), dict(settings))
        then = (list(order.exclude), order.allow_missing, dict(order.named), dict(order.overrides))
        both = order.variables.keys() & config.variables.keys()  # a key that was set uses none of the template's
        return today == then and all(order.variables[name] == config.variables[name] for name in both)

    def _settings(self, state: StepState) -> dict[str, str]:
        """Template keys; inputs that are made under another RERUN are named as they are."""
        step, config = self.campaign.steps[state.name], state.config
        assert config is not None
        found = dict(step.set)
        if state.rerun == self.campaign.rerun:
            return found
        there, states = list(config.in_collections), self._look()
        for other in self.campaign.ancestors(state.name):
            theirs = states[other]
            would = self.campaign.config(other, state.rerun).output
            there = [name.replace(would, theirs.config.output) if theirs.config else name for name in there]
        return {**found, "inCollection": ",".join(there)}

    def _reap(self) -> bool:
        """Take note of the steps whose process has ended."""
        ended = [name for name, child in self._children.items() if child.poll() is not None]
        for name in ended:
            child, seconds = self._children.pop(name), time.monotonic() - self._began[name]
            if child.returncode == 0:
                self.say(f"{name:14s} made, {seconds:.1f} s")
                continue
            log = self.books.decisions.logs[name]
            why = _complaint(Path(log))
            self.books.write(Decision.FAILED, name, error=why, code=child.returncode, log=log)
            self.say(f"{name:14s} failed: {why}")
        return bool(ended)

    def _hear(self) -> None:
        """At ^C, SIGTERM, SIGHUP: begin nothing more; again: do not wait for what this process is at, either."""
        self._asked += 1
        if self._asked == 1:
            self.say("draining: no step is begun any more, those that run drain; once more ends them at once")
        elif not self._ending:
            raise KeyboardInterrupt

    def _end(self) -> None:
        """Have everything that was begun here come to its end: asked once it drains, asked again it stops."""
        told, self._ending = 0, True
        while self._children:
            if told < self._asked:
                told += 1
                for child in self._children.values():
                    if child.poll() is None:
                        os.kill(child.pid, signal.SIGINT)
                self.say(f"waiting for {', '.join(self._children)} to end")
            self._reap()
            time.sleep(POLL_S)

    def _ended_by_operator(self) -> Drained:
        states = self._look()
        done = sum(state.state == "done" for state in states.values())
        return Drained(
            f"drained: {done} of {count(len(states), 'step')} {'is' if 1 in (done, len(states)) else 'are'} done, "
            "nothing that was begun here is left running",
            where=self.campaign.name,
            do=f"{typed_line()} goes on with it",
        )

    # A step's product

    def _gate(self, state: StepState) -> bool:
        if self.chosen.yes:
            return self._accept(state)
        if state.run not in self.books.decisions.shown:
            self.books.write(Decision.GATE, state.name, run=state.run, rerun=state.rerun)
        if (state.name, state.run) not in self._told:
            self._told.add((state.name, state.run))
            for text in gate_text(state, self.home):
                self.say(text)
        return False

    def _accept(self, state: StepState) -> bool:
        """Accept unseen, as the operator wants it; but not what is gone."""
        if state.name in self._refused:
            return False
        gate = Gate(self.campaign.name, state, self.books)
        from campaign.butler.repository import open_repository

        try:
            with open_repository(self.campaign.environment["REPO"]) as repository:
                require_products(gate, self.home, repository)
        except CampaignError as error:
            self._refuse(state, "cannot be accepted", error)
            return False
        self.books.write(Decision.ACCEPTED, state.name, run=state.run, reason="--yes", line=typed_line())
        return True

    def _refuse(self, state: StepState, what: str, error: CampaignError) -> None:
        """Leave a step as it is: this driver tries no more."""
        self._refused.add(state.name)
        self.books.write(Decision.FAILED, state.name, error=str(error), run=state.run)
        self.say(f"{state.name:14s} {what}: {error}")

    def _certify(self, state: StepState) -> None:
        """Certify and chain the run that was accepted; what a killed driver had certified is only noted."""
        name = state.name
        try:
            report = certify(self.campaign.certification(name, state.rerun, state.output_run), again=True)
        except CampaignError as error:
            self._refuse(state, "could not be certified", error)
            return
        target, many = report["certified"]["target"], len(report["certified"]["data_ids"])
        self.books.write(Decision.CERTIFIED, name, run=state.run, target=target, count=many)
        self.say(f"{name:14s} certified into {target}")


def _complaint(log: Path) -> str:
    """The first line of what a command complained of."""
    lines = log.read_text(errors="replace").splitlines()
    found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return found[-1] if found else (lines[-1] if lines else "it said nothing")
