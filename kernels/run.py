"""Run a job: ``mpiexec -n 4 python -P -m mpi4py -m kernels.run job.json``.

``python -P -m kernels.run job.json`` runs it serially.  An exception on one rank
ends the whole job with that rank's error.  Exit codes: 0 done, 1 tasks failed
(the journal says why), else `kernels.errors.EXIT_CODES`: 3 the job was refused,
65 its data cannot be used, 70 a defect, 74 its events cannot be recorded.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kernels import table
from kernels.errors import EXIT_CODES, Cause, JobError, KernelError
from kernels.jobs.job import Job, load
from kernels.jobs.ports import shut_inherited
from kernels.killpoints import disarm

#: Module of each kernel of this package.
KERNELS = table.KERNELS
FAILED_TASKS = 1
#: Time for rank 0 to report an error of all ranks, second.
GRACE_S = 2.0
#: Time for the launcher to forward a rank's last output, second.
HEARD_S = 0.5
BLAS = "scipy.linalg.cython_blas"
SHARED = "/dev/shm/mpich_shm_"
WORLD_VARIABLES = ("PMI_SIZE", "PMIX_SIZE", "OMPI_COMM_WORLD_SIZE")


def _kernel(name: str) -> Callable[[Job, Any], int]:
    entry: Callable[[Job, Any], int] = table.find(name).execute
    if "numba" in sys.modules:
        _start_numba()
    return entry


def _start_numba() -> None:
    """Load numba's late imports without scipy's BLAS, which no kernel uses; this saves 0.1 s and 20 MiB."""
    from numba.core.registry import cpu_target

    if BLAS in sys.modules:
        return
    sys.modules[BLAS] = None  # type: ignore[assignment]
    try:
        cpu_target.target_context.refresh()
    finally:
        del sys.modules[BLAS]


def _world() -> Any:
    from mpi4py import MPI

    return MPI.COMM_WORLD


def _unlink_shared(comm: Any) -> None:
    """Remove the names of MPICH's shared memory, which ranks that are killed would leave on their node."""
    comm.Barrier()  # every rank of this node has attached it
    with open("/proc/self/maps", encoding="utf-8") as maps:
        names = {line.split(maxsplit=5)[5].rstrip() for line in maps if SHARED in line}
    for name in names:
        with suppress(FileNotFoundError):  # another rank was first
            os.unlink(name)


def started_by_mpi() -> bool:
    """Whether a launcher started this process as one of several."""
    return any(int(os.environ.get(name, "1")) > 1 for name in WORLD_VARIABLES)


def _read(path: str, comm: Any) -> Job:
    """Read the job on rank 0, and send it, or the error, to every rank."""
    answer: Job | JobError
    if comm is None:
        return load(path)
    answer = None  # type: ignore[assignment]
    if comm.rank == 0:
        try:
            answer = load(path)
        except JobError as error:
            answer = error
    answer = comm.bcast(answer, root=0)
    if isinstance(answer, JobError):
        raise answer
    return answer


def _check_world(job: Job, size: int) -> None:
    """Refuse a launcher that starts singletons, each of which would run the whole job."""
    if job.ranks != size:
        raise JobError(f"{job.ranks} ranks were asked for, the MPI world has {size}: launcher and MPI library differ")


def run(path: str, ranks: int | None = None) -> int:
    """Run one job file.

    Parameters
    ----------
    path : `str`
        The job.
    ranks : `int`, optional
        Number of ranks, instead of the job's, to run it by hand in another world.

    Returns
    -------
    failed : `int`
        Tasks that failed, over all ranks.

    Raises
    ------
    JobError
        The job cannot be read, or the MPI world is of another size.
    """
    comm = _world() if started_by_mpi() else None
    if comm:
        _unlink_shared(comm)
        shut_inherited()
    job = _read(path, comm)
    size = comm.size if comm else 1
    if job.attempt > 1:
        disarm()
    _check_world(job if ranks is None else Job(**{**vars(job), "ranks": ranks}), size)
    failed = _kernel(job.kernel)(job, comm)
    return int(comm.allreduce(failed)) if comm else failed


def execute(path: str) -> int:
    """Run a job file serially, as a Dask worker does; return the number of failed tasks.

    Raises
    ------
    JobError
        The job cannot be read, or asks for more than one rank.
    """
    job = load(path)
    if job.attempt > 1:
        disarm()
    _check_world(job, 1)
    return _kernel(job.kernel)(job, None)


def _warm() -> None:
    """Compile every kernel into numba's cache, so that no job needs to."""
    from kernels.warm import compile_all

    compile_all()


def _say(text: str) -> None:
    """Print why a job ends; if the disk of its log is full, the exit code must do."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _end(code: int) -> int:
    """End the whole job, not this rank alone."""
    if started_by_mpi():
        time.sleep(HEARD_S)  # Abort would end the launcher before it forwards the last output
        _world().Abort(code)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="kernels.run", description=__doc__)
    parser.add_argument("job", nargs="?", help="job file (JSON)")
    parser.add_argument("--ranks", type=int, help="size of the MPI world, where it is not the job's")
    parser.add_argument("--warm", action="store_true", help="fill numba's cache and stop")
    parser.add_argument("--world", action="store_true", help="print the size of the MPI world and stop")
    options = parser.parse_args(arguments)
    if options.warm:
        _warm()
        return 0
    if options.world:
        comm = _world()
        if comm.rank == 0:
            print(json.dumps({"size": comm.size}))
        return 0
    if not options.job:
        parser.error("a job file is needed")
    try:
        return FAILED_TASKS if run(options.job, options.ranks) else 0
    except KernelError as error:
        if started_by_mpi() and _world().rank:  # rank 0 reports an error of all ranks, and ends the job
            time.sleep(GRACE_S)
        _say(f"error: {error}")
        return _end(EXIT_CODES[error.cause])
    except Exception:  # a defect, for which Python's own exit code would mean "tasks failed"
        _say(traceback.format_exc())
        return _end(EXIT_CODES[Cause.CODE])


if __name__ == "__main__":
    ended = main()
    gc.disable()  # a last search for garbage would go through all of numba
    gc.freeze()
    sys.exit(ended)
