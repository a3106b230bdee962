"""Statistics across exposures, pixel by pixel: clipped means, median, mean and weighted mean.

**MEANCLIP** is afw's statistic on a stack: the first pass clips about the
median with 0.7413 x the inter-quartile range (quartiles by linear
interpolation at ``f (n - 1)``), the following ones about the mean and the
debiased standard deviation of the survivors.  Every pass tests all inputs
again, so a rejected value may return.  **SIGMACLIP** clips about the median with
the standard deviation (``ddof`` 0 or 1) of the survivors and tests only these
again, until nothing changes (astropy's `SigmaClip` with ``maxiters=None``, and
Siril's rejection).  Both keep ``low <= x <= high``, ties included.

Inputs are sorted first (`kernels.statistics.network`) and then summed in that order, so
neither the order of the exposures nor the tiling changes a bit of the result.
Differences from the lower median are summed, four at a time in float32 and
these sums in float64, so that float32 loses nothing that counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import inlined, njit
from kernels.statistics.network import sort
from kernels.statistics.vectors import LANES, bits, double, fused, load, root, single, singles, store, where

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
    """Statistic that reduces many inputs to one value."""

    #: One of `STATISTICS`.
    statistic: str = "MEANCLIP"
    #: Limit of the clipping statistics.
    nsigma: float = 3.0
    #: Passes of MEANCLIP.
    passes: int = 3
    #: Delta degrees of freedom of SIGMACLIP's standard deviation, 0 or 1.
    ddof: int = 1


@inlined
def _all(flat, at, stride, base, first, last):  # type: ignore[no-untyped-def]
    """Return sum and sum of squares (float64) and number of ``d = flat[at + k stride] - base``, rows in fours."""
    zero = singles(0)
    total, squares, number = double(zero), double(zero), zero
    for row in range(first, last, _CHUNK):
        some, some_squares = zero, zero
        for k in range(_CHUNK):
            d = load(flat, at + (row + k) * stride) - base
            some, some_squares = some + d, fused(d, d, some_squares)
        total, squares, number = total + double(some), squares + double(some_squares), number + singles(_CHUNK)
    return total, squares, number


@inlined
def _within(flat, at, stride, base, first, last, low, high):  # type: ignore[no-untyped-def]
    """Sum only ``low <= d <= high``; the same bits as `_all` where every value is."""
    zero, one = singles(0), singles(1)
    total, squares, number = double(zero), double(zero), zero
    for row in range(first, last, _CHUNK):
        some, some_squares = zero, zero
        for k in range(_CHUNK):
            d = load(flat, at + (row + k) * stride) - base
            keep = (low <= d) & (d <= high)
            d = where(keep, d, zero)
            number = number + where(keep, one, zero)
            some, some_squares = some + d, fused(d, d, some_squares)
        total, squares = total + double(some), squares + double(some_squares)
    return total, squares, number


@inlined
def _every(mask):  # type: ignore[no-untyped-def]
    return bits(mask) == 2**LANES - 1


@inlined
def _clip_vector(flat, at, stride, rows, factor, passes, state):  # type: ignore[no-untyped-def]
    """Clip, beginning with the bounds in ``state``; each pass takes mean and deviation of the pass before.

    ``rows``: begin and end of the sorted column's middle part, and the column's end.  The middle is rarely clipped: it
    is summed once, and again only where one of its values is out of bounds.  A lane without survivors (no spread is
    left, and rounding puts the centre an ulp beside the values) keeps its former result.
    """
    start, stop, end = rows
    zero, one = singles(0), singles(1)
    base, low, high = load(state, _BASE), load(state, _LOW), load(state, _HIGH)
    mean, variance, number, lower, upper = zero, zero, zero, low, high
    middle = _all(flat, at, stride, base, start, stop)
    least, largest = load(flat, at + start * stride) - base, load(flat, at + max(stop - 1, 0) * stride) - base
    for _ in range(passes):
        below = _within(flat, at, stride, base, 0, start, low, high)
        part = middle
        if not _every((low <= least) & (largest <= high)):
            part = _within(flat, at, stride, base, start, stop, low, high)
        above = _within(flat, at, stride, base, stop, end, low, high)
        total, squares = single(below[0] + part[0] + above[0]), single(below[1] + part[1] + above[1])
        survivors = below[2] + part[2] + above[2]
        some = zero < survivors
        centre = total / where(some, survivors, one)
        scatter, less = squares - total * centre, survivors - one
        spread = where(zero < scatter, scatter, zero) / where(zero < less, less, one)
        mean, variance, number = (
            where(some, centre, mean),
            where(some, spread, variance),
            where(some, survivors, number),
        )
        lower, upper = where(some, low, lower), where(some, high, upper)
        reach = singles(factor) * root(variance)
        low, high = mean - reach, mean + reach
    store(state, _MEAN, mean)
    store(state, _VARIANCE, variance)
    store(state, _NUMBER, number)
    store(state, _LOW, lower)
    store(state, _HIGH, upper)


@inlined
def _finish(state, at, image, variance, count):  # type: ignore[no-untyped-def]
    """Store ``base + mean`` (NaN without good inputs), ``factor variance / number`` (NaN below two) and number."""
    good, number, nan = load(state, _GOOD), load(state, _NUMBER), singles(np.nan)
    store(image, at, where(singles(0) < good, load(state, _BASE) + load(state, _MEAN), nan))
    store(variance, at, where(singles(1) < good, load(state, _FACTOR) * load(state, _VARIANCE) / number, nan))
    store(count, at, number)


@njit
def _quartiles(n, stride):  # type: ignore[no-untyped-def]
    """Locate base, median and quartiles among ``n`` sorted values.

    Returns offsets of the base and of each quantile's lower and upper neighbour; and, for each quantile, its fraction
    of the way between these.
    """
    half, quarter, rest = 0.5 * (n - 1), 0.25 * (n - 1), 0.75 * (n - 1)
    h, q, r = int(half), int(quarter), int(rest)
    parts = (np.float32(half - h), np.float32(quarter - q), np.float32(rest - r))
    return (
        ((n - 1) // 2 * stride, h * stride, min(h + 1, n - 1) * stride, q * stride, min(q + 1, n - 1) * stride,
         r * stride, min(r + 1, n - 1) * stride),
        parts,
    )  # fmt: skip


@inlined
def _between(flat, low, high, part, base):  # type: ignore[no-untyped-def]
    first, second = load(flat, low) - base, load(flat, high) - base
    return first + singles(part) * (second - first)


@inlined
def _begin(flat, at, quartiles, scale, n, state):  # type: ignore[no-untyped-def]
    """Store base, median (as the mean) and MEANCLIP's first bounds of lanes without masked values.

    ``scale`` is the limit in inter-quartile ranges.
    """
    places, parts = quartiles
    base = load(flat, at + places[0])
    middle = _between(flat, at + places[1], at + places[2], parts[0], base)
    lower = _between(flat, at + places[3], at + places[4], parts[1], base)
    upper = _between(flat, at + places[5], at + places[6], parts[2], base)
    reach = singles(scale) * (upper - lower)
    some = middle <= reach  # otherwise even the values beside the median would be out
    store(state, _BASE, base)
    store(state, _LOW, where(some, middle - reach, singles(-_LARGEST)))
    store(state, _HIGH, where(some, middle + reach, singles(_LARGEST)))
    store(state, _MEAN, middle)
    store(state, _GOOD, singles(n))


@njit
def _lane(flat, stride, n, at, f, base):  # type: ignore[no-untyped-def]
    """Interpolate one lane's quantile ``f``, above the base."""
    place = f * (n - 1)
    k = int(place)
    low, high = flat[at + k * stride] - base, flat[at + min(k + 1, n - 1) * stride] - base
    return low + np.float32(place - k) * (high - low)


