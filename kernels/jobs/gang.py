"""Gangs: the tasks of a job cut into pieces, computed by all ranks, published by the task's owner."""

from __future__ import annotations

import os
import pickle
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kernels.errors import Cause, JobError, KernelError
from kernels.jobs.job import Job, Task
from kernels.jobs.journal import Journal
from kernels.jobs.partition import shares
from kernels.killpoints import reach

#: Size of an array from which it is received into reused memory, byte.
LARGE = 1 << 20


class Kernel(Protocol):
    """Interface of a gang's kernel, and base of those whose tasks are one piece each.

    Pieces are independent of one another.
    """

    def weights(self, task: Task) -> Sequence[float]:
        """Estimate the cost of each piece of a task."""
        return [1.0]

    def compute(self, task: Task, piece: int) -> Any:
        """Make one piece; its result may be sent to another rank."""

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Assemble the pieces, given one at a time in order, and publish; the result is journalled."""


@dataclass(frozen=True)
class Piece:
    """Piece ``number`` of task ``task`` of the job."""

    task: int
    number: int


@dataclass(frozen=True)
class Failure:
    """A piece that could not be made: message, error class and cause."""

    error: str
    kind: str
    cause: Cause


@dataclass(frozen=True)
class _Cost:
    """Cost of a task on one or more ranks: CPU seconds without waiting, and the largest rank's peak, MiB."""

    cpu_s: float = 0.0
    rss_mib: int = 0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.cpu_s + other.cpu_s, max(self.rss_mib, other.rss_mib))

    @classmethod
    def since(cls, began: float) -> _Cost:
        """Measure this rank since its CPU clock read ``began``."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return cls(time.process_time() - began, peak)


class _Elsewhere(KernelError):
    """A piece failed on another rank."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.kind, self.cause = failure.kind, failure.cause


def _attempt(kernel: Kernel, task: Task, piece: int) -> Any:
    try:
        return kernel.compute(task, piece)
    except KernelError as error:
        return Failure(str(error), type(error).__name__, error.cause)


