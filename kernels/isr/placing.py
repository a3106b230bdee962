"""Corrected rows of an amplifier, turned to the detector's orientation and put into an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import inlined, njit
from kernels.statistics.vectors import LANES, bits, load, ones, singles, store, truths, turned, where

F32 = NDArray[np.float32]


@inlined
def _turn(row, flags, to, mirrored):  # type: ignore[no-untyped-def]
    """Copy a row, with NaN for masked and flagged pixels; return the number of those that are only masked."""
    width, accounted = row.size, 0
    vectors, infinity, nothing = width // LANES * LANES, np.float32(np.inf), np.float32(np.nan)
    for x in range(0, vectors, LANES):
        value = turned(load(row, width - LANES - x)) if mirrored else load(row, x)
        good, hidden = (singles(-np.inf) < value) & (value < singles(np.inf)), truths(flags, x)
        store(to, x, where(hidden, singles(np.nan), where(good, value, singles(np.nan))))
        accounted += ones(bits(where(hidden, hidden, good)))
    for x in range(vectors, width):
        pixel = row[width - 1 - x] if mirrored else row[x]
        fine, flagged = abs(pixel) < infinity, flags[x]
        to[x] = pixel if fine & (not flagged) else nothing
        accounted += fine | flagged
    return width - accounted


@njit
def place(
    pixels: F32, flags: NDArray[np.bool_], corner: tuple[int, int],
    image: F32, y0: int, up: int, x0: int, mirrored: bool,
) -> int:  # fmt: skip
    """Copy corrected rows into an image; masked and flagged pixels become NaN.

    Parameters
    ----------
    pixels : `numpy.ndarray` [row, column], float32
        Result of `kernels.isr.load.finish`.
    flags : `numpy.ndarray` [y, x], bool
        Flags of the detector's pixels; [0, 0] without.
    corner : `tuple` [`int`, `int`]
        y and x of the image's first pixel on the detector.
    image : `numpy.ndarray` [y, x], float32
        Filled.
    y0, up : `int`
        Row of the image for the first row, and the step to the next.
    x0 : `int`
        First column of the image.
    mirrored : `bool`
        Whether the rows' columns are in descending order.

    Returns
    -------
    lacking : `int`
        Number of masked pixels that are not flagged.
    """
    rows, width = pixels.shape
    flagged, lacking = np.zeros(width, np.bool_), 0
    below, left = corner
    for k in range(rows):
        y = y0 + k * up
        if flags.size:
            flagged = flags[below + y, left + x0 : left + x0 + width]
        lacking += _turn(pixels[k], flagged, image[y, x0 : x0 + width], mirrored)
    return lacking
