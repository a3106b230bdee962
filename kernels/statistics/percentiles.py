"""Exact percentiles of an amplifier's good pixels, without sorting them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.compiled import njit

#: Bins between the ends of the sample; two more hold pixels beyond them and one the bad pixels. All fit in the cache.
BINS = 2000
ABOVE, BAD = BINS + 1, BINS + 2
#: The bins span a sample of one pixel in `EVERY`, less a fraction `TAIL` of it at either end.
EVERY = 499
TAIL = 0.005


@njit
def _bins(values, mask, low, scale, bins):  # type: ignore[no-untyped-def]
    """Assign a bin to each pixel of a row, in float64, which cannot overflow; larger values get no lower bin."""
    for x in range(values.shape[0]):
        place = min(max((np.float64(values[x]) - low) * scale + 1.0, 0.0), np.float64(ABOVE))
        bins[x] = np.uint16(place) if (mask[x] == 0) & np.isfinite(values[x]) else BAD


@njit
def _count(image, mask, low, scale, x0, x1, counts):  # type: ignore[no-untyped-def]
    """Count the good pixels in each bin; neighbours go to separate counters, which need not wait for one another."""
    bins = np.empty(x1 - x0, np.uint16)
    for y in range(image.shape[0]):
        _bins(image[y, x0:x1], mask[min(y, mask.shape[0] - 1), x0:x1], low, scale, bins)
        for x in range(x1 - x0):
            counts[x & 3, bins[x]] += 1


@njit
def _keep(image, mask, low, scale, x0, x1, wanted, kept):  # type: ignore[no-untyped-def]
    """Copy the pixels of the wanted bins; ``kept`` has room for one more."""
    bins, n = np.empty(x1 - x0, np.uint16), 0
    for y in range(image.shape[0]):
        row = image[y, x0:x1]
        _bins(row, mask[min(y, mask.shape[0] - 1), x0:x1], low, scale, bins)
        for x in range(x1 - x0):
            kept[n] = row[x]
            n += wanted[bins[x]]


def _range(image: NDArray[np.float32], mask: NDArray[np.int32] | None) -> tuple[float, float]:
    """Return lower end and density of the bins, from a sample of the good pixels; one bin where it has no width."""
    at = np.unravel_index(np.arange(0, image.size, EVERY), image.shape)
    pixels = image[at].astype(np.float64)
    good = np.isfinite(pixels) if mask is None else (mask[at] == 0) & np.isfinite(pixels)
    sample = np.sort(pixels[good])
    if not sample.size:
        return 0.0, 0.0
    low, high = sample[int(TAIL * sample.size)], sample[-1 - int(TAIL * sample.size)]
    return float(low), BINS / float(high - low) if high > low else 0.0


def percentiles(
    image: NDArray[np.float32], mask: NDArray[np.int32] | None, box: Box, percents: Sequence[float]
) -> tuple[NDArray[np.float64], int]:
    """Compute percentiles of the good pixels of a box, interpolated as by `numpy.percentile`.

    A histogram finds the bins that hold the wanted ranks; only their pixels are
    partially sorted, so that the result is exact and does not depend on the bins.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        Bad where not finite.
    mask : `numpy.ndarray` [y, x], int32, optional
        Bad where not 0.
    box : `Box`
        Box of the image.
    percents : sequence of `float`
        Percents, 0 to 100.

    Returns
    -------
    values : `numpy.ndarray` [percent], float64
        In the image's unit; 0 where no pixel is good.
    good : `int`
        Number of good pixels.
    """
    banks, rows = np.zeros((4, BAD + 1), np.int64), slice(box.y0, box.y1)  # whole rows stay contiguous
    masked = np.zeros((1, image.shape[1]), np.int32) if mask is None else mask[rows]
    pixels = np.ascontiguousarray(image[rows], np.float32), np.ascontiguousarray(masked, np.int32)
    how = (
        *_range(image[box.slices], None if mask is None else mask[box.slices]),
        *slice(box.x0, box.x1).indices(image.shape[1])[:2],
    )
    _count(*pixels, *how, banks)
    counts = banks.sum(axis=0)[:BAD]
    good = int(counts.sum())
    if not good:
        return np.zeros(len(percents)), 0
    place = np.asarray(percents, np.float64) / 100 * (good - 1)
    ranks = np.concatenate([np.floor(place), np.ceil(place)]).astype(np.int64)
    wanted = np.zeros(BAD + 1, np.int64)
    found = np.searchsorted(np.cumsum(counts), ranks, side="right")
    wanted[found] = 1
    kept = np.empty(int(counts @ wanted[:BAD]) + 1, np.float32)
    _keep(*pixels, *how, wanted, kept)
    ranks -= np.cumsum(counts * (1 - wanted[:BAD]))[found]
    lower, upper = np.partition(kept[:-1], np.unique(ranks))[ranks].reshape(2, -1)
    return between(lower, upper, place - np.floor(place)), good


def between(lower: NDArray[np.float32], upper: NDArray[np.float32], part: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate from the nearer end, as numpy does."""
    step = upper - lower
    return np.where(part < 0.5, lower + step * part, upper - step * (1 - part))
