"""Where a plan's jobs run: on this machine, or by a site's Slurm.

A backend knows nothing of plans, tasks and journals: it runs a job file as a
gang or a single process and says why it died, and it has a Dask cluster ready
where there are quanta.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from campaign.errors import AGAIN, CampaignError, ConfigurationError, TransientError
from campaign.jobs.death import KERNEL_CODES, Cause, Death
from campaign.jobs.launch import JOB, cause, cores, end_named, launch
from campaign.killpoints import reach

if TYPE_CHECKING:
    pass

#: A cluster of this machine's workers is started as often, at most.
STARTS = 3
#: How a process, or mpiexec for its ranks, says that it was killed.
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL, signal.SIGKILL)
#: What a job asks for: ``memory_mib`` and ``cores`` of a rank, ``minutes`` of the job; a key may be missing.
Resources = Mapping[str, int]
#: Told of what befalls a job or a worker: an event's name and its detail.
Say = Callable[[str, Mapping[str, Any]], Any]


class Refused(CampaignError):
    """The scheduler took a job not at all: nothing of it is queued."""

    exit_code = 4


def nothing_wrong() -> str:
    """Of a cluster that cannot lose its workers for good."""
    return ""


@dataclass(frozen=True)
class Workers:
    """A Dask cluster.

    Parameters
    ----------
    address : `str`
        The scheduler's.
    problem : callable
        Why it will never have a worker (again); empty while there is hope.
    """

    address: str
    problem: Callable[[], str] = nothing_wrong


class Backend(Protocol):
    """Where jobs run.

    ``site`` is the name that events and job files carry, ``slots`` the number
    of processes that quanta may keep busy, ``shared`` whether gangs and quanta
    take the same cores and so must take turns.
    """

    @property
    def site(self) -> str:
        """Name of the site."""

    @property
    def slots(self) -> int:
        """Workers that quanta may have."""

    @property
    def shared(self) -> bool:
        """Whether gangs and quanta take the same cores."""

    def probe(self, jobs: Sequence[tuple[int, Resources]] = ()) -> None:
        """See that jobs would be taken, before anything is claimed.

        Parameters
        ----------
        jobs : sequence of `tuple`
            Ranks, and what they ask for.

        Raises
        ------
        Refused
            Nobody answers, or one of them would not be taken.
        """

    def job(self, path: Path, ranks: int, log: Path, name: str, resources: Resources, say: Say) -> Death:
        """Run a job file and wait for its end; a living job of that name is adopted.

        Parameters
        ----------
        path : `Path`
            The job file.
        ranks : `int`
            MPI ranks; 1 is a plain process.
        log : `Path`
            Takes the job's output.
        name : `str`
            ``<run>-<group>-<attempt>``, unique.
        resources : `dict`
        say : callable
            Told of what the journal should have.

        Returns
        -------
        why : `Death`
            Empty where it came to its end, with failed tasks or without.

        Raises
        ------
        Refused
            The scheduler does not take it.
        """

    def adopt(self, name: str, job: str, log: Path, say: Say) -> Death | None:
        """Wait for a job that an earlier driver has started; `None` where nothing is known of one.

        Parameters
        ----------
        name : `str`
            The job's.
        job : `str`
            What the scheduler calls it; empty where that was not recorded.
        """

    def sweep(self, stem: str, keep: Collection[str]) -> int:
        """End what an earlier driver has left, but for the jobs to be adopted.

        Parameters
        ----------
        stem : `str`
            What the names of all jobs of the run begin with.
        keep : collection of `str`
            Names of jobs.

        Returns
        -------
        ended : `int`
        """

    def cluster(
        self, workers: int, resources: Resources, logs: Path, name: str, say: Say, keys: Path
    ) -> AbstractContextManager[Workers]:
        """A Dask cluster of single-threaded workers, each offering the resource ``quantum``.

        Old workers of that name are cancelled first.

        Parameters
        ----------
        keys : `Path`
            What `slurm.secure.keys` made: whoever has them, and nobody else, can talk to the cluster.
        """

    def drain(self) -> None:
        """Cancel what waits; what runs comes to its end."""

    def cancel(self) -> None:
        """End everything that was started and still lives."""


class Local:
    """This machine: gangs by the environment's own mpiexec, quanta by a LocalCluster."""

    shared = True

    def __init__(self, site: str = "local") -> None:
        self.site = site
        self._living: set[subprocess.Popen[bytes]] = set()

    @property
    def slots(self) -> int:
        """The cores."""
        return cores()

    def probe(self, jobs: Sequence[tuple[int, Resources]] = ()) -> None:
        """This machine is there."""

    def job(self, path: Path, ranks: int, log: Path, name: str, resources: Resources, say: Say) -> Death:
        """Run a job file; see `Backend.job`."""
        reach("job-accepted")
        code = launch(path, ranks, log, self._living, name)
        if code in (0, 1):
            return Death()
        # A signal's is nobody's fault here: another process, or the kernel's own lack of memory, sent it.
        kind = KERNEL_CODES.get(code, Cause.INFRASTRUCTURE if code in KILLED else Cause.FAILED)
        death = Death(cause(log, code), kind, code)
        say("died", {"error": death.why, "name": name, "cause": kind, "code": code})
        return death

    def adopt(self, name: str, job: str, log: Path, say: Say) -> Death | None:
        """Nothing outlives its driver here; see `Backend.adopt`."""
        return None

    def sweep(self, stem: str, keep: Collection[str]) -> int:
        """Kill what has not yet noticed that its driver is gone; see `Backend.sweep`."""
        return end_named(f"{stem}-")

    @contextmanager
    def cluster(
        self, workers: int, resources: Resources, logs: Path, name: str, say: Say, keys: Path
    ) -> Iterator[Workers]:
        """A LocalCluster; see `Backend.cluster`."""
        os.environ[JOB] = name  # workers, also those that come later, have it from here
        # Workers import from their folder: by default it lies where others could have made it.
        with (
            tempfile.TemporaryDirectory(prefix="campaign-workers-", ignore_cleanup_errors=True) as folder,
            _local_cluster(workers, keys, folder) as cluster,
        ):
            yield Workers(cluster.scheduler_address)

    def drain(self) -> None:
        """Nothing waits here."""

    def cancel(self) -> None:
        """Kill what other threads wait for."""
        for process in list(self._living):
            process.kill()


def require_dask() -> None:
    """Refuse a configuration of Dask's that cannot be read, before anything is claimed; nothing of it counts.

    Raises
    ------
    ConfigurationError
        A file in ``DASK_CONFIG``, ``~/.config/dask`` or ``/etc/dask``, or a variable ``DASK_...``, is at fault.
    """
    from slurm import secure

    try:
        secure.pin()
    except ValueError as error:
        do = "mend the file, or unset DASK_CONFIG; Dask reads it, though nothing of it counts for a run"
        raise ConfigurationError(f"Dask does not start: {error}", where="Dask's configuration", do=do) from error


def _local_cluster(workers: int, keys: Path, folder: str, tries: int = STARTS) -> Any:
    """Start a LocalCluster; a worker that is lost while it starts takes the whole with it, and it is tried again.

    Raises
    ------
    TransientError
        It does not start.
    """
    import distributed

    from slurm import secure

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
            resources={"quantum": 1},
        )
    except (RuntimeError, OSError) as error:
        if tries == 1:
            raise TransientError(f"Dask's workers do not start: {error.__cause__ or error}", do=AGAIN) from error
    return _local_cluster(workers, keys, folder, tries - 1)
