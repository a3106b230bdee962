"""One rank of a kernel job, which prints its resources.

``python -P -m tests.benchmarks.rank HOW FOLDER JOB``, under mpiexec with ``-m
mpi4py``; writes ``FOLDER/<rank>.json``.  HOW is ``loaded`` (start-up, imports and the
loading of compiled code are left out of the CPU time) or ``plain``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

from kernels import run
from tests.benchmarks.machine import peak_mib


def _load() -> None:
    from kernels.warm import compile_all

    importlib.import_module("kernels.products.combine")
    compile_all()


def _read_bytes() -> int:
    """Bytes that this process has read so far, from wherever."""
    with open("/proc/self/io", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("rchar")).split()[1])


def main() -> int:
    """Run the job, write the report, return the job's exit code."""
    how, folder, job = sys.argv[1:]
    comm = run._world() if run.started_by_mpi() else None
    if how == "loaded":
        _load()
    if comm:
        comm.Barrier()
    began, read = time.process_time(), _read_bytes()
    code = run.main([job])
    ended = time.process_time()
    report = {"cpu": ended - began, "whole_cpu": ended, "read": _read_bytes() - read}
    report |= {"peak_mib": peak_mib(), "pid": os.getpid()}
    Path(folder, f"{comm.rank if comm else 0}.json").write_text(json.dumps(report))
    return code


if __name__ == "__main__":
    sys.exit(main())
