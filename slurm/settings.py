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
    """Resources of a job.

    Parameters
    ----------
    memory_mib : `int`
        Memory of one rank, MiB.
    cores : `int`
        Cores of one rank.
    ranks : `int`
        MPI ranks.
    nodes : `int`, optional
        Number of nodes; by default as few as have room.
    minutes : `int`
        Walltime, minute.
    """

    memory_mib: int
    cores: int = 1
    ranks: int = 1
    nodes: int | None = None
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
    """Settings of a site's Slurm.

    Parameters
    ----------
    partition, account, qos, reservation, constraint : `str`
        Options of sbatch; empty ones are left out.
    memory : `str`
        Option that asks for memory: ``mem`` (of a node), ``mem-per-cpu``, or ``none`` if the site refuses both.
    ranks : `int`, optional
        Processes of a run, unless its operator says.
    node_cores, node_memory_mib : `int`, optional
        Size of a node, which decides the number of nodes of a gang; memory in MiB.
    signal_before_s : `int`
        Time before the walltime at which the command is asked to end (SIGTERM), second; 0 never.
    launcher : `str`
        Of a gang: ``srun-pmi2``, ``srun-pmix``, or ``mpiexec`` (the one beside ``python``).
    environment : mapping
        Variables of every job.
    setup : sequence of `str`
        Lines of shell, verbatim, before the command.
    extra : sequence of `str`
        Further options of sbatch, such as ``--exclusive``.
    python : `str`
        Interpreter of the site; by default this one.
    template : `str`
        Name of a packaged template, or path of the site's own, which extends ``slurm.sh.j2``.
    max_array : `int`
        Most elements of an array (``MaxArraySize``).
    max_submit : `int`
        Most jobs of a user in the queue.
    interface : `str`
        Network interface of driver and Dask workers, such as ``ib0``; by default that of the host's route.
    conf : `str`, optional
        Path of the cluster's slurm.conf.
    timeout : `float`
        Time limit of a command of Slurm, second.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    constraint: str = ""
    memory: str = "mem"
    ranks: int | None = None
    node_cores: int | None = None
    node_memory_mib: int | None = None
    signal_before_s: int = 0
    launcher: str = "srun-pmi2"
    environment: Mapping[str, str] = field(default_factory=dict)
    setup: Sequence[str] = ()
    extra: Sequence[str] = ()
    python: str = sys.executable
    template: str = "slurm"
    max_array: int = 1000
    max_submit: int = 1000
    interface: str = ""
    conf: str | None = None
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
