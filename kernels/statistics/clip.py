"""Statistics across exposures, pixel by pixel: clipped means, median, mean and weighted mean.

**MEANCLIP** is afw's statistic on a stack: the first pass clips about the
median with 0.7413 x the inter-quartile range (quartiles by linear
interpolation at ``f (n - 1)``), the following ones about the mean and the
debiased standard deviation of the survivors.  Every pass tests all inputs
again, so a value may come back.  **SIGMACLIP** clips about the median with the
standard deviation (``ddof`` 0 or 1) of the survivors, only these are tested
again, until nothing changes (astropy's `SigmaClip` with ``maxiters=None``, and
Siril's rejection).  Both keep ``low <= x <= high``, ties included.

Inputs are sorted first (`kernels.statistics.network`) and then summed in that order, so
neither the order of the exposures nor the tiling changes a bit of the result.
Sums are of differences from the lower median, of which float32 loses nothing
that counts: four at a time in float32, these in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.statistics.network import sort
from kernels.statistics.simd import INDEX, LANES, Code, Mask, Variable, Vector

F32 = NDArray[np.float32]

STATISTICS: Final = {"MEANCLIP": 0, "MEDIAN": 1, "MEAN": 2, "SIGMACLIP": 3, "WEIGHTED": 4}
IQR_TO_SIGMA: Final = 0.7413
#: Variance of a median over that of a mean, for Gaussian noise and many inputs.
OF_MEDIAN: Final = math.pi / 2
NO_FIRST: Final = np.empty(0, np.int16)

_LARGEST: Final = np.finfo(np.float32).max
_CHUNK: Final = 4
#: Rows of the arrays [row, LANES], float32, that vector code and plain code share.
_BASE, _LOW, _HIGH, _MEAN, _VARIANCE, _NUMBER, _GOOD, _FACTOR = (row * LANES for row in range(8))


@dataclass(frozen=True)
class Rule:
    """How inputs become one value.

    Parameters
    ----------
    statistic : `str`
        One of `STATISTICS`.
    nsigma : `float`
        Limit of the clipping statistics.
    passes : `int`
        Passes of MEANCLIP.
    ddof : `int`
        Of SIGMACLIP's standard deviation, 0 or 1.
    """

    statistic: str = "MEANCLIP"
    nsigma: float = 3.0
    passes: int = 3
    ddof: int = 1


Sums = tuple[Vector, Vector, Vector]


class _Column:
    """The sorted values of `LANES` pixels: ``flat[at + k stride]``, as differences from a base."""

    def __init__(self, code: Code, base: Vector, at: Any, stride: Any) -> None:
        self.code, self._base, self._at, self._stride = code, base, at, stride

    def row(self, k: Any) -> Vector:
        """Row ``k``."""
        return self.code.load(0, self.code.place(self._at, self._stride, k)) - self._base

    def _chunk(self, start: Any, k: int) -> Vector:
        return self.code.load(0, self.code.place(start, self._stride, k)) - self._base

    def sums(self, first: Any, last: Any, low: Vector | None = None, high: Vector | None = None) -> Sums:
        """Sum, sum of squares (both in float64) and number of rows ``[first, last)`` within ``low <= d <= high``.

        Both are multiples of `_CHUNK`.  Without limits all count; the sums are
        the same bits as with limits that all are within.
        """
        code, one = self.code, self.code.number(1)
        total, squares = Variable(code.number(0, double=True)), Variable(code.number(0, double=True))
        number = Variable(code.number(0))
        with code.loop(first, last, _CHUNK) as row:
            some, some_squares, count = code.number(0), code.number(0), number.get()
            start = code.place(self._at, self._stride, row)
            for k in range(_CHUNK):
                d = self._chunk(start, k)
                if low is not None and high is not None:
                    keep = (low <= d) & (d <= high)
                    d = code.where(keep, d, code.number(0))
                    count = count + code.where(keep, one, code.number(0))
                some, some_squares = some + d, code.fused(d, d, some_squares)
            number.set(count if low is not None else count + code.number(_CHUNK))
            total.set(total.get() + some.double())
            squares.set(squares.get() + some_squares.double())
        return total.get(), squares.get(), number.get()


def _moments(code: Code, sums: Sums) -> tuple[Mask, Vector, Vector]:
    """Whether there is any survivor, and mean and debiased variance."""
    (total, squares, number), zero, one = sums, code.number(0), code.number(1)
    mean = total / code.where(zero < number, number, one)
    scatter = squares - total * mean
    less = number - one
    variance = code.where(zero < scatter, scatter, zero) / code.where(zero < less, less, one)
    return zero < number, mean, variance


@intrinsic
def _finite(typing: Any, flat: Any, at: Any) -> Any:
    """Whether `LANES` values from ``flat[at]`` on are all below infinity."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        return (code.load(0, code.index(1)) < code.number(math.inf)).every()

    return types.boolean(flat, at), generate


