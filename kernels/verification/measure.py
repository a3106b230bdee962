"""Compiled statistics of the amplifiers of one corrected frame, in few passes over its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.compiled import njit

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Pixels in the sample whose median and quartiles begin the clipping.
SAMPLE = 512
#: Clipping of NOISE and MEAN, standard deviations and passes (cp_verify: 5 x 3); pixels beyond it are the tail.
NSIGMA, PASSES = 5.0, 3
_IQR_TO_SIGMA = 0.7413
#: Places in a row of `_amplifier`'s result.
COUNT, MEAN, SIGMA, KEPT, CLIPPED_MEAN, CLIPPED_SIGMA, TAIL = range(7)


@njit
def _begin(image, x0, y0, nx, ny):  # type: ignore[no-untyped-def]
    """Return median and standard deviation by quartiles of a sample of an amplifier's good pixels."""
    step = max(1, nx * ny // SAMPLE)
    sample, number = np.empty(nx * ny // step + 1, np.float32), 0
    for at in range(0, nx * ny, step):
        value = image[y0 + at // nx, x0 + at % nx]
        if np.isfinite(value):
            sample[number] = value
            number += 1
    if number < 2:
        return np.nan, np.nan
    values = np.sort(sample[:number])
    quarter = number // 4
    return float(values[number // 2]), _IQR_TO_SIGMA * (float(values[number - 1 - quarter]) - float(values[quarter]))


@njit
def _moments(image, x0, y0, nx, ny, base, low, high):  # type: ignore[no-untyped-def]
    """Return number, mean and variance of the values with ``low <= value - base <= high``."""
    number, total, squares = 0, 0.0, 0.0
    for y in range(y0, y0 + ny):
        row = image[y, x0 : x0 + nx]
        some, part, square = 0, 0.0, 0.0
        for x in range(nx):
            d = float(row[x]) - base
            good = (low <= d) & (d <= high) & np.isfinite(d)
            d = d if good else 0.0
            some += 1 if good else 0
            part += d
            square += d * d
        number += some
        total += part
        squares += square
    if number < 2:
        return number, np.nan, np.nan
    mean = total / number
    return number, base + mean, max(squares - total * mean, 0.0) / (number - 1)


@njit
def _gather(image, x0, y0, nx, ny, low, high, binning, rows, columns, bins):  # type: ignore[no-untyped-def]
    """Fill sums and numbers [..., 2] by row, column and bin of the values in bounds; count those out of bounds."""
    beyond = 0
    for y in range(ny):
        row, j = image[y0 + y, x0 : x0 + nx], min(y // binning, bins.shape[0] - 1)
        for x in range(nx):
            value = float(row[x])
            if low <= value <= high:
                columns[x, 0] += value
                columns[x, 1] += 1
            elif np.isfinite(value):
                beyond += 1
        for i in range(bins.shape[1]):
            last = nx if i == bins.shape[1] - 1 else (i + 1) * binning
            total, number = 0.0, 0
            for x in range(i * binning, last):
                value = float(row[x])
                good = (low <= value) & (value <= high)
                total += value if good else 0.0
                number += 1 if good else 0
            bins[j, i, 0] += total
            bins[j, i, 1] += number
            rows[y, 0] += total
            rows[y, 1] += number
    return beyond


@njit
def _amplifier(image, x0, y0, nx, ny, binning, found, rows, columns, bins):  # type: ignore[no-untyped-def]
    """Measure one amplifier; fill its row of results, and the sums by row, column and bin."""
    base, sigma = _begin(image, x0, y0, nx, ny)
    found[:] = np.nan
    found[COUNT] = found[KEPT] = found[TAIL] = 0
    if not np.isfinite(base):
        return
    number, mean, variance = _moments(image, x0, y0, nx, ny, base, -np.inf, np.inf)
    found[COUNT], found[MEAN], found[SIGMA] = number, mean, np.sqrt(variance)
    centre, spread = base, sigma
    for _ in range(PASSES):
        reach = NSIGMA * spread
        kept, mean, variance = _moments(image, x0, y0, nx, ny, base, centre - base - reach, centre - base + reach)
        if kept < 2:
            break
        centre, spread = mean, np.sqrt(variance)
        found[KEPT], found[CLIPPED_MEAN], found[CLIPPED_SIGMA] = kept, centre, spread
    reach = NSIGMA * spread
    found[TAIL] = _gather(image, x0, y0, nx, ny, centre - reach, centre + reach, binning, rows, columns, bins)


@njit
def _overscan(rows, skip, levels, variances, columns):  # type: ignore[no-untyped-def]
    """Fill mean and variance of each row's columns from ``skip`` on, and the sums of all columns."""
    for y in range(rows.shape[0]):
        row = rows[y]
        base, total, squares = float(row[skip]), 0.0, 0.0
        for x in range(row.size):
            d = float(row[x]) - base
            columns[x] += float(row[x])
            if x >= skip:
                total += d
                squares += d * d
        number = row.size - skip
        levels[y] = base + total / number
        variances[y] = (squares - total * total / number) / (number - 1)


@dataclass(frozen=True)
class Serial:
    """Statistics of one amplifier's serial overscan, ADU."""

    #: [row], float64: mean, and variance about it, of the columns that levels are made of.
    levels: F64
    variances: F64
    #: [column], float64: means of all columns.
    columns: F64

    @property
    def noise2(self) -> float:
        """Variance of a pixel, ADU^2."""
        return float(self.variances.mean())


def serial(rows: NDArray[np.int32], skip: int) -> Serial:
    """Measure a serial overscan [row, column] in the order of the read-out, ADU, without its first columns."""
    height, width = rows.shape
    skip = min(skip, max(width - 2, 0))
    found = Serial(np.empty(height), np.empty(height), np.zeros(width))
    _overscan(rows, skip, found.levels, found.variances, found.columns)
    found.columns[:] /= max(height, 1)
    return found


def box_mean(image: F32, box: Box) -> tuple[int, float]:
    """Return number and mean of a box's finite pixels; NaN with less than two."""
    number, mean, _ = _moments(image, box.x0, box.y0, box.nx, box.ny, 0.0, -np.inf, np.inf)
    return int(number), float(mean)


def _means(sums: F64) -> F64:
    """Divide sums by numbers [..., 2]; NaN where nothing was good."""
    number = sums[..., 1]
    return np.where(number > 0, sums[..., 0] / np.maximum(number, 1), np.nan)


@dataclass(frozen=True)
class Measured:
    """Statistics of a frame's amplifiers; a dead amplifier has NaN, and 0 good pixels."""

    #: [amplifier, 7], float64: `COUNT` of good pixels, their `MEAN` and `SIGMA`; `KEPT` pixels, `CLIPPED_MEAN` and
    #: `CLIPPED_SIGMA` after clipping; `TAIL`, the number of pixels beyond `NSIGMA`.
    numbers: F64
    #: By amplifier, on the assembled detector: means of rows [y], columns [x] and bins [y, x], not clipped.
    rows: Sequence[F64]
    columns: Sequence[F64]
    bins: Sequence[F64]
    #: By amplifier: good pixels in each bin [y, x].
    filled: Sequence[F64]

    def of(self, place: int) -> F64:
        """Return one statistic [amplifier]."""
        return self.numbers[:, place]


def measure(image: F32, boxes: Sequence[Box], binning: int) -> Measured:
    """Measure all amplifiers of a frame.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        NaN where masked.
    boxes : sequence of `Box`
        Amplifiers on the assembled detector.
    binning : `int`
        Side of a bin, pixel; bins at the upper edges hold the remainder too.
    """
    numbers = np.empty((len(boxes), TAIL + 1))
    rows, columns, bins = (list[F64]() for _ in range(3))
    for box, found in zip(boxes, numbers, strict=True):
        side = max(1, min(binning, box.nx, box.ny))
        sums = np.zeros((box.ny, 2)), np.zeros((box.nx, 2)), np.zeros((box.ny // side, box.nx // side, 2))
        _amplifier(image, box.x0, box.y0, box.nx, box.ny, side, found, *sums)
        for to, some in zip((rows, columns, bins), sums, strict=True):
            to.append(some)
    by_row, by_column, by_bin = (list(map(_means, part)) for part in (rows, columns, bins))
    return Measured(numbers, by_row, by_column, by_bin, [one[..., 1] for one in bins])
