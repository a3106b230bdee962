"""What an operator sees: a progress bar on a terminal, plain lines in a log, JSON lines for a program."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any

from campaign.events import Event

#: Between two signs of life of a command that has nothing else to say, second.
EVERY_S = 30.0


def emit(document: Any) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(document, indent=1, default=str), flush=True)


def say(text: str) -> None:
    """Print a line of progress or explanation: on standard error, so that output stays clean."""
    print(text, file=sys.stderr, flush=True)


def deafen() -> None:
    """Let output go nowhere, once its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def warn(texts: Iterable[str]) -> None:
    """Print warnings."""
    for text in texts:
        say(f"warning: {text}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table on standard output; as wide as it is when nobody's terminal says otherwise."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    wide = None if sys.stdout.isatty() else 200
    Console(width=wide, highlight=False, soft_wrap=False).print(shown)


@contextmanager
def patience(what: Callable[[], str], quiet: bool = False) -> Iterator[None]:
    """Say now and then that something long goes on, and how far it is: a log that is silent looks like a hang."""
    if quiet:
        yield
        return
    began, over = time.monotonic(), threading.Event()

    def tell() -> None:
        while not over.wait(EVERY_S):
            with suppress(OSError):  # nobody listens any more, or what is counted is not there yet
                say(f"{what()} ({time.monotonic() - began:.0f} s)")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Progress:
    """Shows a run's events as they come; a context manager.

    Parameters
    ----------
    total : `int`
        Tasks of the plan.
    as_json : `bool`
        Events as JSON lines on standard output, nothing else.
    quiet : `bool`
        Show nothing.
    """

    def __init__(self, total: int, as_json: bool = False, quiet: bool = False) -> None:
        self._total, self._json, self._quiet = total, as_json, quiet
        self._done = 0
        self._bar: Any = None
        self._running: dict[str, None] = {}
        self._patience = ExitStack()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self._json and not self._quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("tasks", total=self._total)
        else:
            self._patience.enter_context(patience(self._standing, self._json or self._quiet))
        return self

    def _standing(self) -> str:
        first, *more = [*list(self._running), "nothing just now"]
        return f"[{self._done}/{self._total}] {first}{f' and {len(more) - 1} more' if len(more) > 1 else ''} in hand"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patience.close()
        if self._bar:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event; a run does not end because nobody listens any more."""
        try:
            self._show(event)
        except BrokenPipeError:
            deafen()

    def _show(self, event: Event) -> None:
        if self._json:
            print(json.dumps(asdict(event), separators=(",", ":")), flush=True)
        if event.event == "started" and not event.task and not self._quiet:
            say(f"run {event.run}: {self._total} tasks, journal and logs in {event.detail['submit_path']}")
        if event.event == "started" and event.task:
            self._running[event.task] = None
        if event.event not in ("published", "failed", "lost") or not event.task:
            return
        self._running.pop(event.task, None)
        self._done += event.event == "published"
        if self._quiet or self._json:
            return
        if event.event != "published":
            say(f"{event.task} {event.event}: {event.detail['error']}")
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=event.task)
        elif event.event == "published":
            seconds = f", {event.detail['cpu_s']:.1f} s CPU" if "cpu_s" in event.detail else ""
            say(f"[{self._done}/{self._total}] {event.task} published{seconds}")
