"""Two processes that meet where a test wants them to: forks of this one, held or killed at a point."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.errors import CampaignError
from campaign.killpoints import HOLD, VARIABLE

PATIENCE_S = 60.0


def wait_for(what: Callable[[], Any]) -> Any:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)
    return found


@dataclass
class Other:
    """A process beside this one, which does something and ends with its exit code."""

    pid: int
    held: Path
    said: Path
    _code: int | None = None

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; `None` while it lives."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def waits_for(self, lock: Path) -> bool:
        """Whether the system reports that it waits for a lock."""
        inode = f":{lock.stat().st_ino}"
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return any("->" in line and str(self.pid) in line and any(w.endswith(inode) for w in line) for line in lines)

    def come(self) -> None:
        """Wait until it is held."""
        wait_for(lambda: self.held.exists() or self.code is not None)
        assert self.code is None, self.said.read_text()

    def blocked(self, lock: Path) -> None:
        """Wait until it waits for a lock, or has ended without waiting."""
        wait_for(lambda: self.waits_for(lock) or self.code is not None)
        assert self.code is None, f"nothing kept it: {self.said.read_text()}"

    def go(self) -> int:
        """Release it; give its exit code."""
        self.held.unlink(missing_ok=True)
        wait_for(lambda: self.code is not None)
        assert self.code is not None
        return self.code


class Meeting:
    """Starts processes, and ends them with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._others: list[Other] = []

    def start(self, what: Callable[[], object], hold: str = "", kill: str = "") -> Other:
        """Have a fork do something; a `CampaignError` is its exit code, as of a command."""
        number = len(self._others)
        held, said = self._folder / f"held.{number}", self._folder / f"said.{number}"
        said.touch()
        if not (pid := os.fork()):
            code = 70
            try:
                os.environ[HOLD], os.environ[VARIABLE] = f"{hold}@{held}" if hold else "", kill
                what()
                code = 0
            except CampaignError as error:
                said.write_text(str(error))
                code = error.exit_code
            except BaseException as error:
                said.write_text(repr(error))
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)
        self._others.append(Other(pid, held, said))
        return self._others[-1]

    def end(self) -> None:
        for other in self._others:
            if other.code is None:
                os.kill(other.pid, signal.SIGKILL)
                wait_for(lambda one=other: one.code is not None)
