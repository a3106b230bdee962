"""Binned images: the mean of the good pixels of each bin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def binned(image: NDArray[np.float32], binning: int) -> NDArray[np.float32]:
    """Average ``binning`` x ``binning`` pixels; what is left over at the upper edges is its own, smaller bin.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        NaN where bad.
    binning : `int`
        pixel.

    Returns
    -------
    small : `numpy.ndarray` [ceil(y / binning), ceil(x / binning)], float32
        NaN where a bin has no good pixel.
    """
    if binning == 1:
        return image.copy()
    good = np.isfinite(image)
    values = np.where(good, image, np.float32(0))
    rows, columns = (np.arange(0, size, binning) for size in image.shape)
    total = np.add.reduceat(np.add.reduceat(values, rows, axis=0, dtype=np.float64), columns, axis=1)
    count = np.add.reduceat(np.add.reduceat(good, rows, axis=0, dtype=np.int64), columns, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / count).astype(np.float32)
