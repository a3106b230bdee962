"""The background of an exposure over the focal plane: values in superpixels, straight lines between their centres.

The scheme is that of pipe_tasks' FocalPlaneBackground: a superpixel's value is the mean of what the detectors have in
it, weighted by their pixels; superpixels with too little are filled by Akima's spline along rows, then columns, and
straight lines beyond the ends; a detector gets the values by bilinear interpolation.  Ours besides: a superpixel that
the detectors cover in part has its value at the centre of that part, so that a gradient leaves nothing at the rim; and
superpixels begin at the focal plane's centre, so that they do not depend on the selected detectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Rounds that move the values of partly covered superpixels to their centres.
ROUNDS: Final = 20
#: Least number of values for Akima's spline; fewer are joined by straight lines.
AKIMA: Final = 5


@dataclass(frozen=True)
class Cells:
    """What some detectors have in superpixels: sums over pixels, by superpixel (x, y)."""

    #: [n, 2], int64: Superpixels; one may occur often.
    index: NDArray[np.int64]
    #: [n], float64: Mean level, and number of pixels in it.
    mean: F64
    count: F64
    #: [n, 2], float64: Centre of these pixels (x, y), mm.
    centre: F64


@dataclass(frozen=True)
class Background:
    """Levels at the centres of superpixels (ix, iy) from ``first`` on."""

    size_mm: float
    first: tuple[int, int]
    #: [iy, ix], float64
    values: F64
    #: Median of the superpixels that were measured.
    level: float

    def at(self, x: F64, y: F64) -> F64:
        """Interpolate at places of the focal plane, mm."""
        (i, s), (j, t) = (
            _between(at / self.size_mm - 0.5 - first, number)
            for at, first, number in zip((x, y), self.first, self.values.shape[::-1], strict=True)
        )
        v, right, above = self.values, np.minimum(i + 1, self.values.shape[1] - 1), j + 1
        above = np.minimum(above, v.shape[0] - 1)
        low, high = v[j, i] + s * (v[j, right] - v[j, i]), v[above, i] + s * (v[above, right] - v[above, i])
        return np.asarray(low + t * (high - low))


def _between(at: F64, number: int) -> tuple[NDArray[np.int64], F64]:
    if number == 1:
        return np.zeros(np.shape(at), np.int64), np.zeros(np.shape(at))
    below = np.clip(np.floor(at), 0, number - 2).astype(np.int64)
    return below, at - below


def _line(known: F64, values: F64, at: F64) -> F64:
    """Interpolate along a line: Akima between the known places, straight beyond them."""
    from scipy.interpolate import Akima1DInterpolator

    if known.size == 1:
        return np.full(at.size, values[0])
    found = np.interp(at, known, values)
    inside = (at >= known[0]) & (at <= known[-1])
    if known.size >= AKIMA and inside.any():
        found[inside] = Akima1DInterpolator(known, values)(at[inside])
    for end, beyond in ((slice(0, 2), at < known[0]), (slice(-2, None), at > known[-1])):
        (a, b), (va, vb) = known[end], values[end]
        found[beyond] = va + (at[beyond] - a) * (vb - va) / (b - a)
    return found


def _fill(values: F64) -> F64:
    """Fill superpixels without a value (NaN): along rows, then along columns."""
    values = values.copy()
    for grid in (values, values.T):
        for line in grid:
            good = np.isfinite(line)
            if good.any() and not good.all():
                there, gaps = (np.flatnonzero(some).astype(np.float64) for some in (good, ~good))
                line[~good] = _line(there, line[good], gaps)
    return values


def solve(cells: Cells, size_mm: float, least: float) -> Background | None:
    """Merge detectors' superpixels to a background; `None` where no superpixel has enough.

    Parameters
    ----------
    size_mm : `float`
        Side of a superpixel, mm.
    least : `float`
        Least number of pixels of a superpixel that counts.
    """
    if not cells.count.size:
        return None
    first, last = cells.index.min(axis=0), cells.index.max(axis=0)
    shape = (last[1] - first[1] + 1, last[0] - first[0] + 1)
    at = (cells.index[:, 1] - first[1], cells.index[:, 0] - first[0])

    def summed(weights: F64) -> F64:
        total = np.zeros(shape)
        np.add.at(total, at, weights)
        return total

    count = summed(cells.count)
    some = np.maximum(count, 1)
    mean, x, y = (summed(cells.count * v) / some for v in (cells.mean, *cells.centre.T))
    good = count >= least
    if not good.any():
        return None
    level = float(np.median(mean[good]))
    corner = (int(first[0]), int(first[1]))
    values = np.where(good, mean, np.nan)
    made = Background(size_mm, corner, _fill(values), level)
    for _ in range(ROUNDS):
        values = np.where(good, made.values + mean - made.at(x, y), np.nan)
        made = Background(size_mm, corner, _fill(values), level)
    return made
