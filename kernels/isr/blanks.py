"""Blank pixels: finding them, and replacing them for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier
from kernels.fits.rowbytes import BLANK

F32 = NDArray[np.float32]


def oriented(image: NDArray[Any], amplifier: Amplifier) -> NDArray[Any]:
    """Mirror rows [y, x] between read-out and detector orientation (its own inverse)."""
    return image[:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]


def without_blanks(
    raw: NDArray[np.int32], first: int, last: int, frames: Sequence[int], out: F32, value: float
) -> None:
    """Give blank pixels of some frames a value.

    Parameters
    ----------
    raw : `numpy.ndarray` [frame, row, raw width], int32
        ADU.
    first, last : `int`
        Columns.
    frames : sequence of `int`
        Frames that may have blank pixels.
    out : `numpy.ndarray` [frame, row, last - first], float32
        Corrected pixels of these columns.
    """
    for k in frames:
        out[k][raw[k, :, first:last] == BLANK] = value


def places(raw: NDArray[np.int32], first: int) -> NDArray[np.intp]:
    """Rows, counted from ``first`` on, and columns [n, 2] of the blank pixels of some rows [row, x]."""
    return np.argwhere(raw == BLANK) + np.array((first, 0))


def empty(
    shape: tuple[int, ...], at: Sequence[NDArray[np.intp]], amplifier: Amplifier, first: int
) -> NDArray[np.bool_] | None:
    """Flag the blank pixels of a frame's rows from ``first`` on, in detector orientation; `None` without any."""
    if not any(map(len, at)):
        return None
    found = np.zeros(shape, np.bool_)
    for rows, columns in (np.transpose(some) for some in at):
        found[rows - first, columns] = True
    return oriented(found, amplifier)
