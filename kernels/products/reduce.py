"""Reduction of a block of corrected rows of all frames to one image and its variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import JobError
from kernels.isr.channel import Block, Channel, Exposures
from kernels.isr.cosmic import CosmicConfig, cosmic_rays
from kernels.isr.noise import Look, Noise, unlike, weights_of
from kernels.statistics import clip
from kernels.statistics.estimator import Steps, table
from kernels.statistics.weighted import clipped_weighted_mean, limits, propagate, weighted_mean

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I16 = NDArray[np.int16]

#: Number of inputs from which the scatter gives the variance; that of fewer inputs is propagated.
FEW_INPUTS = 5
#: Excess variance of a plain mean from which frames are weighted, relative.
WORTH = 0.02
#: Definitions of VARIANCE: the variance of IMAGE, or upstream's survivors' variance / count.
DEFINITIONS = ("ESTIMATOR", "PLAIN")
WEIGHTINGS = ("AUTO", "NONE")
#: Kinds of frames, which differ in noise and unit.
KINDS = ("flat", "bias", "dark", "fringe")


@dataclass(frozen=True)
class Statistics:
    """A job's statistic, and the definition of its variance."""

    #: Statistic across exposures.
    rule: clip.Rule
    #: ``bias``, ``dark``, ``flat`` or ``fringe``.
    kind: str
    #: VARIANCE is that of the survivors / their count, without further terms.
    plain: bool = False
    #: Darks of unlike times are weighted.
    weigh: bool = True

    @classmethod
    def from_plain(cls, config: Mapping[str, Any]) -> Statistics:
        """Check and freeze ``type``, ``statistic``, ``nsigma``, ``passes``, ``ddof``, ``variance`` and ``weighting``.

        Raises
        ------
        JobError
            The statistic is unknown, or a setting is not possible for it.
        """
        name, ddof = config["statistic"], int(config.get("ddof", 1))
        if name not in clip.STATISTICS:
            raise JobError(f"statistic {name!r}: possible are {', '.join(clip.STATISTICS)}")
        rule = clip.Rule(name, float(config["nsigma"]), int(config["passes"]), ddof)
        if not rule.nsigma > 0:
            raise JobError(f"{name}: nsigma is {rule.nsigma:g}, it must be above 0")
        if rule.passes < 1:
            raise JobError(f"{name}: passes is {rule.passes}, it must be at least 1")
        if ddof not in (0, 1):
            raise JobError(f"{name}: ddof is {ddof}, it must be 0 or 1")
        chosen = {}
        for key, known in (("type", KINDS), ("variance", DEFINITIONS), ("weighting", WEIGHTINGS)):
            chosen[key] = config.get(key, known[0])
            if chosen[key] not in known:
                raise JobError(f"{key}: {chosen[key]!r} is none of {', '.join(known)}")
        return cls(rule, chosen["type"], chosen["variance"] == "PLAIN", chosen["weighting"] == "AUTO")

    def weighs(self, exposures: Exposures, weights: Sequence[float] | None) -> bool:
        """Whether the frames are weighted by their noise."""
        possible = self.kind == "dark" and self.weigh and weights is None
        return possible and self.rule.statistic not in ("MEDIAN", "WEIGHTED") and unlike(exposures.scales[:, 0], WORTH)


