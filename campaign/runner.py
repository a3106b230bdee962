"""Runs a frozen plan: groups as nodes of one Dask graph, by a backend, all recorded in the journal.

A graph whose nodes are gangs and serial jobs needs no cluster: it is run by
Dask's own scheduler inside the driver, one node at a time.  With quanta the
graph goes to a cluster of the backend's (`campaign.runner_graph`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from campaign import runner_graph
from campaign.backend import Backend, Death, Local, Refused, Say
from campaign.events import DriverJournal, Event, Journals
from campaign.jobs import JobFile
from campaign.plan import Group, Plan, PlanTask

POLL_SECONDS = 0.2
#: How long the last lines of a job that came to its end may take to be seen on a shared file system.
LATE_SECONDS = 5.0
SILENT = "the job came to its end, and its journal does not say what became of this task"
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
    """Runs one plan.

    Parameters
    ----------
    plan : `Plan`
        Written already.
    listener : callable
        Told every event, as it is read from the journal.
    backend : `Backend`
        Where its jobs run; this machine by default.
    token : `int`
        Tells this site's share from what another site was given before.
    """

    def __init__(self, plan: Plan, listener: Listener, backend: Backend | None = None, token: int = 1) -> None:
        self._plan = plan
        self._listener = listener
        self._backend = backend or Local()
        self._token = token
        self._journals = Journals(plan.journal)
        self._driver = DriverJournal(plan.journal, plan.run, self._backend.site, token)
        self._lock = threading.Lock()
        self._groups = {group.label: group for group in plan.groups}
        self._ready: dict[str, list[PlanTask]] = {}
        self.outcome = Outcome()

    @property
    def plan(self) -> Plan:
        """What is run."""
        return self._plan

    @property
    def stem(self) -> str:
        """What the names of its jobs begin with: a site may have two shares of a run, under two tokens."""
        return self._plan.run if self._token == 1 else f"{self._plan.run}.{self._token}"

    @property
    def backend(self) -> Backend:
        """Where it is run."""
        return self._backend

    def _drain(self, closely: bool = False) -> None:
        """Fold what the journals have gained."""
        with self._lock:
            for event in self._journals.new(closely):
                self.outcome.fold(event)
                self._listener(event)

    def write(self, task: str, event: str, detail: Mapping[str, Any]) -> None:
        """Append to the driver's journal."""
        with self._lock:
            self._driver.write(event, detail, task)

    def _say(self, label: str) -> Say:
        return partial(self.write, label)

    def run(self) -> Outcome:
        """Run everything that can be run; a failed task stops only what needs it.

        Raises
        ------
        Refused
            The scheduler does not take the first job.
        """
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        watcher.start()
        try:
            if any(group.kind == "quantum" for group in self._plan.groups):
                runner_graph.run(self, [*self._plan.groups])
            else:
                self._run_here()
        except BaseException:  # an operator's ^C too: nothing is left running
            self._backend.cancel()
            raise
        finally:
            stop.set()
            watcher.join()
            self._drain(closely=True)
        return self.outcome

    def _run_here(self) -> None:
        from dask.local import get_sync

        graph = {f"{g.label}:": (self.node, g.label, *(f"{n}:" for n in g.needs)) for g in self._plan.groups}
        get_sync(graph, list(graph))

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_SECONDS):
            self._drain()

    # The nodes of the graph, by the label of their group; what they wait for is given and not looked at.

    def node(self, label: str, *_: Any) -> None:
        """Run a gang or a serial job."""
        group, ready = self._groups[label], self._take(label)
        if ready:
            self._settle([(ready, self._job(group, ready))])

    def prepare(self, label: str, *_: Any) -> list[str]:
        """Write the job files of a group's chunks; an empty name for one of which nothing can be done."""
        group = self._groups[label]
        ready = {task.name for task in self._take(label)}
        paths = []
        for number, chunk in enumerate(runner_graph.chunks(group)):
            left = [task for task in chunk if task.name in ready]
            paths.append(str(self._file(group, left, f"{label}.1.{number}", 1)) if left else "")
        self.write(label, "submitted", {"jobs": sum(map(bool, paths)), "quanta": len(ready)})
        return paths

    def settle(self, label: str, answers: Sequence[str]) -> None:
        """Account for a group's quanta, given what each chunk said."""
        ready = {task.name for task in self._ready[label]}
        chunks = zip(runner_graph.chunks(self._groups[label]), answers, strict=True)
        self._settle([([task for task in chunk if task.name in ready], why) for chunk, why in chunks])

    def _take(self, label: str) -> list[PlanTask]:
        """A group's tasks, less those that wait for something that failed."""
        self._drain()
        ready = []
        for task in self._groups[label].tasks:
            lost = next((name for name in task.needs if name not in self.outcome.published), None)
            if lost is None:
                ready.append(task)
                continue
            self.outcome.skipped[task.name] = lost
            self.write(task.name, "lost", {"error": f"needs {lost}, which failed"})
        self._ready[label] = ready
        return ready

    def _job(self, group: Group, ready: Sequence[PlanTask]) -> str:
        """Run a gang or a serial job; say why it died, if it did."""
        name = f"{group.label}.1"
        job = f"{self.stem}-{group.label}-1"
        path, log = self._file(group, ready, name, group.ranks), self._plan.folder / "logs" / f"{name}.log"
        about = {"job": str(path), "ranks": group.ranks, "log": str(log), "name": job}
        self.write(group.label, "submitted", about)
        try:
            return self._backend.job(path, group.ranks, log, job, group.resources, self._say(group.label))
        except Refused as refusal:
            return self.refused(refusal)

    def refused(self, refusal: Refused) -> str:
        """What the scheduler does not take fails; before anything is made, so does the run."""
        self._drain()
        if not self.outcome.published:
            raise refusal
        return str(refusal)

    def _file(self, group: Group, ready: Sequence[PlanTask], name: str, ranks: int) -> Path:
        used = {key for task in ready for keys in task.job.inputs.values() for key in keys}
        job = JobFile(
            kernel=group.kernel,
            run=self._plan.run,
            ranks=ranks,
            journal=str(self._plan.journal / name),
            camera=_seen(self._plan.camera, ready),
            config=group.config,
            files={key: self._plan.files[key] for key in sorted(used)},
            tasks=[task.job for task in ready],
            site=self._backend.site,
            token=self._token,
        )
        return job.write(self._plan.folder / "jobs" / f"{name}.json")

    def _untold(self, tasks: Sequence[PlanTask]) -> list[str]:
        told = self.outcome.published.keys() | self.outcome.failed.keys()
        return [task.name for task in tasks if task.name not in told]

    def _settle(self, jobs: Sequence[tuple[Sequence[PlanTask], str]]) -> None:
        """Fail the tasks of jobs of which nothing is heard, given why each died: absence is never success."""
        late = [task for tasks, why in jobs if not why for task in tasks]
        until = time.monotonic() + LATE_SECONDS
        self._drain(closely=True)
        while self._untold(late) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            self._drain(closely=True)
        for tasks, why in jobs:
            for name in self._untold(tasks):
                cause = why.cause if isinstance(why, Death) else "infrastructure"
                self.write(name, "failed", {"error": why or SILENT, "cause": cause})
        self._drain()


def _seen(camera: Mapping[str, Any], tasks: Sequence[PlanTask]) -> Mapping[str, Any]:
    """The camera with the detectors of some tasks alone, where each is of one: a chunk reads no more than it needs."""
    wanted = {task.job.detector for task in tasks}
    if None in wanted or not camera:
        return camera
    return {**camera, "detectors": [d for d in camera["detectors"] if d["id"] in wanted]}
