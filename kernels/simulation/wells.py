"""Full wells: each pixel's own, and charge beyond it that runs along the column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def bloom(charge: F32, wells: F32) -> None:
    """Let the charge above each pixel's full well run to the nearest pixels of its column that have room, in place.

    Half of it runs either way.  What reaches the end of the column is lost: up to
    the read-out register, and down where the other half of the sensor begins.

    Parameters
    ----------
    charge, wells : `numpy.ndarray` [y, x], float32
        Charge of an amplifier's imaging area, and the full well of its pixels, electron.
    """
    excess = np.maximum(charge - wells, 0)
    if not excess.any():
        return
    charge -= excess
    excess *= np.float32(0.5)
    for rows in (range(len(charge)), range(len(charge) - 1, -1, -1)):
        carried = np.zeros(charge.shape[1], np.float32)
        for y in rows:
            carried += excess[y]
            taken = np.minimum(carried, wells[y] - charge[y])
            charge[y] += taken
            carried -= taken
