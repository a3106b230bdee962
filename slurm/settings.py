"""Settings of a site's Slurm, and the resources of a job."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from slurm.commands import Access

MEMORY: Final = ("mem", "mem-per-cpu", "none")
LAUNCHERS: Final = ("srun-pmi2", "srun-pmix", "mpiexec")

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class ScriptError(Exception):
    """A job script cannot be written; the text names the setting, and the reason."""


@dataclass(frozen=True)
class Resources:
    """Resources of a job."""

    #: Memory of one rank, MiB.
    memory_mib: int
    #: Cores of one rank.
    cores: int = 1
    #: MPI ranks.
    ranks: int = 1
    #: Number of nodes; by default as few as have room.
    nodes: int | None = None
    #: Walltime, minute.
    minutes: int = 60

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not (one.name == "nodes" and value is None) and not (type(value) is int and value > 0):
                raise ScriptError(f"resources: {one.name} is {value!r}, not a positive whole number")
        if self.nodes is not None and self.nodes > self.ranks:
            raise ScriptError(f"resources: {self.nodes} nodes for {self.ranks} ranks")


@dataclass(frozen=True)
class Scheduler:
    """Settings of a site's Slurm."""

    #: Options of sbatch; empty ones are left out.
    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    constraint: str = ""
    #: Option that asks for memory: ``mem`` (of a node), ``mem-per-cpu``, or ``none`` if the site refuses both.
    memory: str = "mem"
    #: Processes of a run, unless its operator says.
    ranks: int | None = None
    #: Size of a node, which decides the number of nodes of a gang; memory in MiB.
    node_cores: int | None = None
    node_memory_mib: int | None = None
    #: Time before the walltime at which the command is asked to end (SIGTERM), second; 0 never.
    signal_before_s: int = 0
    #: Of a gang: ``srun-pmi2``, ``srun-pmix``, or ``mpiexec`` (the one beside ``python``).
    launcher: str = "srun-pmi2"
    #: Variables of every job.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Lines of shell, verbatim, before the command.
    setup: Sequence[str] = ()
    #: Further options of sbatch, such as ``--exclusive``.
    extra: Sequence[str] = ()
    #: Interpreter of the site; by default this one.
    python: str = sys.executable
    #: Name of a packaged template, or path of the site's own, which extends ``slurm.sh.j2``.
    template: str = "slurm"
    #: Most elements of an array (``MaxArraySize``).
    max_array: int = 1000
    #: Most jobs of a user in the queue.
    max_submit: int = 1000
    #: Network interface of driver and Dask workers, such as ``ib0``; by default that of the host's route.
    interface: str = ""
    #: Path of the cluster's slurm.conf.
    conf: str | None = None
    #: Time limit of a command of Slurm, second.
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for key, allowed in (("memory", MEMORY), ("launcher", LAUNCHERS)):
            if getattr(self, key) not in allowed:
                raise ScriptError(f"scheduler: {key} is {getattr(self, key)!r}, not one of {', '.join(allowed)}")
        for key, least in (("signal_before_s", 0), ("max_array", 1), ("max_submit", 1)):
            value = getattr(self, key)
            if type(value) is not int or value < least:
                raise ScriptError(f"scheduler: {key} is {value!r}, not a whole number from {least} on")
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise ScriptError(f"scheduler: environment has {name!r}, which is no name of a variable")
        for option in self.extra:
            if not option.startswith("-") or _CONTROL.search(option):
                raise ScriptError(f"scheduler: extra has {option!r}, which is no option of sbatch")

    @property
    def access(self) -> Access:
        """Access by its commands."""
        return Access(self.conf, self.timeout)
