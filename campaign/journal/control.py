"""What an operator asks of a driver, wherever both are: files in the run's folder, and signals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from campaign import console

#: Start nothing until it is taken back; start nothing any more; end what runs.
PAUSE, DRAIN, CANCEL = "pause", "drain", "cancel"


def ask(folder: Path, what: str) -> None:
    """Ask a run for something."""
    (folder / what).touch()


def take_back(folder: Path, *what: str) -> None:
    """Ask no longer."""
    for name in what or (PAUSE, DRAIN, CANCEL):
        (folder / name).unlink(missing_ok=True)


def asked(folder: Path, what: str) -> bool:
    """Whether a run is asked for something."""
    return (folder / what).exists()


@contextmanager
def heard(act: Callable[[], None]) -> Iterator[None]:
    """Have something done at ^C, at a SIGTERM, and once where the terminal is closed, unless that is ignored (nohup).

    Parameters
    ----------
    act : callable
        Called in the main thread, between any two of its steps.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    closed = False

    def answer(number: int, frame: FrameType | None) -> None:
        nonlocal closed
        if number == signal.SIGHUP:  # of the terminal, and of its shell again: the same thing twice
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
    """Have ^C, a SIGTERM or a terminal that is closed drain the run of a folder, and a second one end it."""

    def drain() -> None:
        if asked(folder, DRAIN):
            raise KeyboardInterrupt
        ask(folder, DRAIN)
        say("draining: nothing more is started, what runs comes to its end; once more ends it at once")

    with heard(drain):
        yield


def to_terminal(text: str) -> None:
    """Say something beside whatever is drawn."""
    print(f"\n{text}", file=sys.stderr, flush=True)