class _Share:
    """One rank's share of a job."""

    def __init__(self, job: Job, comm: Any, kernel: Kernel) -> None:
        self._job, self._comm, self._kernel = job, comm, kernel
        self.rank: int = comm.rank if comm else 0
        size = comm.size if comm else 1
        weights = [list(kernel.weights(task)) for task in job.tasks]
        if empty := [task.task for task, costs in zip(job.tasks, weights, strict=True) if not costs]:
            raise JobError(f"{empty[0]}: has no input, there is nothing to do")
        self._pieces = [Piece(t, p) for t, costs in enumerate(weights) for p in range(len(costs))]
        parts = shares([weights[p.task][p.number] for p in self._pieces], size)
        self._holder = [r for r, part in enumerate(parts) for _ in part]
        self._first = {piece.task: n for n, piece in reversed(list(enumerate(self._pieces)))}
        self._end = {piece.task: n + 1 for n, piece in enumerate(self._pieces)}
        self._mine = parts[self.rank]
        self._received: set[int] = set()
        self._helped: dict[int, _Cost] = {}
        self._memory: list[memoryview] = []

    def _owner(self, task: int) -> int:
        """Return the rank that assembles a task: the holder of its first piece."""
        return self._holder[self._first[task]]

    def lent(self) -> list[int]:
        """List the pieces at the head of this share that belong to a lower rank's task."""
        return [n for n in self._mine if self._owner(self._pieces[n].task) != self.rank]

    def tasks(self) -> tuple[list[int], list[int]]:
        """List this rank's tasks: those that it does alone, and those that others help with."""
        touched = {self._pieces[n].task for n in self._mine}
        own = sorted(t for t in touched if self._owner(t) == self.rank)
        alone = [t for t in own if self._end[t] - 1 in self._mine]
        return alone, [t for t in own if t not in alone]

    def send(self, n: int) -> list[Any]:
        """Make a piece and send it to its owner; return the pending requests.

        Arrays follow the rest of the piece, one message each, straight from their
        memory: no copy is made, and messages stay small. The piece's cost is sent
        along, because the owner journals the whole task.
        """
        piece, buffers, began = self._pieces[n], list[pickle.PickleBuffer](), time.process_time()
        result = _attempt(self._kernel, self._job.tasks[piece.task], piece.number)
        head = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
        parts, to = [buffer.raw() for buffer in buffers], self._owner(piece.task)
        about = (head, [part.nbytes for part in parts], _Cost.since(began))
        pending = [self._comm.isend(about, dest=to, tag=n)]
        return pending + [self._comm.Isend(part, dest=to, tag=n) for part in parts]

    def _receive(self, n: int) -> Any:
        """Receive a piece from another rank; its large arrays are valid until the next one.

        Waiting for a message keeps a core busy, but does not count as cost of the task.
        """
        began, task = time.process_time(), self._pieces[n].task
        head, sizes, cost = self._comm.recv(source=self._holder[n], tag=n)
        buffers, used = list[memoryview](), 0
        for size in sizes:
            if size < LARGE:
                buffers.append(memoryview(bytearray(size)))
            else:
                if len(self._memory) <= used or self._memory[used].nbytes < size:
                    self._memory[used : used + 1] = [memoryview(bytearray(size))]
                buffers.append(self._memory[used][:size])
                used += 1
            self._comm.Recv(buffers[-1], source=self._holder[n], tag=n)
        self._helped[task] = self._helped.get(task, _Cost()) + cost + _Cost(began - time.process_time())
        return pickle.loads(head, buffers=buffers)

    def results(self, task: int) -> Iterator[Any]:
        """Yield all pieces of a task in order, made here or received."""
        for n in range(self._first[task], self._end[task]):
            if self._holder[n] == self.rank:
                result = self._kernel.compute(self._job.tasks[task], self._pieces[n].number)
            else:
                result = self._receive(n)
                self._received.add(n)
            if isinstance(result, Failure):
                raise _Elsewhere(result)
            yield result

    def drain(self, task: int) -> None:
        """Receive the pieces that other ranks still send for a failed task, and that they wait to get rid of."""
        for n in range(self._first[task], self._end[task]):
            if self._holder[n] != self.rank and n not in self._received:
                self._receive(n)

    def finish(self, task: int, journal: Journal) -> int:
        """Make and publish a task, or journal its failure; return the number of failures."""
        plain, since, began = self._job.tasks[task], time.process_time(), time.monotonic()
        journal.write(plain.task, "started", {"rank": self.rank, "pid": os.getpid(), "host": os.uname().nodename})
        try:
            detail = self._kernel.finish(plain, self.results(task))
        except KernelError as error:
            kind = getattr(error, "kind", type(error).__name__)
            journal.write(plain.task, "failed", {"error": str(error), "kind": kind, "cause": error.cause})
            return 1
        finally:
            self.drain(task)
        cost = _Cost.since(since) + self._helped.get(task, _Cost())
        detail |= {"cpu_s": round(max(cost.cpu_s, 0.0), 3), "wall_s": round(time.monotonic() - began, 3)}
        detail["rss_mib"] = cost.rss_mib
        journal.write(plain.task, "published", detail)
        reach("product-journalled")
        return 0


def execute(job: Job, comm: Any, kernel: Kernel) -> int:
    """Run a job's tasks over a communicator.

    A rank works in this order: first the tasks that it does alone, while no pieces
    for a lower rank take memory; then the pieces for a lower rank, before it waits
    for any other rank; last the task that others help with.

    Parameters
    ----------
    comm : `mpi4py.MPI.Comm` or `None`
        `None` runs serially.

    Returns
    -------
    failed : `int`
        Tasks of this rank that failed.
    """
    share = _Share(job, comm, kernel)
    alone, helped = share.tasks()
    with Journal(job, share.rank) as journal:
        failed = sum(share.finish(task, journal) for task in alone)
        sending = [request for n in share.lent() for request in share.send(n)]
        failed += sum(share.finish(task, journal) for task in helped)
        for request in sending:
            request.wait()
    return failed
