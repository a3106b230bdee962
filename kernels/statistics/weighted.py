"""Weighted means across exposures, and variances propagated from those of the inputs.

Inputs are summed in the order of the exposures, in float64: the tiling does not
change a bit of a weighted mean, the order of the exposures does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.statistics import clip

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Largest share of the weight in one input; above it the unbiased estimate has no solution, or a noisy one.
_HEAVY = 0.4


@njit
def _weigh(cube, n, weights, image, variance, count):  # type: ignore[no-untyped-def]
    for p in range(image.size):
        heavy, largest, total, number = 0.0, 0.0, 0.0, 0
        for k in range(n):
            x = float(cube[k, p])
            if x < np.inf:
                w = weights[k]
                heavy, largest, number = heavy + w, max(largest, w), number + 1
                total += (x - total) * w / heavy
        count[p] = number
        image[p] = total if number > 0 else np.nan
        squares, extra, crowded = 0.0, 1.0, largest > _HEAVY * heavy
        for k in range(n):
            x = float(cube[k, p])
            if x < np.inf:
                share = weights[k] / heavy
                rest = 1 - share if crowded else 1 - 2 * share
                squares += (share * (x - total)) ** 2 / max(rest, 1e-9)
                extra += 0.0 if crowded else share**2 / rest
        variance[p] = squares / extra if number > 1 else np.nan


def weighted_mean(cube: F32, n: int, weights: F64, image: F32, variance: F32, count: NDArray[np.int16]) -> None:
    """Compute the weighted mean of a cube over its first axis.

    With h = w / sum(w) and d = x - mean, the variance is
    sum(h^2 d^2 / (1 - 2 h)) / (1 + sum(h^2 / (1 - 2 h))), which is unbiased
    whatever the variances of the inputs (Rao 1970, J. Am. Stat. Assoc. 65, 161).
    Where an input has more than two fifths of the weight, it is
    sum(h^2 d^2 / (1 - h)), unbiased if the inputs' variances go with 1 / weight.

    Parameters
    ----------
    cube : `numpy.ndarray` [row, width], float32
        See `kernels.statistics.clip.collapse`; not changed.
    weights : `numpy.ndarray` [n], float64
        Above 0.
    image, variance : `numpy.ndarray` [width], float32
        Filled; NaN where no input (variance: fewer than two) is good.
    count : `numpy.ndarray` [width], int16
        Filled with the number of good inputs.
    """
    for plane in (image, variance, count):
        if plane.shape != (cube.shape[1],):
            raise ValueError(f"planes for a cube {cube.shape[1]} pixels wide must be as wide")
    if weights.shape != (n,):
        raise ValueError(f"{n} inputs need as many weights, not {weights.size}")
    _weigh(cube, n, weights, image, variance, count)


def limits(ordered: F32, first: NDArray[np.int16], count: NDArray[np.int16]) -> tuple[F32, F32]:
    """Return smallest and largest survivor [pixel] of a collapsed cube; an empty range without survivors."""
    pixels, last = np.arange(ordered.shape[1]), np.maximum(first.astype(np.int64) + count - 1, 0)
    low, high = ordered[first, pixels], ordered[last, pixels]
    return np.where(count > 0, low, np.float32(np.inf)), np.where(count > 0, high, -np.float32(np.inf))


@njit
def _weigh_medians(cube, n, weights, image):  # type: ignore[no-untyped-def]
    values, heavy = np.empty(n, np.float32), np.empty(n)
    for p in range(image.size):
        number, whole = 0, 0.0
        for k in range(n):
            x = cube[k, p]
            if x < np.inf:
                at = number
                while at > 0 and values[at - 1] > x:
                    values[at], heavy[at] = values[at - 1], heavy[at - 1]
                    at -= 1
                values[at], heavy[at] = x, weights[k]
                number, whole = number + 1, whole + weights[k]
        below, image[p] = 0.0, np.nan
        for k in range(number):
            below += heavy[k]
            if 2 * below >= whole:
                image[p] = values[k]
                break


def clipped_weighted_mean(
    cube: F32, n: int, rule: clip.Rule, weights: F64, image: F32, variance: F32, count: NDArray[np.int16],
    heavy: bool = False,
) -> NDArray[np.int64]:  # fmt: skip
    """Compute the weighted mean of the inputs that a rule keeps; their variances go with 1 / weight.

    The rule is applied to differences from the median, each in units of its input's noise.  Where a few inputs have
    most of the weight, the noise of the others' median would reject them: ``heavy`` takes the weighted median.

    Parameters
    ----------
    cube : `numpy.ndarray` [row, width], float32
        See `kernels.statistics.clip.collapse`; clipped inputs become +infinity.
    rule : `kernels.statistics.clip.Rule`
        MEANCLIP, SIGMACLIP or MEAN.
    weights, image, variance, count
        As for `weighted_mean`.

    Returns
    -------
    good : `numpy.ndarray` [width], int64
        Number of good inputs.
    """
    root, first, ordered = np.sqrt(weights).astype(np.float32)[:, np.newaxis], np.empty_like(count), cube.copy()
    if heavy:
        _weigh_medians(cube, n, weights, image)
    else:
        clip.median(ordered, n, image)
    good = np.isfinite(cube[:n])
    with np.errstate(invalid="ignore"):
        z = np.where(good, (cube[:n] - image) * root, np.float32(np.inf))
    ordered[:n], ordered[n:] = z, np.inf
    clip.collapse(ordered, n, rule, image, variance, count, first)
    low, high = limits(ordered, first, count)
    cube[:n][(z < low) | (z > high)] = np.inf
    weighted_mean(cube, n, weights, image, variance, count)
    return good.sum(axis=0)


@njit
def _propagate(values, variances, low, high, weights, factors, out):  # type: ignore[no-untyped-def]
    for p in range(out.size):
        total, heavy, number = 0.0, 0.0, 0
        for k in range(variances.shape[0]):
            if low[p] <= values[k, p] <= high[p] and values[k, p] < np.inf:
                total += float(variances[k, p]) * weights[k] ** 2
                heavy, number = heavy + weights[k], number + 1
        if number > 0:
            out[p] = factors[number] * total / heavy**2


def propagate(
    values: F32, variances: F32, within: tuple[F32, F32], weights: F64, factors: NDArray[np.float32], out: F32
) -> None:
    """Propagate the variances of inputs to their (weighted) mean: factor x sum(w^2 v) / sum(w)^2.

    Parameters
    ----------
    values : `numpy.ndarray` [row, width], float32
        The cube before it was sorted; +infinity where masked.
    variances : `numpy.ndarray` [n, width], float32
        Variance of each input.
    within : `tuple` of `numpy.ndarray` [width], float32
        Inputs within ``low <= x <= high`` count.
    weights : `numpy.ndarray` [n], float64
        Weights; all 1 for a plain mean.
    factors : `numpy.ndarray` [n + 1], float32
        Factor by the number of inputs that count.
    out : `numpy.ndarray` [width], float32
        Filled where any input counts.
    """
    width = values.shape[1]
    if variances.shape != (weights.size, width) or any(a.shape != (width,) for a in (*within, out)):
        raise ValueError(f"variances {variances.shape} are not those of {weights.size} inputs of {width} pixels")
    _propagate(values, variances, *within, weights, factors, out)
