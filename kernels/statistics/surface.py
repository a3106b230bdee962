"""A smooth surface through values on a grid of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.compiled import njit
from kernels.statistics.cells import clipped_bins, edges

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def filled(values: F64) -> F64:
    """Fill cells without a value (NaN) by the means of their neighbours, from the good ones outwards; 0 if none has."""
    values = np.array(values, np.float64)
    if not np.isfinite(values).any():
        return np.zeros_like(values)
    while (gaps := ~np.isfinite(values)).any():
        padded = np.pad(values, 1, constant_values=np.nan)
        around = np.stack([
            padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
            for dy in (-1, 0, 1) for dx in (-1, 0, 1)
        ])  # fmt: skip
        good = np.isfinite(around)
        number = good.sum(axis=0)
        total = np.where(good, around, 0.0).sum(axis=0)
        values = np.where(gaps & (number > 0), total / np.maximum(number, 1), values)
    return values


@njit
def _subtract(image, values, below_y, part_y, below_x, part_x):  # type: ignore[no-untyped-def]
    """Subtract the interpolated values from an image, in place."""
    for y in range(image.shape[0]):
        j, t = below_y[y], part_y[y]
        k = min(j + 1, values.shape[0] - 1)
        for x in range(image.shape[1]):
            i, s = below_x[x], part_x[x]
            right = min(i + 1, values.shape[1] - 1)
            low = values[j, i] + s * (values[j, right] - values[j, i])
            high = values[k, i] + s * (values[k, right] - values[k, i])
            image[y, x] -= np.float32(low + t * (high - low))


def _along(centres: F64, at: F64) -> tuple[NDArray[np.int64], F64]:
    """Find the centre below each place, and the part of the way to the next; beyond the ends the line goes on."""
    if centres.size == 1:
        return np.zeros(at.size, np.int64), np.zeros(at.size)
    below = np.clip(np.searchsorted(centres, at, "right") - 1, 0, centres.size - 2)
    return below, (at - centres[below]) / (centres[below + 1] - centres[below])


@dataclass(frozen=True)
class Surface:
    """Values at the centres of the cells of an image, with straight lines between them."""

    #: [cell, cell], float64
    values: F64
    #: [cell + 1], int64: Edges of the cells, pixels.
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @classmethod
    def of(cls, image: F32, cell_px: int, least: float = 0.1, every: int = 1) -> tuple[Surface, F64]:
        """Measure an image [y, x], float32; also give the usual scatter of a pixel in each cell, NaN where unknown.

        Parameters
        ----------
        least : `float`
            Least fraction of good pixels of a cell.
        every : `int`
            Measure every n-th row only.
        """
        rows, columns = (edges(n, cell_px) for n in image.shape)
        some = image if every == 1 else np.ascontiguousarray(image[::every])
        mean, variance, count = clipped_bins(some, -(-rows // every), columns, least)
        return cls(filled(mean.astype(np.float64)), rows, columns), np.sqrt(variance * count, dtype=np.float64)

    def subtract(self, image: F32, box: Box | None = None) -> None:
        """Subtract the surface from an image [y, x], float32, in place; that of a box, where there is one."""
        box = Box(0, 0, image.shape[1], image.shape[0]) if box is None else box
        ways: list[NDArray[Any]] = []
        for marks, first, number in ((self.rows, box.y0, box.ny), (self.columns, box.x0, box.nx)):
            ways += _along((marks[:-1] + marks[1:] - 1) / 2, np.arange(first, first + number, dtype=np.float64))
        _subtract(image, self.values, *ways)
