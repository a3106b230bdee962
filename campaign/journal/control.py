"""Requests of an operator to a driver on any machine: files in the run's folder, and signals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from campaign import console

#: Start nothing until the request is withdrawn; start nothing more; end everything that runs.
PAUSE, DRAIN, CANCEL = "pause", "drain", "cancel"


def ask(folder: Path, what: str) -> None:
    """Leave a request to a run's driver."""
    (folder / what).touch()


def take_back(folder: Path, *what: str) -> None:
    """Withdraw requests, all by default."""
    for name in what or (PAUSE, DRAIN, CANCEL):
        (folder / name).unlink(missing_ok=True)


def asked(folder: Path, what: str) -> bool:
    """Whether a run's folder holds a request."""
    return (folder / what).exists()


@contextmanager
def heard(act: Callable[[], None]) -> Iterator[None]:
    """Call a function at ^C, at SIGTERM, and once at SIGHUP, unless that is ignored (nohup).

    It is called in the main thread, between any two of its instructions.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    closed = False

    def answer(number: int, frame: FrameType | None) -> None:
        nonlocal closed
        if number == signal.SIGHUP:  # comes twice, from the terminal and from its shell
            if closed:
                return
            closed = True
            console.deafen_closed()
        act()

    signs = [signal.SIGINT, signal.SIGTERM]
    signs += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    before = {one: signal.signal(one, answer) for one in signs}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, signal.SIG_IGN if closed and one == signal.SIGHUP else handler)


@contextmanager
def signals(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Drain the run of a folder at ^C, SIGTERM or SIGHUP, and end it at the second."""

    def drain() -> None:
        if asked(folder, DRAIN):
            raise KeyboardInterrupt
        ask(folder, DRAIN)
        say("draining: nothing more is started, what runs comes to its end; once more ends it at once")

    with heard(drain):
        yield


def to_terminal(text: str) -> None:
    """Print a line beside a progress bar."""
    print(f"\n{text}", file=sys.stderr, flush=True)
