"""The machine of a benchmark, and the software."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: From the narrowest to the widest.
SIMD = ("sse4_2", "avx", "avx2", "avx512f")
LIBRARIES = (
    "numba", "llvmlite", "numpy", "fitsio", "mpi4py", "mpich", "astropy", "ccdproc", "Bottleneck", "imagecodecs",
    "rustfits",
)  # fmt: skip


def _field(path: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", Path(path).read_text(), re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def simd() -> list[str]:
    """The vector instructions that this processor has, the widest last."""
    flags = set(_field("/proc/cpuinfo", "flags").split())
    return [name for name in SIMD if name in flags]


def available_gib() -> float:
    """Memory that a process could have now."""
    return int(_field("/proc/meminfo", "MemAvailable").split()[0]) / 2**20


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """Git's name of the checked-out revision, with ``+`` if it was changed; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def describe() -> dict[str, Any]:
    """All of it."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "simd": simd(),
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": [round(value, 2) for value in os.getloadavg()],
        "versions": _versions(),
        "revision": revision(),
    }


def peak_mib() -> float:
    """Largest resident memory of this process so far (VmHWM); a parent's does not count."""
    return int(_field("/proc/self/status", "VmHWM").split()[0]) / 1024
