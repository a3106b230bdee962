"""Clipped means of the bins of an image, with their variances."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.statistics.clip import IQR_TO_SIGMA

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Variance of a mean clipped at 3 sigma over that of its survivors / their number, Gaussian noise and many values.
OF_CLIP: Final = 1.04


def edges(pixels: int, bin_px: int) -> NDArray[np.int64]:
    """Give the edges [bin + 1] of about equal bins, as afw's backgrounds have them: the nearest number of bins."""
    number = max(int(pixels / bin_px + 0.5), 1)
    return np.arange(number + 1) * pixels // number


@njit
def _means(image, rows, columns, out):  # type: ignore[no-untyped-def]
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            total, number = 0.0, 0
            for y in range(rows[j], rows[j + 1]):
                for x in range(columns[i], columns[i + 1]):
                    value = image[y, x]
                    if np.isfinite(value):
                        total += value
                        number += 1
            out[j, i] = total / max(number, 1)


def means(image: F32, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> F32:
    """Average the finite pixels of each bin; 0 where there are none."""
    out = np.empty((len(rows) - 1, len(columns) - 1), np.float32)
    _means(np.ascontiguousarray(image, np.float32), rows, columns, out)
    return out


@njit
def _select(values, n, k):  # type: ignore[no-untyped-def]
    """Put the k-th smallest of n values at place k, none above it before, none below it behind; return it."""
    low, high = 0, n - 1
    while low < high:
        pivot, i, j = values[(low + high) // 2], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i, j = i + 1, j - 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@njit
def _quantile(values, n, f):  # type: ignore[no-untyped-def]
    """Interpolate a quantile linearly at f (n - 1); reorders the values."""
    at = f * (n - 1)
    k = int(at)
    below = _select(values, n, k)
    above = below
    if k + 1 < n:
        above = values[k + 1]
        for p in range(k + 2, n):
            above = min(above, values[p])
    return float(below) + (at - k) * (float(above) - float(below))


@njit
def _clipped(values, n, nsigma, passes):  # type: ignore[no-untyped-def]
    """Return mean, debiased variance and number of the survivors."""
    middle = _quantile(values, n, 0.5)
    limit = nsigma * IQR_TO_SIGMA * (_quantile(values, n, 0.75) - _quantile(values, n, 0.25))
    centre, variance, number = 0.0, 0.0, 0
    for _ in range(passes):
        total, squares, some = 0.0, 0.0, 0
        for p in range(n):
            d = float(values[p]) - middle
            if abs(d - centre) <= limit:
                total, squares, some = total + d, squares + d * d, some + 1
        if some == 0:  # no spread is left, and rounding puts the centre beside the values
            break
        centre, number = total / some, some
        variance = max(squares - total * centre, 0.0) / max(some - 1, 1)
        limit = nsigma * np.sqrt(variance)
    return middle + centre, variance, number


@njit
def _bins(image, rows, columns, least, nsigma, passes, mean, variance, count):  # type: ignore[no-untyped-def]
    values = np.empty(np.max(np.diff(rows)) * np.max(np.diff(columns)), np.float32)
    for j in range(mean.shape[0]):
        for i in range(mean.shape[1]):
            n = 0
            for y in range(rows[j], rows[j + 1]):
                for x in range(columns[i], columns[i + 1]):
                    value = image[y, x]
                    if np.isfinite(value):
                        values[n] = value
                        n += 1
            every = (rows[j + 1] - rows[j]) * (columns[i + 1] - columns[i])
            if n < 2 or n < least * every:
                mean[j, i] = variance[j, i] = np.nan
                count[j, i] = 0
                continue
            level, square, number = _clipped(values, n, nsigma, passes)
            mean[j, i], variance[j, i], count[j, i] = level, square / max(number, 1), number


def clipped_bins(
    image: F32, rows: NDArray[np.int64], columns: NDArray[np.int64], least: float, nsigma: float = 3.0, passes: int = 3
) -> tuple[F32, F32, NDArray[np.int32]]:
    """Compute MEANCLIP of each bin.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        NaN and infinite pixels are left out.
    rows, columns : `numpy.ndarray` [bin + 1], int64
        Edges of the bins.
    least : `float`
        Least fraction of good pixels of a bin.

    Returns
    -------
    mean, variance : `numpy.ndarray` [bin, bin], float32
        Mean, and its variance by the survivors' scatter; NaN where a bin has too few good pixels.
    count : `numpy.ndarray` [bin, bin], int32
        Survivors.
    """
    shape = len(rows) - 1, len(columns) - 1
    mean, variance, count = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.int32)
    pixels = np.ascontiguousarray(image, np.float32)
    _bins(pixels, rows, columns, least, nsigma, passes, mean, variance, count)
    variance *= np.float32(OF_CLIP)
    return mean, variance, count
