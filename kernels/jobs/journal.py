"""The run's journal: append-only JSON lines, one writer a file, on disk before its job ends.

Lines outlive the process that wrote them.  A power cut can cost results of the
last hundredth of a second of a running job; a restart removes their products
and makes them again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any

from kernels.errors import Cause, KernelError
from kernels.jobs.job import Job

SCHEMA = 1
#: Results closer together than this share one fsync, second.
TOGETHER_S = 0.01


class EventName(StrEnum):
    """Names of the events that a kernel writes, which `campaign.journal.events.EventName` includes."""

    STARTED = "started"
    PUBLISHED = "published"
    FAILED = "failed"


class JournalError(KernelError):
    """An event cannot be recorded: nothing more may be made."""

    cause = Cause.DISK


@contextmanager
def _recorded(path: str) -> Iterator[None]:
    """Turn an error of writing into one that names the journal and the reason."""
    try:
        yield
    except OSError as error:
        raise JournalError(f"{path}: the journal cannot be written: {error.strerror}") from error


class Journal:
    """Writes the events of one process.

    Parameters
    ----------
    job : `Job`
        The job, with run, attempt, site, token and the path without suffix.
    rank : `int`
        Rank of this process; part of the file's name, so that a file has one writer.
    """

    def __init__(self, job: Job, rank: int) -> None:
        self._job = job
        self._path = f"{job.journal}.r{rank}.jsonl"
        with _recorded(self._path):
            os.makedirs(os.path.dirname(job.journal), exist_ok=True)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        self._unseen, self._seen = False, time.monotonic()

    def write(self, task: str, event: str, detail: Mapping[str, Any]) -> None:
        """Append one event; a result is on disk, with those before it, when this returns.

        Parameters
        ----------
        task : `str`
            ``<label>:<dataId>``.
        event : `str`
            One of `EventName`.
        detail : `dict`
            JSON-able.

        Raises
        ------
        JournalError
            A line is not on disk.
        """
        line = {
            "v": SCHEMA,
            "t": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "run": self._job.run,
            "task": task,
            "attempt": self._job.attempt,
            "site": self._job.site,
            "token": self._job.token,
            "event": EventName(event),
            "detail": dict(detail),
        }
        text = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        with _recorded(self._path):
            while text:  # a nearly full disk takes only a part
                text = text[self._file.write(text) :]
        self._unseen |= event != EventName.STARTED
        if self._unseen and time.monotonic() - self._seen >= TOGETHER_S:
            self._sync()

    def _sync(self) -> None:
        with _recorded(self._path):
            os.fsync(self._file.fileno())
        self._unseen, self._seen = False, time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._unseen:
                self._sync()
        finally:
            self._file.close()
