"""Writes job scripts by template inheritance (base, scheduler, site); every value is quoted for the shell."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, Final, NoReturn

from slurm.settings import Resources, Scheduler, ScriptError
from slurm.states import UNABLE_CODE, WALLTIME_CODE

#: One thread a rank; nothing is imported from the working directory.
FIXED: Final[dict[str, str]] = {
    "PYTHONSAFEPATH": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
#: Prefixes of variables that a script must not inherit if it is submitted by hand, out of another job.
SCRUBBED: Final = ("SBATCH_", "PMI_", "PMIX_", "OMPI_", "HYDI_", "HYDRA_")

_SUFFIX: Final = ".sh.j2"
#: Code for the site's interpreter after a failure; its arguments are packages.
_LACKING: Final = (
    "import sys; from importlib.util import find_spec as find; "
    'sys.exit(next((sys.executable + " has no package " + name for name in sys.argv[1:] if not find(name)), 0))'
)
#: squeue's list of names divides at commas, jobcomp/filetxt at blanks, our own rows at bars.
_NAME: Final = re.compile(r"[^\s,|\x00-\x1f\x7f]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: Settings that a site's templates must use; this module uses the others.
_FOR_TEMPLATES: Final = (
    *("partition", "account", "qos", "reservation", "constraint"),
    *("signal_before_s", "environment", "setup", "extra"),
)


class Script(str):
    """Text of a job script."""

    #: Settings of the site that no template used, for the operator.
    unused: tuple[str, ...] = ()


class _Verbatim(str):
    """Text that is shell code already."""


class _Site:
    """Settings of a site as templates see them; notes those that they use."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._used: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self._used.add(name)
        return getattr(self._scheduler, name)

    def _unused(self) -> tuple[str, ...]:
        """Settings that were given and not used."""
        return tuple(name for name in _FOR_TEMPLATES if name not in self._used and getattr(self._scheduler, name))


def gang_script(name: str, command: Sequence[str], log: Path, resources: Resources, scheduler: Scheduler) -> Script:
    """Write the script of one job: a gang, or a single process.

    Parameters
    ----------
    name : `str`
        Name of the job.
    command : sequence of `str`
        Command of each rank.
    log : `~pathlib.Path`
        Takes the output; its folder, where the job runs, must exist when the job is submitted (see `keep`).
    resources : `Resources`
    scheduler : `Scheduler`

    Raises
    ------
    ScriptError
        The job fits on no node, the name is not allowed, or the site's template has an error.
    """
    run = shlex.join([*launch(resources, scheduler), *_checked(command)])
    able = _Verbatim(shlex.join([scheduler.python, "-P", "-c", _LACKING, *_packages(command, scheduler)]))
    return _render(name, log, _pattern(log), resources, scheduler, run=_Verbatim(run), able=able)


def _packages(command: Sequence[str], scheduler: Scheduler) -> list[str]:
    """Packages that the site's interpreter needs for a command; none for another program."""
    own = list(command) if command[0] == scheduler.python else []
    return [name.partition(".")[0] for option, name in pairwise(own) if option == "-m"]


def array_script(
    name: str, commands: Path, elements: range, log: Path, resources: Resources, scheduler: Scheduler
) -> Script:
    """Write the script of an array: element n runs line n of a file of command lines.

    Parameters
    ----------
    name : `str`
        Name of the array.
    commands : `~pathlib.Path`
        File by `write_commands`.
    elements : `range`
        Lines, from 0; the array's indices are 0 to ``len(elements) - 1``.
    log : `~pathlib.Path`
        ``gang.log`` becomes ``gang.<index>.log``; see `log_of`.
    resources, scheduler
        See `gang_script`; the resources are those of each element.
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
    """Write a script beside its log, ``gang.sh`` beside ``gang.log``; make their folder, as Slurm does not."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = log.with_suffix(".sh")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(script)
    temporary.chmod(0o700)  # a driver's script has variables of its operator
    temporary.replace(path)
    return path


def launch(resources: Resources, scheduler: Scheduler) -> list[str]:
    """Give the launcher of a gang; nothing for a single process.

    Since 22.05 srun does not inherit sbatch's ``--cpus-per-task``: it is repeated.
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
        One rank fits on no node of the site, or the given nodes are too few.
    """
    fits = _fits(resources, scheduler)
    nodes = resources.nodes
    if nodes is None and fits is not None:
        nodes = ceil(resources.ranks / fits)
    if nodes is None and (resources.ranks == 1 or scheduler.memory == "mem"):
        nodes = 1  # memory is that of a node: the number of its ranks must be known
    if nodes is None:
        return None, None
    each = ceil(resources.ranks / nodes)
    if fits is not None and each > fits:
        raise ScriptError(f"{each} ranks a node do not fit: {_sizes(resources, scheduler)}; ask for more nodes")
    return nodes, each


def _fits(resources: Resources, scheduler: Scheduler) -> int | None:
    """Count the ranks that fit on a node of the site; `None` if the site does not say."""
    wanted = ((scheduler.node_cores, resources.cores), (scheduler.node_memory_mib, resources.memory_mib))
    rooms = [room // need for room, need in wanted if room is not None]
    if rooms and not min(rooms):
        raise ScriptError(f"no rank fits on a node: {_sizes(resources, scheduler)}")
    return min(rooms) if rooms else None


def _sizes(resources: Resources, scheduler: Scheduler) -> str:
    room = f"a node has {scheduler.node_memory_mib or 'any'} MiB and {scheduler.node_cores or 'any'} cores"
    return f"a rank takes {resources.memory_mib} MiB and {resources.cores} cores, {room}"


def _memory(resources: Resources, scheduler: Scheduler, each: int | None) -> str:
    """Give the option that asks for memory, in whole MiB; empty if the site refuses it."""
    if scheduler.memory == "mem":
        return f"--mem={resources.memory_mib * (each or 1)}M"
    return f"--mem-per-cpu={ceil(resources.memory_mib / resources.cores)}M" if scheduler.memory != "none" else ""


def _pattern(log: Path) -> str:
    """Write a path for sbatch's ``--output``, where % begins a replacement."""
    if "\\" in str(log) or _CONTROL.search(str(log)):
        raise ScriptError(f"{str(log)!r}: sbatch takes no path with a backslash or a control character")
    return str(log.absolute()).replace("%", "%%")


def _checked(command: Sequence[str]) -> list[str]:
    """Refuse words that do not fit on one line of a script."""
    for word in command:
        if "\n" in word or "\0" in word:
            raise ScriptError(f"{word!r}: an argument of a job holds a line end")
    return list(command)


def _refuse(text: str) -> NoReturn:
    raise ScriptError(text)


def _quoted(value: Any) -> str:
    """Quote a value for the shell, unless it is shell code already."""
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
    """Make a Jinja environment; give it with the name of the site's template, which may extend packaged ones."""
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
    # blocks of super() are quoted already
    jinja.concat = lambda pieces: _Verbatim("".join(pieces))  # type: ignore[method-assign]
    jinja.filters["verbatim"] = _Verbatim
    jinja.globals["refuse"] = _refuse
    return jinja, name
