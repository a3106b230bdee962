"""Normalisation of a flat's levels over the whole focal plane: one scale an exposure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.errors import DataError
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.flatlevels import LIT, read_json, write_json

KERNEL: Final = "flat_normalise"


def solve(
    mean: NDArray[np.float64], count: NDArray[np.float64], iterations: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split levels into a factor an exposure and a factor a detector.

    Alternates means of ``log mean[detector, exposure]``, weighted by the
    counts, over detectors and exposures; each iteration normalises the
    detectors' factors to a weighted mean of 1 (the scheme of cp_pipe).

    Parameters
    ----------
    mean, count : `numpy.ndarray` [detector (or amplifier), exposure], float64

    Returns
    -------
    exposure_scale : `numpy.ndarray` [exposure]
        In the unit of ``mean``.
    detector_scale : `numpy.ndarray` [detector]
        Relative, with weighted mean 1; 1 for a detector that was never measured.
    """
    log = np.log(np.where(count > 0, mean, 1))  # an unmeasured mean is no number, and has no weight
    by_detector = count.sum(axis=1)
    of_detector = np.maximum(by_detector, 1)

    def exposures(g: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(((log - g[:, np.newaxis]) * count).sum(axis=0) / count.sum(axis=0))

    g = np.zeros(len(mean))
    e = exposures(g)
    for _ in range(iterations):
        g = ((log - e) * count).sum(axis=1) / of_detector
        e = exposures(g)
        g -= np.log((np.exp(g) * by_detector).sum() / by_detector.sum())
    return np.exp(exposures(g)), np.exp(np.where(by_detector > 0, g, 0))


@dataclass(frozen=True)
class Row:
    """Levels and counts of a detector, or an amplifier, in all exposures; a missing level has no weight."""

    name: str
    mean: NDArray[np.float64]
    count: NDArray[np.float64]


def _rows(table: dict[str, Any], level: str, exposures: Sequence[int]) -> list[Row]:
    """Read a detector's row, or its amplifiers' rows, of the matrix for `solve`."""
    at = [exposures.index(e) for e in table["exposures"]]
    if level == "AMP":
        names = [f"{table['detector']}:{a}" for a in table["amplifiers"]]
        means, counts = np.array(table["mean"]).T, np.array(table["count"]).T
    else:
        names = [str(table["detector"])]
        means, counts = np.array([table["detector_mean"]]), np.array([table["detector_count"]])
    rows, usual = [], np.median(np.nan_to_num(means), axis=0)
    for name, some_mean, some_count in zip(names, means, counts, strict=True):
        mean, count = np.ones(len(exposures)), np.zeros(len(exposures))
        lit = np.asarray(some_mean) > np.maximum(0, LIT * usual)  # the logarithm of a dead amplifier is noise
        mean[at], count[at] = np.where(lit, some_mean, 1), np.where(lit, some_count, 0)
        rows.append(Row(name, mean, count))
    return rows


class Normalise(gang.Kernel):
    """The serial kernel of flatNormalise: one scale an exposure from all detectors' levels.

    ``config``: ``level`` (DETECTOR | AMP), ``iterations``, ``permissions``; input ``flatMeasure`` of
    every detector; output ``flatNormalization``.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    def compute(self, task: Task, piece: int) -> dict[str, Any]:
        """Solve for the scales."""
        tables = [read_json(self._job.files[key].path) for key in task.inputs["flatMeasure"]]
        exposures, units = sorted({e for t in tables for e in t["exposures"]}), sorted({t["unit"] for t in tables})
        if len(units) > 1:
            raise DataError(self._job.files[task.inputs["flatMeasure"][0]].path, f"units are mixed: {units}")
        level, iterations = self._job.config["level"], int(self._job.config["iterations"])
        rows = [row for table in tables for row in _rows(table, level, exposures)]
        scale, relative = solve(np.array([r.mean for r in rows]), np.array([r.count for r in rows]), iterations)
        return {
            "level": level,
            "unit": units[0],
            "exposures": exposures,
            "exposure_scale": scale.tolist(),
            "detector_scale": dict(zip([r.name for r in rows], relative.tolist(), strict=True)),
        }

    def finish(self, task: Task, results: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Publish the scales."""
        (scales,) = results
        stamp = f"{self._job.run}.{self._job.attempt}"
        output = publish(
            task.outputs["flatNormalization"],
            lambda p: write_json(p, scales),
            stamp,
            self._job.config["permissions"],
        )
        return {"flatNormalization": output}


def execute(job: Job, comm: Any) -> int:
    """Normalise; return the number of failed tasks."""
    return gang.execute(job, comm, Normalise(job))
