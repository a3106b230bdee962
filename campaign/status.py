"""What runs there are and how they stand, from their journals alone."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.events import Event, read
from campaign.home import Home


@dataclass(frozen=True)
class RunStatus:
    """One run; ``state`` is running, done, failed, cancelled or lost (its driver is gone without a word)."""

    run: str
    template: str
    ticket: str
    state: str
    published: int
    failed: int
    output_run: str
    submit_path: str
    errors: Sequence[str]


def _alive(start: Event) -> bool | None:
    """Whether the driver lives; `None` where this machine cannot tell."""
    if start.detail.get("host") != socket.gethostname():
        return None
    try:
        os.kill(int(start.detail["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _state(events: Sequence[Event]) -> str:
    of_run = [e for e in events if not e.task]
    if not of_run:
        return "lost"
    last = of_run[-1]
    if "state" in last.detail:
        return str(last.detail["state"])
    return "lost" if _alive(last) is False else "running"


def run_status(entry: Mapping[str, Any]) -> RunStatus:
    """Read one run's journals."""
    events = read(Path(entry["submit_path"]) / "journal")
    counts = Counter(e.event for e in events if e.task)
    errors = tuple(
        f"{e.task.rstrip(':')}: {e.detail['error']}" for e in events if e.task and e.event in ("failed", "lost")
    )
    return RunStatus(
        entry["run"],
        entry["template"],
        entry["ticket"],
        _state(events),
        counts["published"],
        counts["failed"],
        entry["output_run"],
        entry["submit_path"],
        errors,
    )


def status(home: Home) -> list[RunStatus]:
    """All runs of a home, newest last."""
    return [run_status(entry) for entry in home.runs()]
