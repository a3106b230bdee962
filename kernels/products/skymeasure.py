"""The sky of every exposure of a detector: what stars leave of it in small bins and in superpixels.

A piece is one exposure: the frame is corrected in memory, detections are masked, and clipped means are taken.  What
follows needs no pixel any more: the background of all detectors (`kernels.products.skyscale`), and the combination
(`kernels.products.sky`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.errors import DataError, JobError
from kernels.isr.subtracted import Coefficients, Subtracted
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.products.corrected import Correct
from kernels.products.flatlevels import write_json
from kernels.products.packed import pack
from kernels.statistics import cells, detections
from kernels.statistics.level import clipped_level
from kernels.statistics.surface import Surface
from kernels.transfer.superpixels import bins, measure

KERNEL: Final = "sky_measure"

F32 = NDArray[np.float32]

#: Least fraction of a bin, and of a detector, that detections must leave.
ENOUGH: Final = 0.1
LEAST: Final = 0.4
#: Least level of a sky, in units of a pixel's noise.
SKY: Final = 0.2
#: Largest scatter of a sky within a cell, in units of a pixel's noise; fringes reach 2, crowded fields 8 and more.
CROWDED: Final = 5.0
#: Fewest pixels along a side of a cell in which background and noise are measured.
LEAST_CELL: Final = 32
#: Rows of which one tells the noise of a frame.
EVERY: Final = 8
#: Fewest exposures of a product.
FEWEST: Final = 3


def rule(plain: Mapping[str, Any], scale: int) -> detections.Rule:
    """Check and freeze the rule of the detections, at a camera's scale.

    Raises
    ------
    JobError
        A setting is missing or not possible.
    """
    try:
        cell = max(round(int(plain["cell"]) / scale), LEAST_CELL)
        settings = float(plain["threshold"]), float(plain["smoothing"]), int(plain["rounds"]), int(plain["grow"]), cell
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"settings of the detections: {error}") from error
    if not (settings[0] > 0 and settings[1] > 0 and settings[2] > 0 and settings[3] >= 0):
        raise JobError(f"settings of the detections: {settings[:4]} are not all above 0")
    return detections.Rule(*settings)


def require_enough(left: Mapping[int, str], exposures: Sequence[int], name: str, kind: str) -> None:
    """Refuse a detector of which too few exposures remain.

    Parameters
    ----------
    left : `dict`
        Why an exposure was left out.

    Raises
    ------
    DataError
        Naming the exposures.
    """
    remain = len(exposures) - len(left)
    if remain < FEWEST:
        why = "; ".join(f"exposure {e}: {text}" for e, text in left.items())
        what = f"{remain} of {len(exposures)} exposures can be used, a {kind} takes {FEWEST} at least: {why}"
        raise DataError(f"detector {name}", what)


def usual_noise(variance: F32, mask: NDArray[np.int32]) -> float:
    """Give the noise of a usual good pixel by a part of the rows; 0 where none is good."""
    some, good = variance[::EVERY], mask[::EVERY] == 0
    return math.sqrt(float(np.median(some[good]))) if good.any() else 0.0


@dataclass(frozen=True)
class Masked:
    """One corrected frame without its detections."""

    #: [y, x], float32: NaN where bad or detected.
    image: F32
    #: [y, x], bool: Detections.
    found: NDArray[np.bool_]
    #: Clipped mean, and the fractions of the detector that are bad, and that are left.
    level: float
    bad: float
    left: float
    #: Usual scatter of a pixel within the cells of the rule.
    scatter: float = 0.0

    @classmethod
    def of(cls, image: F32, mask: NDArray[np.int32], how: detections.Rule) -> Masked:
        """Mask a frame, in place."""
        image[mask != 0] = np.nan
        bad = float(np.count_nonzero(mask)) / mask.size
        if bad > 1 - LEAST:
            return cls(image, np.zeros(mask.shape, np.bool_), math.nan, bad, 1 - bad)
        found = detections.find(image, how)
        image[found] = np.nan
        level, _ = clipped_level(image)
        _, scatter = Surface.of(image, how.cell, every=detections.thin(how.cell))
        usual = float(np.sqrt(np.nanmean(scatter**2))) if np.isfinite(scatter).any() else 0.0
        return cls(image, found, level, bad, float(np.isfinite(image).mean()), usual)

    def objection(self, noise: float) -> str:
        """Say why there is no sky to be measured; empty if there is one.

        Parameters
        ----------
        noise : `float`
            Noise of a pixel, in the unit of the image.
        """
        if self.left < LEAST:
            of = f"{100 * self.bad:.1f} % of it is saturated or bad"
            return f"{100 * (1 - self.left):.1f} % of the detector is not sky: {of}, the rest detected"
        if not self.level > SKY * noise:
            return f"there is no sky: the level is {self.level:.3g}"
        if self.scatter > CROWDED * noise:
            return (
                f"{100 * self.left:.0f} % are left, which scatter {self.scatter / noise:.0f} times their noise: crowded"
            )
        return ""


class Measure(Correct):
    """The gang kernel: a piece is one exposure of one detector; output ``skyMeasure``, JSON.

    ``config``: ``isr``, ``permissions``; ``threshold``, ``smoothing``,
    ``rounds``, ``grow``, ``cell`` (`rule`); ``size`` (superpixel, mm),
    ``bin`` (pixel of an unscaled camera).
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._rule = rule(job.config, self.camera.scale)
        self._size, self._bin = float(job.config["size"]), int(job.config["bin"])
        if not self._size > 0 or self._bin < 1:
            raise JobError(f"superpixels of {self._size} mm and bins of {self._bin} pixels are not possible")

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each exposure by the bytes read for it."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> dict[str, Any]:
        """Measure one exposure."""
        frame, _ = super().compute(task, piece)
        image, mask = frame.image, frame.mask
        detector, noise = self.detector(task), usual_noise(frame.variance, mask)
        common = self._common(task, piece, image, mask)
        masked = Masked.of(image, mask, self._rule)
        about = {"level": masked.level, "bad": masked.bad, "left": masked.left, "why": masked.objection(noise)}
        if about["why"]:
            return about
        rows, columns = bins(detector, self._bin, self.camera.scale)
        mean, variance, count = cells.clipped_bins(masked.image, rows, columns, ENOUGH)
        spread = cells.means(common, rows, columns) / np.maximum(count, 1)
        return {
            **about,
            "mean": mean,
            "variance": variance,
            "common": spread,
            "cells": measure(detector, masked.image, self._size),
        }

    def _common(self, task: Task, piece: int, image: F32, mask: NDArray[np.int32]) -> F32:
        """Give the variance that the calibrations bring to each pixel [y, x] of all exposures alike; NaN where bad."""
        calibrations, dark_time = self.calibrations(task), float(task.parameters["dark_times"][piece])
        subtracted, more = Subtracted(calibrations, task.provenance), np.zeros_like(image)
        boxes = [amplifier.target for amplifier in self.detector(task).amplifiers]
        subtracted.add(more, [(box, Coefficients(1.0, dark_time)) for box in boxes])
        box = Box(0, 0, image.shape[1], image.shape[0])
        if calibrations.flat and calibrations.flat.has("VARIANCE"):
            response = calibrations.flat.read(box)
            with np.errstate(divide="ignore", invalid="ignore"):
                more += image**2 * calibrations.flat.read(box, "VARIANCE")
                more /= response**2
        more[(mask != 0) | ~np.isfinite(more)] = np.nan
        return more

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Publish one detector's measurements; with too few exposures the detector's own combination fails."""
        self.require_inputs(task)
        measured, exposures = list(results), list(task.parameters["exposures"])
        left = {e: m["why"] for e, m in zip(exposures, measured, strict=True) if m["why"]}
        used = [(e, m) for e, m in zip(exposures, measured, strict=True) if not m["why"]]
        rows, columns = bins(self.detector(task), self._bin, self.camera.scale)
        content = {
            "detector": task.detector,
            "unit": self.camera.unit,
            "size_mm": self._size,
            "rows": rows.tolist(),
            "columns": columns.tolist(),
            "exposures": [e for e, _ in used],
            "level": [m["level"] for _, m in used],
            "left": [m["left"] for _, m in used],
            "cells": [m["cells"] for _, m in used],
            **{name: pack(np.array([m[name] for _, m in used], np.float32)) for name in ("mean", "variance", "common")},
            "left_out": {str(e): why for e, why in left.items()},
        }
        output = publish(
            task.outputs["skyMeasure"], lambda p: write_json(p, content), self.stamp, self.job.config["permissions"]
        )
        about: dict[str, Any] = {
            "inputs_used": len(used),
            "sky_left": round(min((m["left"] for _, m in used), default=0.0), 4),
        }
        if left:
            name = self.detector(task).name
            about["look_at"] = [f"{name} leaves out exposure {e}: {why}" for e, why in left.items()]
        return {"skyMeasure": output, **about}


def execute(job: Job, comm: Any) -> int:
    """Measure every task's exposures; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Measure(job))


def warm(bench: Bench) -> None:
    """Measure a few pixels."""
    settings = {"threshold": 3.0, "smoothing": 5.0, "rounds": 1, "grow": 2, "cell": 256, "size": 40.96, "bin": 8}
    bench.run(execute, {"raw": bench.raws}, "skyMeasure", isr={}, **settings)
