"""MEANCLIP of one large sample: an amplifier, a detector."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.compiled import njit
from kernels.statistics.clip import IQR_TO_SIGMA
from kernels.statistics.percentiles import percentiles
from kernels.statistics.vectors import LANES, double, doubles, load, store, where

F32 = NDArray[np.float32]


@njit
def _within(image, x0, x1, base, low, high):  # type: ignore[no-untyped-def]
    """Return sum, sum of squares and number of ``d = x - base`` in columns ``[x0, x1)`` with ``low <= d <= high``."""
    totals, zero, one = np.zeros(3 * LANES), doubles(0), doubles(1)
    for y in range(image.shape[0]):
        row = image[y, x0:x1]
        whole = row.size // LANES * LANES
        total, squares, number = zero, zero, zero
        for at in range(0, whole, LANES):
            d = double(load(row, at)) - doubles(base)
            keep = (doubles(low) <= d) & (d <= doubles(high))
            d = where(keep, d, zero)
            total, squares, number = total + d, squares + d * d, number + where(keep, one, zero)
        store(totals, 0, load(totals, 0) + total)
        store(totals, LANES, load(totals, LANES) + squares)
        store(totals, 2 * LANES, load(totals, 2 * LANES) + number)
        for x in range(whole, row.size):
            rest = float(row[x]) - base
            if low <= rest <= high:
                totals[0] += rest
                totals[LANES] += rest * rest
                totals[2 * LANES] += 1
    return totals[:LANES].sum(), totals[LANES : 2 * LANES].sum(), int(totals[2 * LANES :].sum())


def clipped_mean(image: F32, box: Box | None = None, nsigma: float = 3.0, passes: int = 3) -> tuple[float, float, int]:
    """Compute MEANCLIP of one large sample.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        NaN and infinite pixels are left out.
    box : `Box`, optional
        Box of the image; by default all of it.

    Returns
    -------
    mean, sigma : `float`
        NaN where nothing is good.
    count : `int`
        Survivors.
    """
    box = Box(0, 0, image.shape[1], image.shape[0]) if box is None else box
    (lower, centre, upper), good = percentiles(image, None, box, (25, 50, 75))
    if not good:
        return float("nan"), float("nan"), 0
    base, rows = float(centre), np.ascontiguousarray(image[box.y0 : box.y1], np.float32)
    centre, limit, variance, number = 0.0, nsigma * IQR_TO_SIGMA * float(upper - lower), 0.0, 0
    for _ in range(passes):
        total, squares, some = _within(rows, box.x0, box.x1, base, centre - limit, centre + limit)
        if not some:  # no spread is left, and rounding puts the centre an ulp beside the values
            break
        centre, number = total / some, some
        variance = max(squares - total * centre, 0.0) / max(some - 1, 1)
        limit = nsigma * math.sqrt(variance)
    return base + centre, math.sqrt(variance), number
