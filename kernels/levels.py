"""The inputs table: level, noise and saturated fraction of every raw that went in."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import gang
from kernels.framekernel import FrameKernel
from kernels.geometry import Amplifier, Detector
from kernels.job import Job, Task
from kernels.publish import PublishError, reason, sync

COLUMNS = ("exposure", "detector", "amplifier", "level", "noise", "saturated")


def summarise(samples: Sequence[NDArray[np.float64]], saturated: int, pixels: int) -> tuple[float, float, float]:
    """Level (ADU above overscan), noise (ADU) and saturated fraction of one amplifier of one frame.

    Parameters
    ----------
    samples : sequence of `numpy.ndarray` [row, 2]
        Of every row block, in the order of the raw rows.
    saturated, pixels : `int`
        Numbers of pixels.
    """
    rows = np.concatenate(samples)
    return float(np.median(rows[:, 0])), float(np.sqrt(np.mean(rows[:, 1]))), saturated / pixels


def row(
    exposure: int, detector: Detector, amplifier: Amplifier, samples: Sequence[NDArray[np.float64]], saturated: int
) -> list[object]:
    """One row of the table (`COLUMNS`)."""
    summary = summarise(samples, saturated, amplifier.data.nx * amplifier.data.ny)
    return [exposure, detector.id, amplifier.name, *(f"{value:.6g}" for value in summary)]


def path_of(job: Job, task: Task) -> str:
    """Where a task's rows go: a file a detector under ``config["inputs_table"]``."""
    return f"{job.config['inputs_table']}/{task.task.replace(':', '_')}.csv"


def write(path: str, rows: Sequence[Sequence[object]]) -> None:
    """Write one detector's rows (`COLUMNS`) as CSV; a repeated attempt replaces them by equal ones.

    Raises
    ------
    PublishError
        The folder cannot be written, the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        sync(temporary)
        temporary.replace(target)
    except OSError as error:
        raise PublishError(f"{path}: cannot be written: {reason(error, target.parent)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


class Levels(FrameKernel):
    """The gang kernel of a table without a product; a piece is one exposure of one detector.

    ``config``: ``isr``, ``inputs_table`` (a folder); task parameters: ``exposures``.
    """

    def weights(self, task: Task) -> Sequence[float]:
        """Every exposure costs the same."""
        return [1.0] * len(task.inputs["raw"])

    def compute(self, task: Task, piece: int) -> list[list[object]]:
        """The table's rows of one exposure."""
        exposure, file, rows = task.parameters["exposures"][piece], self.raws(task)[piece], []
        for whole in self.whole(task):
            block = whole.reader.read(file, 0.0, whole.window)
            rows.append(row(exposure, self.detector(task), whole.amplifier, [block.samples], block.saturated))
        return rows

    def finish(self, task: Task, results: Sequence[list[list[object]]]) -> dict[str, Any]:
        """Write one detector's rows."""
        write(path_of(self.job, task), [row for rows in results for row in rows])
        return {"inputs_used": len(results)}


def execute(job: Job, comm: Any) -> int:
    """Measure every task's exposures; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Levels(job))