@intrinsic
def _begin(typing: Any, flat: Any, at: Any, places: Any, parts: Any, numbers: Any, state: Any) -> Any:
    """Base, median (as the mean) and MEANCLIP's first bounds, where all values of the lanes are good.

    ``places`` (base, then lower and upper neighbour of median and quartiles, as
    offsets) and ``parts`` (of the way between these) are `_quartiles`';
    ``numbers``: the limit in inter-quartile ranges, and how many values there are.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        at = code.index(1)
        base = code.load(0, builder.add(at, code.index(2, 0)))
        quantiles = []
        for k in range(3):
            low, high = (code.load(0, builder.add(at, code.index(2, 1 + 2 * k + side))) - base for side in (0, 1))
            quantiles.append(low + code.spread(3, k) * (high - low))
        middle, lower, upper = quantiles
        reach, largest = code.spread(4, 0) * (upper - lower), code.number(float(_LARGEST))
        some = middle <= reach  # else not even the values beside the median are within
        low = code.where(some, middle - reach, code.number(-float(_LARGEST)))
        values = (base, low, code.where(some, middle + reach, largest), middle, code.spread(4, 1))
        for value, row in zip(values, (_BASE, _LOW, _HIGH, _MEAN, _GOOD), strict=True):
            code.store(value, 5, row)
        return code.nothing()

    return types.void(flat, at, places, parts, numbers, state), generate


@intrinsic
def _clip_vector(typing: Any, flat: Any, at: Any, stride: Any, rows: Any, factor: Any, passes: Any, state: Any) -> Any:
    """Passes from the bounds in ``state`` on, each about mean and deviation of the one before.

    ``rows``: where the sorted column's middle part begins and ends, and its
    end.  The middle, which hardly ever clips, is summed once; where one of
    its values is outside of the bounds after all, it is summed like the
    rest.  A lane without any survivor keeps what it had: no spread was left,
    and the centre an ulp beside the value that it stands for.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        column, factor_ = _Column(code, code.load(6, _BASE), code.index(1), code.index(2)), code.spread(4)
        start, stop, end = (code.index(3, k) for k in range(3))
        low, high = Variable(code.load(6, _LOW)), Variable(code.load(6, _HIGH))
        results = [*(Variable(code.number(0)) for _ in range(3)), Variable(low.get()), Variable(high.get())]
        middle, least, largest = column.sums(start, stop), column.row(start), column.row(code.before(stop))
        with code.loop(INDEX(0), code.index(5)):
            part = [Variable(value) for value in middle]
            inside = ((low.get() <= least) & (largest <= high.get())).every()
            with code.unless(inside):
                for variable, value in zip(part, column.sums(start, stop, low.get(), high.get()), strict=True):
                    variable.set(value)
            below = column.sums(INDEX(0), start, low.get(), high.get())
            above = column.sums(stop, end, low.get(), high.get())
            total, squares, number = (a + v.get() + b for a, v, b in zip(below, part, above, strict=True))
            some, mean, variance = _moments(code, (total.single(), squares.single(), number))
            for result, value in zip(results, (mean, variance, number, low.get(), high.get()), strict=True):
                result.set(code.where(some, value, result.get()))
            reach = factor_ * code.root(results[1].get())
            low.set(results[0].get() - reach)
            high.set(results[0].get() + reach)
        for result, row in zip(results, (_MEAN, _VARIANCE, _NUMBER, _LOW, _HIGH), strict=True):
            code.store(result.get(), 6, row)
        return code.nothing()

    return types.void(flat, at, stride, rows, factor, passes, state), generate


