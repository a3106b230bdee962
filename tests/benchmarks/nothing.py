"""A kernel that makes nothing but lines of the journal; workers get it by ``distributed.worker.preload``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.table import KERNELS

NAME = "nothing"
KERNELS[NAME] = __name__


class Nothing:
    """See `kernels.jobs.gang.Kernel`."""

    def weights(self, task: Task) -> Sequence[float]:
        """One piece a task."""
        return [1.0]

    def compute(self, task: Task, piece: int) -> Any:
        """Nothing."""

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Nothing again."""
        list(results)
        return {}


def execute(job: Job, comm: Any) -> int:
    """Run a job's tasks."""
    return gang.execute(job, comm, Nothing())
