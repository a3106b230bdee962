"""The background of an exposure over the focal plane: values in superpixels, straight lines between their centres.

The scheme is that of pipe_tasks' FocalPlaneBackground: a superpixel's value is the mean of what the detectors have in
it, weighted by their pixels; superpixels with too little are filled by Akima's spline along rows, then columns, and
straight lines beyond the ends; a detector gets the values by bilinear interpolation.  Ours besides: a superpixel that
the detectors cover in part has its value at the centre of that part, so that a gradient leaves nothing at the rim; and
superpixels begin at the focal plane's centre, so that they do not depend on the selected detectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.focalplane import places_mm
from kernels.camera.geometry import Box, Detector
from kernels.statistics.cells import edges
from kernels.statistics.level import clipped_level

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Rounds that move the values of partly covered superpixels to their centres.
ROUNDS: Final = 20
#: Least number of values for Akima's spline; fewer are joined by straight lines.
AKIMA: Final = 5
#: Fewest pixels along a side of a bin, whatever the camera's scale, so that a clip has something to clip.
NARROWEST: Final = 8


def bins(detector: Detector, bin_px: int, scale: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the edges of a detector's bins, rows and columns; ``bin_px`` is that of an unscaled camera."""
    size, (width, height) = max(round(bin_px / scale), min(NARROWEST, bin_px)), detector.size
    return edges(height, size), edges(width, size)


