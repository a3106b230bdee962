"""Statistics across exposures, pixel by pixel: afw's MEANCLIP, median and mean.

The definition of MEANCLIP is that of afw's statistics on a stack: the first
pass clips about the median with 0.7413 x the inter-quartile range (quartiles
by linear interpolation at ``f (n - 1)``), the following ones about the mean
and the debiased standard deviation of the survivors.  Every pass tests all
inputs again, so a value may come back; a value is kept where
``|x - centre| <= nsigma sigma``.

Inputs are sorted first and summed in that order in float64, so that neither
the order of the exposures nor the tiling changes a bit of the result.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

STATISTICS: Final = {"MEANCLIP": 0, "MEDIAN": 1, "MEAN": 2}
IQR_TO_SIGMA: Final = 0.7413


@njit(cache=True, nogil=True)
def _sort_good(column: NDArray[np.float32], good: NDArray[np.float32]) -> int:
    """Insertion-sort the finite values of ``column`` into ``good``; return their number."""
    n = 0
    for value in column:
        if not math.isfinite(value):
            continue
        k = n
        while k > 0 and good[k - 1] > value:
            good[k] = good[k - 1]
            k -= 1
        good[k] = value
        n += 1
    return n


@njit(cache=True, nogil=True)
def quantile(ordered: NDArray[np.float32], n: int, f: float) -> float:
    """Quantile ``f`` of the first ``n`` ordered values, linear at ``f (n - 1)``."""
    at = f * (n - 1)
    k = int(at)
    if k + 1 >= n:
        return float(ordered[n - 1])
    low = float(ordered[k])
    return low + (at - k) * (float(ordered[k + 1]) - low)


@njit(cache=True, nogil=True)
def _moments(ordered: NDArray[np.float32], lo: int, hi: int, centre: float) -> tuple[float, float]:
    """Mean and debiased variance of ``ordered[lo:hi]``, summed about ``centre``."""
    n = hi - lo
    total = 0.0
    squares = 0.0
    for k in range(lo, hi):
        d = float(ordered[k]) - centre
        total += d
        squares += d * d
    if n < 2:
        return centre + total / n, 0.0
    return centre + total / n, max(squares - total * total / n, 0.0) / (n - 1)


@njit(cache=True, nogil=True)
def meanclip(ordered: NDArray[np.float32], n: int, nsigma: float, passes: int) -> tuple[float, float, int, int]:
    """MEANCLIP of the first ``n`` (>= 1) ordered values.

    Returns
    -------
    mean, variance : `float`
        Of the survivors; the variance is debiased and that of one value.
    lo, hi : `int`
        The survivors are ``ordered[lo:hi]``.
    """
    centre = quantile(ordered, n, 0.5)
    limit = nsigma * IQR_TO_SIGMA * (quantile(ordered, n, 0.75) - quantile(ordered, n, 0.25))
    median = centre
    variance = 0.0
    lo, hi = 0, n
    for _ in range(passes):
        first, last = 0, n
        while first < n and centre - float(ordered[first]) > limit:
            first += 1
        while last > first and float(ordered[last - 1]) - centre > limit:
            last -= 1
        if last <= first:  # no spread left, and the centre an ulp beside the value it stands for
            break
        lo, hi = first, last
        centre, variance = _moments(ordered, lo, hi, median)
        limit = nsigma * math.sqrt(variance)
    return centre, variance, lo, hi


@njit(cache=True, nogil=True)
def combine(
    cube: NDArray[np.float32],
    variances: NDArray[np.float32],
    statistic: int,
    nsigma: float,
    passes: int,
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    count: NDArray[np.int16],
) -> None:
    """Combine ``cube[n, pixel]`` over its first axis.

    Parameters
    ----------
    cube : `numpy.ndarray` [n, pixel], float32
        NaN or infinite: masked.
    variances : `numpy.ndarray` [n, pixel] or [0, 0], float32
        Variance of each input.  Where given, the output's variance is
        propagated from it; else it is the survivors' scatter / count.
    statistic : `int`
        One of `STATISTICS`.
    nsigma, passes : `float`, `int`
        Of MEANCLIP.
    image, variance : `numpy.ndarray` [pixel], float32
        Filled; NaN where no input is good, and the variance also where a
        single good input has no scatter.
    count : `numpy.ndarray` [pixel], int16
        Filled with the number of inputs that went in.
    """
    n_inputs, n_pixels = cube.shape
    good = np.empty(n_inputs, np.float32)
    for p in range(n_pixels):
        column = cube[:, p]
        n = _sort_good(column, good)
        if n == 0:
            image[p] = np.nan
            variance[p] = np.nan
            count[p] = 0
            continue
        if statistic == 0:
            value, spread, lo, hi = meanclip(good, n, nsigma, passes)
        else:
            lo, hi = 0, n
            median = quantile(good, n, 0.5)
            value, spread = _moments(good, 0, n, median)
            if statistic == 1:
                value = median
                spread *= math.pi / 2
        kept = hi - lo
        if variances.shape[0] > 0:
            low, high = good[lo], good[hi - 1]
            total = 0.0
            for k in range(n_inputs):
                if column[k] >= low and column[k] <= high:
                    total += float(variances[k, p])
            spread = total / kept * (math.pi / 2 if statistic == 1 else 1.0)
        elif n < 2:
            spread = np.nan
        image[p] = value
        variance[p] = spread / kept
        count[p] = kept


def clipped_mean(values: NDArray[np.float32], nsigma: float = 3.0, passes: int = 3) -> tuple[float, float, int]:
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
    ordered = np.sort(values[np.isfinite(values)].astype(np.float32, copy=False))
    if not ordered.size:
        return float("nan"), float("nan"), 0
    mean, variance, lo, hi = meanclip(ordered, ordered.size, nsigma, passes)
    return mean, math.sqrt(variance), hi - lo
