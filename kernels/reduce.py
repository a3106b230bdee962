"""One block of corrected rows of all frames becomes one image, and its variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import clip
from kernels.cosmic import ENOUGH, CosmicConfig, cosmic_rays, mistaken
from kernels.errors import JobError
from kernels.isr import Block, Channel, Exposures

F32 = NDArray[np.float32]

#: Below this many inputs the scatter says little, and the variance is propagated.
FEW_INPUTS = 5


@dataclass(frozen=True)
class Statistics:
    """A job's statistic, and whether its inputs are too few for their scatter to say anything."""

    rule: clip.Rule

    @classmethod
    def from_plain(cls, config: Mapping[str, Any]) -> Statistics:
        """Check and freeze ``statistic``, ``nsigma``, ``passes`` and ``ddof``.

        Raises
        ------
        JobError
            There is no such statistic, or a setting that it cannot have.
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
        return cls(rule)


class Stacker:
    """Reduces the blocks of one amplifier.

    Parameters
    ----------
    channel : `Channel`
        The amplifier: its noise is the model of few inputs' variance, and of cosmic rays.
    exposures : `Exposures`
        The frames and their scales.
    statistics : `Statistics`
        What is made of them.
    cosmic : `CosmicConfig`, optional
        Mask cosmic rays first.
    weights : sequence of `float`, optional
        By frame, of the statistic WEIGHTED; 1 each without.

    Attributes
    ----------
    rejected : `numpy.ndarray` [frame], int64
        Pixels that were left out as cosmic rays, halo excluded.
    used : `int`
        Values that the image was made of.
    """

    def __init__(
        self,
        channel: Channel,
        exposures: Exposures,
        statistics: Statistics,
        cosmic: CosmicConfig | None,
        weights: Sequence[float] | None,
    ) -> None:
        self._channel, self._rule, self._cosmic = channel, statistics.rule, cosmic
        self._scales = np.ascontiguousarray(exposures.scales[:, channel.number])[:, np.newaxis]
        self._offsets = np.ascontiguousarray(exposures.offsets[:, channel.number])[:, np.newaxis]
        self._n = len(exposures.files)
        self._weights = np.ones(self._n) if weights is None else np.asarray(weights, np.float64)
        if len(self._weights) != self._n or not (self._weights > 0).all():
            raise JobError(f"weights of {self._n} exposures are needed, all above 0; there are {list(self._weights)}")
        self._few = self._n < FEW_INPUTS
        self._planes: tuple[F32, F32, NDArray[np.int16]] | None = None
        self.rejected, self.used = np.zeros(self._n, np.int64), 0

    def reduce(self, block: Block) -> tuple[NDArray[Any], NDArray[Any]]:
        """Image and variance [row, column] of a block without its halo; its cube is used up.

        They are NaN where no input is good, and valid until the next call.
        """
        cube, width = block.cube, block.cube.shape[1]
        if self._planes is None or self._planes[0].size != width:
            self._planes = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
        image, variance, count = self._planes
        if self._cosmic:
            self._mask_cosmic_rays(block)
        if self._rule.statistic == "WEIGHTED":
            clip.weighted_mean(cube, self._n, self._weights, image, variance, count)
            if self._few:
                self._propagate_weighted(cube, variance)
        elif self._few:
            values, first = cube.copy(), np.empty(width, np.int16)
            variances = self._variances(values)
            clip.collapse(cube, self._n, self._rule, image, variance, count, first)
            clip.propagate(values, variances, cube, self._n, self._rule, first, count, variance)
        else:
            clip.collapse(cube, self._n, self._rule, image, variance, count)
        self.used += int(block.image(count).sum(dtype=np.int64))
        return block.image(image), block.image(variance)

    def _unscaled(self, values: F32) -> F32:
        """What the frames' pixels were before they were scaled: [frame, pixel], in the job's unit."""
        return values * self._scales + self._offsets

    def _variances(self, cube: F32) -> F32:
        """Variance of each scaled input [frame, pixel]; +infinity where it is masked."""
        return self._channel.variance(self._unscaled(cube[: self._n])) / self._scales**2

    def _propagate_weighted(self, cube: F32, variance: F32) -> None:
        good = np.isfinite(cube[: self._n])
        weights = np.where(good, self._weights[:, np.newaxis], 0.0)
        squares = np.where(good, self._variances(cube), 0.0) * weights**2
        with np.errstate(invalid="ignore", divide="ignore"):
            variance[:] = squares.sum(axis=0) / weights.sum(axis=0) ** 2

    def _mask_cosmic_rays(self, block: Block) -> None:
        """Sought on each frame's difference from the median of the frames, so that hot pixels are none."""
        assert self._cosmic
        sorted_, typical = block.cube.copy(), np.empty(block.cube.shape[1], np.float32)
        clip.median(sorted_, self._n, typical)
        pixels, flat = block.pixels, typical[: block.rows * block.columns].reshape(block.rows, block.columns)
        step = max(1, self._n * block.columns // ENOUGH)
        sizes = np.empty((block.rows, self._n, -(-block.columns // step)), np.float32)
        for n, frame in enumerate(pixels):
            excess, sigma = self._excess(n, frame[:, ::step], flat[:, ::step])
            sizes[:, n] = np.abs(excess) / sigma
        factors = mistaken(sizes)
        for n, frame in enumerate(pixels):
            excess, sigma = self._excess(n, frame, flat)
            hits = cosmic_rays(excess, sigma * factors[:, n, np.newaxis], self._cosmic)
            self.rejected[n] += np.count_nonzero(hits[block.core] & np.isfinite(frame[block.core]))
            frame[hits] = np.inf

    def _excess(self, n: int, frame: F32, flat: F32) -> tuple[F32, F32]:
        """A frame's difference from the median of the frames, and the noise of it; NaN where it is masked."""
        expected = flat * self._scales[n] + self._offsets[n]
        sigma = np.sqrt(self._channel.variance(expected))
        with np.errstate(invalid="ignore"):
            excess = frame * self._scales[n] + self._offsets[n] - expected
        excess[np.isinf(frame)] = np.nan
        return excess, sigma
