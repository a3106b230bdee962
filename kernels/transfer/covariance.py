"""Mean, variance and covariances of one amplifier in a pair of like flats.

Their difference, scaled to the common mean, has no structure of the light or the pixels left:

    d = (I1 mu2 - I2 mu1) / mu,    mu = (mu1 + mu2) / 2,    C_ij = <d(x, y) d(x + i, y + j)> / 2

(Astier et al. 2019, A&A 629, A36, section 4; the clipping rules are those of cp_pipe's PhotonTransferCurveExtractTask).
Pixels are rounded to 1/512 of the noise, which adds 3e-7 to the variance and changes covariances by a thousandth of
their errors, and summed in whole numbers by `kernels.transfer.lagsums`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.statistics.sample import clipped_mean
from kernels.transfer.lagsums import LARGEST, lag_sums, padded

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


#: Least mean of a frame with light, in units of the scatter of its pixels; a dead amplifier has one of 0 +- 0.02.
FAINTEST = 0.5


class Unusable(ValueError):
    """A pair that cannot be measured, and why, with numbers."""


@dataclass(frozen=True)
class Rule:
    """Settings of the measurement."""

    #: Displacements per axis, 0 included.
    side: int = 10
    #: Clip of means and differences, standard deviations.
    nsigma: float = 5.5
    #: Passes of the clip.
    passes: int = 3
    #: Fewest good pixels.
    least: int = 10_000


@dataclass(frozen=True)
class Pair:
    """One amplifier in one pair of flats; i is the displacement along x (serial), j along y (parallel)."""

    #: Clipped means of both frames, ADU.
    means: tuple[float, float]
    #: Half the clipped variance of the difference, ADU^2.
    variance: float
    #: [i, j], float64: ADU^2.
    covariances: F64
    #: [i, j], int64: Pairs of good pixels behind each covariance.
    counts: I64
    #: Variance of the means of the rows of the difference, ADU^2.
    row_mean_variance: float

    @property
    def mean(self) -> float:
        """Mean of both frames, ADU."""
        return (self.means[0] + self.means[1]) / 2

    @property
    def delta(self) -> float:
        """Difference of the frames' means, ADU."""
        return self.means[1] - self.means[0]


@dataclass(frozen=True)
class Sums:
    """Sums over a block of rows; those of all blocks add up to the same bits in any order."""

    #: [i, j], int64: Products of the rounded difference, as in `kernels.transfer.lagsums.lag_sums`.
    products: I64
    #: [i, j], int64: The same of ones for good pixels.
    counts: I64

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.products + other.products, self.counts + other.counts)


def clip_factor(nsigma: float) -> float:
    """Compute the variance of Gaussian noise over that of what a clip at ``nsigma`` leaves."""
    density = math.exp(-(nsigma**2) / 2) / math.sqrt(2 * math.pi)
    return 1 / (1 - 2 * nsigma * density / math.erf(nsigma / math.sqrt(2)))


@njit
def _masked(image, good, result):  # type: ignore[no-untyped-def]
    """Copy an image, NaN where not good."""
    for y in range(image.shape[0]):
        row, fine, into = image[y], good[y], result[y]
        for x in range(row.shape[0]):
            into[x] = row[x] if fine[x] else np.float32(np.nan)


@njit
def _subtract(first, second, good, of_first, of_second, result):  # type: ignore[no-untyped-def]
    """Compute ``of_first first - of_second second``, NaN where not good."""
    a, b, nothing = np.float32(of_first), np.float32(of_second), np.float32(np.nan)
    for y in range(result.shape[0]):
        one, other, fine, into = first[y], second[y], good[y], result[y]
        for x in range(into.shape[0]):
            d = a * one[x] - b * other[x]
            into[x] = d if fine[x] else nothing


@njit
def _round(difference, mean, limit, step, steps, good, totals):  # type: ignore[no-untyped-def]
    """Round the deviations within the limit to steps; others are 0 and not good, NaN included; add up each row."""
    inverse, middle, most = np.float32(1 / step), np.float32(mean), np.float32(limit)
    for y in range(difference.shape[0]):
        row, into, ones = difference[y], steps[y], good[y]
        total, number = np.int32(0), np.int32(0)
        for x in range(row.shape[0]):
            d = row[x] - middle
            keep = abs(d) <= most
            whole = np.int32(np.rint(d * inverse)) if keep else np.int32(0)
            into[x], ones[x] = whole, keep
            total += whole
            number += np.int32(keep)
        totals[0, y], totals[1, y] = total, number


