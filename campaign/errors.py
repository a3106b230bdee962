"""Errors for the operator: what, where, why, what to do; one exit code per kind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CampaignError(Exception):
    """An error that the operator can act on.

    Parameters
    ----------
    what : `str`
        The cause, first: one sentence with the offending value.
    where : `str`, optional
        File, key, task or detector.
    do : `str`, optional
        What to do next.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.do = do

    def __str__(self) -> str:
        place = self.where.replace("\n", "\\n")  # a name with a line end might look like another error
        text = f"{place}: {self.what}" if place else self.what
        return f"{text}\n  -> {self.do}" if self.do else text


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in the system's errors: a failed write does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class TasksFailed(CampaignError):
    """Some tasks of a run failed; the others are done."""

    exit_code = 1


class Drained(CampaignError):
    """The operator ended a run before everything was begun; it can be restarted."""

    exit_code = 130


class UsageError(CampaignError):
    """The command line does not make sense."""

    exit_code = 2


class ConfigurationError(CampaignError):
    """A template, variable, camera, selection or site file is wrong."""

    exit_code = 3


class SubmissionRefused(CampaignError):
    """The plan cannot work: refused before anything ran."""

    exit_code = 4


class VerificationFailed(CampaignError):
    """Products were made, and are wrong."""

    exit_code = 5


class TransientError(CampaignError):
    """The infrastructure failed; the same command may work later."""

    exit_code = 75


#: Error numbers of a full disk.
FULL = (errno.ENOSPC, errno.EDQUOT)
AGAIN = "give the same command again"


def of_system(error: OSError, again: str = AGAIN) -> CampaignError:
    """Turn an error of the system about a file of ours into one for the operator."""
    what, where = error.strerror or str(error), str(error.filename or "")
    if error.errno in FULL:
        return TransientError(what, where=where, do=f"make room, then {again}")
    return ConfigurationError(f"{what} (uid {os.geteuid()})", where=where, do="look at the place, or choose another")
