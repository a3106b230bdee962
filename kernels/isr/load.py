"""Compiled arithmetic from raw rows to the cube that is combined.

Every function works on one row at a time (with column levels measured
beforehand), so that the result does not depend on how an amplifier is cut into
row blocks.  A level is kept as a whole number and a remainder: raw values (below
2^24) and the whole number are exact in float32, and so is their difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import inlined, njit
from kernels.fits.rowbytes import BLANK
from kernels.statistics.vectors import LANES, bits, ints, load, ones, real, singles, store, where

F32 = NDArray[np.float32]

#: Values of one round of a loop, so that the compiler uses whole vectors.
_BATCH = 64
_FIRST = np.int32(-2147483648)
#: Least number of pixels of a row whose common value is no coincidence.
LEAST = 16
#: Pieces of a sampled row whose means are taken; then the places of the results of `sample` for one row.
PIECES = 8
SIGNAL, VARIANCE, LEVEL, SPAN, FIRST_PIECE = 0, 1, 2, 3, 4
SAMPLED = FIRST_PIECE + PIECES
#: Most values at each end of a piece that an inner mean leaves out: the width of a cosmic ray's track.
_ENDS = 4
#: Largest less smallest value of a piece without a hit, in noises.
_QUIET = 8.0


@njit
def _room(n):  # type: ignore[no-untyped-def]
    """Make the workspace of `_medians` for ``n`` values."""
    return np.full(-(-n // _BATCH) * _BATCH, BLANK, np.int32)


@njit
def _at_most(values, limit):  # type: ignore[no-untyped-def]
    """Count the values up to ``limit``; the size of ``values`` is a multiple of `_BATCH`."""
    count = np.int32(0)
    for start in range(0, values.size, _BATCH):
        part = values[start : start + _BATCH]
        for x in range(_BATCH):
            count += np.int32(part[x] <= limit)
    return count


@njit
def _medians(values, room):  # type: ignore[no-untyped-def]
    """Find both middle values of the whole numbers that are not blank, by bisection; blank where all are."""
    n, low, high = values.size, values[0], values[0]
    for x in range(n):
        value = values[x]
        room[x] = value
        low, high = min(low, value), max(high, value)
    if high == BLANK:
        if low == BLANK:
            return low, high
        n = _at_most(room, np.int32(BLANK - 1))
    half = (n - 1) // 2
    while low < high:
        middle = np.int32((np.int64(low) + np.int64(high)) >> 1)
        if _at_most(room, middle) > half:
            high = middle
        else:
            low = np.int32(middle + 1)
    if n % 2 or _at_most(room, low) > half + 1:
        return low, low
    above = BLANK
    for x in range(values.size):
        if room[x] > low:
            above = min(above, room[x])
    return low, above


@njit
def median_levels(rows: NDArray[np.int32], first: int, last: int, base: F32, rest: F32) -> None:
    """Compute the median of each row's columns ``[first, last)``, as ``base + rest``.

    Parameters
    ----------
    rows : `numpy.ndarray` [frame, row, raw width], int32
        ADU.
    base, rest : `numpy.ndarray` [frame, row], float32
        Filled with a whole number, and 0 or a multiple of a half; NaN where all pixels are blank.
    """
    frames, height, _ = rows.shape
    room = _room(last - first)
    for k in range(frames):
        for y in range(height):
            low, high = _medians(rows[k, y, first:last], room)
            base[k, y], rest[k, y] = low, np.float32(np.int64(high) - np.int64(low)) * np.float32(0.5)
            if low == BLANK:
                base[k, y] = np.nan


@njit
def signal(
    rows: NDArray[np.int32], first: int, last: int, base: F32, rest: F32, column: F32, gain: float, out: F32
) -> None:
    """Subtract the levels from columns ``[first, last)``, and multiply by the gain.

    Parameters
    ----------
    rows : `numpy.ndarray` [frame, row, raw width], int32
        ADU.
    base, rest : `numpy.ndarray` [frame, row], float32
        Level of the row, ADU.
    column : `numpy.ndarray` [frame, last - first], float32
        Level of the column above the rows' levels, ADU.
    gain : `float`
        electron/ADU, or 1.
    out : `numpy.ndarray` [>= frame, >= row (last - first)], float32
        Filled from element [0, 0] on, row after row.
    """
    frames, height, _ = rows.shape
    width, factor = last - first, np.float32(gain)
    for k in range(frames):
        above = column[k]
        for y in range(height):
            raw, to = rows[k, y, first:last], out[k, y * width : (y + 1) * width]
            whole, part = base[k, y], rest[k, y]
            for x in range(width):
                to[x] = ((np.float32(raw[x]) - whole) - part - above[x]) * factor


@njit
def _constant(raw):  # type: ignore[no-untyped-def]
    """Whether all pixels of a row are equal: its amplifier is off."""
    count = np.int32(0)
    if raw.size >= LEAST and raw[0] == raw[1]:
        for x in range(raw.size):
            count += np.int32(raw[x] == raw[0])
    return count == raw.size


@inlined
def _row(raw, to, above, level, rate, whole, part, factor, time, offset, scale, limit, hidden):  # type: ignore[no-untyped-def]
    """Finish a row, which holds the signal if ``above`` is empty; return the number of its pixels from the limit on."""
    scaled, below = scale != 1 or offset != 0, 0
    vectors, infinity = to.size // LANES * LANES, np.float32(np.inf)
    for at in range(0, vectors, LANES):
        counts, value = load(raw, at), load(to, at)
        if above.size:
            value = (real(counts) - singles(whole) - singles(part) - load(above, at)) * singles(factor)
        if level.size:
            value = value - load(level, at)
        if rate.size:
            value = value - load(rate, at) * singles(time)
        if scaled:
            value = (value - singles(offset)) / singles(scale)
        good = (singles(-np.inf) < value) & (value < singles(np.inf)) & (counts < ints(hidden))
        store(to, at, where(good, value, singles(np.inf)))
        below += ones(bits(counts < ints(limit)))
    for x in range(vectors, to.size):
        value = to[x]
        if above.size:
            value = ((np.float32(raw[x]) - whole) - part - above[x]) * factor
        if level.size:
            value -= level[x]
        if rate.size:
            value -= rate[x] * time
        if scaled:
            value = (value - offset) / scale
        to[x] = value if (abs(value) < infinity) & (raw[x] < hidden) else infinity
        below += raw[x] < limit
    return to.size - below


@njit
def finish(
    rows: NDArray[np.int32], first: int, last: int, base: F32, rest: F32, columns: F32, gain: float,
    ceiling: int, headroom: float, mask: bool,
    bias: F32, dark: F32, seconds: F32, scales: F32, offsets: F32,
    cube: F32, bottom: int, top: int, saturated: NDArray[np.int64],
) -> None:  # fmt: skip
    """Subtract levels and calibrations, scale, and mask saturated pixels and rows without any noise.

    Parameters
    ----------
    rows : `numpy.ndarray` [frame, row, raw width], int32
        ADU, with the data in columns ``[first, last)``.
    base, rest : `numpy.ndarray` [frame, row], float32
        Level of the row, ADU.
    columns : `numpy.ndarray` [frame, column], float32
        Levels of the columns as for `signal`, which is included then; [frame, 0] where ``cube`` has its result.
    gain : `float`
        electron/ADU, or 1.
    ceiling : `int`
        Raw values from here on are saturated, ADU.
    headroom : `float`
        Signals from here on are saturated, too, ADU above the level.
    mask : `bool`
        Whether saturated pixels are masked; they are counted anyway.
    bias, dark : `numpy.ndarray` [>= row, column], float32
        In the unit of the cube, the dark per second; [0, 0] without.
    seconds, scales, offsets : `numpy.ndarray` [frame], float32
        Factor of the dark; pixels become (pixel - offset) / scale.
    cube : `numpy.ndarray` [>= frame, >= row * column], float32
        Filled, or changed in place; masked and blank pixels, and those that are no number, become +infinity.
    bottom, top : `int`
        Saturated pixels of rows ``[bottom, top)`` are counted.
    saturated : `numpy.ndarray` [frame], int64
        Incremented; blank pixels are counted, too.
    """
    frames, height, _ = rows.shape
    width, factor = last - first, np.float32(gain)
    nothing = np.empty(0, np.float32)
    for k in range(frames):
        above = columns[k]
        for y in range(height):
            raw, to = rows[k, y, first:last], cube[k, y * width : (y + 1) * width]
            limit = np.int32(min(float(ceiling), np.ceil(float(base[k, y]) + float(rest[k, y]) + headroom)))
            hidden = limit if mask else BLANK
            if (raw[0] < limit or not mask) and _constant(raw):  # a masked row at full scale counts as saturated
                hidden = _FIRST  # no raw value is below it
            level, rate = bias[y] if bias.size else nothing, dark[y] if dark.size else nothing
            full = _row(
                raw, to, above, level, rate, base[k, y], rest[k, y], factor,
                seconds[k], offsets[k], scales[k], limit, hidden,
            )  # fmt: skip
            if bottom <= y < top:
                saturated[k] += full


@njit
def _typical(steps, room):  # type: ignore[no-untyped-def]
    """Compute the median of absolute whole numbers, interpolated within the unit of the middle value."""
    middle, _ = _medians(steps, room)
    if middle == BLANK:
        return np.nan
    below = equal = np.int32(0)
    for step in steps:
        below += np.int32(step < middle)
        equal += np.int32(step == middle)
    part = (0.5 * steps.size - below) / equal
    return part * 0.5 if middle == 0 else middle - 0.5 + part


@njit
def _keep(ends, value, sign):  # type: ignore[no-untyped-def]
    """Insert a value into the ordered smallest (sign 1) or largest (-1) values."""
    k = ends.size - 1
    while k > 0 and sign * value < sign * ends[k - 1]:
        ends[k] = ends[k - 1]
        k -= 1
    ends[k] = value


@njit
def _inner_mean(values):  # type: ignore[no-untyped-def]
    """Compute the mean without the few smallest and largest values."""
    few = min(_ENDS, values.size // 4)
    smallest, largest = np.full(few, BLANK, np.int64), np.full(few, _FIRST, np.int64)
    total, number = np.int64(0), 0
    for value in values:
        if value != BLANK:
            total += value
            number += 1
            if few and value < smallest[-1]:
                _keep(smallest, value, 1)
            if few and value > largest[-1]:
                _keep(largest, value, -1)
    if number > 2 * few:
        return (total - smallest.sum() - largest.sum()) / (number - 2 * few)
    return total / number if number else np.nan


@njit
def _pieces(row, level, noise, out):  # type: ignore[no-untyped-def]
    """Compute the mean of each of `PIECES` pieces of a row, above its level; the inner mean where a hit is possible.

    A cosmic ray along a column lies in the same piece of many rows.
    """
    for k in range(PIECES):
        values = row[row.size * k // PIECES : row.size * (k + 1) // PIECES]
        total, low, high = np.int64(0), BLANK, _FIRST
        for value in values:
            total += value
            low, high = min(low, value), max(high, value)
        if values.size and high != BLANK and float(high) - float(low) <= _QUIET * noise:
            out[k] = total / values.size - level
        else:
            out[k] = _inner_mean(values) - level


@njit
def _span(row):  # type: ignore[no-untyped-def]
    """Compute largest less smallest value of a row; 0 where all are blank."""
    low, high = BLANK, _FIRST
    for value in row:
        if value != BLANK:
            low, high = min(low, value), max(high, value)
    return float(high) - float(low) if low <= high else 0.0


@njit
def sample(
    rows: NDArray[np.int32], picked: NDArray[np.int64], data: NDArray[np.int64], overscan: NDArray[np.int64],
    levels: NDArray[np.float64], out: NDArray[np.float64],
) -> None:  # fmt: skip
    """Measure signal, noise and shape of some rows.

    Parameters
    ----------
    rows : `numpy.ndarray` [frame, row, raw width], int32
        ADU.
    picked : `numpy.ndarray` [picked], int64
        Sampled rows.
    data, overscan : `numpy.ndarray` [2], int64
        First column and the one behind the last; with an empty overscan the
        noise is taken from the differences of neighbours.
    levels : `numpy.ndarray` [frame, row], float64
        ADU.
    out : `numpy.ndarray` [frame, picked, SAMPLED], float64
        Filled for the pixels that are not blank: median signal, ADU;
        variance, ADU^2; the row's level, ADU; largest less smallest value,
        ADU; the mean signal of each of `PIECES` pieces without their few
        smallest and largest values, ADU.  NaN where all pixels are blank.
    """
    steps = np.empty(data[1] - data[0] - 1, np.int32)
    room, room_of_steps = _room(steps.size + 1), _room(steps.size)
    for k in range(rows.shape[0]):
        for p in range(picked.size):
            row, level, to = rows[k, picked[p]], levels[k, picked[p]], out[k, p]
            signal = row[data[0] : data[1]]
            low, high = _medians(signal, room)
            to[SIGNAL] = np.nan if low == BLANK else 0.5 * (float(low) + float(high)) - level
            to[LEVEL] = level
            to[SPAN] = _span(signal)
            if overscan[1] > overscan[0]:
                to[VARIANCE] = _variance(row[overscan[0] : overscan[1]])
            else:
                for x in range(steps.size):
                    one, other = row[data[0] + x + 1], row[data[0] + x]
                    steps[x] = BLANK if max(one, other) == BLANK else abs(one - other)
                to[VARIANCE] = (1.4826 * _typical(steps, room_of_steps)) ** 2 / 2
            _pieces(signal, level, to[VARIANCE] ** 0.5, to[FIRST_PIECE:])


@njit
def _variance(values):  # type: ignore[no-untyped-def]
    origin, total, squares, number = 0.0, 0.0, 0.0, 0
    for value in values:
        if value != BLANK:
            if not number:
                origin = float(value)
            d = float(value) - origin
            total += d
            squares += d * d
            number += 1
    return max(squares - total * total / number, 0.0) / (number - 1) if number > 1 else np.nan
