"""Gaps of an image: filled along the rows, and grown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


@njit
def _fill(image, good, level):  # type: ignore[no-untyped-def]
    """Replace bad pixels by a line between the nearest good ones of the row, or by the level in a row without any."""
    for y in range(image.shape[0]):
        row, fine = image[y], good[y]
        last = -1
        for x in range(row.shape[0] + 1):
            if x < row.shape[0] and not fine[x]:
                continue
            if x - last > 1:
                before = row[last] if last >= 0 else (row[x] if x < row.shape[0] else level)
                after = row[x] if x < row.shape[0] else before
                for k in range(last + 1, x):
                    part = np.float32(k - last) / np.float32(x - last)
                    row[k] = before + part * (after - before)
            last = x


def fill(image: F32, good: Bool, level: float) -> None:
    """Replace bad pixels in place: by a line between the nearest good ones of the row, at its ends by the nearest one.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
    good : `numpy.ndarray` [y, x], bool
    level : `float`
        Value of a row without any good pixel.
    """
    _fill(image, np.ascontiguousarray(good), np.float32(level))


def grown(flags: Bool, steps: int) -> Bool:
    """Grow flags [y, x] by a number of steps to the four neighbours."""
    found = flags
    for _ in range(steps):
        before, found = found, found.copy()
        found[1:] |= before[:-1]
        found[:-1] |= before[1:]
        found[:, 1:] |= before[:, :-1]
        found[:, :-1] |= before[:, 1:]
    return found
