"""Shows the progress of a run: a bar on a terminal, plain lines in a log, JSON lines for a program."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Any

from campaign.console import patience, rich_console, say, unheard, visible
from campaign.journal.events import ENDED, Event, EventName
from campaign.wording import count


class Progress:
    """Shows a run's events as they come; a context manager.

    Parameters
    ----------
    total : `int`
        Number of tasks of the plan.
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
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            name = TextColumn("{task.description}", markup=False)
            columns = (name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=rich_console(sys.stderr), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("tasks", total=self._total)
        else:
            self._patience.enter_context(patience(self._standing, self._json or self._quiet))
        return self

    def _standing(self) -> str:
        first, *more = [*self._running, ""]
        named = f"{first}{f' and {len(more) - 1} more' if len(more) > 1 else ''}" if first else "nothing"
        if not first and self._done == self._total:
            return f"[{self._done}/{self._total}] recording and drawing the products"
        return f"[{self._done}/{self._total}] {named} in hand"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patience.close()
        with unheard():
            if self._bar:
                self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event; a closed output does not end the run."""
        with unheard():
            self._show(event)

    def _show(self, event: Event) -> None:
        if self._json:
            print(json.dumps(asdict(event), separators=(",", ":")), flush=True)
        if event.event == EventName.STARTED and not event.task and not self._quiet:
            say(f"run {event.run}: {count(self._total, 'task')}, journal and logs in {event.detail['submit_path']}")
        if event.event == EventName.STARTED and event.task:
            self._running[event.task] = None
        if event.event not in ENDED or not event.task:
            return
        self._running.pop(event.task, None)
        self._done += event.event == EventName.PUBLISHED
        if self._quiet or self._json:
            return
        if event.event != EventName.PUBLISHED:
            say(f"{event.task} {event.event}: {visible(str(event.detail['error']), lines=False)}")
        for text in event.detail.get("look_at", ()):  # warnings about frames before they are combined
            say(f"look at     {visible(str(text), lines=False)}")
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=visible(event.task, lines=False))
        elif event.event == EventName.PUBLISHED:
            seconds = f", {event.detail['cpu_s']:.1f} s CPU" if "cpu_s" in event.detail else ""
            say(f"[{self._done}/{self._total}] {event.task} published{seconds}")
