"""Errors that a kernel can raise for a reason that the operator can act on."""


class KernelError(Exception):
    """Base of the errors that end as one clear line, never as a traceback."""


class JobError(KernelError):
    """The job file is not one that this version can run."""


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
