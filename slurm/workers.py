"""Dask workers as Slurm jobs: dask-jobqueue's cluster, with this package's scripts and commands.

dask-jobqueue keeps the number of workers, builds their command lines and
follows their states.  Workers that are wanted at the same time are one array:
two commands, however many there are.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed.deploy.spec import ProcessInterface
from distributed.diagnostics.plugin import SchedulerPlugin

from slurm.commands import SlurmError, cancel, queue, submit
from slurm.scripts import array_script, keep, log_of, write_commands
from slurm.settings import Resources, Scheduler
from slurm.states import State, Status
from slurm.watcher import Watcher


def _dask_jobqueue() -> Any:
    """Import dask-jobqueue and restore the handler of ^C: its own ends the process with success."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module("dask_jobqueue.slurm")
    finally:
        signal.signal(signal.SIGINT, handler)


_SLURM = _dask_jobqueue()
#: Time after which a worker without a scheduler ends, as after a killed driver, second.
ORPHANED_S = 60
#: A worker leaves after LIFETIME +- STAGGER of its walltime: not all at once, and before Slurm ends it.
LIFETIME, STAGGER = 0.55, 0.35
#: Memory of a job that is left to the nanny, MiB.
NANNY_MIB = 128
#: Workers that are wanted within this time are one array, second.
TOGETHER_S = 0.05
#: Jobs for each wanted worker that may end before they join; more are no accident.
STILLBORN = 3
Say = Callable[[str, Mapping[str, Any]], Any]


def over(status: Status) -> bool:
    """Decide whether a job has ended, or is given up."""
    return status.ended or (status.state is State.UNKNOWN and bool(status.reason))


