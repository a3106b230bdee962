"""Writes job scripts by template inheritance (base, scheduler, site); what templates write is quoted for the shell."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, Final, NoReturn

from slurm.commands import Access
from slurm.states import UNABLE_CODE, WALLTIME_CODE

#: Ranks are the parallelism; a folder in the working directory is never imported by accident.
FIXED: Final[dict[str, str]] = {
    "PYTHONSAFEPATH": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
#: What a script, submitted by hand out of another job, must not inherit.
SCRUBBED: Final = ("SBATCH_", "PMI_", "PMIX_", "OMPI_", "HYDI_", "HYDRA_")
MEMORY: Final = ("mem", "mem-per-cpu", "none")
LAUNCHERS: Final = ("srun-pmi2", "srun-pmix", "mpiexec")

_SUFFIX: Final = ".sh.j2"
#: Run by the site's interpreter after a failure; its arguments are packages.
_LACKING: Final = (
    "import sys; from importlib.util import find_spec as find; "
    'sys.exit(next((sys.executable + " has no package " + name for name in sys.argv[1:] if not find(name)), 0))'
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
#: squeue's list of names divides at commas, jobcomp/filetxt at blanks, our own rows at bars.
_NAME: Final = re.compile(r"[^\s,|\x00-\x1f\x7f]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: What a site says that its templates must use; the rest is used here.
_FOR_TEMPLATES: Final = (
    *("partition", "account", "qos", "reservation", "constraint"),
    *("signal_before_s", "environment", "setup", "extra"),
)


class ScriptError(Exception):
    """A job script cannot be written; the text says which setting, and why."""


@dataclass(frozen=True)
class Resources:
    """What a job asks for.

    Parameters
    ----------
    memory_mib : `int`
        Memory of one rank, MiB.
    cores : `int`
        Cores of one rank.
    ranks : `int`
        Processes.
    nodes : `int`, optional
        Over how many nodes; by default what fits.
    minutes : `int`
        Walltime.
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
    """What a site says about its Slurm.

    Parameters
    ----------
    partition, account, qos, reservation, constraint : `str`
        Options of sbatch; empty ones are left out.
    memory : `str`
        How memory is asked for: ``mem`` (a node's), ``mem-per-cpu``, or ``none`` where a site refuses both.
    ranks : `int`, optional
        Processes that a run may keep busy, where its operator does not say.
    node_cores, node_memory_mib : `int`, optional
        The size of a node, from which follows how many a gang needs.
    signal_before_s : `int`
        Seconds before the walltime at which the command is asked to end (SIGTERM); 0 never.
    launcher : `str`
        Of a gang: ``srun-pmi2``, ``srun-pmix``, or ``mpiexec`` (the one beside ``python``).
    environment : mapping
        Variables of every job.
    setup : sequence of `str`
        Lines of shell, verbatim, before the command.
    extra : sequence of `str`
        More options of sbatch, such as ``--exclusive``.
    python : `str`
        The site's interpreter; by default this one.
    template : `str`
        A packaged template's name, or the path of the site's own, which extends ``slurm.sh.j2``.
    max_array : `int`
        Elements that an array may have (``MaxArraySize``).
    max_submit : `int`
        Jobs that a user may have in the queue.
    interface : `str`
        Network interface that driver and Dask workers meet at, such as ``ib0``; by default what their host routes by.
    conf : `str`, optional
        The cluster's slurm.conf.
    timeout : `float`
        Seconds that a command of Slurm may take.
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
        """How its commands are reached."""
        return Access(self.conf, self.timeout)


class Script(str):
    """A job script's text.

    Attributes
    ----------
    unused : `tuple` [`str`, ...]
        Options of the site that no template used: to be told to the operator.
    """

    unused: tuple[str, ...] = ()


class _Verbatim(str):
    """Text that is shell already."""


class _Site:
    """The site's options as templates see them; notes which ones they used."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._used: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self._used.add(name)
        return getattr(self._scheduler, name)

    def _unused(self) -> tuple[str, ...]:
        """Options that were given, and have come to nothing."""
        return tuple(name for name in _FOR_TEMPLATES if name not in self._used and getattr(self._scheduler, name))


