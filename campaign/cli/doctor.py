"""`campaign doctor`: checks the installation on this machine, with advice for each fault."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from campaign.console import rich_console, visible
from campaign.errors import ConfigurationError
from campaign.jobs import launch
from campaign.jobs.logs import last_words

DISTRIBUTION = "drp-campaign"
FOLDERS = ("campaign", "kernels", "slurm", "templates")
HOME = Path(__file__).resolve().parents[2]
PYTHON = (sys.executable, "-P")
RANKS = 2
PATIENCE = 60.0
"""Time for a check, second; compiling all kernels gets ten times as much."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    #: Subject of the check.
    name: str
    #: Whether it works.
    ok: bool
    #: A version, a place, or the first error.
    value: str
    #: Remedy; empty where all is well.
    advice: str = ""


def examine(environment: Mapping[str, str], *, warm: bool = False) -> list[Finding]:
    """Check everything that a campaign needs on this machine.

    Parameters
    ----------
    environment : `~collections.abc.Mapping` [`str`, `str`]
        The operator's variables, of which ``SCRATCH`` and ``REPO`` are used.
    warm : `bool`, optional
        Compile all kernels into the numba cache, so that no run has to.

    Returns
    -------
    findings : `list` [`Finding`]
        In the order of an operator's questions; each that is not ``ok`` has advice.
    """
    findings = [Finding("python", True, f"{platform.python_version()} ({sys.executable})"), _machine()]
    findings += [*_distributions(), *_plugins(), *_folders(), _world(), _butler()]
    findings.append(_writable("scratch", environment.get("SCRATCH") or tempfile.gettempdir(), "export SCRATCH"))
    if "REPO" in environment:
        findings.append(_repository(environment["REPO"]))
    if warm:
        findings.append(_warm(environment))
    return findings


def show(findings: Sequence[Finding], as_json: bool = False) -> None:
    """Print the findings on standard output.

    Parameters
    ----------
    findings : `~collections.abc.Sequence` [`Finding`]
        Findings of `examine`.
    as_json : `bool`, optional
        One document, ``{"ok": ..., "findings": [{"name", "ok", "value", "advice"}]}``, instead of the table.
    """
    if as_json:
        print(json.dumps({"ok": all(f.ok for f in findings), "findings": [asdict(f) for f in findings]}, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        text = f"{finding.value}\n-> {finding.advice}" if finding.advice else finding.value
        mark = Text("ok", "green") if finding.ok else Text("NO", "bold red")
        table.add_row(mark, Text(visible(finding.name)), Text(visible(text)))
    rich_console(sys.stdout).print(table)


def _machine() -> Finding:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return Finding("machine", True, f"{launch.cores()} cores, {memory:.1f} GiB of memory")


def _distributions() -> Iterator[Finding]:
    """Compare installed distributions with the requirements of our own."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        yield Finding(DISTRIBUTION, False, "not installed", f"pip install '{DISTRIBUTION}[local]'")
        return
    yield Finding(DISTRIBUTION, True, metadata.version(DISTRIBUTION))
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _distribution(requirement.name, str(requirement.specifier), requirement.specifier.contains)


def _distribution(name: str, wanted: str, accepts: Callable[[str], bool]) -> Finding:
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install '{name}{wanted}'")
    if accepts(found):
        return Finding(name, True, found)
    return Finding(name, False, f"{found}, not {wanted}", f"pip install '{name}{wanted}'")


def _plugins() -> Iterator[Finding]:
    """List distributions that bring kinds, kernels or schedulers, and try the kinds and schedulers."""
    from campaign import plugins
    from campaign.kinds import table as kinds
    from campaign.schedulers import table as schedulers

    try:
        for name, version in plugins.distributions().items():
            yield Finding(f"plug-in {name}", True, f"{version}: {', '.join(plugins.parts_of(name))}")
        kinds.kinds()
        for entry in plugins.entries(plugins.SCHEDULERS):
            schedulers.kind(entry.name)
    except ConfigurationError as error:
        yield Finding("plug-ins", False, error.what, error.do)


def _folders() -> Iterator[Finding]:
    """Check the place of each of our packages: other distributions may install packages of the same names."""
    for name in FOLDERS:
        spec = find_spec(name)
        places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or []]
        if places == [HOME / name]:
            yield Finding(name, True, str(places[0]))
            continue
        owners = sorted(set(metadata.packages_distributions().get(name, [])) - {DISTRIBUTION})
        advice = f"pip uninstall {' '.join(owners)}" if owners else "take that folder out of PYTHONPATH"
        found = ", ".join(map(str, places)) or "nowhere"
        yield Finding(name, False, f"{found}, not {HOME / name}", advice)


def _world() -> Finding:
    """Start a real gang: under a mismatched MPI every rank silently is a world of one."""
    try:
        launcher = launch.mpiexec()
    except ConfigurationError as error:
        return Finding("MPI", False, error.what, error.do)
    command = (launcher, "-n", str(RANKS), *PYTHON, "-m", "mpi4py", "-m", "kernels.run", "--world")
    ok, said = _start(command)
    if not ok:
        return Finding("MPI", False, said, f"run it by hand: {shlex.join(command)}")
    size = json.loads(said.splitlines()[-1])["size"]
    if size != RANKS:
        advice = f"mpi4py uses another MPI than {launcher}: pip install --force-reinstall mpi4py mpich"
        return Finding("MPI", False, f"{RANKS} ranks see a world of {size}", advice)
    return Finding("MPI", True, f"{launcher}: {RANKS} ranks see each other")


def _butler() -> Finding:
    ok, said = _start((*PYTHON, "-c", "import campaign.butler.repository, lsst.daf.butler as b; print(b.__version__)"))
    return Finding("Butler", ok, said, "" if ok else "pip install lsst-daf-butler")


def _writable(name: str, folder: str, advice: str) -> Finding:
    """Write and fsync a block: a full or read-only disk fails only then."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(name, False, f"{folder}: {error.strerror}", f"{advice} to a folder that you can write to")
    return Finding(name, True, f"{folder}: {shutil.disk_usage(folder).free / 2**30:.1f} GiB free")


def _repository(repo: str) -> Finding:
    if Path(repo).is_dir():
        return _writable("repository", repo, "set REPO")
    return Finding("repository", True, f"{repo}: not a folder here; not looked at")


def _warm(environment: Mapping[str, str]) -> Finding:
    begin = time.monotonic()
    ok, said = _start((*PYTHON, "-m", "kernels.run", "--warm"), 10 * PATIENCE)
    if not ok:
        return Finding("numba cache", False, said, "export NUMBA_CACHE_DIR to a folder that you can write to")
    place = environment.get("NUMBA_CACHE_DIR") or (HOME / "kernels" if os.access(HOME / "kernels", os.W_OK) else "")
    return Finding("numba cache", True, f"{place or 'the user cache'}: warm after {time.monotonic() - begin:.1f} s")


def _start(command: Sequence[str], patience: float = PATIENCE) -> tuple[bool, str]:
    """Run a command in a kernel's environment; kill it with its children when it does not answer.

    Returns
    -------
    ok : `bool`
        Whether it ended with 0.
    said : `str`
        Standard output, or the last line of standard error.
    """
    with subprocess.Popen(
        command,
        env=launch.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complaint = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            return False, f"no answer in {patience:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0:
        return True, said.strip()
    return False, last_words(complaint.splitlines()) or f"exit code {process.returncode}"
