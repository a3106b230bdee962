"""The inputs table: level, noise and saturated fraction of every raw that went in."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import gang
from kernels.framekernel import FrameKernel
from kernels.geometry import Detector
from kernels.job import Job, Task
from kernels.publish import PublishError, reason, sync

COLUMNS = ("exposure", "detector", "amplifier", "level", "noise", "saturated", "overscan", "blank")


class Found:
    """Samples and saturated pixels of a detector's amplifiers and frames, added up block by block."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._samples: dict[int, list[NDArray[np.float64]]] = {}
        self._saturated: dict[int, list[NDArray[np.int64]]] = {}
        self._blank: dict[int, list[NDArray[np.int64]]] = {}

    def add(
        self, amplifier: int, samples: NDArray[np.float64], saturated: NDArray[np.int64], blank: NDArray[np.int64]
    ) -> None:
        """Add an amplifier's next rows.

        Parameters
        ----------
        samples : `numpy.ndarray` [frame, sampled row, 3], float64
            Median signal (ADU above overscan), noise variance (ADU^2) and level of the overscan (ADU).
        saturated, blank : `numpy.ndarray` [frame], int64
            Pixels.
        """
        self._samples.setdefault(amplifier, []).append(samples.copy())  # a piece is good until the next one
        self._saturated.setdefault(amplifier, []).append(saturated.copy())
        self._blank.setdefault(amplifier, []).append(blank.copy())

    @property
    def blank(self) -> int:
        """Pixels of all frames and amplifiers that hold no value."""
        return sum(int(part.sum()) for parts in self._blank.values() for part in parts)

    def rows(self, exposures: Sequence[int]) -> list[list[object]]:
        """The table's rows (`COLUMNS`): medians of the signals, means of the variances, amplifier by amplifier."""
        table: list[list[object]] = []
        for k, parts in sorted(self._samples.items()):
            amplifier, samples = self._detector.amplifiers[k], np.concatenate(parts, axis=1)
            level, noise = _of_rows(np.median, samples[:, :, 0]), np.sqrt(_of_rows(np.mean, samples[:, :, 1]))
            share, empty = (
                np.sum(counts[k], axis=0) / (amplifier.data.nx * amplifier.data.ny)
                for counts in (self._saturated, self._blank)
            )
            overscan = np.median(samples[:, :, 2], axis=1)
            for exposure, *values in zip(exposures, level, noise, share, overscan, empty, strict=True):
                table.append([exposure, self._detector.id, amplifier.name, *(f"{value:.7g}" for value in values)])
        return table


def _of_rows(average: Callable[..., Any], samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """An average [frame] of samples [frame, row] less those that are no number; 0 where none is."""
    good = np.isfinite(samples)
    if good.all():
        return np.asarray(average(samples, axis=1))
    return np.array([average(row[some]) if some.any() else 0.0 for row, some in zip(samples, good, strict=True)])


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
        """Cost of each exposure: the bytes that are read."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> list[list[object]]:
        """The table's rows of one exposure."""
        found = Found(self.detector(task))
        for frame, _ in self.corrected(task, self.raws(task)[piece], 0.0):
            found.add(frame.channel.number, frame.samples, frame.saturated, frame.blank)
        return found.rows([task.parameters["exposures"][piece]])

    def finish(self, task: Task, results: Iterable[list[list[object]]]) -> dict[str, Any]:
        """Write one detector's rows."""
        write(path_of(self.job, task), [row for rows in results for row in rows])
        return {"inputs_used": len(task.inputs["raw"])}


def execute(job: Job, comm: Any) -> int:
    """Measure every task's exposures; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Levels(job))