@njit
def _hollow_lanes(flat, stride, n, at, scale, state):  # type: ignore[no-untyped-def]
    """Store number of good values, base, median and first bounds of the lanes with masked values."""
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
    """Store base, median (as the mean), number and MEANCLIP's first bounds; return whether any value is masked."""
    _begin(flat, at, quartiles, scale, n, state)
    hollow = not _every(load(flat, at + (n - 1) * stride) < singles(np.inf))
    if hollow:
        _hollow_lanes(flat, stride, n, at, scale, state)
    return hollow


@njit
def _first(flat, stride, at, state, lead):  # type: ignore[no-untyped-def]
    """Find the row of each lane's first survivor."""
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
            if state[_NUMBER + i] == 0:  # no spread is left: keep the former result
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
    """Store mean, variance and number of all finite values."""
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
    """Return begin and end of the middle part of ``n`` sorted values, multiples of four rows, and the end of all."""
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
    """Return factors [n + 1] of the plain definition: survivors' variance / count, times pi / 2 for the median."""
    return np.full(n + 1, OF_MEDIAN if rule.statistic == "MEDIAN" else 1.0, np.float32)


def _require(width: int, *planes: tuple[NDArray[Any], Any]) -> None:
    """Require planes that vector code, which checks nothing, can write to."""
    for plane, kind in planes:
        if plane is not NO_FIRST and (plane.shape != (width,) or plane.dtype != kind or not plane.flags.c_contiguous):
            raise ValueError(f"planes for a cube {width} pixels wide must be as wide, of {kind.__name__}")


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
        Any statistic but WEIGHTED.
    image : `numpy.ndarray` [width], float32
        Filled; NaN where no input is good.
    variance : `numpy.ndarray` [width], float32
        Filled with the survivors' debiased variance / count, times a factor;
        NaN where fewer than two inputs are good.
    count : `numpy.ndarray` [width], int16
        Filled with the number of survivors.
    first : `numpy.ndarray` [width] or [0], int16
        Filled with the row of the sorted cube where the survivors begin.
    factors : `numpy.ndarray` [n + 1], float32, optional
        Factor of the variance by the number of good inputs
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
