"""Slurm as a scheduler: gangs by sbatch and srun, quanta on Dask workers that are jobs."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from campaign.jobs.death import KERNEL_CODES, Cause, Death
from campaign.jobs.logs import complaint, lines_of
from campaign.killpoints import reach
from campaign.schedulers import secure
from campaign.schedulers.protocol import MEMORY_MIB, MINUTES, Backend, Installation, Refused, Resources, Say, Workers
from campaign.schedulers.protocol import Scheduler as Settings
from campaign.schedulers.values import FilePath, Seconds, Text, Whole, WholeOrZero, Word, text
from slurm import commands, scripts, settings
from slurm.commands import SlurmError
from slurm.settings import Scheduler, ScriptError
from slurm.states import State, Status
from slurm.watcher import Watcher

#: Interval at which a waiting gang checks whether it was given up, second; only the watcher asks Slurm.
POLL_SECONDS = 0.5
#: Interval between questions of the watcher, second: less than one a second, with the first of a run.
INTERVAL_S = 1.1
#: Patience with Slurm before anything is claimed, second.
PROBE_S = 15.0
#: Time before its walltime at which a driver that is a job is told to drain, second; at most a tenth of the walltime.
DRAIN_S = 1800
#: Log of a job that is only a trial.
NOWHERE = Path("/dev/null")
#: Exit codes of a shell that does not find its command, or may not run it.
NO_COMMAND = (126, 127)
#: Exit code of a kernel with failed tasks: its journal says which.
TASKS_FAILED = "1:0"
#: Line of sinfo: a partition's name, with a star if it is the default, its name again, its state.
_PARTITION = re.compile(r"(\S+) (\S+) ([a-z]+)")


#: Features with Slurm's own operators; the job script quotes them.
Features = Annotated[
    str,
    text(r"^[A-Za-z0-9_.,:@/+&|*()\[\]-]*$", "letters, digits, _ . , : @ / + - and Slurm's & | * ( ) [ ]"),
]
Option = Annotated[
    str,
    text(
        r"^--?[A-Za-z][A-Za-z0-9-]*(=[A-Za-z0-9_.,:@/+%*-]+)?$",
        "an option of sbatch in one word, --name or --name=value",
    ),
]


class SlurmScheduler(Settings):
    """Slurm; its settings, their meaning and defaults are `slurm.settings.Scheduler`'s."""

    expanded: ClassVar[tuple[str, ...]] = ("conf", "template")
    lone_ranks: ClassVar[str] = (
        "set scheduler.launcher to what starts this Python's MPI: srun-pmi2, srun-pmix or mpiexec"
    )

    partition: Word = ""
    account: Word = ""
    qos: Word = ""
    reservation: Word = ""
    constraint: Features = ""
    memory: Literal["mem", "mem-per-cpu", "none"] = "mem"
    signal_before_s: WholeOrZero = 0
    launcher: Literal["srun-pmi2", "srun-pmix", "mpiexec"] = "srun-pmi2"
    setup: tuple[Text, ...] = ()
    extra: tuple[Option, ...] = ()
    template: Text = "slurm"
    max_array: Whole = 1000
    max_submit: Whole = 1000
    interface: Word = ""
    conf: FilePath | None = None
    timeout: Seconds = 30.0

    def __str__(self) -> str:
        return f"Slurm, partition {self.partition}" if self.partition else "Slurm"

    @property
    def placed(self) -> bool:
        """Whether ``conf`` says where jobs go; see `campaign.schedulers.protocol.Scheduler.placed`."""
        return bool(self.conf)

    def backend(self, there: Installation, slots: int) -> Backend:
        """Make the backend of a site."""
        scheduler = Scheduler(**self.model_dump(), environment=dict(there.environment), python=there.python)
        # A gang is in the queue beside the workers.
        return Slurm(there.name, scheduler, max(1, min(slots, self.max_submit - 1)))


