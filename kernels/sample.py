"""MEANCLIP of one large sample: an amplifier, a detector."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.clip import IQR_TO_SIGMA

F32 = NDArray[np.float32]


@njit(cache=True, nogil=True)
def _within(values, base, low, high):  # type: ignore[no-untyped-def]
    """Sum, sum of squares and number of the ``d = x - base`` in ``low <= d <= high``."""
    total, squares, number = 0.0, 0.0, 0
    for x in values:
        d = float(x) - base
        if low <= d <= high:
            total += d
            squares += d * d
            number += 1
    return total, squares, number


def clipped_mean(values: F32, nsigma: float = 3.0, passes: int = 3) -> tuple[float, float, int]:
    """MEANCLIP of one large sample.

    Parameters
    ----------
    values : `numpy.ndarray` [n], float32
        NaN or infinite: left out.

    Returns
    -------
    mean, sigma : `float`
        NaN where nothing is good.
    count : `int`
        Survivors.
    """
    good = values[np.isfinite(values)]
    n = good.size
    if not n:
        return float("nan"), float("nan"), 0
    places = [f * (n - 1) for f in (0.25, 0.5, 0.75)]
    ranks = sorted({min(int(p) + side, n - 1) for p in places for side in (0, 1)} | {(n - 1) // 2})
    good.partition(ranks)

    def quantile(place: float) -> float:
        low, high = (float(good[min(int(place) + side, n - 1)]) for side in (0, 1))
        return low + (place - int(place)) * (high - low)

    base = float(good[(n - 1) // 2])
    lower, centre, upper = (quantile(p) - base for p in places)
    limit, variance, number = nsigma * IQR_TO_SIGMA * (upper - lower), 0.0, 0
    for _ in range(passes):
        total, squares, some = _within(values, base, centre - limit, centre + limit)  # in the order of the pixels
        if not some:  # no spread left, and the centre an ulp beside the value it stands for
            break
        centre, number = total / some, some
        variance = max(squares - total * centre, 0.0) / max(some - 1, 1)
        limit = nsigma * math.sqrt(variance)
    return base + centre, math.sqrt(variance), number
