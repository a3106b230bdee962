"""Errors that the operator can act on, and the causes and exit codes of failures."""

from enum import StrEnum
from typing import Final


class Cause(StrEnum):
    """Cause of a kernel's failure, as in journals and in `campaign.jobs.death.Cause`."""

    #: A defect of the kernel.
    CODE = "code"
    CONFIGURATION = "configuration"
    DATA = "data"
    DISK = "disk"


#: Exit code of a job that had to stop (0: done, 1: tasks failed); the driver has the same numbers.
EXIT_CODES: Final = {Cause.CONFIGURATION: 3, Cause.DATA: 65, Cause.CODE: 70, Cause.DISK: 74}


class KernelError(Exception):
    """Base of the errors that end as one clear line, never a traceback.

    Attributes
    ----------
    cause : `Cause`
        Cause for the journal, the exit code and the driver's account of a chunk of quanta.
    """

    cause = Cause.DATA


class JobError(KernelError):
    """This version cannot run the job file."""

    cause = Cause.CONFIGURATION


class DataError(KernelError):
    """An input file is corrupt, truncated, of the wrong shape or of another camera.

    Parameters
    ----------
    path : `str`
        The offending file.
    why : `str`
        The fault, with the values found and expected.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why
