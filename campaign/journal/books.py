"""A campaign's folder: its plan as it was begun, its variables, and the journal of its decisions."""

from __future__ import annotations

import fcntl
import getpass
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.errors import SubmissionRefused
from campaign.home import SPOKEN, Home, append_line, now
from campaign.journal import claim
from campaign.limited import from_json
from campaign.lines import lacking, leave_out, numbered

#: What the folder keeps of how the campaign was begun.
PLAN, VARIABLES = "plan.yaml", "variables.json"
#: What a line must say beside, by event.
SAID: Mapping[str, tuple[str, ...]] = {
    "begun": ("rerun",),
    "gate": ("run",),
    "accepted": ("run", "user", "reason"),
    "rejected": ("run", "rerun"),
    "made": ("run",),
    "certified": ("run", "target"),
}


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
        who = {"user": getpass.getuser(), "host": socket.gethostname()}
        append_line(self.journal, {"t": now(), "event": event, "step": step, **who, **detail})

    def lines(self) -> list[dict[str, Any]]:
        """All of them, oldest first; a line that is damaged is left out, see `campaign.lines`."""
        found = []
        for number, line in numbered(self.journal):
            needs = {**SPOKEN, **dict.fromkeys(SAID.get(str(line.get("event")), ()), str)}
            if wrong := lacking(line, needs):
                leave_out(str(self.journal), number, wrong)
            else:
                found.append(line)
        return found

    def variables(self) -> dict[str, str]:
        """The variables that it was begun with; none where they were not kept, or cannot be read."""
        try:
            found = from_json((self.folder / VARIABLES).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def driven(self) -> bool:
        """Whether somebody drives it, as far as this machine can tell."""
        owner = claim.read(self.folder)
        return owner is not None and owner.alive is not False

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Be the only one who decides at a gate."""
        with (self.folder / "decision.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

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
