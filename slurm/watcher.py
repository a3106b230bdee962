"""Watches jobs, by one squeue an interval for all, and by the accounting for jobs that squeue has forgotten."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from slurm.commands import Access, Found, SlurmError, call, cancel, pauses, queue
from slurm.states import State, Status, cause_of, hopeless, state_of

#: Length of a log's end that may have slurmstepd's last words, byte.
_TAIL: Final = 65536
#: Most jobs of one sacct.
_BATCH: Final = 1000
#: Time until an accounting that refused is asked again, second.
_REFUSED: Final = 600.0
#: Longest time between two commands while Slurm answers, second, and its share of the time since the last news.
_LONGEST: Final = 3.0
_SHARE: Final = 0.1


def due(interval: float, quiet: float) -> float:
    """Give the time between two commands where nothing has changed for ``quiet`` seconds, second."""
    return max(interval, min(_LONGEST, _SHARE * quiet))


@dataclass
class _Watched:
    """A watched job."""

    status: Status
    log: Path | None = None
    number: str = ""
    #: Time since which the queue answers without it.
    lost: float | None = None


@dataclass
class _Accounting:
    """Command that reports on ended jobs.

    ``sacct`` knows an element of an array as 12_3; ``sacct -c``, of a site without a database, by its own number only.
    """

    command: tuple[str, ...]
    by_number: bool
    not_before: float = 0.0

    def key(self, watched: _Watched) -> str:
        """Give the accounting's id of a job; empty if it is not known."""
        job = watched.status.job
        if not self.by_number or "_" not in job:
            return job
        return "" if watched.number == job.split("_")[0] else watched.number

    def ask(self, access: Access, keys: Sequence[str]) -> list[Found]:
        """Give a line for each known job, the newest of a number last."""
        arguments = [*self.command, "--noheader", "--parsable2", "--format=jobid,state,exitcode,jobname"]
        said = call(access, [*arguments, "-j", ",".join(keys)], patience=0)
        rows = (line.split("|", 3) for line in said.splitlines())
        whole = [row for row in rows if len(row) == 4 and row[2]]
        return [Found(job, name, state_of(state), state, "", code) for job, state, code, name in whole]


