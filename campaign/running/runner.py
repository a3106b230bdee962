"""Runs a frozen plan: groups as nodes of one Dask graph, by a backend, all recorded in the journal.

A graph whose nodes are gangs and serial jobs needs no cluster: it is run by
Dask's own scheduler inside the driver, one node at a time.  With quanta the
graph goes to a cluster of the backend's (`campaign.running.graph`).

What the journals know already is not done again: a run that was left in the
middle, by a driver that was killed as by an operator, is gone on with in its
own folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from campaign.jobs.file import JobFile
from campaign.journal import control
from campaign.journal.events import DriverJournal, Event, Journals
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.killpoints import reach
from campaign.running import graph as runner_graph
from campaign.running.backend import Backend, Death, Local, Refused, Say
from campaign.running.chunk import Answer, clear
from campaign.running.retry import Budget

POLL_SECONDS = 0.2
#: How long the last lines of a job that came to its end may take to be seen on a shared file system.
LATE_SECONDS = 5.0
SILENT = "the job came to its end, and its journal does not say what became of this task"
Listener = Callable[[Event], None]
#: Runs what is left of a plan that is written: on this machine, by a site's scheduler, or at several sites.
Run = Callable[[Plan, Listener], Outcome]


class Cancelled(KeyboardInterrupt):
    """The run was asked to end at once."""


class Runner:
    """Runs what is left of one plan.

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
    share : `str`
        Names a part of a run: the jobs of one are not those of another, on the same machine too.
    """

    def __init__(
        self, plan: Plan, listener: Listener, backend: Backend | None = None, token: int = 1, share: str = ""
    ) -> None:
        self._plan = plan
        self._listener = listener
        self._backend = backend or Local()
        self._token = token
        self._share = share
        self._journals = Journals(plan.journal)
        self._driver = DriverJournal(plan.journal, plan.run, self._backend.site, token)
        self._lock = threading.Lock()
        self._groups = {group.label: group for group in plan.groups}
        self._budgets: dict[str, Budget] = {}
        self._draining = threading.Event()
        self._cancelled = threading.Event()
        #: Whether workers were lost for want of memory since it was last asked; known where there are workers.
        self.short_of_memory: Callable[[], bool] = lambda: False
        #: By group, its quanta as they are given to workers; decided for each round.
        self.chunks: dict[str, list[Sequence[PlanTask]]] = {}
        self.outcome = Outcome()

    @property
    def plan(self) -> Plan:
        """What is run."""
        return self._plan

    @property
    def stem(self) -> str:
        """What the names of its jobs begin with."""
        return f"{self._plan.run}.{self._share}" if self._share else self._plan.run

    @property
    def backend(self) -> Backend:
        """Where it is run."""
        return self._backend

    @property
    def ending(self) -> bool:
        """Whether nothing more is to be started."""
        return self._draining.is_set() or self._cancelled.is_set()

    def require_wanted(self) -> None:
        """Raise `Cancelled` where the run was asked to end at once."""
        if self._cancelled.is_set():
            raise Cancelled

    def _drain(self, closely: bool = False) -> None:
        """Fold what the journals have gained."""
        with self._lock:
            for event in self._journals.new(closely):
                self.outcome.fold(event)
                self._listener(event)

    def write(self, task: str, event: str, detail: Mapping[str, Any], attempt: int | None = None) -> None:
        """Append to the driver's journal, at a group's present attempt."""
        self._write_all(task.partition(":")[0], event, {task: detail}, attempt)

    def _write_all(
        self, label: str, event: str, details: Mapping[str, Mapping[str, Any]], attempt: int | None = None
    ) -> None:
        with self._lock:
            known = self.outcome.attempts.get(label, 1)
            self._driver.write_all(event, details, known if attempt is None else attempt)

    def run(self) -> Outcome:
        """Run everything that can be run; a failed task stops only what needs it.

        Raises
        ------
        Refused
            The scheduler does not take the first job.
        Cancelled
            It was asked to end at once; nothing is left running.
        """
        self._begin()
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        watcher.start()
        try:
            runner_graph.run(self, [group for group in self._plan.groups if self.left(group)])
            self.require_wanted()
        except BaseException:  # an operator's ^C too: nothing is left running
            self._backend.cancel()
            raise
        finally:
            stop.set()
            watcher.join()
            self._drain(closely=True)
        self.outcome.drained = any(self.left(group) for group in self._plan.groups)
        return self.outcome

    def _begin(self) -> None:
        """Learn what was done before, end what nobody waits for any more, and try again what had failed."""
        for event in self._journals.new(closely=True):
            self.outcome.fold(event)
        self._journals.require_all_known()
        for task in [*self.outcome.failed, *self.outcome.skipped]:
            self.outcome.forget(task)
        wanted = {group.label for group in self._plan.groups if self.left(group)}
        keep = {str(job.get("name")) for label, job in self.outcome.jobs.items() if label in wanted}
        if self.outcome.jobs.keys() & self._groups.keys():
            self._backend.sweep(self.stem, keep)

    def _watch(self, stop: threading.Event) -> None:
        """Follow the journals, and what an operator asks for."""
        while not stop.wait(POLL_SECONDS):
            self._drain()
            if control.asked(self._plan.folder, control.CANCEL) and not self._cancelled.is_set():
                self._cancelled.set()
                self._backend.cancel()
            elif control.asked(self._plan.folder, control.DRAIN) and not self._draining.is_set():
                self._draining.set()
                self._backend.drain()

    def _go_on(self) -> bool:
        """Wait as long as the run is paused; say whether it goes on."""
        while control.asked(self._plan.folder, control.PAUSE) and not self.ending:
            time.sleep(POLL_SECONDS)
        return not self.ending

    # What is left

    def left(self, group: Group) -> list[PlanTask]:
        """A group's tasks of which nothing is known yet."""
        known = (self.outcome.published, self.outcome.failed, self.outcome.skipped)
        return [task for task in group.tasks if not any(task.name in some for some in known)]

    def budget(self, label: str) -> Budget:
        """What a group may still try, and what its next job asks for: no less than its last, of whichever driver."""
        if label not in self._budgets:
            group, last = self._groups[label], self.outcome.jobs.get(label, {})
            self._budgets[label] = Budget({**group.resources, **last.get("resources", {})}, group.policy)
            if last.get("cause") in ("memory", "walltime"):
                self._budgets[label].again(last["cause"])
        return self._budgets[label]

    def _take(self, label: str) -> list[PlanTask]:
        """What is left of a group and can be done; what waits for something that failed is lost."""
        self._drain()
        ready, known, gone = [], self.outcome, {}
        for task in self.left(self._groups[label]):
            lacking = [name for name in task.needs if name not in known.published]
            lost = next((name for name in lacking if name in known.failed or name in known.skipped), None)
            if lost is not None:
                known.skipped[task.name] = lost
                gone[task.name] = {"error": f"needs {lost}, which failed"}
            elif not lacking:
                ready.append(task)
        if gone:
            self._write_all(label, "lost", gone)
        return ready

    # The nodes of the graph, by the label of their group; what they wait for is given and not looked at.

    def node(self, label: str, *_: Any) -> None:
        """Run a gang or a serial job, until it is done or not worth another try."""
        group = self._groups[label]
        ready = self._take(label)
        if ready and (adopted := self._adopted(group)) is not None:
            self._settle([(ready, adopted)])
            self._again(group)
        while (ready := self._take(label)) and self._go_on():
            self._settle([(ready, self._job(group, ready))])
            if not self._again(group):
                return

    def prepare(self, label: str, *_: Any) -> list[str]:
        """Write the job files of a group's chunks; an empty name for one of which nothing can be done."""
        group, attempt, chunks = self._groups[label], self._next(label), self.chunks[label]
        ready = {task.name for task in self._take(label)}
        if attempt > 1:
            clear(_files(group, [task for chunk in chunks for task in chunk if task.name in ready]))
        paths = []
        for number, chunk in enumerate(chunks):
            some = [task for task in chunk if task.name in ready]
            paths.append(str(self._file(group, some, attempt, f".{number}", 1)) if some else "")
        about = {"jobs": sum(map(bool, paths)), "quanta": len(ready), "resources": dict(self.budget(label).resources)}
        self.write(label, "submitted", about, attempt)
        self._carry(group, attempt)
        reach("quanta-submitted")
        return paths

    def settle(self, label: str, answers: Sequence[Answer]) -> None:
        """Account for a group's quanta, given what each chunk said; those to be tried again are left."""
        self._drain()
        memory = self.short_of_memory()
        jobs: list[tuple[Sequence[PlanTask], Death]] = []
        for chunk, answer in zip(self.chunks[label], answers, strict=True):
            if answer.drained:
                continue
            for task in (t for t in chunk if t.name in answer.killers):
                why = f"it has cost {answer.killers[task.name]} workers; the last words are in the workers' logs"
                jobs.append(([task], Death(why, "memory" if memory else "killed")))
            cause = "memory" if memory and answer.cause == "infrastructure" else answer.cause
            jobs.append(([t for t in chunk if t.name not in answer.killers], Death(answer.why, cause)))
        self._settle([([t for t in tasks if t.name not in self.outcome.skipped], why) for tasks, why in jobs])
        self._again(self._groups[label])

    # Jobs

    def _next(self, label: str) -> int:
        return self.outcome.attempts.get(label, 0) + 1

    def _log(self, label: str, attempt: int) -> Path:
        return self._plan.folder / "logs" / f"{label}.{attempt}.log"

    def _say(self, label: str, attempt: int) -> Say:
        return partial(self.write, label, attempt=attempt)

    def _adopted(self, group: Group) -> Death | None:
        """Wait for the job of an earlier driver; say why it died, `None` where there is none, or that is known."""
        label, last = group.label, self.outcome.jobs.get(group.label, {})
        if "name" not in last or "cause" in last:
            return None
        attempt = self.outcome.attempts[label]
        log, say = self._log(label, attempt), self._say(label, attempt)
        return self._backend.adopt(last["name"], str(last.get("job", "")), log, say)

    def _job(self, group: Group, ready: Sequence[PlanTask]) -> Death:
        """Run a gang or a serial job; say why it died, if it did."""
        label, attempt, budget = group.label, self._next(group.label), self.budget(group.label)
        if attempt > 1:
            clear(_files(group, ready))
        path, log = self._file(group, ready, attempt, "", group.ranks), self._log(label, attempt)
        reach("job-written")
        job = f"{self.stem}-{label}-{attempt}"
        about = {"file": str(path), "ranks": group.ranks, "log": str(log), "name": job, "tasks": len(ready)}
        self.write(label, "submitted", {**about, "resources": dict(budget.resources)}, attempt)
        self._carry(group, attempt)
        reach("job-submitting")
        try:
            return self._backend.job(path, group.ranks, log, job, budget.resources, self._say(label, attempt))
        except Refused as refusal:
            return self.refused(refusal)
        finally:
            reach("job-ended")

    def refused(self, refusal: Refused) -> Death:
        """What the scheduler does not take fails; before anything is made, so does the run."""
        self._drain()
        if not self.outcome.published:
            raise refusal
        return Death(str(refusal), "configuration")

    def _file(self, group: Group, ready: Sequence[PlanTask], attempt: int, part: str, ranks: int) -> Path:
        used = {key for task in ready for keys in task.job.inputs.values() for key in keys}
        name = f"{group.label}.{attempt}{part}"
        job = JobFile(
            kernel=group.kernel,
            run=self._plan.run,
            ranks=ranks,
            journal=str(self._plan.journal / name),
            camera=_seen(self._plan.camera, ready),
            config=group.config,
            files={key: self._plan.files[key] for key in sorted(used)},
            tasks=[task.job for task in ready],
            attempt=attempt,
            site=self._backend.site,
            token=self._token,
        )
        return job.write(self._plan.folder / "jobs" / f"{name}.json")

    # What became of them

    def _untold(self, tasks: Sequence[PlanTask]) -> list[str]:
        published, failed = self.outcome.published, self.outcome.failed
        return [task.name for task in tasks if task.name not in published and task.name not in failed]

    def _settle(self, jobs: Sequence[tuple[Sequence[PlanTask], Death]]) -> None:
        """Fail the tasks of jobs of which nothing is heard, given why each died: absence is never success."""
        late = [task for tasks, why in jobs if not why for task in tasks]
        until = time.monotonic() + LATE_SECONDS
        self._drain(closely=True)
        while self._untold(late) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            self._drain(closely=True)
        for tasks, why in jobs:
            if why.cause == "cancelled" and self.ending:
                continue  # by us: the task is as if it had not been begun
            if untold := self._untold(tasks):
                detail = {"error": why or SILENT, "cause": why.cause, "code": why.code}
                self._write_all(untold[0].partition(":")[0], "failed", dict.fromkeys(untold, detail))
        self._drain()
        reach("tasks-settled")

    def _carry(self, group: Group, attempt: int) -> None:
        """What has failed for good has failed in the next attempt too: of a task the highest attempt's word counts."""
        known = self.outcome
        failed = [task.name for task in group.tasks if task.name in known.failed]
        if failed:
            details = {name: {"error": known.failed[name], "cause": known.causes[name]} for name in failed}
            self._write_all(group.label, "failed", details, attempt)

    def _again(self, group: Group) -> bool:
        """Whether failed tasks of a group are tried again."""
        known, budget = self.outcome, self.budget(group.label)
        failed = [task.name for task in group.tasks if task.name in known.failed]
        code = known.jobs.get(group.label, {}).get("code")
        worth = {cause for cause in {known.causes[name] for name in failed} if budget.again(cause, code)}
        if not worth or self.ending:
            return False
        about = {"causes": sorted(worth), "resources": dict(budget.resources), "pause_s": budget.pause_s}
        self.write(group.label, "retry", about)
        for name in failed:
            if known.causes[name] in worth:
                known.forget(name)
        self._sleep(budget.pause_s)
        return True

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.ending:
            time.sleep(POLL_SECONDS)


def _files(group: Group, tasks: Sequence[PlanTask]) -> Iterator[str]:
    """What tasks write: products, and their inputs tables, as `kernels.products.levels` names these."""
    yield from (output.path for task in tasks for output in task.outputs)
    if table := group.config.get("inputs_table"):
        yield from (f"{table}/{task.name.replace(':', '_')}.csv" for task in tasks)


def _seen(camera: Mapping[str, Any], tasks: Sequence[PlanTask]) -> Mapping[str, Any]:
    """The camera with the detectors of some tasks alone, where each is of one: a chunk reads no more than it needs."""
    wanted = {task.job.detector for task in tasks}
    if None in wanted or not camera:
        return camera
    return {**camera, "detectors": [d for d in camera["detectors"] if d["id"] in wanted]}
