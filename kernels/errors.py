"""Errors that a kernel can raise for a reason that the operator can act on."""

from enum import StrEnum
from typing import Final


class Cause(StrEnum):
    """Cause of a kernel's failure, in the words of journals and of the driver (`campaign.jobs.death.Cause`)."""

    #: A defect of the kernel.
    CODE = "code"
    CONFIGURATION = "configuration"
    DATA = "data"
    DISK = "disk"


#: Exit code of a job that had to stop; 0: done, 1: tasks failed.  The driver has the same numbers.
EXIT_CODES: Final = {Cause.CONFIGURATION: 3, Cause.DATA: 65, Cause.CODE: 70, Cause.DISK: 74}


class KernelError(Exception):
    """Base of the errors that end as one clear line, never as a traceback.

    Attributes
    ----------
    cause : `Cause`
        Taken over by journals, exit codes and the driver's account of a chunk of quanta.
    """

    cause = Cause.DATA


class JobError(KernelError):
    """The job file is not one that this version can run."""

    cause = Cause.CONFIGURATION


class DataError(KernelError):
    """An input file is corrupt, truncated, of the wrong shape or of another camera.

    Parameters
    ----------
    path : `str`
        The offending file.
    why : `str`
        What is wrong with it, with the values found and expected.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why