def box_of(detector: Detector, ix: int, iy: int, size_mm: float) -> Box | None:
    """Give the pixels between the corners of a superpixel, as upstream does; `None` where there are none."""
    c, s = math.cos(math.radians(detector.yaw_deg)), math.sin(math.radians(detector.yaw_deg))
    pitch, at = detector.pixel_um * 1e-3, []
    for k in (0, 1):
        x, y = (ix + k) * size_mm - detector.position_mm[0], (iy + k) * size_mm - detector.position_mm[1]
        at.append(((c * x + s * y) / pitch, (c * y - s * x) / pitch))
    ends = [
        sorted(round(place + n / 2) for place in some)
        for some, n in zip(zip(*at, strict=True), detector.size, strict=True)
    ]
    (x0, x1), (y0, y1) = ((max(low, 0), min(high, n)) for (low, high), n in zip(ends, detector.size, strict=True))
    return Box(x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def measure(detector: Detector, image: F32, size_mm: float) -> list[list[float]]:
    """Measure the superpixels of an image [y, x], float32: clipped means of what is finite.

    Returns
    -------
    rows : `list` [`list` [`float`]]
        Index along x and y, mean, number of pixels, and their centre along x and y (mm).
    """
    width, height = detector.size
    corners = places_mm(detector, np.array([-0.5, width - 0.5]), np.array([-0.5, height - 0.5]))
    (x0, x1), (y0, y1) = ((math.floor(float(c.min()) / size_mm), math.ceil(float(c.max()) / size_mm)) for c in corners)
    found: list[list[float]] = []
    for iy in range(y0, y1):
        for ix in range(x0, x1):
            box = box_of(detector, ix, iy, size_mm)
            mean, count = (math.nan, 0) if box is None else clipped_level(image, box)
            if box is not None and count:
                middle = np.array([box.x0 + (box.nx - 1) / 2]), np.array([box.y0 + (box.ny - 1) / 2])
                x, y = places_mm(detector, *middle)
                found.append([ix, iy, mean, count, float(x[0, 0]), float(y[0, 0])])
    return found


@dataclass(frozen=True)
class Cells:
    """Levels of some detectors in superpixels, by superpixel (x, y)."""

    #: [n, 2], int64: Superpixels; one may occur often.
    index: NDArray[np.int64]
    #: [n], float64: Mean level, and number of pixels in it.
    mean: F64
    count: F64
    #: [n, 2], float64: Centre of these pixels (x, y), mm.
    centre: F64

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> Cells:
        """Join rows of `measure`."""
        table = np.array(rows, np.float64).reshape(-1, 6)
        return cls(table[:, :2].astype(np.int64), table[:, 2], table[:, 3], table[:, 4:])


@dataclass(frozen=True)
class Background:
    """Levels at the centres of superpixels (ix, iy) from ``first`` on."""

    size_mm: float
    first: tuple[int, int]
    #: [iy, ix], float64
    values: F64
    #: Median of the superpixels that were measured.
    level: float

    def at(self, x: F64, y: F64) -> F64:
        """Interpolate at places of the focal plane, mm."""
        (i, s), (j, t) = (
            _between(at / self.size_mm - 0.5 - first, number)
            for at, first, number in zip((x, y), self.first, self.values.shape[::-1], strict=True)
        )
        v, right, above = self.values, np.minimum(i + 1, self.values.shape[1] - 1), j + 1
        above = np.minimum(above, v.shape[0] - 1)
        low, high = v[j, i] + s * (v[j, right] - v[j, i]), v[above, i] + s * (v[above, right] - v[above, i])
        return np.asarray(low + t * (high - low))


def _between(at: F64, number: int) -> tuple[NDArray[np.int64], F64]:
    if number == 1:
        return np.zeros(np.shape(at), np.int64), np.zeros(np.shape(at))
    below = np.clip(np.floor(at), 0, number - 2).astype(np.int64)
    return below, at - below


def _line(known: F64, values: F64, at: F64) -> F64:
    """Interpolate along a line: Akima between the known places, straight beyond them."""
    from scipy.interpolate import Akima1DInterpolator

    if known.size == 1:
        return np.full(at.size, values[0])
    found = np.interp(at, known, values)
    inside = (at >= known[0]) & (at <= known[-1])
    if known.size >= AKIMA and inside.any():
        found[inside] = Akima1DInterpolator(known, values)(at[inside])
    for end, beyond in ((slice(0, 2), at < known[0]), (slice(-2, None), at > known[-1])):
        (a, b), (va, vb) = known[end], values[end]
        found[beyond] = va + (at[beyond] - a) * (vb - va) / (b - a)
    return found


def _fill(values: F64) -> F64:
    """Fill superpixels without a value (NaN): along rows, then along columns."""
    values = values.copy()
    for grid in (values, values.T):
        for line in grid:
            good = np.isfinite(line)
            if good.any() and not good.all():
                there, gaps = (np.flatnonzero(some).astype(np.float64) for some in (good, ~good))
                line[~good] = _line(there, line[good], gaps)
    return values


def solve(cells: Cells, size_mm: float, least: float) -> Background | None:
    """Merge detectors' superpixels to a background; `None` where no superpixel has enough.

    Parameters
    ----------
    size_mm : `float`
        Side of a superpixel, mm.
    least : `float`
        Least number of pixels of a superpixel that counts.
    """
    if not cells.count.size:
        return None
    first, last = cells.index.min(axis=0), cells.index.max(axis=0)
    shape = (last[1] - first[1] + 1, last[0] - first[0] + 1)
    at = (cells.index[:, 1] - first[1], cells.index[:, 0] - first[0])

    def summed(weights: F64) -> F64:
        total = np.zeros(shape)
        np.add.at(total, at, weights)
        return total

    count = summed(cells.count)
    some = np.maximum(count, 1)
    mean, x, y = (summed(cells.count * v) / some for v in (cells.mean, *cells.centre.T))
    good = count >= least
    if not good.any():
        return None
    level = float(np.median(mean[good]))
    corner = (int(first[0]), int(first[1]))
    values = np.where(good, mean, np.nan)
    made = Background(size_mm, corner, _fill(values), level)
    for _ in range(ROUNDS):
        values = np.where(good, made.values + mean - made.at(x, y), np.nan)
        made = Background(size_mm, corner, _fill(values), level)
    return made