def gang_script(name: str, command: Sequence[str], log: Path, resources: Resources, scheduler: Scheduler) -> Script:
    """Write the script of one job: a gang, or a single process.

    Parameters
    ----------
    name : `str`
        The job's name.
    command : sequence of `str`
        What each rank runs.
    log : `~pathlib.Path`
        Where its output goes; its folder, where the job runs, must exist when it is submitted (see `keep`).
    resources : `Resources`
        What it asks for.
    scheduler : `Scheduler`
        The site.

    Raises
    ------
    ScriptError
        The job fits on no node, the name cannot be one, or the site's template is at fault.
    """
    run = shlex.join([*launch(resources, scheduler), *_checked(command)])
    able = _Verbatim(shlex.join([scheduler.python, "-P", "-c", _LACKING, *_packages(command, scheduler)]))
    return _render(name, log, _pattern(log), resources, scheduler, run=_Verbatim(run), able=able)


def _packages(command: Sequence[str], scheduler: Scheduler) -> list[str]:
    """What the site's interpreter must have for a command of its own; nothing for another program's."""
    own = list(command) if command[0] == scheduler.python else []
    return [name.partition(".")[0] for option, name in pairwise(own) if option == "-m"]


def array_script(
    name: str, commands: Path, elements: range, log: Path, resources: Resources, scheduler: Scheduler
) -> Script:
    """Write the script of an array: element n runs line n of a file of command lines.

    Parameters
    ----------
    name : `str`
        The array's name.
    commands : `~pathlib.Path`
        Written by `write_commands`.
    elements : `range`
        Which lines, from 0; the array's indices are 0 to ``len(elements) - 1``.
    log : `~pathlib.Path`
        ``gang.log`` becomes ``gang.<index>.log``; see `log_of`.
    resources, scheduler
        As for `gang_script`; the resources are those of each element.
    """
    if not 0 < len(elements) <= scheduler.max_array:
        raise ScriptError(f"{name}: an array of {len(elements)}; the site's max_array is {scheduler.max_array}")
    array = {"last": len(elements) - 1, "first_line": elements.start + 1, "commands": str(commands.absolute())}
    run = _Verbatim(" ".join([*map(shlex.quote, launch(resources, scheduler)), '"${command[@]}"']))
    pattern = f"{_pattern(log.with_suffix(''))}.%a{log.suffix.replace('%', '%%')}"
    return _render(name, log, pattern, resources, scheduler, run=run, array=array)


def log_of(log: Path, index: int) -> Path:
    """Give the log of an array's element."""
    return log.with_suffix(f".{index}{log.suffix}")


def write_commands(path: Path, commands: Sequence[Sequence[str]]) -> Path:
    """Write a file of command lines, one each, for `array_script`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{shlex.join(_checked(command))}\n" for command in commands))
    return path


def keep(script: str, log: Path) -> Path:
    """Write a script beside its log, ``gang.log`` and ``gang.sh``; Slurm makes no folders, so they are made here."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = log.with_suffix(".sh")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(script)
    temporary.chmod(0o700)  # a driver's has variables of its operator's
    temporary.replace(path)
    return path


def launch(resources: Resources, scheduler: Scheduler) -> list[str]:
    """Give the launcher of a gang; nothing for a single process.

    srun has not taken sbatch's ``--cpus-per-task`` since 22.05: it is restated.
    """
    if resources.ranks == 1:
        return []
    ranks = ["-n", str(resources.ranks)]
    if scheduler.launcher == "mpiexec":
        return [str(Path(scheduler.python).parent / "mpiexec"), *ranks]
    mpi = scheduler.launcher.removeprefix("srun-")
    return ["srun", f"--mpi={mpi}", "--kill-on-bad-exit=1", *ranks, "-c", str(resources.cores)]


def layout(resources: Resources, scheduler: Scheduler) -> tuple[int | None, int | None]:
    """Give nodes and ranks a node; `None` leaves it to Slurm.

    Raises
    ------
    ScriptError
        One rank fits on no node of the site, or the nodes asked for are too few.
    """
    fits = _fits(resources, scheduler)
    nodes = resources.nodes
    if nodes is None and fits is not None:
        nodes = ceil(resources.ranks / fits)
    if nodes is None and (resources.ranks == 1 or scheduler.memory == "mem"):
        nodes = 1  # memory is a node's: how many share it must be known
    if nodes is None:
        return None, None
    each = ceil(resources.ranks / nodes)
    if fits is not None and each > fits:
        raise ScriptError(f"{each} ranks a node do not fit: {_sizes(resources, scheduler)}; ask for more nodes")
    return nodes, each


