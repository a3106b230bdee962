"""Binned images: the mean of the good pixels of each bin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit


@njit
def _add_row(row, mask, total, count):  # type: ignore[no-untyped-def]
    for x in range(row.shape[0]):
        good = (mask[x] == 0) & np.isfinite(row[x])
        total[x] += np.float64(row[x]) if good else 0.0
        count[x] += 1 if good else 0


@njit
def _average(image, mask, binning, small):  # type: ignore[no-untyped-def]
    """Average bins into ``small``, down the rows first; a mask of a single row holds for every row."""
    width = image.shape[1]
    total, count = np.empty(width, np.float64), np.empty(width, np.int32)
    for j in range(small.shape[0]):
        total[:], count[:] = 0.0, 0
        for y in range(j * binning, min((j + 1) * binning, image.shape[0])):
            _add_row(image[y], mask[y % mask.shape[0]], total, count)
        for i in range(small.shape[1]):
            level, n = 0.0, 0
            for x in range(i * binning, min((i + 1) * binning, width)):
                level += total[x]
                n += count[x]
            small[j, i] = level / n if n else np.nan


def binned(image: NDArray[np.float32], binning: int, mask: NDArray[np.int32] | None = None) -> NDArray[np.float32]:
    """Average ``binning`` x ``binning`` pixels; remainders at the upper edges make smaller bins.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        Bad where not finite.
    binning : `int`
        pixel.
    mask : `numpy.ndarray` [y, x], int32, optional
        Bad where not 0.

    Returns
    -------
    small : `numpy.ndarray` [ceil(y / binning), ceil(x / binning)], float32
        NaN where a bin has no good pixel.
    """
    height, width = image.shape
    small = np.empty((-(-height // binning), -(-width // binning)), np.float32)
    bad = np.zeros((1, width), np.int32) if mask is None else np.ascontiguousarray(mask, np.int32)
    _average(np.ascontiguousarray(image, np.float32), bad, binning, small)
    return small
