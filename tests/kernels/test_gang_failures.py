"""A task fails early while other ranks still send it large pieces: the job ends, other tasks are published."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.processes

SCRIPT = """
import json, sys, time
import numpy as np
from mpi4py import MPI
from kernels.jobs import gang; from kernels.jobs import job
from kernels.errors import DataError

class Large:
    def __init__(self, failing): self.failing = failing
    def weights(self, task): return [1.0] * len(task.inputs["raw"])
    def compute(self, task, piece):
        if f"{task.task}{piece}" in self.failing:
            raise DataError("/x", f"is corrupt on rank {MPI.COMM_WORLD.rank}")
        until = time.process_time() + (BURNT if "burn" in self.failing else 0)
        while time.process_time() < until:
            pass
        return np.full(500_000, piece, np.int32)
    def finish(self, task, results):
        if task.task in self.failing:
            raise DataError("/y", "is corrupt before any piece is looked at")
        return {"means": [float(piece.mean()) for piece in results]}

BURNT = 0.25
plain = json.load(open(sys.argv[1]))
failed = gang.execute(job.from_plain(plain), MPI.COMM_WORLD, Large(sys.argv[2:]))
sys.exit(MPI.COMM_WORLD.allreduce(failed))
"""


def last_events(lab: Any, ranks: int, pieces: dict[str, int], failing: str, code: int = 1) -> dict[str, dict[str, Any]]:
    """Run tasks of some pieces of 2 MB each over real ranks; the last event of each task."""
    script = lab.folder / "large.py"
    script.write_text(SCRIPT)
    tasks = [{"task": t, "inputs": {"raw": ["/x"] * n}} for t, n in pieces.items()]
    plain = {**lab.job("combine", tasks), "ranks": ranks}
    path = lab.write_job(plain)
    start = lab.command(path, ranks)
    command = [*start[: start.index("-m") + 2], str(script), str(path), failing]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return {e["task"]: e for e in lab.journal(plain)}


@pytest.mark.parametrize("failing", ["a:", "b:"])
def test_an_owner_that_fails_first_does_not_hold_up_who_sends_to_it(lab: Any, failing: str) -> None:
    """Three ranks of two pieces: the middle one lends to the first, and borrows from the last."""
    last = last_events(lab, 3, {"a:": 3, "b:": 3}, failing)
    (other,) = {"a:", "b:"} - {failing}
    assert last[failing]["event"] == "failed"
    assert last[failing]["detail"]["error"] == "/y: is corrupt before any piece is looked at"
    assert last[other]["event"] == "published"
    assert last[other]["detail"]["means"] == [0.0, 1.0, 2.0]


def test_a_piece_of_a_middle_rank_fails_its_task_alone(lab: Any) -> None:
    """Ten pieces on four ranks: the first task is on all of them, the second on the last alone."""
    last = last_events(lab, 4, {"a:": 9, "b:": 1}, "a:3")
    assert last["a:"]["event"] == "failed"
    assert last["a:"]["detail"]["kind"] == "DataError"
    assert last["a:"]["detail"]["error"] in {f"/x: is corrupt on rank {rank}" for rank in (1, 2)}
    assert last["b:"]["event"] == "published" and last["b:"]["detail"]["means"] == [0.0]


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_cost_is_that_of_all_ranks_without_their_waiting(lab: Any, ranks: int) -> None:
    """Five pieces of 0.25 s: whoever makes them, the task has cost 1.25 s, though its owner waits for the others."""
    last = last_events(lab, ranks, {"a:": 5}, "burn", code=0)
    assert last["a:"]["detail"]["cpu_s"] == pytest.approx(1.25, abs=0.2)
