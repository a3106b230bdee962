"""Gangs: the tasks of a job cut into pieces, computed by all ranks, published by the task's owner."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kernels.errors import JobError, KernelError
from kernels.job import Job, Task
from kernels.journal import Journal
from kernels.partition import shares
from kernels.publish import PublishError


class Kernel(Protocol):
    """What a gang's kernel must be able to do.  Pieces are independent of one another."""

    def weights(self, task: Task) -> Sequence[float]:
        """Cost of each piece of a task."""

    def compute(self, task: Task, piece: int) -> Any:
        """Make one piece; its result may be sent to another rank."""

    def finish(self, task: Task, results: Sequence[Any]) -> dict[str, Any]:
        """Assemble the pieces, in their order, and publish; the result is journalled."""


@dataclass(frozen=True)
class Piece:
    """Piece ``number`` of task ``task`` of the job."""

    task: int
    number: int


@dataclass(frozen=True)
class Failure:
    """A piece, or a task, that could not be made, and why."""

    cause: str
    kind: str


def _attempt(kernel: Kernel, task: Task, piece: int) -> Any:
    try:
        return kernel.compute(task, piece)
    except KernelError as error:
        return Failure(str(error), type(error).__name__)


def _finish(kernel: Kernel, task: Task, results: Sequence[Any], journal: Journal, since: float) -> int:
    """Publish a task, or journal its first failure; return the number of failures."""
    failure = next((r for r in results if isinstance(r, Failure)), None)
    if failure is None:
        try:
            detail = kernel.finish(task, results)
        except KernelError as error:
            failure = Failure(str(error), type(error).__name__)
    if failure is not None:
        infrastructure = failure.kind == PublishError.__name__
        journal.write(
            task.task,
            "failed",
            {"error": failure.cause, "kind": failure.kind, "cause": "infrastructure" if infrastructure else "data"},
        )
        return 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    detail |= {"cpu_s": round(time.process_time() - since, 3), "rss_mib": used.ru_maxrss // 1024}
    journal.write(task.task, "published", detail)
    return 0


def execute(job: Job, comm: Any, kernel: Kernel) -> int:
    """Run a job's tasks over a communicator.

    Parameters
    ----------
    comm : `mpi4py.MPI.Comm` or `None`
        `None` runs serially.

    Returns
    -------
    failed : `int`
        Tasks of this rank that failed.
    """
    rank, size = (comm.rank, comm.size) if comm else (0, 1)
    weights = [list(kernel.weights(task)) for task in job.tasks]
    if empty := [task.task for task, costs in zip(job.tasks, weights, strict=True) if not costs]:
        raise JobError(f"{empty[0]}: has no input, there is nothing to do")
    pieces = [Piece(t, p) for t, costs in enumerate(weights) for p in range(len(costs))]
    parts = shares([weights[p.task][p.number] for p in pieces], size)
    holder = [r for r, part in enumerate(parts) for _ in part]
    owner = {piece.task: holder[n] for n, piece in reversed(list(enumerate(pieces)))}
    end = {piece.task: n + 1 for n, piece in enumerate(pieces)}
    failed, sending = 0, []
    with Journal(job, rank) as journal:
        results: list[Any] = []
        for n in parts[rank]:
            piece, task = pieces[n], job.tasks[pieces[n].task]
            if owner[piece.task] != rank:  # the head of my share belongs to a task that a lower rank began
                sending.append(comm.isend(_attempt(kernel, task, piece.number), dest=owner[piece.task], tag=n))
                continue
            if piece.number == 0:
                results, since = [], time.process_time()
                journal.write(task.task, "started", {"rank": rank, "pid": os.getpid(), "host": os.uname().nodename})
            results.append(_attempt(kernel, task, piece.number))
            others = range(n + 1, end[piece.task])
            if n == parts[rank][-1] or not others:
                results += [comm.recv(source=holder[m], tag=m) for m in others]
                failed += _finish(kernel, task, results, journal, since)
        for request in sending:
            request.wait()
    return failed
