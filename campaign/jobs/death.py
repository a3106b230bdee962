"""Deaths of jobs and their causes, in the words of the journals."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Cause(StrEnum):
    """Cause of a job's death or of a task's failure; the words stand in every journal and may not change."""

    CANCELLED = "cancelled"
    #: A defect of the kernel.
    CODE = "code"
    CONFIGURATION = "configuration"
    DATA = "data"
    DISK = "disk"
    #: No other cause is known.
    FAILED = "failed"
    #: Scheduler, node, network, or a process killed from outside.
    INFRASTRUCTURE = "infrastructure"
    #: A quantum that has cost several workers.
    KILLED = "killed"
    MEMORY = "memory"
    WALLTIME = "walltime"


#: Causes by exit code of a kernel that had to stop (`kernels.errors.EXIT_CODES`); another try would end the same way.
KERNEL_CODES: Final = {3: Cause.CONFIGURATION, 65: Cause.DATA, 70: Cause.CODE, 74: Cause.DISK}


@dataclass(frozen=True)
class Death:
    """Death of a job; false if the job came to its end, with failed tasks or without."""

    #: Empty for a job that came to its end.
    why: str = ""

    cause: Cause = Cause.INFRASTRUCTURE
    #: Exit code, if known.
    code: int | None = None

    def __bool__(self) -> bool:
        return bool(self.why)
