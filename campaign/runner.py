"""Runs a frozen plan: groups as nodes of one Dask graph, gangs by mpiexec, all recorded in the journal.

A graph whose nodes are gangs and serial jobs needs no cluster: it is run by
Dask's own scheduler inside the driver, one node at a time, which is what the
one gang slot of this machine allows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.events import DriverJournal, Event, Journals
from campaign.jobs import JobFile
from campaign.launch import cause, launch
from campaign.plan import Group, Plan, PlanTask

POLL_SECONDS = 0.2
Listener = Callable[[Event], None]


@dataclass
class Outcome:
    """What became of a plan's tasks.

    Parameters
    ----------
    published : `dict`
        By task, the detail of its ``published`` event.
    failed : `dict`
        By task, why.
    skipped : `dict`
        By task, the task that it waited for in vain.
    """

    published: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether everything that was planned was made."""
        return not self.failed and not self.skipped

    def fold(self, event: Event) -> None:
        """Take an event in."""
        if event.event == "published":
            self.published[event.task] = event.detail
        elif event.event == "failed":
            self.failed[event.task] = str(event.detail["error"])


class Runner:
    """Runs one plan on this machine.

    Parameters
    ----------
    plan : `Plan`
        Written already.
    listener : callable
        Told every event, as it is read from the journal.
    """

    def __init__(self, plan: Plan, listener: Listener) -> None:
        self._plan = plan
        self._listener = listener
        self._journals = Journals(plan.journal)
        self._driver = DriverJournal(plan.journal, plan.run)
        self._lock = threading.Lock()
        self.outcome = Outcome()

    def _drain(self) -> None:
        """Fold what the journals have gained."""
        with self._lock:
            for event in self._journals.new():
                self.outcome.fold(event)
                self._listener(event)

    def run(self) -> Outcome:
        """Run everything that can be run; a failed task stops only what needs it."""
        from dask.local import get_sync

        graph = {g.label: (self._node, g, *g.needs) for g in self._plan.groups}
        watching = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(watching,), daemon=True)
        watcher.start()
        try:
            get_sync(graph, list(graph))
        finally:
            watching.set()
            watcher.join()
            self._drain()
        return self.outcome

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_SECONDS):
            self._drain()

    def _blocked(self, task: PlanTask) -> str | None:
        lost = (name for name in task.needs if name not in self.outcome.published)
        return next(lost, None)

    def _node(self, group: Group, *needs: str) -> str:
        """Run one group's tasks, less those that wait for something that failed."""
        self._drain()
        ready = []
        for task in group.tasks:
            lost = self._blocked(task)
            if lost is None:
                ready.append(task)
                continue
            self.outcome.skipped[task.name] = lost
            self._driver.write("lost", {"error": f"needs {lost}, which failed"}, task.name)
        if ready:
            self._run_group(group, ready)
        return group.label

    def _job(self, group: Group, ready: list[PlanTask]) -> Path:
        used = {key for task in ready for keys in task.job.inputs.values() for key in keys}
        job = JobFile(
            kernel=group.kernel,
            run=self._plan.run,
            ranks=group.ranks,
            journal=str(self._plan.journal / f"{group.label}.1"),
            camera=self._plan.camera,
            config=group.config,
            files={key: self._plan.files[key] for key in sorted(used)},
            tasks=[task.job for task in ready],
        )
        return job.write(self._plan.folder / "jobs" / f"{group.label}.1.json")

    def _run_group(self, group: Group, ready: list[PlanTask]) -> None:
        path = self._job(group, ready)
        log = self._plan.folder / "logs" / f"{group.label}.1.log"
        self._driver.write("submitted", {"job": str(path), "ranks": group.ranks, "log": str(log)}, group.label)
        code = launch(path, group.ranks, log)
        self._drain()
        for task in ready:  # a job that died has said nothing of what it had in hand
            if task.name not in self.outcome.published and task.name not in self.outcome.failed:
                why = cause(log, code)
                self._driver.write("failed", {"error": why, "cause": "infrastructure", "log": str(log)}, task.name)
        self._drain()
