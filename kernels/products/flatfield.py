"""Division of a corrected frame by the combined flat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.fits.product import BAD, PLANES, Card, Product

#: Least response of a pixel that is divided by.
LEAST: Final = 0.01


def divide(
    image: NDArray[np.float32], mask: NDArray[np.int32], variance: NDArray[np.float32], flat: Product
) -> Sequence[Card]:
    """Divide a frame by the flat, in place; tell so in cards.

    Pixels that are BAD or dark in the flat become BAD, and keep their values; pixels that it has as VIGNETTED or
    NO_DATA are flagged alike.

    Parameters
    ----------
    image, variance : `numpy.ndarray` [y, x], float32
        The assembled detector, after bias and dark; the variance gains that of the flat.
    mask : `numpy.ndarray` [y, x], int32

    Raises
    ------
    DataError
        The flat cannot be read.
    """
    box = Box(0, 0, image.shape[1], image.shape[0])
    response = np.ascontiguousarray(flat.read(box), np.float32)
    lost = ~(response > LEAST)
    for plane in ("BAD", "VIGNETTED", "NO_DATA"):
        flagged = flat.flagged(box, 1 << PLANES[plane])
        lost |= flagged
        mask[flagged] |= 1 << PLANES[plane]
    mask[lost] |= BAD
    response[lost] = 1
    image /= response
    variance /= response**2
    more = 0.0
    if flat.has("VARIANCE"):
        of_flat = np.nan_to_num(flat.read(box, "VARIANCE"), posinf=0, neginf=0).astype(np.float32)
        of_flat[lost] = 0
        variance += image**2 * (of_flat / response**2)
        more = float(of_flat.mean())
    return [
        ("FLATBAD", int(np.count_nonzero(lost)), "pixels that were not divided: bad or dark in the flat"),
        ("FLATVAR", more, "mean variance of the flat, relative"),
    ]