class Stacker:
    """Reduces the blocks of one amplifier.

    Parameters
    ----------
    channel : `Channel`
        The amplifier, whose noise model serves the variance of few inputs, and cosmic rays.
    exposures : `Exposures`
        The frames and their scales.
    statistics : `Statistics`
        Statistic of the frames.
    cosmic : `CosmicConfig`, optional
        Settings of the cosmic rays that are masked first.
    weights : sequence of `float`, optional
        Weights by frame, for the statistic WEIGHTED and of frames of sky; by default all 1.
    seen : `Look`, optional
        Levels and noise measured in a band of the amplifier, where that was done.

    Attributes
    ----------
    noise : `Noise`
        Noise model of a frame.
    weights : `numpy.ndarray` [frame], float64
        Weights of the frames, sum 1.
    rejected : `numpy.ndarray` [frame], int64
        Pixels rejected as cosmic rays, halo excluded.
    used : `int`
        Number of values used in the image.
    """

    def __init__(
        self,
        channel: Channel,
        exposures: Exposures,
        statistics: Statistics,
        cosmic: CosmicConfig | None,
        weights: Sequence[float] | None,
        seen: Look | None = None,
    ) -> None:
        self._rule, self._plain, self._cosmic = statistics.rule, statistics.plain, cosmic
        self._scales = np.ascontiguousarray(exposures.scales[:, channel.number])[:, np.newaxis]
        self._offsets = np.ascontiguousarray(exposures.offsets[:, channel.number])[:, np.newaxis]
        self._n = n = len(exposures.files)
        self.noise = Noise.of(channel, statistics.kind != "bias")
        if seen is not None and not channel.zeroed:
            self.noise = replace(self.noise, offset=seen.offset(self.noise))
        self._own = [self.noise if seen is None else seen.own(self.noise, k) for k in range(n)]
        of_sky = statistics.kind == "fringe" and weights is not None and statistics.rule.statistic != "MEDIAN"
        self._unlike = of_sky or (seen is not None and statistics.weighs(exposures, weights))
        if seen is not None and self._unlike and not of_sky:
            self.weights = weights_of(self.noise, seen, exposures, channel.number)
        else:
            self.weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
        if len(self.weights) != n or not (self.weights > 0).all():
            raise JobError(f"weights of {n} exposures are needed, all above 0; there are {list(self.weights)}")
        self.weights = self.weights / self.weights.sum()
        self._few = n < FEW_INPUTS
        of_unlike = tuple(self.weights.tolist()) if self._unlike else ()
        self._heavy = of_sky
        self._table = table(self._rule, n, self._steps(channel, exposures, seen), of_unlike, self._heavy)
        self._planes: tuple[F32, F32, I16] | None = None
        self.rejected, self.used = np.zeros(n, np.int64), 0

    def _steps(self, channel: Channel, exposures: Exposures, seen: Look | None) -> Steps | None:
        """Describe the converter's steps in the inputs, where there are any."""
        times = exposures.dark_times if channel.darkened else exposures.dark_times[:1]
        if not channel.whole or any(np.ptp(values) > 0 for values in (self._scales, self._offsets, times)):
            return None
        signal = seen.typical * float(self._scales[0, 0]) if seen else 0.0
        return Steps(self.noise.steps(signal), *channel.level_pixels)

    def reduce(self, block: Block) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reduce a block to image and variance [row, column], without halo; the cube is overwritten.

        The result is NaN where no input is good, and valid until the next call.
        """
        cube, width = block.cube, block.cube.shape[1]
        if self._planes is None or self._planes[0].size != width:
            self._planes = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
        image, variance, count = self._planes
        if self._cosmic:
            self._mask_cosmic_rays(block)
        values = cube.copy() if self._few else cube
        within = self._combine(cube, *self._planes)
        if self._few and self._plain:
            self._propagate(values, values[: self._n], within, variance)
        elif self._few:
            self._propagate(values, image, _everything(width), variance)
        elif not self._plain:
            self._of_equal(cube, image, variance)
        self.used += int(block.image(count).sum(dtype=np.int64))
        return block.image(image), block.image(variance)

    def _combine(self, cube: F32, image: F32, variance: F32, count: I16) -> tuple[F32, F32]:
        """Fill the image and its variance by the inputs' scatter; return the survivors' limits, for few inputs."""
        n, width = self._n, cube.shape[1]
        factors = None if self._plain else self._table.scatter
        if self._unlike:
            good = clipped_weighted_mean(cube, n, self._rule, self.weights, image, variance, count, self._heavy)
            variance *= 1 if factors is None else factors[good]
        elif self._rule.statistic == "WEIGHTED":
            weighted_mean(cube, n, self.weights, image, variance, count)
        elif self._few:
            first = np.empty(width, np.int16)
            clip.collapse(cube, n, self._rule, image, variance, count, first, factors)
            return limits(cube, first, count)
        else:
            clip.collapse(cube, n, self._rule, image, variance, count, factors=factors)
        return _everything(width if self._few else 0)

    def _variances(self, signals: F32) -> F32:
        """Model the variance of each scaled input [frame, pixel] at a scaled signal [(frame,) pixel]."""
        return self.noise.variance(signals * self._scales + self._offsets) / self._scales**2

    def _propagate(self, values: F32, signals: F32, within: tuple[F32, F32], variance: F32) -> None:
        """Propagate the modelled variances of few inputs."""
        with np.errstate(invalid="ignore"):
            variances = self._variances(signals)
        factors = table(clip.Rule("MEDIAN"), self._n).spread if self._rule.statistic == "MEDIAN" else None
        if not self._plain:
            factors = self._table.spread
        elif factors is None:
            factors = np.ones(self._n + 1, np.float32)
        propagate(values, variances, within, self.weights, factors, variance)

    def _of_equal(self, cube: F32, image: F32, variance: F32) -> None:
        """Take the variance from the noise model where all survivors are equal and show no scatter."""
        if np.any(none := variance == 0):
            equal = np.flatnonzero(none)
            good = np.isfinite(cube[: self._n, equal]).sum(axis=0)
            of_mean = (self._variances(image[equal]) * self.weights[:, np.newaxis] ** 2).sum(axis=0)
            variance[equal] = self._table.equal[good] * of_mean * self._n / np.maximum(good, 1)

    def _mask_cosmic_rays(self, block: Block) -> None:
        """Mask cosmic rays found on each frame's difference from the median frame, so that hot pixels stay."""
        assert self._cosmic
        sorted_, typical = block.cube.copy(), np.empty(block.cube.shape[1], np.float32)
        clip.median(sorted_, self._n, typical)
        pixels, flat = block.pixels, typical[: block.rows * block.columns].reshape(block.rows, block.columns)
        for n, frame in enumerate(pixels):
            excess, sigma = self._excess(n, frame, flat)
            hits = cosmic_rays(excess, sigma, self._cosmic)
            self.rejected[n] += np.count_nonzero(hits[block.core] & np.isfinite(frame[block.core]))
            frame[hits] = np.inf

    def _excess(self, n: int, frame: F32, flat: F32) -> tuple[F32, F32]:
        """Compute a frame's difference from the median of the frames (NaN where masked), and its noise."""
        expected = flat * self._scales[n] + self._offsets[n]
        sigma = np.sqrt(self._own[n].variance(np.maximum(expected, np.float32(self.noise.offset))))
        with np.errstate(invalid="ignore"):
            excess = frame * self._scales[n] + self._offsets[n] - expected
        excess[np.isinf(frame)] = np.nan
        return excess, sigma


def _everything(width: int) -> tuple[F32, F32]:
    """Make limits that exclude nothing."""
    return np.full(width, -np.inf, np.float32), np.full(width, np.inf, np.float32)
