"""Runs a frozen plan: its groups are nodes of one Dask graph, a backend runs its jobs, everything is journalled.

A graph of gangs and serial jobs needs no cluster: Dask's own scheduler runs it
inside the driver, one node at a time.  With quanta the graph goes to a cluster
of the backend's (`campaign.running.graph`).

Nothing that the journals report as done is repeated: a run that a driver has left,
killed or asked to end, is resumed in its own folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from campaign.jobs.death import Cause, Death
from campaign.jobs.launch import kernel
from campaign.journal.events import EventName
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.killpoints import reach
from campaign.running import graph, jobfiles
from campaign.running.attempts import Attempts
from campaign.running.chunk import Answer, clear
from campaign.running.record import POLL_SECONDS, Listener, Ready, Record
from campaign.running.requests import Cancelled, Requests
from campaign.running.retry import Budget, in_turn
from campaign.schedulers.local import Local
from campaign.schedulers.protocol import Backend, Refused, Say

__all__ = ["Cancelled", "Listener", "Run", "Runner"]

#: Runs the rest of a written plan: on this machine, by a site's scheduler, or at several sites.
Run = Callable[[Plan, Listener], Outcome]


@dataclass
class Runner:
    """Runs the rest of one plan; see `campaign.running.rounds.Nodes` for the graph's view of it."""

    #: Already written.
    plan: Plan
    #: Called with every event that the journal gains.
    listener: Listener
    #: Runs the jobs; this machine by default.
    backend: Backend = field(default_factory=Local)
    #: Fencing token: distinguishes this site's share from earlier grants to other sites.
    token: int = 1
    #: Name of a part of a run; distinguishes the jobs of parts on the same machine.
    share: str = ""

    chunks: dict[str, list[Sequence[PlanTask]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        #: Beginning of the names of all jobs.
        self.stem = f"{self.plan.run}.{self.share}" if self.share else self.plan.run
        self._groups = {group.label: group for group in self.plan.groups}
        self._record = Record(self.plan, self.listener, self.backend.site, self.token)
        self._requests = Requests(self.plan.folder, self.backend)
        self._attempts = Attempts(self.plan, self._record, self._requests)
        self.short_of_memory: Callable[[], bool] = lambda: False

    @property
    def outcome(self) -> Outcome:
        """Outcome of the tasks so far."""
        return self._record.outcome

    @property
    def ending(self) -> bool:
        """Whether nothing more may be started."""
        return self._requests.ending

    def require_wanted(self) -> None:
        """Raise `Cancelled` if the run was asked to end at once."""
        self._requests.require_wanted()

    def run(self) -> Outcome:
        """Run everything that can be run; a failed task stops only the tasks that need it.

        Raises
        ------
        Refused
            The scheduler does not take the first job.
        Cancelled
            The run was asked to end at once; nothing is left running.
        """
        self._begin()
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        watcher.start()
        try:
            graph.run(self, [group for group in self.plan.groups if self.left(group)])
            self.require_wanted()
        except BaseException:  # an operator's ^C too: nothing is left running
            self.backend.cancel()
            raise
        finally:
            stop.set()
            watcher.join()
            self._record.drain(closely=True)
        self.outcome.drained = any(self.left(group) for group in self.plan.groups)
        return self.outcome

    def _begin(self) -> None:
        """Read the work of earlier drivers, and end those of their jobs that nobody waits for."""
        self._record.begin()
        wanted = {group.label for group in self.plan.groups if self.left(group)}
        keep = {str(job.get("name")) for label, job in self.outcome.jobs.items() if label in wanted}
        if self.outcome.jobs.keys() & self._groups.keys():
            self.backend.sweep(self.stem, keep)

    def _watch(self, stop: threading.Event) -> None:
        """Follow the journals and the operator's requests."""
        while not stop.wait(POLL_SECONDS):
            self._record.drain()
            self._requests.look()

    def left(self, group: Group) -> list[PlanTask]:
        """Tasks of a group that nothing is known of."""
        return self._record.left(group)

    def budget(self, label: str) -> Budget:
        """Tries that a group has left, and resources of its next job."""
        return self._attempts.budget(label)

    # Nodes of the graph, by the label of their group; Dask passes the results of needed nodes, which are not used.

    def node(self, labels: Sequence[str], *_: Any) -> None:
        """Run a gang, or serial groups in one process, until all is done or not worth another try."""
        groups = [self._groups[label] for label in labels]
        for group in groups:
            waiting = self._record.take(group)
            if waiting and (adopted := self._adopted(group)) is not None:
                self._attempts.ended({group.label: waiting}, adopted)
        while (ready := self._record.ready(groups)) and self._requests.may_start():
            self._attempts.ended(ready, self._job(ready))

    def prepare(self, label: str, *_: Any) -> list[str]:
        """Write the job files of a group's chunks; give their paths, empty for a chunk with nothing to do."""
        group, attempt, chunks = self._groups[label], self._attempts.next(label), self.chunks[label]
        ready = {task.name for task in self._record.take(group)}
        if attempt > 1:
            clear(jobfiles.outputs(group, [task for chunk in chunks for task in chunk if task.name in ready]))
        paths = []
        for number, chunk in enumerate(chunks):
            some = [task for task in chunk if task.name in ready]
            paths.append(str(self._file(group, some, attempt, number)) if some else "")
        about = {"jobs": sum(map(bool, paths)), "quanta": len(ready), "resources": dict(self.budget(label).resources)}
        self._record.write(label, EventName.SUBMITTED, about, attempt)
        self._attempts.carry(group, attempt)
        reach("quanta-submitted")
        return paths

    def settle(self, label: str, answers: Sequence[Answer]) -> None:
        """Account for a group's quanta, given the answer of each chunk; those to be tried again remain."""
        self._record.drain()
        memory = self.short_of_memory()
        jobs: list[tuple[Sequence[PlanTask], Death]] = []
        for chunk, answer in zip(self.chunks[label], answers, strict=True):
            if answer.drained:
                continue
            for task in (t for t in chunk if t.name in answer.killers):
                why = f"it has cost {answer.killers[task.name]} workers; the last words are in the workers' logs"
                jobs.append(([task], Death(why, Cause.MEMORY if memory else Cause.KILLED)))
            cause = Cause.MEMORY if memory and answer.cause is Cause.INFRASTRUCTURE else answer.cause
            jobs.append(([t for t in chunk if t.name not in answer.killers], Death(answer.why, cause)))
        self._attempts.settle([([t for t in tasks if t.name not in self.outcome.skipped], why) for tasks, why in jobs])
        self._attempts.again(self._groups[label])

    # Jobs

    def _file(self, group: Group, tasks: Sequence[PlanTask], attempt: int, chunk: int | None = None) -> Path:
        return jobfiles.write(self.plan, group, tasks, attempt, self.backend.site, self.token, chunk)

    def _log(self, labels: Iterable[str], attempt: int) -> Path:
        return self.plan.folder / "logs" / f"{'+'.join(labels)}.{attempt}.log"

    def say(self, label: str, attempt: int | None = None) -> Say:
        """Give a backend the function that writes events of a group's jobs."""
        return partial(self._record.write, label, attempt=attempt)

    def _adopted(self, group: Group) -> Death | None:
        """Wait for the job of an earlier driver; say why it died, `None` if there is none or that is known."""
        label, last = group.label, self.outcome.jobs.get(group.label, {})
        if "name" not in last or "cause" in last:
            return None
        attempt = self.outcome.attempts[label]
        log, say = Path(str(last.get("log") or self._log([label], attempt))), self.say(label, attempt)
        return self.backend.adopt(last["name"], str(last.get("job", "")), log, say)

    def _job(self, ready: Ready) -> Death:
        """Run a gang, or serial groups one after another; say why the job died, if it did."""
        groups, tasks = [self._groups[label] for label in ready], [task for some in ready.values() for task in some]
        first, attempt = groups[0], max(map(self._attempts.next, ready))
        if attempt > 1:
            clear(jobfiles.outputs(first, tasks))
        path, log = self._file(first, tasks, attempt), self._log(ready, attempt)
        reach("job-written")
        job, wanted = f"{self.stem}-{first.label}-{attempt}", {label: self.budget(label).resources for label in ready}
        about = {"file": str(path), "ranks": first.ranks, "log": str(log), "name": job}
        each = {label: {"tasks": len(some), "resources": dict(wanted[label])} for label, some in ready.items()}
        self._record.write_all(
            first.label, EventName.SUBMITTED, {label: {**about, **one} for label, one in each.items()}, attempt
        )
        for group in groups:
            self._attempts.carry(group, attempt)
        reach("job-submitting")

        def say(event: str, detail: Mapping[str, Any]) -> None:
            self._record.write_all(first.label, event, dict.fromkeys(ready, detail), attempt)

        try:
            return self.backend.job(kernel(path), first.ranks, log, job, in_turn(list(wanted.values())), say)
        except Refused as refusal:
            return self.refused(refusal)
        finally:
            reach("job-ended")

    def refused(self, refusal: Refused) -> Death:
        """Fail a job that the scheduler does not take; fail the whole run if nothing was made yet."""
        self._record.drain()
        if not self.outcome.published:
            raise refusal
        return Death(str(refusal), Cause.CONFIGURATION)
