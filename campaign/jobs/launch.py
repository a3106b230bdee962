"""Starts kernels on this machine: one process, or a gang by the environment's own mpiexec."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.jobs.logs import complaint, lines_of

PR_SET_PDEATHSIG = 1
#: Free space of a disk that counts as full, byte: the last blocks are the superuser's.
NO_ROOM = 1 << 16
#: One thread a rank: ranks are the parallelism.
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
#: Restricts the ranks of a gang to shared memory; otherwise each would listen on the network.
SHARED_MEMORY = {"UCX_TLS": "self,sm"}
#: Variable with the job's name, in every process of the job.
JOB = "CAMPAIGN_JOB"
#: CPU time that the start of a rank takes, second: interpreter, libraries, MPI, machine code.
START_SECONDS = 1.1
#: Largest part of a job's work that the start of its ranks may cost, where there is more than one.
START_SHARE = 0.1
INHERITED = ("PMI_", "PMIX_", "OMPI_", "MPI_", "SLURM_", "SBATCH_", "HYDI_", "HYDRA_")


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def worthwhile(seconds: float) -> int:
    """Give the most MPI ranks whose start is worth it: it costs at most `START_SHARE` of the work, or there is one.

    Parameters
    ----------
    seconds : `float`
        CPU time of the job's work, without the start of ranks.
    """
    return max(1, int(START_SHARE * seconds / START_SECONDS))


def mpiexec() -> str:
    """Find the launcher of this Python environment; ``PATH`` is never searched, its MPI may be another one.

    Raises
    ------
    ConfigurationError
        There is none.
    """
    path = Path(sysconfig.get_path("scripts")) / "mpiexec"
    if not path.exists():
        raise ConfigurationError(
            f"no mpiexec in this Python environment ({path})",
            do="pip install 'drp-campaign[local]', or use --ranks 1",
        )
    return str(path)


def environment(name: str = "") -> dict[str, str]:
    """Give the environment of a kernel: one thread a rank, nothing of a surrounding MPI or batch job."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(INHERITED)}
    return {**kept, **THREADS, **SHARED_MEMORY, "PYTHONSAFEPATH": "1", JOB: name}


def _named(stem: str) -> Iterator[int]:
    """Find processes of jobs whose names begin with ``stem``, but for those that descend from this process."""
    mark = f"{JOB}={stem}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # another user's, or gone
                continue
            if any(word.startswith(mark) for word in words) and os.getpid() not in _ancestry(int(entry.name)):
                yield int(entry.name)


def _ancestry(pid: int) -> list[int]:
    """Give a process and its ancestors."""
    found = []
    while pid > 1:
        found.append(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def end_named(stem: str) -> int:
    """Kill all processes of jobs whose names begin with ``stem``, wait until they are gone, and give their number."""
    found = set(_named(stem))
    ended = len(found)
    while found:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        found = set(_named(stem))
    return ended


def kernel(job: Path) -> list[str]:
    """Module, and its argument, that runs a job file."""
    return ["kernels.run", str(job)]


def command(module: Sequence[str], ranks: int, python: str = sys.executable) -> list[str]:
    """Give the command line that runs a Python module with its arguments, as one process or as MPI ranks."""
    if ranks == 1:
        return [python, "-P", "-m", *module]
    return [mpiexec(), "-n", str(ranks), python, "-P", "-m", "mpi4py", "-m", *module]


def _die_with_parent() -> Callable[[], None]:
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def launch(
    module: Sequence[str],
    ranks: int,
    log: Path,
    living: set[subprocess.Popen[bytes]] | None = None,
    name: str = "",
    python: str = sys.executable,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run a Python module and wait for it.

    Parameters
    ----------
    module : sequence of `str`
        Name of the module, and its arguments; see `kernel`.
    ranks : `int`
        MPI ranks; 1 is a plain process.
    log : `Path`
        Takes the output.
    living : `set`, optional
        Holds the process as long as it lives, so that another thread can end it.
    name : `str`
        Of the job; see `end_named`.
    python : `str`
        Interpreter.
    variables : mapping
        Added to the environment.

    Returns
    -------
    code : `int`
        Of a kernel: 0 done, 1 tasks failed (their journal says why), else the job itself failed.

    Raises
    ------
    OSError
        The process cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(module, ranks, python),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(name), **variables},
            start_new_session=True,  # a terminal's ^C is for the driver
            preexec_fn=_die_with_parent(),
        )
        living = set() if living is None else living
        living.add(process)
        try:
            return process.wait()
        except BaseException:  # an operator's ^C too: nothing is left running
            process.kill()
            process.wait()
            raise
        finally:
            living.discard(process)


def run_job(job: Path, ranks: int, log: Path) -> int:
    """Run a job file with a kernel that must not fail as a whole; see `launch`.

    Raises
    ------
    SubmissionRefused
        With the job's own error.
    """
    code = launch(kernel(job), ranks, log)
    if code not in (0, 1):
        raise SubmissionRefused(cause(log, code), where=f"kernel {job.stem}", do=f"the whole output is in {_kept(log)}")
    return code


def _kept(log: Path) -> Path:
    """Copy a log out of its folder, which is usually temporary."""
    with tempfile.NamedTemporaryFile("wb", prefix=f"campaign-{log.stem}-", suffix=".log", delete=False) as file:
        file.write(log.read_bytes())
    return Path(file.name)


def cause(log: Path, code: int) -> str:
    """Tell why a job died, from its log and its exit code."""
    return complaint(lines_of(log)) or f"the kernel ended with code {code}{_no_room(log.parent)}"


def _no_room(folder: Path) -> str:
    """Report a full disk, which may have kept a job from giving its reason."""
    return f": no space left on the disk of {folder}" if shutil.disk_usage(folder).free < NO_ROOM else ""
