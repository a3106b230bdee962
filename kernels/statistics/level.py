"""Mean and count of the MEANCLIP of one large sample, bit for bit, in one pass over its pixels.

A thin sample of the pixels tells between which narrow brackets the quartiles and the limits of every pass must lie.
One pass over all pixels copies those within the brackets, counts those below, and sums the core that no limit can
touch.  The rest is arithmetic on the copied pixels.  All that the thin sample promised is checked; where it does not
hold, `kernels.statistics.sample.clipped_mean` goes over all pixels instead.  A sample may be scanned in parts, by the
brackets of any other sample: what is found is right, or nothing is found.

The bits are those of `clipped_mean`.  Float32 values from ``low`` on are multiples of its spacing, and their
differences from a base between two of them are multiples of half of it, in the core of it: float32 holds these as they
are.  As long as a sum cannot exceed 2^53 of these,
every order of summation in float64 gives the same, exact sum.  Sums of squares are not exact; a bound of their rounding
gives bounds of the limits that follow, and these must keep the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.compiled import inlined, njit
from kernels.statistics.clip import IQR_TO_SIGMA
from kernels.statistics.percentiles import between
from kernels.statistics.sample import clipped_mean
from kernels.statistics.vectors import (
    LANES,
    bits,
    copy_one,
    double,
    doubles,
    fused,
    ints,
    less_one,
    load,
    lowest,
    singles,
    store,
    where,
)  # fmt: skip

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: The thin sample is one pixel in so many, of samples from the least size on; between these numbers of pixels.
EVERY, LEAST, FEW, MANY = 31, 40_000, 10_000, 40_000
#: Half width of a bracket, in standard deviations of the thin sample's own estimate.
SURE = 4.5
#: Standard deviation of a limit of some three sigma, in sigma / sqrt(number).
LIMIT_ERROR = 3.5
#: Largest part of the pixels that the brackets may hold.
ROOM = 0.25
_PRIME: Final = 7919
_QUARTERS: Final = np.array([0.25, 0.5, 0.75])
_LARGEST: Final = np.finfo(np.float32).max
#: Places of the marks.
_OUTER, _CORE, _BRACKETS, _TOP, _BEYOND = 0, 1, 2, 8, 9
#: Bit of the last of 16 pixels.
_LAST: Final = 1 << (LANES - 1)


@njit
def _thin(image, x0, x1, every, out):  # type: ignore[no-untyped-def]
    """Copy one run of 16 pixels in so many, each row's from another column on; return how many pixels these are.

    ``out`` has room for `_room`.
    """
    n = 0
    for y in range(image.shape[0]):
        row = image[y, x0:x1]
        for x in range(y * _PRIME % every * LANES, row.size - LANES + 1, every * LANES):
            store(out, n, load(row, x))
            n += LANES
    return n


def _room(box: Box, every: int) -> int:
    """Most pixels that a thin sample has."""
    return box.ny * (box.nx // (every * LANES) + 1) * LANES


@inlined
def _take(values, marks, base, state):  # type: ignore[no-untyped-def]
    """Add 16 pixels to the state; return it, and a bit for each pixel to be kept.

    Each mark is above those before it, so that exclusive ors of comparisons leave what lies between two of them.
    """
    total, squares, number, good, first, second, third, strange = state
    outer, core, one, two, three, four, five, six, top, beyond = marks
    inside = (values < singles(core)) ^ (values <= singles(top))
    in_first, in_second, in_third = values < singles(one), values < singles(three), values < singles(five)
    edges = (values < singles(outer)) ^ inside ^ (values <= singles(beyond))
    ends = (values <= singles(two)) ^ (values <= singles(four)) ^ (values <= singles(six))
    d = double(where(inside, values, singles(base)) - singles(base))
    state = (
        total + d, fused(d, d, squares), less_one(number, inside), less_one(good, values < singles(np.inf)),
        less_one(first, in_first), less_one(second, in_second), less_one(third, in_third),
        strange | (values < singles(-_LARGEST)),
    )  # fmt: skip
    return state, bits(edges ^ in_first ^ in_second ^ in_third ^ ends)


@inlined
def _keep(row, at, picked, kept, n):  # type: ignore[no-untyped-def]
    """Copy the pixels whose bits are set behind ``n`` others; return how many there are then.

    Hardly ever are there more than three among sixteen: up to three are copied without a branch.
    """
    for _ in range(3):
        copy_one(row, at + lowest(picked | _LAST), kept, n)
        n += picked != 0
        picked &= picked - 1
    while picked:
        copy_one(row, at + lowest(picked), kept, n)
        n += 1
        picked &= picked - 1
    return n


@njit
def _scan(image, x0, x1, marks, base, kept, sums, counts):  # type: ignore[no-untyped-def]
    """Fill sums, counts and ``kept``; return how many were kept, -1 where there is no room or a value is -infinity."""
    n, width = 0, x1 - x0
    whole, rest = width // LANES * LANES, np.full(LANES, np.nan, np.float32)
    steps = (marks[0], marks[1], marks[2], marks[3], marks[4], marks[5], marks[6], marks[7], marks[8], marks[9])
    none, nothing = ints(0), doubles(0)
    state = nothing, nothing, none, none, none, none, none, singles(1) < singles(0)
    for y in range(image.shape[0]):
        row = image[y, x0:x1]
        for at in range(0, whole, LANES):
            state, picked = _take(load(row, at), steps, base, state)
            n = _keep(row, at, picked, kept, n)
        if whole < width:
            rest[: width - whole] = row[whole:]
            state, picked = _take(load(rest, 0), steps, base, state)
            n = _keep(rest, 0, picked, kept, n)
        if n + width + LANES > kept.size:
            return -1
    total, squares, number, good, first, second, third, strange = state
    store(sums, 0, total)
    store(sums, LANES, squares)
    for k, found in enumerate((number, good, first, second, third)):
        store(counts, k * LANES, found)
    return -1 if bits(strange) else n


@dataclass(frozen=True)
class Guess:
    """Brackets of the quartiles and of the clip.

    Parameters
    ----------
    marks : `numpy.ndarray` [10], float32
        Outer limit, core, brackets of the quartiles, core and outer limit, in ascending order.
    base : `float`
        Median of the thin sample.
    """

    marks: F32
    base: float

    @classmethod
    def of(cls, thin: F32, nsigma: float, passes: int) -> Guess:
        """Clip the thin sample [pixel], float32, which is not empty."""
        n, ordered = thin.size, np.sort(thin)
        reach = SURE * np.sqrt(_QUARTERS * (1 - _QUARTERS) * n) + 1
        at = np.column_stack([_QUARTERS * n - reach, _QUARTERS * n + reach]).ravel()
        ends = ordered[np.clip(at, 0, n - 1).astype(np.int64)]
        lower, middle, upper = ordered[(_QUARTERS * (n - 1)).astype(np.int64)].astype(np.float64)
        d, centre, limit = ordered.astype(np.float64) - middle, 0.0, nsigma * IQR_TO_SIGMA * (upper - lower)
        limits = []
        for _ in range(passes):
            limits.append((centre - limit, centre + limit))
            some = d[np.searchsorted(d, centre - limit) : np.searchsorted(d, centre + limit, side="right")]
            number = max(some.size, 1)
            centre = float(some.sum()) / number
            limit = nsigma * math.sqrt(max(float((some**2).sum()) / number - centre**2, 0.0))
        doubt = SURE * LIMIT_ERROR * max(high - low for low, high in limits) / (2 * nsigma * math.sqrt(n))
        lows, highs = np.array(limits).T
        sides = middle + np.array([lows.min() - doubt, lows.max() + doubt, highs.min() - doubt, highs.max() + doubt])
        return cls(np.concatenate([sides[:2], ends, sides[2:]]).astype(np.float32), float(middle))

    def holds(self, pixels: int) -> bool:
        """Whether marks ascend, and differences between any two values of so many pixels add up to exact sums."""
        low, high = float(self.marks[0]), float(self.marks[-1])
        if not (low > 0 and (np.diff(self.marks) > 0).all() and high < _LARGEST):
            return False
        core, top = self.marks[[_CORE, _TOP]]
        single = float(top) - float(core) <= 2.0**24 * float(np.spacing(core))  # differences of the core are exact
        return single and pixels * (high - low) <= 2.0**52 * float(np.spacing(self.marks[0]))


class _Found:
    """The pixels between the marks, the sums over the core, and what follows from both."""

    def __init__(self, guess: Guess, kept: F32, sums: F64, rounding: float) -> None:
        self._marks, self._from, self._kept = guess.marks, guess.base, np.sort(kept)
        self._low = np.searchsorted(self._kept, guess.marks[_CORE])
        self._high = np.searchsorted(self._kept, guess.marks[_TOP], side="right")
        self._total, self._squares, self._number, self.good, *self._below = sums.tolist()
        self._rounding = rounding

    def quartiles(self) -> F64 | None:
        """Quartiles, as `kernels.statistics.percentiles` has them; `None` where a bracket lacks one."""
        place = _QUARTERS * (self.good - 1)
        ranks = np.stack([np.floor(place), np.ceil(place)]) - self._below
        first = np.searchsorted(self._kept, self._marks[_BRACKETS:_TOP:2])
        beyond = np.searchsorted(self._kept, self._marks[_BRACKETS + 1 : _TOP : 2], side="right")
        at = first + ranks.astype(np.int64)
        if (at < first).any() or (at >= beyond).any():
            return None
        lower, upper = self._kept[at]
        return between(lower, upper, place - np.floor(place))

    def clipped(self, base: float, limit: float, nsigma: float, passes: int) -> tuple[float, int] | None:
        """Clip about a base, first by a limit; `None` where a limit is not where it was promised, or too near a pixel.

        Each expression is that of `clipped_mean`, of a lower and an upper bound of the sum of squares: it grows with
        it, in floating point too.
        """
        below, above = (part.astype(np.float64) - base for part in (self._kept[: self._low], self._kept[self._high :]))
        outer, core, top, beyond = self._marks[[_OUTER, _CORE, _TOP, _BEYOND]].astype(np.float64) - base
        moved, centre, number, limits = self._from - base, 0.0, 0, (limit, limit)
        for _ in range(passes):
            if not all(outer <= centre - r <= core and top <= centre + r <= beyond for r in limits):
                return None
            ends = {(np.searchsorted(below, centre - r), np.searchsorted(above, centre + r, "right")) for r in limits}
            if len(ends) > 1:
                return None
            ((first, last),) = ends
            edges = np.concatenate([below[first:], above[:last]])
            number = int(self._number) + edges.size
            total = self._total + self._number * moved + float(edges.sum())
            parts = self._squares, 2 * moved * self._total, self._number * moved**2, float((edges**2).sum())
            doubt, centre = sum(map(abs, parts)) * (self._rounding + edges.size * 2.0**-51), total / number
            scatter = (sum(parts) + more - total * centre for more in (-doubt, doubt))
            low, high = (nsigma * math.sqrt(max(squares, 0.0) / max(number - 1, 1)) for squares in scatter)
            limits = low, high
        return base + centre, number


@dataclass(frozen=True)
class Part:
    """Scanned part of a sample.

    Parameters
    ----------
    kept : `numpy.ndarray` [pixel], float32
        The pixels within the brackets.
    sums : `numpy.ndarray` [7], float64
        Sum, sum of squares and number of the core; number of all, and below each bracket.
    additions : `int`
        Most additions that one sum took.
    """

    kept: F32
    sums: F64
    additions: int


def scan(image: F32, box: Box, guess: Guess) -> Part | None:
    """Scan a box of an image [y, x], float32; `None` where the brackets hold too many pixels, or one is -infinity."""
    rows = np.ascontiguousarray(image[box.y0 : box.y1], np.float32)
    kept = np.empty(int(box.nx * box.ny * ROOM) + box.nx + LANES, np.float32)
    sums, counts = np.empty((2, LANES)), np.empty((5, LANES), np.int32)
    number = _scan(rows, box.x0, box.x1, guess.marks, np.float32(guess.base), kept, sums.ravel(), counts.ravel())
    if number < 0:
        return None
    found = np.concatenate([sums.sum(axis=1), -counts.sum(axis=1, dtype=np.float64)])
    return Part(kept[:number], found, box.ny * (box.nx // LANES + 1) + LANES)


def of_parts(guess: Guess, parts: Sequence[Part], nsigma: float, passes: int) -> tuple[float, int] | None:
    """Mean and count of `clipped_level` of a scanned sample; `None` where the brackets do not tell."""
    kept, sums = np.concatenate([part.kept for part in parts]), np.sum([part.sums for part in parts], axis=0)
    found = _Found(guess, kept, sums, sum(part.additions for part in parts) * 2.0**-51)
    quartiles = found.quartiles()
    if quartiles is None:
        return None
    lower, centre, upper = quartiles
    return found.clipped(float(centre), nsigma * IQR_TO_SIGMA * float(upper - lower), nsigma, passes)


def thinned(image: F32, box: Box) -> F32:
    """Take a thin sample of the finite pixels of a box; empty where it would not help."""
    pixels = image[box.slices].size
    every = max(min(EVERY, pixels // FEW), pixels // MANY)
    if pixels < LEAST:
        return np.empty(0, np.float32)
    rows, thin = np.ascontiguousarray(image[box.y0 : box.y1], np.float32), np.empty(_room(box, every), np.float32)
    thin = thin[: _thin(rows, box.x0, box.x1, every, thin)]
    thin = thin[np.isfinite(thin)]
    return thin if thin.size >= FEW // 4 else thin[:0]


def _quick(image: F32, box: Box, nsigma: float, passes: int, thin: F32) -> tuple[float, int] | None:
    """See `clipped_level`; `None` where a thin sample does not help."""
    if not thin.size or passes < 1:
        return None
    guess = Guess.of(thin, nsigma, passes)
    part = scan(image, box, guess) if guess.holds(image[box.slices].size) else None
    return None if part is None else of_parts(guess, [part], nsigma, passes)


def clipped_level(
    image: F32, box: Box | None = None, nsigma: float = 3.0, passes: int = 3, thin: F32 | None = None
) -> tuple[float, int]:
    """Mean and count of `kernels.statistics.sample.clipped_mean`, to the bit, of a sample that may be large.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        NaN or infinite: left out.
    box : `Box`, optional
        Of the image; all of it without.
    thin : `numpy.ndarray`, optional
        Result of `thinned`, where it is at hand.

    Returns
    -------
    mean : `float`
        NaN where nothing is good.
    count : `int`
        Survivors.
    """
    box = Box(0, 0, image.shape[1], image.shape[0]) if box is None else box
    quick = _quick(image, box, nsigma, passes, thinned(image, box) if thin is None else thin)
    if quick is not None:
        return quick
    mean, _, count = clipped_mean(image, box, nsigma, passes)
    return mean, count
