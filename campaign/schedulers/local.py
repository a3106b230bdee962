"""This machine as a scheduler: gangs by the environment's own mpiexec, quanta by a LocalCluster."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from campaign.errors import AGAIN, TransientError
from campaign.jobs.death import KERNEL_CODES, Cause, Death
from campaign.jobs.launch import JOB, cause, cores, end_named, launch
from campaign.killpoints import reach
from campaign.schedulers import secure
from campaign.schedulers.protocol import Backend, Installation, Refused, Resources, Say, Scheduler, Workers

#: Most starts of a LocalCluster.
STARTS = 3
#: Exit codes of a process that was killed, or of mpiexec whose rank was.
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL, signal.SIGKILL)


class LocalScheduler(Scheduler):
    """This machine; ``scheduler: none`` of a site file."""

    queued: ClassVar[bool] = False

    def __str__(self) -> str:
        return "none: processes"

    def backend(self, there: Installation, slots: int) -> Backend:
        """Make the backend; it has as many slots as this machine has cores."""
        return Local(there)


class Local:
    """Jobs as processes of this machine; see `campaign.schedulers.protocol.Backend`."""

    shared = True

    def __init__(self, there: Installation | None = None) -> None:
        self._there = there or Installation()
        self.site = self._there.name
        self._living: set[subprocess.Popen[bytes]] = set()

    @property
    def slots(self) -> int:
        """Cores of this machine."""
        return cores()

    def ping(self) -> str:
        """This machine is there."""
        return "this machine"

    def probe(self, jobs: Sequence[tuple[int, Resources]] = ()) -> None:
        """Accept everything: this machine is there."""

    def job(self, module: Sequence[str], ranks: int, log: Path, name: str, resources: Resources, say: Say) -> Death:
        """Run a module; see `Backend.job`."""
        reach("job-accepted")
        there = self._there
        code = launch(module, ranks, log, self._living, name, python=there.python, variables=there.environment)
        if code in (0, 1):
            return Death(code=code)
        # A signal comes from outside: from another process, or from the system for lack of memory.
        kind = KERNEL_CODES.get(code, Cause.INFRASTRUCTURE if code in KILLED else Cause.FAILED)
        death = Death(cause(log, code), kind, code)
        say("died", {"error": death.why, "name": name, "cause": kind, "code": code})
        return death

    def adopt(self, name: str, job: str, log: Path, say: Say) -> Death | None:
        """Find nothing: no job outlives its driver here; see `Backend.adopt`."""
        return None

    def sweep(self, stem: str, keep: Collection[str]) -> int:
        """Kill processes that have not noticed the end of their driver; see `Backend.sweep`."""
        return end_named(f"{stem}-")

    @contextmanager
    def cluster(
        self, workers: int, resources: Resources, logs: Path, name: str, say: Say, keys: Path
    ) -> Iterator[Workers]:
        """Start a LocalCluster; see `Backend.cluster`."""
        os.environ[JOB] = name  # inherited by all workers
        # Workers import from their folder: Dask's default lies where others could have put files.
        with (
            tempfile.TemporaryDirectory(prefix="campaign-workers-", ignore_cleanup_errors=True) as folder,
            _local_cluster(workers, keys, folder, self._there.environment) as cluster,
        ):
            yield Workers(cluster.scheduler_address)

    def probe_driver(self, resources: Resources) -> None:
        """Refuse: there is no queue here; see `Backend.probe_driver`."""
        self._no_queue()

    def submit_driver(
        self, command: Sequence[str], log: Path, name: str, resources: Resources, variables: Mapping[str, str]
    ) -> str:
        """Refuse: there is no queue here; see `Backend.submit_driver`."""
        self._no_queue()

    def _no_queue(self) -> NoReturn:
        do = "--detach, or --site with a scheduler"
        raise Refused("the site of this run has no scheduler", where="--detach=job", do=do)

    def drain(self) -> None:
        """Do nothing: nothing waits here."""

    def cancel(self) -> None:
        """Kill the processes for which other threads wait."""
        for process in list(self._living):
            process.kill()


def _local_cluster(workers: int, keys: Path, folder: str, variables: Mapping[str, str], tries: int = STARTS) -> Any:
    """Start a LocalCluster; try again if a lost worker takes the starting cluster with it.

    Raises
    ------
    TransientError
        It does not start.
    """
    import distributed

    try:
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            protocol=secure.PROTOCOL,
            security=secure.security(keys),
            scheduler_kwargs={"dashboard": False, "dashboard_address": secure.DASHBOARD},
            worker_dashboard_address=None,
            local_directory=folder,
            env=dict(variables),
            resources={"quantum": 1},
        )
    except (RuntimeError, OSError) as error:
        if tries == 1:
            raise TransientError(f"Dask's workers do not start: {error.__cause__ or error}", do=AGAIN) from error
    return _local_cluster(workers, keys, folder, variables, tries - 1)
