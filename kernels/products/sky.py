"""The sky frame of a detector: the mean of what the focal plane's background leaves of each exposure, in small bins.

x = (bin - background at the bin) / scale, clipped and averaged over the exposures.  Exposures of unlike noise are
weighted by it: moonlight may be a hundred times brighter than a dark sky.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera import geometry
from kernels.camera.focalplane import places_mm
from kernels.camera.geometry import Detector
from kernels.errors import DataError, JobError
from kernels.fits import product
from kernels.fits.product import BAD, PLANES, Card
from kernels.isr.noise import unlike
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.products.flatlevels import read_json
from kernels.products.header import product_cards
from kernels.products.packed import unpack
from kernels.products.reduce import FEW_INPUTS, WORTH
from kernels.products.skymeasure import FEWEST, require_enough
from kernels.products.skyscale import background_of
from kernels.products.underlay import excess
from kernels.statistics import clip
from kernels.statistics.estimator import table
from kernels.statistics.network import workspace
from kernels.statistics.weighted import clipped_weighted_mean, limits, propagate

KERNEL: Final = "sky"

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Planes of a bin without a value.
EMPTY: Final = BAD | 1 << PLANES["NO_DATA"]


@dataclass(frozen=True)
class Exposed:
    """Bins of the exposures, relative; NaN where a bin has no value."""

    exposures: Sequence[int]
    #: [exposure, bin, bin], float32: Background subtracted, over the scale; and its variance by the frame itself.
    values: F32
    variances: F32
    #: [bin, bin], float64: Variance that the calibrations bring to all exposures alike.
    common: F64
    #: [exposure], float64: Scale, in the unit of the frames.
    scales: F64


@dataclass(frozen=True)
class Combined:
    """A sky frame; [bin, bin], float32."""

    image: F32
    variance: F32
    #: [exposure], float64: Weights, sum 1, and whether they differ.
    weights: F64
    weighted: bool


def combine(exposed: Exposed, rule: clip.Rule, weigh: bool) -> Combined:
    """Combine the exposures of a detector.

    Parameters
    ----------
    weigh : `bool`
        Weight exposures by their noise, where that is worth it.
    """
    n, shape = len(exposed.exposures), exposed.values.shape[1:]
    variances = exposed.variances.reshape(n, -1)
    weights = np.array([1 / np.nanmedian(row) for row in variances], np.float64)
    weights = np.exp2(np.round(4 * np.log2(weights)) / 4)  # as fine as the table of their clips
    weighted = weigh and unlike(np.sqrt(weights), WORTH)
    weights = weights / weights.sum() if weighted else np.full(n, 1 / n)
    bins = variances.shape[1]
    cube = workspace(n, bins)
    width = cube.shape[1]
    values = exposed.values.reshape(n, -1)
    cube[:n, :bins] = np.where(np.isfinite(values), values, np.float32(np.inf))
    image, variance, count = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
    if weighted:
        factors = table(rule, n, None, tuple(weights.tolist()), heavy=True).scatter
        good = clipped_weighted_mean(cube, n, rule, weights, image, variance, count, heavy=True)
        variance *= factors[good]
    elif n < FEW_INPUTS:
        before, first, of = cube.copy(), np.empty(width, np.int16), np.full((n, width), np.nan, np.float32)
        of[:, :bins] = variances
        clip.collapse(cube, n, rule, image, variance, count, first)
        nothing = np.full(width, -np.inf, np.float32), np.full(width, np.inf, np.float32)
        within = limits(cube, first, count) if rule.statistic != "MEDIAN" else nothing
        propagate(before, of, within, np.ones(n), table(rule, n).spread, variance)
    else:
        clip.collapse(cube, n, rule, image, variance, count, factors=table(rule, n).scatter)
    total = variance[:bins].reshape(shape) + exposed.common.astype(np.float32)
    return Combined(image[:bins].reshape(shape), total, weights, weighted)


class Sky(gang.Kernel):
    """The gang kernel.

    ``config``: ``type`` (sky), ``statistic``, ``nsigma``, ``passes``,
    ``weighting`` (AUTO | NONE), ``isr``, ``permissions``; inputs ``skyMeasure``
    (the detector's) and ``skyScale``; output ``sky``.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._camera = job, geometry.camera(job.camera)
        self._rule = clip.Rule(str(job.config["statistic"]), float(job.config["nsigma"]), int(job.config["passes"]))
        if self._rule.statistic not in ("MEANCLIP", "MEDIAN", "MEAN"):
            raise JobError(f"statistic {self._rule.statistic!r}: possible are MEANCLIP, MEDIAN, MEAN")
        self._weigh = job.config.get("weighting", "AUTO") == "AUTO" and self._rule.statistic != "MEDIAN"

    def compute(self, task: Task, piece: int) -> tuple[Exposed, Combined, Mapping[int, str]]:
        """Combine the detector's exposures; give also why exposures were left out."""
        assert task.detector is not None
        exposed, left = self._exposed(task, self._camera.detectors[task.detector])
        return exposed, combine(exposed, self._rule, self._weigh), left

    def _exposed(self, task: Task, detector: Detector) -> tuple[Exposed, Mapping[int, str]]:
        """Subtract the backgrounds from the bins.

        Raises
        ------
        DataError
            Too few exposures can be used, or a file does not fit.
        """
        path, whole = (self._job.files[task.inputs[role][0]].path for role in ("skyMeasure", "skyScale"))
        measured, scales = read_json(path), read_json(whole)
        left = {int(e): str(why) for e, why in measured["left_out"].items()}
        left |= {e: "the detector has no light" for e in scales["unlit"].get(str(detector.id), ())}
        rows, columns = (np.array(measured[name], np.float64) for name in ("rows", "columns"))
        x, y = places_mm(detector, (columns[:-1] + columns[1:] - 1) / 2, (rows[:-1] + rows[1:] - 1) / 2)
        mean, variance, common = (unpack(path, measured[name]) for name in ("mean", "variance", "common"))
        require_enough(left, [*measured["exposures"], *map(int, measured["left_out"])], detector.name, "sky")
        if mean.shape != (len(measured["exposures"]), *x.shape):
            raise DataError(path, f"has bins {mean.shape}, of another detector type")
        kept, values, noises, everywhere, levels = [], [], [], [], []
        for k, exposure in enumerate(measured["exposures"]):
            background = background_of(whole, scales, detector.type if scales["apart"] else "every", exposure)
            if background is None:
                left.setdefault(exposure, "its background is not known")
            if background is None or exposure in left:
                continue
            level = background.level
            kept.append(exposure)
            values.append(((mean[k] - background.at(x, y)) / level).astype(np.float32))
            noises.append((variance[k] / level**2).astype(np.float32))
            everywhere.append(np.sqrt(common[k].astype(np.float64)) / level)
            levels.append(level)
        require_enough(left, [*kept, *left], detector.name, "sky")
        with np.errstate(invalid="ignore"):
            of_all = np.nan_to_num(np.nanmean(np.stack(everywhere), axis=0)) ** 2
        return Exposed(kept, np.stack(values), np.stack(noises), of_all, np.array(levels)), left

    def finish(self, task: Task, results: Iterable[tuple[Exposed, Combined, Mapping[int, str]]]) -> dict[str, Any]:
        """Publish the sky frame.

        Raises
        ------
        DataError
            No bin has a value.
        """
        assert task.detector is not None
        ((exposed, made, left),) = results
        detector = self._camera.detectors[task.detector]
        image, variance = made.image, made.variance
        empty = ~(np.isfinite(image) & np.isfinite(variance))
        if empty.all():
            raise DataError(f"detector {detector.name}", f"no bin has a value in {FEWEST} exposures")
        for plane in (image, variance):
            plane[empty] = np.median(plane[~empty])
        mask = np.where(empty, EMPTY, 0).astype(np.int32)
        cards = self._cards(task, detector, exposed, made, left)
        write = partial(product.write, cards=cards, image=image, mask=mask, variance=variance)
        stamp, permissions = f"{self._job.run}.{self._job.attempt}", self._job.config["permissions"]
        output = publish(task.outputs[KERNEL], write, stamp, permissions)
        noise = math.sqrt(float(np.median(variance[~empty])))
        numbers = {
            "pattern_rms": excess(image, variance, mask),
            "bin_error": noise,
            "empty_bins": int(np.count_nonzero(empty)),
        }
        return {KERNEL: output, "inputs_used": len(exposed.exposures), **numbers}

    def _cards(
        self, task: Task, detector: Detector, exposed: Exposed, made: Combined, left: Mapping[int, str]
    ) -> list[Card]:
        """Make the header: upstream's cards of a background, and ours."""
        cards = product_cards(
            self._job,
            self._chosen(task, exposed, made),
            self._camera,
            detector,
            None,
            None,
            exposed.scales[:, np.newaxis],
        )
        width, height = detector.size
        background: list[Card] = [
            ("BOX.MINX", 0, "detector's pixels"),
            ("BOX.MINY", 0, ""),
            ("BOX.MAXX", width - 1, ""),
            ("BOX.MAXY", height - 1, ""),
            ("ALGORITHM", "NATURAL_SPLINE", "between the centres of the bins"),
            ("WEIGHTS", "noise" if made.weighted else "none", "of the exposures"),
            ("NLEFTOUT", len(left), "exposures left out: LEFTOUTn"),
        ]
        background += [(f"LEFTOUT{n}", f"{e}: {why}"[:60], "") for n, (e, why) in enumerate(sorted(left.items()))]
        return cards + background

    @staticmethod
    def _chosen(task: Task, exposed: Exposed, made: Combined) -> Task:
        """Describe the exposures that were used."""
        at = [list(task.parameters["exposures"]).index(e) for e in exposed.exposures]
        chosen = {
            name: [values[k] for k in at]
            for name, values in task.parameters.items()
            if isinstance(values, list) and len(values) == len(task.parameters["exposures"])
        }
        more = {"weights": made.weights.tolist()} if made.weighted else {}
        return replace(task, parameters={**task.parameters, **chosen, **more})


def execute(job: Job, comm: Any) -> int:
    """Combine every task's detector; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Sky(job))


def warm(bench: Bench) -> None:
    """Combine a few bins in every way."""
    rng = np.random.default_rng(1)
    for n, spread in ((3, 1.0), (6, 1.0), (6, 30.0)):
        values = rng.normal(0, 1, (n, 4, 4)).astype(np.float32)
        variances = np.ones_like(values) * np.geomspace(1, spread, n).astype(np.float32)[:, None, None]
        exposed = Exposed(range(n), values, variances, np.zeros((4, 4)), np.ones(n))
        combine(exposed, clip.Rule(), True)
