"""Find blank pixels, and replace them by a value."""

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
    """Set the blank pixels of some frames to a value.

    Parameters
    ----------
    raw : `numpy.ndarray` [frame, row, raw width], int32
        Raw pixels, ADU.
    first, last : `int`
        Columns ``[first, last)``.
    frames : sequence of `int`
        Frames that may have blank pixels.
    out : `numpy.ndarray` [frame, row, last - first], float32
        Corrected pixels of these columns.
    """
    for k in frames:
        out[k][raw[k, :, first:last] == BLANK] = value


def places(raw: NDArray[np.int32], first: int) -> NDArray[np.intp]:
    """Locate the blank pixels of rows [row, x]: row, counted from ``first``, and column [n, 2]."""
    return np.argwhere(raw == BLANK) + np.array((first, 0))


def empty(
    shape: tuple[int, ...], at: Sequence[NDArray[np.intp]], amplifier: Amplifier, first: int
) -> NDArray[np.bool_] | None:
    """Flag the blank pixels of a frame's rows from ``first`` on, in detector orientation; `None` if there are none."""
    if not any(map(len, at)):
        return None
    found = np.zeros(shape, np.bool_)
    for rows, columns in (np.transpose(some) for some in at):
        found[rows - first, columns] = True
    return oriented(found, amplifier)
