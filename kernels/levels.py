"""The inputs table: level, noise and saturated fraction of every raw that went in."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import gang, geometry
from kernels.geometry import Amplifier, Detector
from kernels.isr import Reader
from kernels.isrconfig import IsrConfig
from kernels.job import Job, Task
from kernels.publish import sync
from kernels.raw import Frames

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
    """Write one detector's rows (`COLUMNS`) as CSV; a repeated attempt replaces them by equal ones."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    sync(temporary)
    temporary.replace(target)


class Levels:
    """The gang kernel of a table without a product; a piece is one exposure of one detector.

    ``config``: ``isr``, ``inputs_table`` (a folder); task parameters: ``exposures``.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._camera = geometry.camera(job.camera)
        self._isr = IsrConfig.from_plain(job.config["isr"])
        self._frames = Frames()

    def weights(self, task: Task) -> Sequence[float]:
        """Every exposure costs the same."""
        return [1.0] * len(task.inputs["raw"])

    def compute(self, task: Task, piece: int) -> list[list[object]]:
        """The table's rows of one exposure."""
        assert task.detector is not None
        detector, rows = self._camera.detectors[task.detector], []
        for amplifier in detector.amplifiers:
            reader = Reader(self._frames, detector, amplifier, self._isr, self._camera.unit, None, None)
            window = reader.window(0, amplifier.data.ny, 0)
            block = reader.read(self._job.files[task.inputs["raw"][piece]], 0.0, window)
            rows.append(row(task.parameters["exposures"][piece], detector, amplifier, [block.samples], block.saturated))
        return rows

    def finish(self, task: Task, results: Sequence[list[list[object]]]) -> dict[str, Any]:
        """Write one detector's rows."""
        write(path_of(self._job, task), [row for rows in results for row in rows])
        return {"inputs_used": len(results)}


def execute(job: Job, comm: Any) -> int:
    """Measure every task's exposures; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Levels(job))
