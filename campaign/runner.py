"""Runs a frozen plan: groups as nodes of one Dask graph, gangs by mpiexec, all recorded in the journal.

A graph whose nodes are gangs and serial jobs needs no cluster: it is run by
Dask's own scheduler inside the driver, one node at a time, which is what the
one gang slot of this machine allows.  A group of quanta is cut into chunks,
and these go to a LocalCluster that is started for it: a task of a few
milliseconds would else cost more to schedule than to do.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.events import DriverJournal, Event, Journals
from campaign.jobs import JobFile
from campaign.launch import cause, cores, launch
from campaign.plan import Group, Plan, PlanTask

POLL_SECONDS = 0.2
#: Quanta a Dask task: chunking beats every other way of scheduling small work.
CHUNK = 20
#: What a worker runs, by name: the driver does not import kernels.
EXECUTE = "kernels.run:execute"
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

    def _job(self, group: Group, ready: Sequence[PlanTask], name: str) -> Path:
        used = {key for task in ready for keys in task.job.inputs.values() for key in keys}
        job = JobFile(
            kernel=group.kernel,
            run=self._plan.run,
            ranks=group.ranks,
            journal=str(self._plan.journal / name),
            camera=self._plan.camera,
            config=group.config,
            files={key: self._plan.files[key] for key in sorted(used)},
            tasks=[task.job for task in ready],
        )
        return job.write(self._plan.folder / "jobs" / f"{name}.json")

    def _run_group(self, group: Group, ready: Sequence[PlanTask]) -> None:
        run = self._run_quanta if group.kind == "quantum" else self._run_job
        why = run(group, ready)
        self._drain()
        for task in ready:  # a job that died has said nothing of what it had in hand
            if task.name not in self.outcome.published and task.name not in self.outcome.failed:
                self._driver.write("failed", {"error": why, "cause": "infrastructure"}, task.name)
        self._drain()

    def _run_job(self, group: Group, ready: Sequence[PlanTask]) -> str:
        """Run a gang or a serial job; say why it died, if it did."""
        name = f"{group.label}.1"
        path, log = self._job(group, ready, name), self._plan.folder / "logs" / f"{name}.log"
        self._driver.write("submitted", {"job": str(path), "ranks": group.ranks, "log": str(log)}, group.label)
        return cause(log, launch(path, group.ranks, log))

    def _run_quanta(self, group: Group, ready: Sequence[PlanTask]) -> str:
        """Run quanta in chunks on a LocalCluster; say why a chunk died, if one did."""
        chunks = [ready[n : n + CHUNK] for n in range(0, len(ready), CHUNK)]
        paths = [self._job(group, chunk, f"{group.label}.1.{n}") for n, chunk in enumerate(chunks)]
        self._driver.write("submitted", {"jobs": len(paths), "quanta": len(ready)}, group.label)
        graph = {f"{group.label}-1-{n}": (_call, EXECUTE, str(path)) for n, path in enumerate(paths)}
        answers = quanta(graph, min(cores(), len(graph)))
        return next((answer for answer in answers if isinstance(answer, str)), "the worker is gone")


def _call(name: str, path: str) -> int | str:
    """Resolve ``module:function`` on the worker and run one job; an error comes back as its text."""
    module, function = name.split(":")
    try:
        return int(getattr(importlib.import_module(module), function)(path))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def quanta(graph: Mapping[str, tuple[Any, ...]], workers: int) -> list[int | str]:
    """Run a plain graph of independent nodes on a cluster of this machine's processes.

    Returns
    -------
    answers : `list`
        In the order of the graph; a text is an error.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.scheduler import KilledWorker

    with (
        dask.config.set({"distributed.scheduler.worker-saturation": "inf"}),
        LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        try:
            return list(client.get(dict(graph), list(graph)))
        except KilledWorker as error:
            return [str(error)]
