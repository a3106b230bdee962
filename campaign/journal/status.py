"""The runs of a home, and their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.home import Home
from campaign.journal import claim
from campaign.journal.events import EventName
from campaign.journal.outcome import last_state

if TYPE_CHECKING:
    from campaign.journal.campaigns import Spoken
    from campaign.journal.index import Index

#: Most errors of a run that are listed.
MOST = 100


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Its ``state`` is running, done, failed, cancelled, drained, lost (its driver vanished), or unknown (its
    folder may not be read).
    """

    run: str
    template: str
    ticket: str
    state: str
    published: int
    failed: int
    output_run: str
    submit_path: str
    errors: Sequence[str]


def state_of(folder: Path) -> str:
    """Find the state of the run of a folder, as its last driver left it; lost if that vanished."""
    if state := last_state(folder):
        return state
    return "running" if claim.holder(folder) else "lost"


def status(home: Home) -> tuple[list[RunStatus], list[Spoken]]:
    """List all runs of a home, newest last, and its campaigns."""
    from campaign.journal.index import asked

    return asked(home, lambda index: _status(home, index))


def _status(home: Home, index: Index) -> tuple[list[RunStatus], list[Spoken]]:
    index.refresh()
    counts = index.counts()
    runs = [_run(entry, index, counts.get(entry["run"], {})) for entry in home.runs()]
    return runs, index.campaigns()


def _state(folder: Path) -> str:
    try:
        return state_of(folder)
    except OSError:  # another operator's: reported when its journals were read
        return "unknown"


def _run(entry: Mapping[str, Any], index: Index, counts: Mapping[str, int]) -> RunStatus:
    troubled = counts.get(EventName.FAILED, 0) + counts.get(EventName.LOST, 0)
    errors = index.failures(entry["run"], (EventName.FAILED, EventName.LOST), MOST) if troubled else []
    return RunStatus(
        entry["run"],
        entry["template"],
        entry["ticket"],
        _state(Path(entry["submit_path"])),
        counts.get(EventName.PUBLISHED, 0),
        counts.get(EventName.FAILED, 0),
        entry["output_run"],
        entry["submit_path"],
        tuple(f"{row['task'].rstrip(':')}: {row['error']}" for row in errors),
    )