@dataclass
class Slurm:
    """Jobs by a site's Slurm; see `Backend`."""

    site: str
    scheduler: Scheduler
    #: Workers that quanta may have.
    slots: int

    shared: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._access = self.scheduler.access
        self._watching: Watcher | None = None
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._cancelled = threading.Event()
        self._drained = threading.Event()

    @property
    def _watcher(self) -> Watcher:
        with self._lock:
            if self._watching is None:
                self._watching = Watcher(self._access, INTERVAL_S)
            return self._watching

    @property
    def commands(self) -> int:
        """Number of times that Slurm was asked for the state of jobs."""
        return self._watcher.commands

    def ping(self) -> str:
        """Ask for the partition that jobs would go to; see `Backend.ping`."""
        wanted = self.scheduler.partition
        try:
            said = commands.call(
                self._access, ["sinfo", "-h", *(["-p", wanted] if wanted else []), "-o", "%P %R %a"], patience=0
            )
        except SlurmError as error:
            do = f"`campaign sites up {self.site}` starts a cluster here"
            do += "; else set scheduler.conf, or log in where Slurm is"
            raise Refused(str(error), do=do) from error
        known = [found.groups() for found in commands.shaped(said, _PARTITION)]
        if not known:
            raise Refused(f"no partition {wanted}", do="set scheduler.partition")
        return "partition {} is {}".format(*_default(known))

    def probe(self, jobs: Sequence[tuple[int, Resources]] = ()) -> None:
        """Check that Slurm answers, and would take the jobs; see `Backend.probe`."""
        do = (
            f"campaign sites up {self.site} starts a private cluster here, unless the site's file has its own conf;"
            f" campaign sites ping {self.site} looks closer"
        )
        conf = self._access.conf
        if conf and not Path(conf).exists():  # Slurm's commands would search long for a server of configurations
            raise Refused(f"no Slurm answers: there is no {conf}", where=f"{self.site}, its Slurm", do=do)
        try:
            commands.call(replace(self._access, timeout=PROBE_S), ["sinfo", "--noheader", "--format=%T"], patience=0)
        except SlurmError as error:
            raise Refused(f"no Slurm answers: {error}", where=f"{self.site}, its Slurm", do=do) from error
        with self._refusing("jobs of this run"):
            for ranks, resources in jobs:
                wanted = _wanted(resources, ranks)
                script = scripts.gang_script("probe", [self.scheduler.python], NOWHERE, wanted, self.scheduler)
                commands.try_out(self._access, script)

    def job(self, module: Sequence[str], ranks: int, log: Path, name: str, resources: Resources, say: Say) -> Death:
        """Run a module; see `Backend.job`."""
        self._names.add(name)  # before its submission, so that it can be cancelled from here on
        with self._refusing(f"job {name}"):
            job = self._adopted(name, say) or self._submitted(module, ranks, log, name, resources, say)
            if self._cancelled.is_set() or self._drained.is_set():  # before its name could be found
                commands.cancel(self._access, job)
        return self._waited(job, name, log, say)

    def _waited(self, job: str, name: str, log: Path, say: Say) -> Death:
        status = self._end(job, name, log)
        self._names.discard(name)
        if death := _death(status, log):
            about = {"state": status.slurm, "cause": death.cause, "code": death.code}
            say("died", {"error": death.why, "name": name, "job": job, **about})
        return death

    def adopt(self, name: str, job: str, log: Path, say: Say) -> Death | None:
        """Wait for a job of an earlier driver; Slurm may still know why it ended; see `Backend.adopt`."""
        self._names.add(name)
        with self._refusing(f"job {name}"):
            known = self._adopted(name, say) or job
        return self._waited(known, name, log, say) if known else None

    def sweep(self, stem: str, keep: Collection[str]) -> int:
        """Cancel workers, and gangs with nothing left to do; see `Backend.sweep`."""
        with self._refusing(f"jobs of run {stem}"):
            living = [one for one in commands.queue(self._access) if one.living and one.name.startswith(f"{stem}-")]
            # A driver that is a job is judged by its claim.
            unwanted = [one.job for one in living if one.name not in keep and one.name != f"{stem}-driver"]
            commands.cancel(self._access, *unwanted)
        return len(unwanted)

    @contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        """Turn errors of Slurm into refusals."""
        try:
            yield
        except (SlurmError, ScriptError) as error:
            do = f"look at the site's file; campaign sites ping {self.site} looks closer"
            raise Refused(str(error), where=f"{self.site}, {what}", do=do) from error

    def _adopted(self, name: str, say: Say) -> str:
        """Find a living job of this name, which an earlier driver has submitted; give its id, or nothing."""
        found = commands.find(self._access, [name])[name]
        if found:
            say("adopted", {"name": name, "job": found[0].job})
        return found[0].job if found else ""

    def submit_driver(
        self, command: Sequence[str], log: Path, name: str, resources: Resources, variables: Mapping[str, str]
    ) -> str:
        """Submit a job that drives a run; see `Backend.submit_driver`."""
        words = ["env", *(f"{key}={value}" for key, value in variables.items()), *command]
        with self._refusing(f"job {name}"):
            return commands.submit(self._access, scripts.keep(self._driver(name, words, log, resources), log))

    def probe_driver(self, resources: Resources) -> None:
        """Check that Slurm would take a driver; see `Backend.probe_driver`."""
        self.probe()
        with self._refusing("the driver's job"):
            script = self._driver("probe", [self.scheduler.python], NOWHERE, resources)
            commands.try_out(self._access, script)

    def _driver(self, name: str, words: Sequence[str], log: Path, resources: Resources) -> scripts.Script:
        """Write the script of a driver, which is warned early enough for running jobs to end well."""
        wanted = _wanted(resources, 1)
        early = max(self.scheduler.signal_before_s, min(DRAIN_S, 60 * wanted.minutes // 10))
        return scripts.gang_script(name, words, log, wanted, replace(self.scheduler, signal_before_s=early))

    def _submitted(
        self, module: Sequence[str], ranks: int, log: Path, name: str, resources: Resources, say: Say
    ) -> str:
        gang = ["-m", "mpi4py"] if ranks > 1 else []
        command = [self.scheduler.python, "-P", *gang, "-m", *module]
        script = scripts.gang_script(name, command, log, _wanted(resources, ranks), self.scheduler)
        for option in script.unused:
            say("note", {"note": f"{option}: in the site's file, and used by no template"})
        job = commands.submit(self._access, scripts.keep(script, log))
        reach("job-accepted")
        say("queued", {"name": name, "job": job})
        reach("job-queued")
        return job

    def _end(self, job: str, name: str, log: Path) -> Status:
        """Wait until a job is over, given up, or cancelled."""
        self._watcher.watch(job, name, log)
        while True:
            status = self._watcher.wait(job, POLL_SECONDS)
            given_up = status.state is State.UNKNOWN and status.reason
            if status.ended or given_up or self._cancelled.is_set():
                return status

    @contextmanager
    def cluster(
        self, workers: int, resources: Resources, logs: Path, name: str, say: Say, keys: Path
    ) -> Iterator[Workers]:
        """Start a Dask cluster of Slurm jobs; see `Backend.cluster`."""
        from slurm.workers import Wanted, running

        interface = self.scheduler.interface
        place = {"interface": interface} if interface else {"host": secure.own_address()}
        options = {"dashboard_address": secure.DASHBOARD, "dashboard": False, **place}
        secured = {"protocol": secure.PROTOCOL, "security": secure.security(keys), "scheduler_options": options}
        module = ["campaign.schedulers.worker", str(keys.absolute())]
        wanted = Wanted(self.scheduler, _wanted(resources, 1), name, logs, say, module, secured)
        with running(wanted, self._watcher, workers) as cluster:

            def problem() -> str:
                with self._refusing("workers"):
                    return cluster.problem()

            yield Workers(cluster.address, problem)

    def drain(self) -> None:
        """Cancel jobs that wait in the queue; see `Backend.drain`."""
        self._drained.set()
        with self._refusing("waiting jobs"):
            found = commands.find(self._access, sorted(self._names)) if self._names else {}
            waiting = [one.job for jobs in found.values() for one in jobs if one.state is State.WAITING]
            commands.cancel(self._access, *waiting)

    def cancel(self) -> None:
        """Cancel every job that is waited for; workers go with their cluster."""
        self._cancelled.set()
        with self._refusing("jobs to cancel"):
            commands.cancel(self._access, *self._names)


def _default(partitions: Sequence[Sequence[str]]) -> Sequence[str]:
    """Give name and state of the partition that jobs go to: that with sinfo's star, else the first."""
    return next((words for words in partitions if words[0] != words[1]), partitions[0])[1:]


def _wanted(resources: Resources, ranks: int) -> settings.Resources:
    return settings.Resources(
        memory_mib=resources.get("memory_mib", MEMORY_MIB),
        cores=resources.get("cores", 1),
        ranks=ranks,
        minutes=resources.get("minutes", MINUTES),
    )


def _death(status: Status, log: Path) -> Death:
    """Describe a job's death by Slurm's state and by its log."""
    if status.state is State.DONE:
        return Death(code=0)
    if status.state is State.FAILED and status.exit_code == TASKS_FAILED:
        return Death(code=1)
    end = status.slurm or ("Slurm knows it no longer" if status.reason else "Slurm has not reported on it yet")
    said = complaint(lines_of(log))
    code = int(status.exit_code.partition(":")[0] or 0) if status.exit_code else None
    text = f"job {status.job}: {end}" + (f", exit {status.exit_code}" if status.exit_code else "")
    kind = Cause(status.reason or Cause.INFRASTRUCTURE)
    if status.state is State.FAILED and kind is Cause.FAILED:
        kind = {**KERNEL_CODES, **dict.fromkeys(NO_COMMAND, Cause.CONFIGURATION)}.get(code or 0, kind)
    return Death(f"{text}: {said}" if said else text, kind, code)
