"""The folder of a campaign: the plan and variables of its begin, and the journal of its decisions."""

from __future__ import annotations

import fcntl
import getpass
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.errors import SubmissionRefused
from campaign.home import SPOKEN, Home, append_line, now
from campaign.journal import claim
from campaign.journal.events import Decision
from campaign.limited import from_json
from campaign.lines import lacking, leave_out, numbered

#: Files of the folder with the plan and variables of its begin.
DOCUMENT, VARIABLES = "plan.yaml", "variables.json"
#: Further fields that a line must have, by event.
SAID: Mapping[str, tuple[str, ...]] = {
    Decision.BEGUN: ("rerun",),
    Decision.GATE: ("run",),
    Decision.ACCEPTED: ("run", "user", "reason"),
    Decision.REJECTED: ("run", "rerun"),
    Decision.MADE: ("run",),
    Decision.CERTIFIED: ("run", "target"),
}


@dataclass
class Decisions:
    """A campaign's journal, folded."""

    #: The RERUN that the campaign's first step was begun under.
    rerun: str = ""
    #: By run: person, time and reason.
    accepted: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    #: Collection, by run.
    certified: dict[str, str] = field(default_factory=dict)
    #: Runs that were made, and runs that a person was asked to inspect.
    made: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    #: Steps that were rejected, in order, each with its next RERUN.
    raised: list[tuple[str, str]] = field(default_factory=list)
    #: Error of the last process, by step; empty while another works.
    failed: dict[str, str] = field(default_factory=dict)
    #: Log of the last process, by step.
    logs: dict[str, str] = field(default_factory=dict)
    #: Last process, by step.
    processes: dict[str, claim.Claim] = field(default_factory=dict)
    #: Nonces of the submissions, by step and RERUN; their runs carry them.
    nonces: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    #: Time of the first submission without a nonce (by an earlier release), by step and RERUN.
    begun: dict[tuple[str, str], str] = field(default_factory=dict)
    #: Runs that a line names, by step, oldest first.
    named: dict[str, list[str]] = field(default_factory=dict)
    #: Step and RERUN that a run was made for, by run.
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)

    _present: dict[str, str] = field(default_factory=dict)

    def fold(self, line: Mapping[str, Any]) -> None:
        """Fold in a line."""
        step, run = line["step"], str(line.get("run") or "")
        if run:
            self.named.setdefault(step, []).append(run)
            if step in self._present:
                self.origins.setdefault(run, (step, self._present[step]))
        match line["event"]:
            case Decision.REJECTED:
                self.rejected[run] = _who("rejected", line)
                self.raised.append((step, line["rerun"]))
            case Decision.ACCEPTED:
                self.accepted[run] = _who("accepted", line)
            case Decision.CERTIFIED:
                self.certified[run] = line["target"]
            case Decision.MADE:
                self.made.add(run)
            case Decision.GATE:
                self.shown.add(run)
            case Decision.PROCESS:
                self.processes[step] = claim.Claim(**line["process"])
            case Decision.FAILED:
                self.failed[step] = line.get("error", "")
            case Decision.BEGUN:
                self._begin(step, line)

    def _begin(self, step: str, line: Mapping[str, Any]) -> None:
        key = step, str(line["rerun"])
        self.rerun, self._present[step] = self.rerun or key[1], key[1]
        self.failed[step], self.logs[step] = line.get("error", ""), line.get("log", "")
        if line.get("nonce"):
            self.nonces.setdefault(key, set()).add(line["nonce"])
        elif line.get("command") != "restart":
            self.begun.setdefault(key, line["t"])


def _who(word: str, line: Mapping[str, Any]) -> str:
    return f"{word} by {line['user']} at {line['t']}: {line.get('reason', '')}"


def decisions(lines: Iterable[Mapping[str, Any]]) -> Decisions:
    """Fold a campaign's journal."""
    found = Decisions()
    for line in lines:
        found.fold(line)
    return found


@dataclass(frozen=True)
class Books:
    """The folder of a campaign."""

    folder: Path

    @property
    def journal(self) -> Path:
        """The journal: one line a decision."""
        return self.folder / "journal.jsonl"

    def write(self, event: str, step: str = "", **detail: Any) -> None:
        """Add a line; several commands may do so at once."""
        who = {"user": getpass.getuser(), "host": os.uname().nodename}
        append_line(self.journal, {"t": now(), "event": Decision(event), "step": step, **who, **detail})

    def lines(self) -> list[dict[str, Any]]:
        """Read the journal, oldest line first; a damaged line is left out, see `campaign.lines`."""
        found = []
        for number, line in numbered(self.journal):
            needs = {**SPOKEN, **dict.fromkeys(SAID.get(str(line.get("event")), ()), str)}
            if wrong := lacking(line, needs):
                leave_out(str(self.journal), number, wrong)
            else:
                found.append(line)
        return found

    @property
    def decisions(self) -> Decisions:
        """The journal, folded."""
        return decisions(self.lines())

    def variables(self) -> dict[str, str]:
        """Read the variables that the campaign was begun with; none where they were not kept, or cannot be read."""
        try:
            found = from_json((self.folder / VARIABLES).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def driven(self) -> bool:
        """Whether a driver of the campaign lives, as far as this machine can tell."""
        return claim.holder(self.folder) is not None

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Hold the lock of the campaign's decisions."""
        with (self.folder / "decision.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Hold the lock of the campaign's driver.

        Raises
        ------
        SubmissionRefused
            Another driver holds it.
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
    """Name the folder of a campaign."""
    return home.path / "campaigns" / name
