"""Requests of an operator to a running run: pause, drain, cancel."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Protocol

from campaign.journal import control

POLL_SECONDS = 0.2


class Cancelled(KeyboardInterrupt):
    """The run was asked to end at once."""


class Endable(Protocol):
    """Part of a backend that ends jobs; see `campaign.schedulers.protocol.Backend`."""

    def drain(self) -> None:
        """Cancel waiting jobs."""

    def cancel(self) -> None:
        """End all jobs."""


class Requests:
    """Requests to one run, read from files in its folder.

    Parameters
    ----------
    folder : `Path`
        The run's.
    backend : `Endable`
        Backend that is told once to drain or to cancel.
    """

    def __init__(self, folder: Path, backend: Endable) -> None:
        self._folder, self._backend = folder, backend
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
        if control.asked(self._folder, control.CANCEL) and not self._cancelled.is_set():
            self._cancelled.set()
            self._backend.cancel()
        elif control.asked(self._folder, control.DRAIN) and not self._draining.is_set():
            self._draining.set()
            self._backend.drain()

    def may_start(self) -> bool:
        """Wait while the run is paused; say whether a job may be started then."""
        while control.asked(self._folder, control.PAUSE) and not self.ending:
            time.sleep(POLL_SECONDS)
        return not self.ending

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.ending:
            time.sleep(POLL_SECONDS)
