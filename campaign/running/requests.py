"""Requests of an operator to a running run: pause, drain, cancel."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from campaign.journal import control
from campaign.schedulers.protocol import Backend

POLL_SECONDS = 0.2


class Cancelled(KeyboardInterrupt):
    """The run was asked to end at once."""


@dataclass
class Requests:
    """Requests to one run, read from files in its folder."""

    #: The run's.
    folder: Path
    #: Backend that is told once to drain or to cancel.
    backend: Backend

    def __post_init__(self) -> None:
        self._draining, self._cancelled = threading.Event(), threading.Event()

    @property
    def ending(self) -> bool:
        """Whether nothing more may be started."""
        return self._draining.is_set() or self._cancelled.is_set()

    def require_wanted(self) -> None:
        """Raise `Cancelled` if the run was asked to end at once."""
        if self._cancelled.is_set():
            raise Cancelled

    def look(self) -> None:
        """Read the requests, and pass a new one on to the backend."""
        if control.asked(self.folder, control.CANCEL) and not self._cancelled.is_set():
            self._cancelled.set()
            self.backend.cancel()
        elif control.asked(self.folder, control.DRAIN) and not self._draining.is_set():
            self._draining.set()
            self.backend.drain()

    def may_start(self) -> bool:
        """Wait while the run is paused; say whether a job may be started then."""
        while control.asked(self.folder, control.PAUSE) and not self.ending:
            time.sleep(POLL_SECONDS)
        return not self.ending

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.ending:
            time.sleep(POLL_SECONDS)