@dataclass(frozen=True)
class Wanted:
    """Workers that are wanted."""

    #: Of the site.
    scheduler: Scheduler
    #: Of one worker.
    resources: Resources
    #: Beginning of the names of their jobs.
    name: str
    #: Takes scripts and logs.
    folder: Path
    #: Called with events of workers: ``worker`` with ``name`` and ``state`` (joined, left, ...), ``died`` with
    #: ``error``.
    say: Say
    #: Python module that is a worker, and its first arguments; ``dask worker``'s follow, its address the first.
    module: Sequence[str]
    #: Options of the cluster: ``protocol``, ``security``, ``scheduler_options``.
    cluster: Mapping[str, Any]

    def options(self) -> dict[str, Any]:
        """Give the options of dask-jobqueue's cluster; it joins words to a command line, so they are quoted here."""
        seconds = 60 * self.resources.minutes
        memory = max(self.resources.memory_mib - NANNY_MIB, self.resources.memory_mib // 2)
        lifetime = ["--lifetime", f"{LIFETIME * seconds:.0f}s", "--lifetime-stagger", f"{STAGGER * seconds:.0f}s"]
        return {
            "name": self.name,
            "cores": 1,
            "processes": 1,
            "memory": f"{memory}MiB",
            "python": f"{shlex.quote(self.scheduler.python)} -P",
            "worker_command": shlex.join(self.module),
            "worker_extra_args": ["--resources", "quantum=1", "--nanny", *lifetime],
            "death_timeout": ORPHANED_S,
            "interface": self.scheduler.interface or None,
            **self.cluster,
        }


@dataclass
class Pool:
    """Jobs of a cluster's workers."""

    wanted: Wanted
    watcher: Watcher
    #: Part of the arrays' names, which distinguishes them from those of an earlier driver.
    epoch: str = field(default_factory=lambda: f"{int(time.time()):x}")
    living: dict[str, str] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    present: set[str] = field(default_factory=set)
    refused: Exception | None = None
    stillborn: int = 0
    last: str = ""
    closing: bool = False
    _queue: list[tuple[str, Sequence[str], asyncio.Future[str]]] = field(default_factory=list)
    _arrays: Iterator[int] = field(default_factory=itertools.count)

    async def start(self, worker: str, command: Sequence[str]) -> str:
        """Submit a worker's job, with those that are wanted at the same time; give its id, empty if it is refused."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queue.append((worker, command, answer))
        if len(self._queue) == 1:
            await asyncio.sleep(TOGETHER_S)
            batch, self._queue = self._queue, []
            most = self.wanted.scheduler.max_array
            for first in range(0, len(batch), most):
                await self._submit(batch[first : first + most])
        return await answer

    async def _submit(self, batch: Sequence[tuple[str, Sequence[str], asyncio.Future[str]]]) -> None:
        lines = [command for _, command, _ in batch]
        try:
            job = await asyncio.to_thread(self._array, lines)
        except Exception as error:  # no caller awaits this task: `problem` reports it
            self._missed(error, len(batch))
            job = ""
        for n, (worker, _, answer) in enumerate(batch):
            if job:
                self.living[worker] = f"{job}_{n}"
                self.watcher.watch(f"{job}_{n}")
            answer.set_result(self.living.get(worker, ""))

    def _array(self, lines: Sequence[Sequence[str]]) -> str:
        wanted, number = self.wanted, f"{self.epoch}.{next(self._arrays)}"
        name, log = f"{wanted.name}-{number}", wanted.folder / f"workers.{number}.log"
        commands = write_commands(log.with_suffix(".commands"), lines)
        script = array_script(name, commands, range(len(lines)), log, wanted.resources, wanted.scheduler)
        wanted.say("submitted", {"name": name, "workers": len(lines), "log": str(log_of(log, 0))})
        return submit(wanted.scheduler.access, keep(script, log))

    def _missed(self, error: Exception, many: int) -> None:
        self.last = str(error)
        self.stillborn += many
        if not (isinstance(error, SlurmError) and error.transient):
            self.refused = error

    def lost(self) -> list[str]:
        """Give the workers whose jobs have ended since the last call, and report each end."""
        gone = []
        for worker, job in list(self.living.items()):
            status = self.watcher.status(job)
            if not over(status):
                continue
            gone.append(worker)
            del self.living[worker]
            self.stillborn += worker not in self.joined
            self.joined.discard(worker)
            self.last = f"worker {worker}, job {job}: {status.slurm or 'vanished'}, {status.reason or status.exit_code}"
            about = {"name": worker, "job": job, "state": status.slurm, "cause": status.reason or "infrastructure"}
            self.wanted.say("died", {"error": self.last, **about})
        return gone

    def problem(self, workers: int) -> str:
        """Say why no worker will come again; empty while there is hope."""
        if not self.present and self.stillborn >= STILLBORN * workers:
            return f"no worker comes up: {self.last}; see {self.wanted.folder}/workers.*.log"
        return ""


class WorkerJob(_SLURM.SLURMJob):  # type: ignore[name-defined]
    """dask-jobqueue's job of one worker, as an element of an array that the pool submits and cancels.

    dask-jobqueue's own script, sbatch and scancel would be one a worker, with the site's options unquoted, the
    operator's whole environment and no time-out; its script is in a folder that others may read.
    """

    #: An empty id is a refusal, which the pool reports.
    job_id_regexp = r"^(?P<job_id>(?:\d+_\d+)?)$"

    def __init__(
        self, scheduler: Any = None, name: Any = None, *, pool: Pool, security: Any = None, **options: Any
    ) -> None:
        super().__init__(scheduler=scheduler, name=name, **options)  # keys are an affair of the worker's module
        self._pool = pool

    @contextmanager
    def job_file(self) -> Iterator[str]:
        """Write nothing: elements of an array share the pool's script."""
        yield ""

    async def _submit_job(self, script_filename: str) -> str:
        return await self._pool.start(str(self.name), shlex.split(self._command_template))

    async def close(self) -> None:
        """Cancel the job; when the cluster closes, one command cancels all."""
        if self.job_id and not self._pool.closing:
            self._pool.living.pop(str(self.name), None)
            await asyncio.to_thread(cancel, self._pool.wanted.scheduler.access, self.job_id)
        await ProcessInterface.close(self)


class Register(SchedulerPlugin):
    """Notes workers that join, leave or are restarted."""

    name = "campaign-register"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._names: dict[str, str] = {}

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Note a worker that joins."""
        name = str(scheduler.workers[worker].name)
        if name not in self._pool.living:
            return
        self._names[worker] = name
        self._pool.joined.add(name)
        self._pool.present.add(name)
        self._pool.stillborn = 0
        self._say(name, "joined", worker)

    def remove_worker(self, scheduler: Any, worker: str, *, stimulus_id: str, **_: Any) -> None:
        """Note a worker that leaves, and why."""
        name = self._names.pop(worker, "")
        if name:
            self._pool.present.discard(name)
            self._say(name, "left", stimulus_id)

    def log_event(self, topic: str, msg: Any) -> None:
        """Note a worker that its nanny restarts for want of memory."""
        if topic == "worker-restart-memory":
            name = self._names.get(str(msg.get("worker")), str(msg.get("worker")))
            self._say(name, "restarted", f"memory: {int(msg.get('rss', 0)) >> 20} MiB")

    def _say(self, name: str, state: str, why: str) -> None:
        if not self._pool.closing:
            self._pool.wanted.say("worker", {"name": name, "state": state, "why": why})


@dataclass
class Running:
    """A running cluster of Slurm jobs."""

    cluster: Any
    pool: Pool
    #: Number of wanted workers.
    many: int

    @property
    def address(self) -> str:
        """Address of its scheduler."""
        return str(self.cluster.scheduler_address)

    def problem(self) -> str:
        """Replace lost workers; say why none will come again, empty while there is hope.

        Raises
        ------
        SlurmError, ScriptError
            Slurm refuses them, or no node has room for one.
        OSError
            Their script cannot be written.
        """
        for worker in self.pool.lost():  # the adaptive cluster then starts another one
            self.cluster.loop.add_callback(self.cluster.workers.pop, worker, None)
        if self.pool.refused:
            raise self.pool.refused
        return self.pool.problem(self.many)


@contextmanager
def running(wanted: Wanted, watcher: Watcher, many: int) -> Iterator[Running]:
    """Run a Dask cluster of ``many`` single-threaded workers; replace those that die, cancel the rest at the end.

    The scheduler lives in this process: workers of an earlier cluster of this
    name have no scheduler any more, and are cancelled first.
    """
    access = wanted.scheduler.access
    cancel(access, *(one.job for one in queue(access) if one.living and one.name.startswith(f"{wanted.name}-")))
    pool = Pool(wanted, watcher)
    wanted.folder.mkdir(parents=True, exist_ok=True)
    with _SLURM.SLURMCluster(n_workers=0, job_cls=WorkerJob, pool=pool, **wanted.options()) as cluster:
        try:
            cluster.scheduler.add_plugin(Register(pool))
            cluster.scale(many)  # at once: adapt() first looks after a second
            cluster.adapt(minimum=many, maximum=many)
            yield Running(cluster, pool, many)
        finally:
            pool.closing = True
            if pool.living:
                cancel(access, *pool.living.values())