def _fits(resources: Resources, scheduler: Scheduler) -> int | None:
    """Ranks that a node of the site has room for; `None` where the site does not say."""
    wanted = ((scheduler.node_cores, resources.cores), (scheduler.node_memory_mib, resources.memory_mib))
    rooms = [room // need for room, need in wanted if room is not None]
    if rooms and not min(rooms):
        raise ScriptError(f"no rank fits on a node: {_sizes(resources, scheduler)}")
    return min(rooms) if rooms else None


def _sizes(resources: Resources, scheduler: Scheduler) -> str:
    room = f"a node has {scheduler.node_memory_mib or 'any'} MiB and {scheduler.node_cores or 'any'} cores"
    return f"a rank takes {resources.memory_mib} MiB and {resources.cores} cores, {room}"


def _memory(resources: Resources, scheduler: Scheduler, each: int | None) -> str:
    """The option that asks for memory, in whole MiB; empty where the site refuses it."""
    if scheduler.memory == "mem":
        return f"--mem={resources.memory_mib * (each or 1)}M"
    return f"--mem-per-cpu={ceil(resources.memory_mib / resources.cores)}M" if scheduler.memory != "none" else ""


def _pattern(log: Path) -> str:
    """A path as sbatch's ``--output`` takes it: % begins a replacement there."""
    if "\\" in str(log) or _CONTROL.search(str(log)):
        raise ScriptError(f"{str(log)!r}: sbatch takes no path with a backslash or a control character")
    return str(log.absolute()).replace("%", "%%")


def _checked(command: Sequence[str]) -> list[str]:
    """Refuse what no script can hold on one line."""
    for word in command:
        if "\n" in word or "\0" in word:
            raise ScriptError(f"{word!r}: an argument of a job holds a line end")
    return list(command)


def _refuse(text: str) -> NoReturn:
    raise ScriptError(text)


def _quoted(value: Any) -> str:
    """Quote what a template writes, unless it is shell already."""
    return value if isinstance(value, _Verbatim) else shlex.quote(str(value))


def _render(
    name: str,
    log: Path,
    pattern: str,
    resources: Resources,
    scheduler: Scheduler,
    run: _Verbatim,
    array: Mapping[str, Any] | None = None,
    able: str = "",
) -> Script:
    import jinja2

    if not _NAME.fullmatch(name):
        raise ScriptError(f"a job's name is {name!r}: it must be printable, without blanks, commas and bars")
    nodes, each = layout(resources, scheduler)
    site = _Site(scheduler)
    values = {
        "name": name,
        "log": pattern,
        "folder": str(log.absolute().parent),
        "resources": resources,
        "site": site,
        "nodes": nodes,
        "ranks_per_node": each,
        "memory": _memory(resources, scheduler, each),
        "fixed": FIXED,
        "scrubbed": SCRUBBED,
        "walltime_code": WALLTIME_CODE,
        "able": able,
        "unable_code": UNABLE_CODE,
        "run": run,
        "array": array,
    }
    try:
        jinja, template = _jinja(scheduler)
        text = jinja.get_template(template).render(values)
    except jinja2.TemplateNotFound as error:
        raise ScriptError(f"scheduler: there is no template {error}") from error
    except jinja2.TemplateError as error:
        where = scheduler.template
        if isinstance(error, jinja2.TemplateSyntaxError):
            where = f"{error.filename or error.name or where}, line {error.lineno}"
        raise ScriptError(f"template {where}: {error.message}") from error
    script = Script(text)
    script.unused = site._unused()
    return script


def _jinja(scheduler: Scheduler) -> tuple[Any, str]:
    """Give Jinja, and the site's template's name in it; a site's own may extend packaged ones and its neighbours."""
    import jinja2

    packaged = jinja2.PackageLoader("templates", "sbatch")
    loaders: list[jinja2.BaseLoader] = [packaged]
    name = scheduler.template + _SUFFIX
    if "/" in scheduler.template:
        name, path = scheduler.template, Path(scheduler.template).expanduser()
        try:
            own = jinja2.DictLoader({name: path.read_text()})
        except OSError as error:
            raise ScriptError(f"scheduler: template {name}: {error.strerror}") from error
        loaders = [own, packaged, jinja2.FileSystemLoader(path.parent)]
    jinja = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        finalize=_quoted,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # what super() gives is written already
    jinja.concat = lambda pieces: _Verbatim("".join(pieces))  # type: ignore[method-assign]
    jinja.filters["verbatim"] = _Verbatim
    jinja.globals["refuse"] = _refuse
    return jinja, name
