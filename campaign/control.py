"""What an operator asks of a driver, wherever both are: files in the run's folder, and signals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from campaign.console import deafen_terminals

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
def signals(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Have ^C, or a SIGTERM, drain the run of a folder, and a second one end it.

    A terminal that is closed drains it, too, unless whoever started it has that ignored (``nohup``).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def drain(number: int, frame: FrameType | None) -> None:
        if asked(folder, DRAIN):
            raise KeyboardInterrupt
        ask(folder, DRAIN)
        say("draining: nothing more is started, what runs comes to its end; once more ends it at once")

    def hang_up(number: int, frame: FrameType | None) -> None:
        deafen_terminals()
        ask(folder, DRAIN)  # once more does not end it: shell and kernel send one each

    heard = {signal.SIGINT: drain, signal.SIGTERM: drain}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heard[signal.SIGHUP] = hang_up
    before = {one: signal.signal(one, handler) for one, handler in heard.items()}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def to_terminal(text: str) -> None:
    """Say something beside whatever is drawn."""
    print(f"\n{text}", file=sys.stderr, flush=True)