@intrinsic
def _finish(typing: Any, state: Any, at: Any, image: Any, variance: Any, count: Any) -> Any:
    """``base + mean``, ``factor variance / number`` (NaN where none, or a single one, was good) and number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        rows = (_BASE, _MEAN, _VARIANCE, _NUMBER, _GOOD, _FACTOR)
        base, mean, spread, number, good, factor = (code.load(0, k) for k in rows)
        nan = code.number(math.nan)
        code.store(code.where(code.number(0) < good, base + mean, nan), 2, code.index(1))
        code.store(code.where(code.number(1) < good, factor * spread / number, nan), 3, code.index(1))
        code.store_count(number, 4, code.index(1))
        return code.nothing()

    return types.void(state, at, image, variance, count), generate


@njit
def _quartiles(n, stride):  # type: ignore[no-untyped-def]
    """Where base, median and quartiles of ``n`` sorted values lie; see `_begin`."""
    half, quarter, rest = 0.5 * (n - 1), 0.25 * (n - 1), 0.75 * (n - 1)
    h, q, r = int(half), int(quarter), int(rest)
    places = ((n - 1) // 2, h, min(h + 1, n - 1), q, min(q + 1, n - 1), r, min(r + 1, n - 1))
    parts = (np.float32(half - h), np.float32(quarter - q), np.float32(rest - r))
    return (
        (places[0] * stride, places[1] * stride, places[2] * stride, places[3] * stride, places[4] * stride,
         places[5] * stride, places[6] * stride),
        parts,
    )  # fmt: skip


@njit
def _lane(flat, stride, n, at, f, base):  # type: ignore[no-untyped-def]
    """The same of a single lane."""
    place = f * (n - 1)
    k = int(place)
    low, high = flat[at + k * stride] - base, flat[at + min(k + 1, n - 1) * stride] - base
    return low + np.float32(place - k) * (high - low)


@njit
def _hollow_lanes(flat, stride, n, at, scale, state):  # type: ignore[no-untyped-def]
    """Number of good values, base, median and first bounds of the lanes where some are masked."""
    for i in range(LANES):
        good = n
        while good > 0 and not flat[at + i + (good - 1) * stride] < np.inf:
            good -= 1
        if good < n:
            state[_GOOD + i] = good
            base = flat[at + i + (max(good, 1) - 1) // 2 * stride]
            state[_BASE + i] = base
            if good > 0:
                middle = _lane(flat, stride, good, at + i, 0.5, base)
                lower = _lane(flat, stride, good, at + i, 0.25, base)
                upper = _lane(flat, stride, good, at + i, 0.75, base)
                reach = scale * (upper - lower)
                if middle > reach:
                    reach = _LARGEST
                state[_MEAN + i], state[_LOW + i], state[_HIGH + i] = middle, middle - reach, middle + reach


@njit
def _start(flat, stride, n, at, quartiles, scale, state):  # type: ignore[no-untyped-def]
    """Base, median (as the mean), good values and the bounds of MEANCLIP's first pass; whether a lane is masked."""
    _begin(flat, at, quartiles[0], quartiles[1], (scale, np.float32(n)), state)
    hollow = not _finite(flat, at + (n - 1) * stride)
    if hollow:
        _hollow_lanes(flat, stride, n, at, scale, state)
    return hollow


