"""Cost of whole processes, their children's children included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from campaign.jobs.launch import command as kernel_command
from campaign.jobs.launch import environment as kernel_environment
from campaign.jobs.launch import kernel
from tests.benchmarks.machine import ROOT

LONGEST_S = 900.0
#: Makes numba compile for x86-64-v3, which has AVX2 and no AVX-512.
HASWELL = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+f16c,+movbe"}


@dataclass(frozen=True)
class Usage:
    """Wall-clock and CPU time, second."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s, CPU {self.cpu:.2f} s"


def environment(**more: str) -> dict[str, str]:
    """One thread, nothing of a surrounding MPI or batch job, and this checkout's modules, compiled once."""
    return {**kernel_environment(), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **more}


def avx2_environment(scratch: Path) -> dict[str, str]:
    """The same for a process that compiles for processors without AVX-512, into a cache of its own."""
    return environment(NUMBA_CACHE_DIR=str(scratch / "numba-avx2"), **HASWELL)


def module(name: str, *arguments: str | Path) -> list[str]:
    """The command line of a module of this folder."""
    return [sys.executable, "-P", "-m", f"tests.benchmarks.{name}", *map(str, arguments)]


def _complaint(line: Sequence[str], code: int, said: str) -> RuntimeError:
    """Give a process's last line, usually the reason of its failure; then the command and more lines."""
    last = said.strip().rpartition("\n")[2] or "it said nothing"
    return RuntimeError(f"{last}\n{' '.join(map(str, line))} ended with {code}:\n{said[-2000:]}")


def run(
    line: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    longest: float = LONGEST_S,
) -> Usage:
    """Run a process and wait for it; raise `RuntimeError` with its last lines if it fails or hangs."""
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        child = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment() if env is None else env,
            cwd=cwd,
            start_new_session=True,
        )
        timer = threading.Timer(longest, os.killpg, (child.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        finally:
            timer.cancel()
        wall = time.monotonic() - began
        if child.returncode:
            log.seek(0)
            raise _complaint(line, child.returncode, log.read().decode(errors="replace"))
    return Usage(wall, used.ru_utime + used.ru_stime)


def run_kernel(job: Path, ranks: int) -> Usage:
    """Run a job file as the launcher does."""
    return run(kernel_command(kernel(job), ranks))


def ask(line: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Run a process that answers on its standard output."""
    done = subprocess.run(
        line,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment() if env is None else env,
        timeout=LONGEST_S,
    )
    if done.returncode:
        raise _complaint(line, done.returncode, done.stderr)
    return done.stdout
