"""Contract of a scheduler: settings that a site file gives, and a backend that runs jobs by them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from sys import executable
from typing import Any, ClassVar, Final, Protocol

from campaign.errors import CampaignError
from campaign.jobs.death import Death
from campaign.schedulers.values import Model, Whole

#: Resources of a job: ``memory_mib`` and ``cores`` of a rank, ``minutes`` of the job; a key may be missing.
Resources = Mapping[str, int]
#: Defaults: memory of a rank, MiB, and walltime of a job, minute.
MEMORY_MIB: Final = 2048
MINUTES: Final = 60
#: Called with the name and detail of an event of a job or a worker.
Say = Callable[[str, Mapping[str, Any]], Any]


class Refused(CampaignError):
    """The scheduler does not take a job: nothing of it is queued."""

    exit_code = 4


@dataclass(frozen=True)
class Installation:
    """The site of a backend."""

    #: Written into events and job files.
    name: str = "local"
    #: Interpreter of its jobs.
    python: str = executable
    #: Variables of every job.
    environment: Mapping[str, str] = field(default_factory=dict)


def nothing_wrong() -> str:
    """Answer for a cluster that cannot lose all of its workers."""
    return ""


@dataclass(frozen=True)
class Workers:
    """A Dask cluster."""

    #: Of its scheduler.
    address: str
    #: Gives the reason why no worker will come (again); empty while there is hope.
    problem: Callable[[], str] = nothing_wrong


class Backend(Protocol):
    """Runs jobs, says why they died, and has a Dask cluster ready for quanta."""

    @property
    def site(self) -> str:
        """Name of the site, written into events and job files."""

    @property
    def slots(self) -> int:
        """Workers that quanta may have."""

    @property
    def shared(self) -> bool:
        """Whether gangs and quanta take the same cores, and so must take turns."""

    def ping(self) -> str:
        """Ask whether the scheduler is there; give its description of the jobs' destination.

        Raises
        ------
        Refused
            It does not answer, or does not know the destination.
        """

    def probe(self, jobs: Sequence[tuple[int, Resources]] = ()) -> None:
        """See that jobs (ranks and resources of each) would be taken, before anything is claimed.

        Raises
        ------
        Refused
            The scheduler does not answer, or would not take one of them.
        """

    def job(self, module: Sequence[str], ranks: int, log: Path, name: str, resources: Resources, say: Say) -> Death:
        """Run a Python module and wait for its end; adopt a living job of that name.

        Parameters
        ----------
        module : sequence of `str`
            Name of the module, and its arguments.
        ranks : `int`
            MPI ranks; 1 is a plain process.
        log : `Path`
            Takes the output.
        name : `str`
            Unique; jobs of runs are ``<run>-<group>-<attempt>``.
        resources : `dict`
        say : callable
            Called with events for the journal.

        Returns
        -------
        death : `Death`
            False if the job came to its end, with failed tasks (``code`` 1) or without.

        Raises
        ------
        Refused
            The scheduler does not take it.
        """

    def adopt(self, name: str, job: str, log: Path, say: Say) -> Death | None:
        """Wait for a job of an earlier driver; give `None` if nothing is known of one.

        Parameters
        ----------
        name : `str`
            Of the job.
        job : `str`
            The scheduler's id; empty if it was not recorded.
        """

    def sweep(self, stem: str, keep: Collection[str]) -> int:
        """End the jobs of earlier drivers, but for those to be adopted; give their number.

        ``stem`` begins the names of all jobs of the run; ``keep`` are the names of those to be adopted.
        """

    def cluster(
        self, workers: int, resources: Resources, logs: Path, name: str, say: Say, keys: Path
    ) -> AbstractContextManager[Workers]:
        """Start a Dask cluster of single-threaded workers, each with the resource ``quantum``.

        Old workers of that name are cancelled first.

        ``keys`` is a folder of `campaign.schedulers.secure.keys`; only holders of its keys can talk to the cluster.
        """

    def probe_driver(self, resources: Resources) -> None:
        """See that a job that drives a run would be taken.

        Raises
        ------
        Refused
            It would not be, or there is no scheduler.
        """

    def submit_driver(
        self, command: Sequence[str], log: Path, name: str, resources: Resources, variables: Mapping[str, str]
    ) -> str:
        """Submit a job that drives a run; give its id.

        The driver is asked to drain well before its walltime.

        Raises
        ------
        Refused
            The scheduler does not take it, or there is none.
        """

    def drain(self) -> None:
        """Cancel waiting jobs; running jobs come to their end."""

    def cancel(self) -> None:
        """End everything that was started and still lives."""


class Scheduler(Model):
    """Settings of a scheduler, as ``scheduler:`` of a site file has them; the base of every kind."""

    #: Whether jobs go to nodes by a queue; otherwise they are processes of the driver's machine.
    queued: ClassVar[bool] = True
    #: Settings in which ``$NAME`` stands for a variable of the operator's.
    expanded: ClassVar[tuple[str, ...]] = ()
    #: Remedy if the ranks of a gang do not see each other.
    lone_ranks: ClassVar[str] = "have the scheduler start MPI ranks by this Python's MPI"

    #: Processes of a run, unless its operator says.
    ranks: Whole | None = None
    #: Size of a node; memory in MiB.
    node_cores: Whole | None = None
    node_memory_mib: Whole | None = None

    def __str__(self) -> str:
        """Name the scheduler, and the jobs' destination in it, in one line."""
        return type(self).__name__

    @property
    def placed(self) -> bool:
        """Whether the settings say where jobs go, so that no development cluster can stand in."""
        return True

    @abstractmethod
    def backend(self, there: Installation, slots: int) -> Backend:
        """Make the backend of a site, where quanta may have so many workers."""
