"""The statistics across exposures once more, from their definitions, in float64 and plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def _ordered(cube: F64, good: NDArray[np.bool_]) -> F64:
    """The good values of each pixel first, in order."""
    return np.sort(np.where(good, cube, np.finfo(np.float64).max), axis=0)


def _at(ordered: F64, good: NDArray[np.int64], f: float) -> F64:
    """Quantile ``f`` of the first ``good`` of ordered[n, pixel], linear at ``f (good - 1)``."""
    place = f * (np.maximum(good, 1) - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(good, 1) - 1)
    pixels = np.arange(ordered.shape[1])
    below, above = ordered[low, pixels], ordered[high, pixels]
    return below + (place - low) * (above - below)


def _moments(cube: F64, keep: NDArray[np.bool_], ddof: int) -> tuple[F64, F64, NDArray[np.int64]]:
    """Compute mean (in two passes), variance and number of the kept values."""
    count = keep.sum(axis=0)
    origin = np.where(keep.any(axis=0), cube[keep.argmax(axis=0), np.arange(cube.shape[1])], 0.0)
    d = np.where(keep, cube - origin, 0.0)
    mean = d.sum(axis=0) / np.maximum(count, 1)
    squares = np.where(keep, (cube - origin - mean) ** 2, 0.0).sum(axis=0)
    return origin + mean, squares / np.maximum(count - ddof, 1), count


def _meanclip(cube: F64, good: NDArray[np.bool_], nsigma: float, passes: int) -> NDArray[np.bool_]:
    ordered, number = _ordered(cube, good), good.sum(axis=0)
    centre = _at(ordered, number, 0.5)
    limit = nsigma * 0.7413 * (_at(ordered, number, 0.75) - _at(ordered, number, 0.25))
    keep = good
    for _ in range(passes):
        new = good & (np.abs(cube - centre) <= limit)
        keep = np.where(new.any(axis=0), new, keep)
        centre, variance, _ = _moments(cube, keep, 1)
        limit = nsigma * np.sqrt(variance)
    return keep


def _sigmaclip(cube: F64, good: NDArray[np.bool_], nsigma: float, ddof: int) -> NDArray[np.bool_]:
    keep = good
    while True:
        ordered = _ordered(cube, keep)
        centre = _at(ordered, keep.sum(axis=0), 0.5)
        _, variance, _ = _moments(cube, keep, ddof)
        new = keep & (np.abs(cube - centre) <= nsigma * np.sqrt(variance))
        new = np.where(new.any(axis=0), new, keep)
        if (new == keep).all():
            return keep
        keep = new


def combine(
    cube: NDArray[Any], statistic: str, nsigma: float = 3.0, passes: int = 3, ddof: int = 1
) -> tuple[F64, F64, NDArray[np.int64]]:
    """Image, variance and count of cube[n, pixel]; NaN and infinite values are masked."""
    cube = np.asarray(cube, np.float64)
    good = np.isfinite(cube)
    cube = np.where(good, cube, 0.0)
    keep = good
    if statistic == "MEANCLIP":
        keep = _meanclip(cube, good, nsigma, passes)
    elif statistic == "SIGMACLIP":
        keep = _sigmaclip(cube, good, nsigma, ddof)
    mean, variance, count = _moments(cube, keep, 1)
    variance /= np.maximum(count, 1)
    if statistic == "MEDIAN":
        mean = _at(_ordered(cube, good), count, 0.5)
        variance *= np.pi / 2
    mean[count == 0] = np.nan
    variance[good.sum(axis=0) < 2] = np.nan
    return mean, variance, count
