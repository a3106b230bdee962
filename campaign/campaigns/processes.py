"""The processes that make a campaign's steps: `campaign submit` or `restart`, each in a session of its own."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from campaign.campaigns.document import Campaign, CampaignStep
from campaign.campaigns.state import StepState
from campaign.errors import ConfigurationError
from campaign.jobs.logs import last_words, lines_of
from campaign.journal import claim
from campaign.journal.books import Books
from campaign.journal.events import Decision
from campaign.planning.order import NONCE
from campaign.planning.order import read as read_order


@dataclass
class Processes:
    """Begins steps of one campaign, and takes note of their ends."""

    campaign: Campaign
    books: Books
    #: Further ones for `campaign submit`.
    arguments: Sequence[str]

    say: Callable[[str], None]
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> list[str]:
        """Steps whose processes run."""
        return list(self._children)

    def begin(self, state: StepState, states: Mapping[str, StepState]) -> None:
        """Begin a step: restart its run where the campaign would ask for the same one today, else submit another."""
        step, name = self.campaign.steps[state.name], state.name
        logs = self.books.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{name}.{1 + len(list(logs.glob(f'{name}.*.log')))}.log"
        keys = _settings(self.campaign, state, states)
        again = bool(state.run) and _asked_as(step, state, keys)
        words = ["restart", state.run] if again else _submission(step, keys, self.arguments)
        nonce = "" if again else secrets.token_hex(8)  # a restarted run has that of its submission
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
        self.say(f"{name:14s} {'resumed' if again else 'begun'}, log {log}")

    def reap(self) -> bool:
        """Take note of processes that have ended; whether any has."""
        ended = [name for name, child in self._children.items() if child.poll() is not None]
        for name in ended:
            child, seconds = self._children.pop(name), time.monotonic() - self._began[name]
            if child.returncode == 0:
                self.say(f"{name:14s} made, {seconds:.1f} s")
                continue
            log = self.books.decisions.logs[name]
            why = last_words(lines_of(Path(log))) or "it said nothing"
            self.books.write(Decision.FAILED, name, error=why, code=child.returncode, log=log)
            self.say(f"{name:14s} failed: {why}")
        return bool(ended)

    def interrupt(self) -> None:
        """Ask every process to end: once to drain, twice to stop."""
        for child in self._children.values():
            if child.poll() is None:
                os.kill(child.pid, signal.SIGINT)
        self.say(f"waiting for {', '.join(self._children)} to end")


def _submission(step: CampaignStep, settings: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """The words after ``campaign`` that make a step."""
    words = ["submit", step.template, *arguments]
    words += [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]
    words += [w for e in step.exclude for w in ("--exclude", str(e))]
    words += ["--allow-missing"] * step.allow_missing
    words += [w for kind, name in step.calibrations.items() for w in ("--calibration", f"{kind}={name}")]
    return words + [w for key in ("site", "sites") if (v := getattr(step, key)) for w in (f"--{key}", v)]


def _asked_as(step: CampaignStep, state: StepState, settings: Mapping[str, str]) -> bool:
    """Whether a step's run was asked for as the campaign would ask today."""
    config = state.config
    assert config is not None
    try:
        order = read_order(Path(state.folder))
    except ConfigurationError:
        return False
    today = (sorted(step.exclude), step.allow_missing, dict(step.calibrations), dict(settings))
    then = (list(order.exclude), order.allow_missing, dict(order.named), dict(order.overrides))
    both = order.variables.keys() & config.variables.keys()  # a key that was set uses none of the template's
    return today == then and all(order.variables[name] == config.variables[name] for name in both)


def _settings(campaign: Campaign, state: StepState, states: Mapping[str, StepState]) -> dict[str, str]:
    """Template keys of a step; inputs that are made under another RERUN are named as they are."""
    step, config = campaign.steps[state.name], state.config
    assert config is not None
    found = dict(step.set)
    if state.rerun == campaign.rerun:
        return found
    there = list(config.in_collections)
    for other in campaign.ancestors(state.name):
        theirs = states[other]
        would = campaign.config(other, state.rerun).output
        there = [name.replace(would, theirs.config.output) if theirs.config else name for name in there]
    return {**found, "inCollection": ",".join(there)}