@dataclass(frozen=True)
class Difference:
    """A difference image, rounded to whole steps."""

    #: [y, x], int16: Deviations from the mean, 0 where masked, as `kernels.transfer.lagsums.padded` makes it.
    steps: NDArray[np.int16]
    #: [y, x], int8: 1 where good, likewise.
    good: NDArray[np.int8]
    #: [2, y], int64: Sums of both over each row.
    rows: I64
    #: ADU.
    step: float
    #: Half the clipped variance, ADU^2.
    variance: float
    rule: Rule

    def sums(self, first: int = 0, last: int | None = None) -> Sums:
        """Sum over the rows ``[first, last)``."""
        return Sums(*(lag_sums(image, self.rule.side, first, last) for image in (self.steps, self.good)))

    def row_mean_variance(self) -> float:
        """Compute the variance of the means of rows with good pixels, ADU^2."""
        total, number = self.rows[:, self.rows[1] > 0]
        return float((total / number).var()) * self.step**2

    def covariances(self, sums: Sums) -> tuple[F64, I64]:
        """Turn the sums of all rows into covariances [i, j], ADU^2, and their numbers of pairs of pixels.

        The mean of the same pixels was subtracted, which takes variance / number from every covariance; it is given
        back.
        """
        products, counts = sums.products, sums.counts
        total, number = (int(n) for n in self.rows.sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            values = products / counts - (total / number) ** 2
        values += values[0, 0] / max(number - 1, 1)
        factor = clip_factor(self.rule.nsigma)
        scale = np.full(values.shape, factor**2)
        scale[0, 0] = factor
        return values * scale * (self.step**2 / 2), counts


def difference(images: tuple[F32, F32], good: Bool, means: tuple[float, float], rule: Rule) -> Difference:
    """Subtract two frames, scaled to their common mean, and round; see `measure`.

    Raises
    ------
    Unusable
        Fewer good pixels than ``rule.least``, or no noise.
    """
    mu = (means[0] + means[1]) / 2
    d = np.empty(good.shape, np.float32)
    _subtract(*images, good, means[1] / mu, means[0] / mu, d)
    mean, sigma, _ = clipped_mean(d, None, rule.nsigma, rule.passes)
    if not sigma > 0:
        raise Unusable("the difference of the flats has no noise")
    limit = rule.nsigma * sigma
    rows, columns = good.shape
    steps, pixels = padded(rows, columns, rule.side, np.int16)
    used, ones = padded(rows, columns, rule.side, np.int8)
    sums = np.empty((2, rows), np.int64)
    _round(d, mean, limit, limit / LARGEST, pixels, ones, sums)
    found = int(sums[1].sum())
    if found < rule.least:
        raise Unusable(f"{found} good pixels, {rule.least} are needed")
    return Difference(steps, used, sums, limit / LARGEST, sigma**2 / 2, rule)


def measure(images: tuple[F32, F32], good: Bool | None = None, rule: Rule | None = None) -> Pair:
    """Measure one amplifier in a pair of flats.

    Parameters
    ----------
    images : (`numpy.ndarray`, `numpy.ndarray`) [y, x], float32
        Corrected frames without edges, ADU above the overscan; NaN and infinite pixels are masked.
    good : `numpy.ndarray` [y, x], bool, optional
        Pixels unmasked in both frames.
    rule : `Rule`, optional
        Settings.

    Raises
    ------
    Unusable
        A frame without light, or too few good pixels.
    """
    rule = rule or Rule()
    images = np.ascontiguousarray(images[0], np.float32), np.ascontiguousarray(images[1], np.float32)
    good = np.ones(images[0].shape, np.bool_) if good is None else np.ascontiguousarray(good)
    masked, found = np.empty(good.shape, np.float32), []
    for image in images:
        _masked(image, good, masked)
        found.append(clipped_mean(masked, None, rule.nsigma, rule.passes))
    (first, noise, _), (second, other, _) = found
    if not (first > FAINTEST * noise and second > FAINTEST * other):
        raise Unusable(f"no light: clipped means of {first:.4g} and {second:.4g} ADU, scatter {noise:.4g} ADU")
    made = difference(images, good, (first, second), rule)
    covariances, counts = made.covariances(made.sums())
    return Pair((first, second), made.variance, covariances, counts, made.row_mean_variance())