@njit
def _first(flat, stride, at, state, lead):  # type: ignore[no-untyped-def]
    """Row of the first survivor of each lane."""
    for i in range(LANES):
        while lead[i] < state[_GOOD + i] and flat[at + i + lead[i] * stride] - state[_BASE + i] < state[_LOW + i]:
            lead[i] += 1


@njit
def _sigmaclip(flat, stride, parts, at, nsigma, ddof, state, lead):  # type: ignore[no-untyped-def]
    """Clip about the median of the survivors until nothing changes."""
    state[_LOW : _LOW + LANES] = -_LARGEST
    state[_HIGH : _HIGH + LANES] = _LARGEST
    state[_NUMBER : _NUMBER + LANES] = 0
    before, kept = np.zeros(LANES, np.int64), state.copy()
    changed = True
    while changed:
        changed = False
        bounds = state.copy()
        _clip_vector(flat, at, stride, parts, np.float32(0), 1, state)
        for i in range(LANES):
            if state[_NUMBER + i] == 0:  # no spread left: what there was stays
                for row in (_MEAN, _VARIANCE, _NUMBER, _LOW, _HIGH):
                    state[row + i] = kept[row + i]
            else:
                for row in (_MEAN, _VARIANCE, _NUMBER):
                    kept[row + i] = state[row + i]
                kept[_LOW + i], kept[_HIGH + i] = bounds[_LOW + i], bounds[_HIGH + i]
        _first(flat, stride, at, state, lead)
        for i in range(LANES):
            number = int(state[_NUMBER + i])
            if number == before[i]:
                continue
            changed = True
            before[i] = number
            below = float(flat[at + i + (lead[i] + (number - 1) // 2) * stride] - state[_BASE + i])
            above = float(flat[at + i + (lead[i] + number // 2) * stride] - state[_BASE + i])
            squares = float(state[_VARIANCE + i]) * (number - 1)
            reach = nsigma * math.sqrt(squares / max(number - ddof, 1))
            state[_LOW + i] = max(state[_LOW + i], np.float32((below + above) / 2 - reach))
            state[_HIGH + i] = min(state[_HIGH + i], np.float32((below + above) / 2 + reach))


@njit
def _everything(flat, at, stride, parts, state):  # type: ignore[no-untyped-def]
    """Mean, variance and number of all that is finite."""
    for i in range(LANES):
        state[_LOW + i], state[_HIGH + i] = -_LARGEST, _LARGEST
    _clip_vector(flat, at, stride, parts, np.float32(0), 1, state)


@njit
def _medians(flat, stride, n, image):  # type: ignore[no-untyped-def]
    state, quartiles = np.zeros(8 * LANES, np.float32), _quartiles(n, stride)
    for at in range(0, image.size, LANES):
        _start(flat, stride, n, at, quartiles, np.float32(0), state)
        for i in range(LANES):
            image[at + i] = state[_BASE + i] + state[_MEAN + i] if state[_GOOD + i] > 0 else np.nan


@njit
def _middle(n, rows):  # type: ignore[no-untyped-def]
    """Begin and end of the middle part of ``n`` sorted values, multiples of four rows, and the end of all."""
    first, last = (n + 19) // 20 * 4, 4 * n // 5 // 4 * 4
    if n < 8 or last <= first:
        first, last = 0, 0
    return first, last, rows


@njit
def _reduce(flat, stride, rows, n, rule, factors, image, variance, count, first):  # type: ignore[no-untyped-def]
    """Reduce a sorted cube."""
    state, lead = np.zeros(8 * LANES, np.float32), np.empty(LANES, np.int64)
    quartiles, parts = _quartiles(n, stride), _middle(n, rows)
    statistic, nsigma, passes, ddof = rule
    before = True
    for at in range(0, image.size, LANES):
        lead[:] = 0
        hollow = _start(flat, stride, n, at, quartiles, np.float32(nsigma * IQR_TO_SIGMA), state)
        if hollow or before:
            for i in range(LANES):
                state[_FACTOR + i] = factors[int(state[_GOOD + i])]
        before = hollow
        if statistic == 0:
            _clip_vector(flat, at, stride, parts, np.float32(nsigma), passes, state)
            if first.size > 0:
                _first(flat, stride, at, state, lead)
        elif statistic == 1:
            for i in range(LANES):
                image[at + i] = state[_MEAN + i]
            _everything(flat, at, stride, parts, state)
            for i in range(LANES):
                state[_MEAN + i] = image[at + i]
        elif statistic == 2:
            _everything(flat, at, stride, parts, state)
        else:
            _sigmaclip(flat, stride, parts, at, nsigma, ddof, state, lead)
        _finish(state, at, image, variance, count)
        if first.size > 0:
            for i in range(LANES):
                first[at + i] = lead[i]


def plain_factors(rule: Rule, n: int) -> F32:
    """Factors [n + 1] of the plain definition: survivors' variance / count, of the median times pi / 2."""
    return np.full(n + 1, OF_MEDIAN if rule.statistic == "MEDIAN" else 1.0, np.float32)


def _require(width: int, *planes: tuple[NDArray[Any], Any]) -> None:
    """Vector code writes without looking: what it is given must be what it is written for."""
    for plane, kind in planes:
        if plane is not NO_FIRST and (plane.shape != (width,) or plane.dtype != kind or not plane.flags.c_contiguous):
            raise ValueError(f"what a cube {width} pixels wide is reduced to must be as wide, of {kind.__name__}")


def collapse(
    cube: F32,
    n: int,
    rule: Rule,
    image: F32,
    variance: F32,
    count: NDArray[np.int16],
    first: NDArray[np.int16] = NO_FIRST,
    factors: F32 | None = None,
) -> None:
    """Sort a cube in place and reduce it over its first axis.

    Parameters
    ----------
    cube : `numpy.ndarray` [row, width], float32
        From `kernels.statistics.network.workspace`: ``n`` inputs, then padding; +infinity
        where masked, never NaN.
    n : `int`
        Inputs.
    rule : `Rule`
        Of any statistic but WEIGHTED.
    image : `numpy.ndarray` [width], float32
        Filled; NaN where no input is good.
    variance : `numpy.ndarray` [width], float32
        Filled with the survivors' debiased variance / count, times a factor;
        NaN where fewer than two inputs are good.
    count : `numpy.ndarray` [width], int16
        Filled with the number of inputs that went in.
    first : `numpy.ndarray` [width] or [0], int16
        Filled with the row of the sorted cube where the survivors begin.
    factors : `numpy.ndarray` [n + 1], float32, optional
        By the number of good inputs, what the variance is multiplied by
        (`kernels.statistics.estimator`); by default 1, and pi / 2 for the median.
    """
    sort(cube, n)
    rows, stride = cube.shape
    _require(stride, (image, np.float32), (variance, np.float32), (count, np.int16), (first, np.int16))
    if factors is None:
        factors = plain_factors(rule, n)
    if factors.shape != (n + 1,) or factors.dtype != np.float32:
        raise ValueError(f"{n} inputs need {n + 1} factors, float32")
    code = (STATISTICS[rule.statistic], rule.nsigma, rule.passes, rule.ddof)
    _reduce(cube.reshape(-1), stride, rows, n, code, factors, image, variance, count, first)


def median(cube: F32, n: int, image: F32) -> None:
    """Sort a cube in place and take the median over its first axis; see `collapse`."""
    sort(cube, n)
    _require(cube.shape[1], (image, np.float32))
    _medians(cube.reshape(-1), cube.shape[1], n, image)