class Watcher:
    """Follows any number of jobs of one cluster, in a thread, by at most one command an interval.

    The interval grows to some seconds while no job starts or ends.

    A job that is not in the queue is looked for in the accounting; absence is never success.  While Slurm does not
    answer, every job that has not ended is unknown, and the interval grows.  A job that would wait for ever, say over
    a limit of its partition, is cancelled, and fails.

    Parameters
    ----------
    access : `Access`
        Of the cluster.
    interval : `float`
        Least time between two commands, second.
    grace : `float`
        Time after which a job that neither queue nor accounting knows is given up as unknown, second.  The accounting
        may lag by ten seconds.
    """

    def __init__(self, access: Access, interval: float = 1.0, grace: float = 30.0) -> None:
        self._access = access
        self._interval = interval
        self._grace = grace
        self._jobs: dict[str, _Watched] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._accounting = [_Accounting(("sacct", "-X"), False), _Accounting(("sacct", "-c"), True)]
        self._turns: list[_Accounting] = []
        self._doomed: list[tuple[_Watched, Status]] = []
        self._news = time.monotonic()
        #: Commands that were run.
        self.commands = 0
        #: Why Slurm does not answer; empty while it does.
        self.trouble = ""
        self._thread = threading.Thread(target=self._run, name="slurm-watcher", daemon=True)
        self._thread.start()

    def watch(self, job: str, name: str = "", log: Path | None = None) -> None:
        """Follow a job; a second call does nothing.

        Parameters
        ----------
        job : `str`
            Id, ``12_3`` for an element of an array.
        name : `str`
            Name, which distinguishes it from an old job of the same number.
        log : `~pathlib.Path`, optional
            May have slurmstepd's reason for an end that Slurm calls FAILED.
        """
        with self._changed:
            if job not in self._jobs:
                self._jobs[job] = _Watched(Status(job, name), log)
                self._news = time.monotonic()

    def status(self, job: str) -> Status:
        """Give the known status of a watched job, without a command."""
        with self._changed:
            return self._jobs[job].status

    def wait(self, job: str, timeout: float | None = None) -> Status:
        """Wait until a watched job has ended (see `Status.ended`), the time is up, or the watcher is closed."""
        with self._changed:
            watched = self._jobs[job]
            self._changed.wait_for(lambda: watched.status.ended or self._stop.is_set(), timeout)
            return watched.status

    def close(self) -> None:
        """Stop watching; the jobs continue."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(self._interval)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        waits = pauses(first=max(self._interval, 0.5))
        pause = 0.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            if self._turn():
                waits = pauses(first=max(self._interval, 0.5))
                pause = max(0.0, began + due(self._interval, began - self._news) - time.monotonic())
            else:
                pause = max(self._interval, next(waits))

    def _turn(self) -> bool:
        """Run one command if there is a question; say whether Slurm answered."""
        with self._changed:
            watched = [one for one in self._jobs.values() if not one.status.ended]
        if not watched:
            return True
        if self._doomed:
            return self._give_up()
        lost = [one for one in watched if one.lost is not None]
        while lost and self._turns:
            source = self._turns.pop(0)
            if self._ask(source, lost):
                return True
        return self._look(watched)

    def _look(self, watched: Sequence[_Watched]) -> bool:
        """Ask the queue for all jobs; an accounting is asked for the others, one in each turn."""
        self.commands += 1
        try:
            rows = {row.job: row for row in queue(self._access, patience=0)}
        except SlurmError as error:
            self.trouble = str(error)
            self._settle((one, Status(one.status.job, one.status.name)) for one in watched)
            return False
        self.trouble = ""
        self._settle((one, self._seen(one, rows.get(one.status.job))) for one in watched)
        self._turns = list(self._accounting)
        return True

    def _settle(self, news: Iterable[tuple[_Watched, Status]]) -> None:
        """Store new statuses, and wake those who wait."""
        answers = list(news)
        with self._changed:
            for watched, status in answers:
                if status != watched.status:
                    self._news = time.monotonic()
                watched.status = status
            self._changed.notify_all()

    def _seen(self, watched: _Watched, row: Found | None) -> Status:
        """Derive a job's status from the queue's answer."""
        old = watched.status
        if row is None or (old.name and row.name != old.name):
            return self._missed(watched)
        watched.lost, watched.number = None, row.number
        words = f"{row.slurm} ({row.why})" if row.why else row.slurm
        if row.state is State.WAITING and hopeless(row.why):
            self._doomed.append((watched, Status(row.job, row.name, State.FAILED, words, "", "failed")))
        cause = "" if row.living else self._cause(watched, row.slurm, row.why, row.exit_code)
        return Status(row.job, row.name, row.state, words, row.exit_code, cause)

    def _give_up(self) -> bool:
        """Cancel jobs that would never run; return whether Slurm answered."""
        self.commands += 1
        doomed, self._doomed = self._doomed, []
        try:
            cancel(self._access, *(status.job for _, status in doomed), patience=0)
        except SlurmError as error:  # the next look at the queue finds them again
            self.trouble = str(error)
            return not error.transient
        self._settle(doomed)
        return True

    def _missed(self, watched: _Watched) -> Status:
        """Give the status of a job that the queue, which answers, does not have."""
        now = time.monotonic()
        watched.lost = watched.lost or now
        over = now - watched.lost > self._grace
        return replace(watched.status, state=State.UNKNOWN, reason="infrastructure" if over else "")

    def _ask(self, source: _Accounting, lost: Sequence[_Watched]) -> bool:
        """Ask an accounting for jobs that the queue has lost; say whether a command was run."""
        keys = {key: one for one in lost if (key := source.key(one))}
        now = time.monotonic()
        if not keys or now < source.not_before:
            return False
        self.commands += 1
        try:
            rows = source.ask(self._access, random.sample(list(keys), min(_BATCH, len(keys))))
        except SlurmError as error:
            source.not_before = now + (0.0 if error.transient else _REFUSED)
            return True
        told = [(keys[row.job], row) for row in rows if row.job in keys]
        self._settle((one, self._told(one, row)) for one, row in told if self._is(one, row))
        return True

    @staticmethod
    def _is(watched: _Watched, row: Found) -> bool:
        """Decide whether a line of an accounting reports the end of that job."""
        ended = row.state in (State.DONE, State.FAILED, State.RETRY)
        return ended and watched.status.name in ("", row.name)

    def _told(self, watched: _Watched, row: Found) -> Status:
        cause = self._cause(watched, row.slurm, row.why, row.exit_code)
        return Status(watched.status.job, row.name, row.state, row.slurm, row.exit_code, cause)

    @staticmethod
    def _cause(watched: _Watched, slurm: str, why: str, code: str) -> str:
        return cause_of(slurm, why, code, _tail(watched.log))


def _tail(log: Path | None) -> str | None:
    """Read the end of a log; `None` if there is no log."""
    if log is None:
        return None
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return None
