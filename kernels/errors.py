"""Errors that a kernel can raise for a reason that the operator can act on."""

#: How a job ends that could not go on, by what that is put down to; 0: done, 1: tasks failed.  The driver has the
#: same numbers.
EXIT_CODES = {"configuration": 3, "data": 65, "code": 70, "disk": 74}


class KernelError(Exception):
    """Base of the errors that end as one clear line, never as a traceback.

    Attributes
    ----------
    cause : `str`
        What a failure is put down to: ``data``, ``configuration`` or ``disk``.  Journals, exit codes and the driver's
        own words for a chunk of quanta all come from here.
    """

    cause = "data"


class JobError(KernelError):
    """The job file is not one that this version can run."""

    cause = "configuration"


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
