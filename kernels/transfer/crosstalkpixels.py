"""Collect the pixels of a frame that tell crosstalk: those at whose place of the read-out some amplifier is bright.

The background of each amplifier is measured where no amplifier is bright: a surface of second order, medians of boxes
of the rest, and what columns and rows deviate from these by, as far as their deviations exceed the noise.  The errors
of boxes, columns and rows are kept, because all pixels of a spot share them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Variance of a median over that of a mean, of normal values.
MEDIAN = np.pi / 2
#: Deviations from the background beyond this many of their standard deviations do not count for columns and rows.
FAR = 4.0
#: An amplifier with a smaller share of good pixels does not take part in its frame.
ABSENT = 0.5
#: A frame is lit evenly where more than this share of its bright places is bright in more than this share of its
#: amplifiers.
EVENLY = 0.5
#: Least number of boxes along a side of an amplifier, and of pixels along a side of a box.
BOXES, SMALL = 3, 8
#: Power of x in each term of a surface: 1, x, y, x y, y^2, x^2; least eigenvalue of its equations, relative.
ORDERS, FLAT = (0, 1, 0, 1, 0, 2), 1e-9


@dataclass(frozen=True)
class Rule:
    """Settings of the collection."""

    #: Signal of a source's pixel, electron.
    bright: float = 30_000.0
    #: Signal above its background at which a target's pixel shows light of its own, electron; and the same as a share
    #: of the brightest source there, which no crosstalk reaches.
    own: float = 300.0
    own_share: float = 0.01
    #: Distance that the background keeps from bright pixels, and all that is used from the target's own light, pixel.
    grow: int = 20
    #: Side of the boxes whose medians are the background, pixel.
    box: int = 64


@dataclass(frozen=True)
class Seen:
    """Light of one frame."""

    #: [amplifier], int64: Pixels above the threshold.
    counts: NDArray[np.int64]
    #: [amplifier], float64: The brightest good signal, electron (not a number without a good pixel).
    brightest: F64
    #: [amplifier], float64: Share of good pixels.
    good: F64
    #: Share of the amplifiers that are bright at a bright place, on average; 0 without any.
    together: float = 0.0
    #: Whether the frame is lit evenly, and tells nothing.
    evenly: bool = False


@dataclass(frozen=True)
class Lit:
    """Pixels of one frame at places of the read-out where some amplifier is bright; there may be none."""

    #: [amplifier, place], float32: Signals above the overscan; the same above their backgrounds, electron. 0 where an
    #: amplifier does not take part.
    signals: F32
    excess: F32
    #: [amplifier, place], float32: Variance of the pixel itself, electron^2.
    variance: F32
    #: [amplifier, place], bool: Pixels that can be used as targets; pixels above the threshold.
    usable: Bool
    bright: Bool
    #: [place], int32: Numbers of their column, row and box.
    column: NDArray[np.int32]
    row: NDArray[np.int32]
    box: NDArray[np.int32]
    #: [amplifier, column], [amplifier, row], [amplifier, box], float64: Variances of the background that their pixels
    #: have in common, electron^2.
    column_variance: F64
    row_variance: F64
    box_variance: F64
    seen: Seen

    def copy(self) -> Lit:
        """Copy the arrays: those of another rank are valid until its next result only."""
        arrays: dict[str, Any] = {f.name: getattr(self, f.name).copy() for f in fields(self) if f.name != "seen"}
        return replace(self, **arrays)


def grown(mask: Bool, by: int) -> Bool:
    """Grow a mask to a square around each pixel."""
    if not mask.any():
        return mask
    for axis in (0, 1):
        total = np.cumsum(np.insert(mask, 0, False, axis=axis), axis=axis, dtype=np.int32)
        n = mask.shape[axis]
        low, high = np.maximum(np.arange(n) - by, 0), np.minimum(np.arange(n) + by + 1, n)
        mask = np.take(total, high, axis) > np.take(total, low, axis)
    return mask


def edges(shape: Sequence[int], box: int) -> list[NDArray[np.int64]]:
    """Divide rows and columns into boxes; small amplifiers into three each way, if pixels suffice."""
    number = [max(round(n / box), min(BOXES, n // SMALL), 1) for n in shape]
    return [np.linspace(0, n, k + 1).astype(np.int64) for n, k in zip(shape, number, strict=True)]


@njit
def _moments(image, masked, across, down, normal, right):  # type: ignore[no-untyped-def]
    """Add pixels that are not masked to the normal equations of a surface of second order, row by row."""
    powers, sums = np.empty(5), np.empty(3)
    for y in range(image.shape[0]):
        powers[:], sums[:] = 0, 0
        for x in range(image.shape[1]):
            if not masked[y, x]:
                u, value = across[x], np.float64(image[y, x])
                powers[0] += 1
                powers[1] += u
                powers[2] += u * u
                powers[3] += u * u * u
                powers[4] += u * u * u * u
                sums[0] += value
                sums[1] += value * u
                sums[2] += value * u * u
        terms = down[y]
        for i in range(6):
            right[i] += terms[i] * sums[ORDERS[i]]
            for j in range(6):
                normal[i, j] += terms[i] * terms[j] * powers[ORDERS[i] + ORDERS[j]]


@njit
def _outer(down, across, out):  # type: ignore[no-untyped-def]
    """Compute the product of ``down`` [y, k] and ``across`` [k, x]; the order of the sums is that of k."""
    row = np.empty(across.shape[1])
    for y in range(out.shape[0]):
        row[:] = 0
        for k in range(across.shape[0]):
            for x in range(across.shape[1]):
                row[x] += down[y, k] * across[k, x]
        for x in range(across.shape[1]):
            out[y, x] = row[x]


def _surface(image: F32, masked: Bool) -> tuple[F64, F64]:
    """Fit a surface of second order: factors [y, 3] and [3, x] of it."""
    down, across = (np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(1) for n in image.shape)
    normal, right = np.zeros((6, 6)), np.zeros(6)
    one = np.ones(down.size)
    _moments(image, masked, across, np.stack([one, one, down, down, down**2, one], axis=1), normal, right)
    strength, axes = np.linalg.eigh(normal)
    known = strength > FLAT * max(float(strength[-1]), 1.0)
    inverse = np.where(known, 1 / np.where(known, strength, 1.0), 0.0)
    c = np.einsum("ik,k,jk,j->i", axes, inverse, axes, right)
    return (
        np.stack([c[0] + c[2] * down + c[4] * down**2, c[1] + c[3] * down, np.full(down.size, c[5])], axis=1),
        np.stack([np.ones(across.size), across, across**2]),
    )


def background(image: F32, masked: Bool, box: int) -> tuple[F32, NDArray[np.int64]]:
    """Fit a surface of second order, take medians of boxes of the rest, and interpolate between their centres.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        Electron.
    masked : `numpy.ndarray` [y, x], bool
        Pixels that do not count.
    box : `int`
        Side of a box, pixel; see `edges`.

    Returns
    -------
    level : `numpy.ndarray` [y, x], float32
        0 if all pixels are masked.
    counts : `numpy.ndarray` [box row, box column], int64
        Pixels of each box's median; 0 where it has too few, and the nearest box's median counts.
    """
    smooth, level = _surface(image, masked), np.empty(image.shape, np.float32)
    _outer(*smooth, level)
    cuts = edges(image.shape, box)
    shape = len(cuts[0]) - 1, len(cuts[1]) - 1
    values, counts = np.zeros(shape), np.zeros(shape, np.int64)
    for j, i in np.ndindex(shape):
        place = slice(cuts[0][j], cuts[0][j + 1]), slice(cuts[1][i], cuts[1][i + 1])
        fine = (image[place] - level[place])[~masked[place]]
        if fine.size >= SMALL**2 // 2:
            values[j, i], counts[j, i] = np.median(fine), fine.size
    known = np.argwhere(counts)
    for j, i in np.argwhere(counts == 0) if len(known) else ():
        values[j, i] = values[tuple(known[np.argmin(((known - (j, i)) ** 2).sum(axis=1))])]
    centres = [(c[1:] + c[:-1] - 1) / 2 for c in cuts]
    along, across = (_weights(n, c) for n, c in zip(image.shape, centres, strict=True))
    columns = np.empty((image.shape[0], shape[1]))
    _outer(np.ascontiguousarray(along.T), values, columns)
    _outer(np.concatenate([smooth[0], columns], axis=1), np.concatenate([smooth[1], across]), level)
    return level, counts


def _weights(n: int, centres: F64) -> F64:
    """Give the weights [box, pixel] of linear interpolation."""
    return np.array([np.interp(np.arange(n), centres, one) for one in np.eye(len(centres))])


@njit
def _sum_lines(image, level, masked, limit, columns, totals, counts, rows, numbers):  # type: ignore[no-untyped-def]
    """Sum what exceeds the level and the columns' deviations, by column and row; give the sum of squares."""
    squares = 0.0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            rest = np.float64(image[y, x]) - np.float64(level[y, x])
            if not masked[y, x] and abs(rest) < limit:
                rest -= columns[x]
                totals[x] += rest
                counts[x] += 1
                rows[y] += rest
                numbers[y] += 1
                squares += rest * rest
    return squares


def _shrunk(total: F64, count: NDArray[np.int64], variance: float) -> tuple[F64, F64]:
    """Estimate what lines deviate by, as far as the scatter of their means exceeds the noise.

    Parameters
    ----------
    total, count : `numpy.ndarray` [line]
        Sum of the residuals, and their number.
    variance : `float`
        Variance of a residual.

    Returns
    -------
    deviation, error : `numpy.ndarray` [line], float64
        And its variance.
    """
    seen = count > 0
    n = np.maximum(count, 1)
    means = total / n
    excess = n * means**2 - variance
    spread = max(float(excess[seen].sum() / n[seen].sum()), 0.0) if seen.any() else 0.0
    part = np.where(seen, spread / (spread + variance / n), 0.0) if spread else np.zeros(len(n))
    return part * means, np.where(seen, part * variance / n, spread)


def _lines(image: F32, level: F32, masked: Bool, variance: float) -> tuple[tuple[F64, F64], tuple[F64, F64], float]:
    """Measure the deviations of columns and then of rows, with their variances; and the variance of a pixel."""
    height, width = image.shape
    columns, inner = (np.zeros(width), np.zeros(width)), variance
    for _ in range(2):
        totals, counts, sums, numbers = np.zeros(width), np.zeros(width, int), np.zeros(height), np.zeros(height, int)
        limit = FAR * math.sqrt(variance)
        squares = _sum_lines(image, level, masked, limit, columns[0], totals, counts, sums, numbers)
        inner = squares / max(int(counts.sum()), 1) or variance
        rows = _shrunk(sums, numbers, inner)
        if not columns[1].any():
            columns = _shrunk(totals, counts, inner)
    return columns, rows, inner


@dataclass(frozen=True)
class _Target:
    """Background of one amplifier at the lit places, its variances, and the own light there."""

    level: F32
    column_variance: F64
    row_variance: F64
    box_variance: F64
    own: Bool


def _target(image: F32, good: Bool, around: Bool, lit: Bool, most: F32, noise: float, rule: Rule) -> _Target:
    """Measure the background of one amplifier [y, x] at the places ``lit``."""
    masked = around | ~good
    level, counts = background(image, masked, rule.box)
    own = good & (np.abs(image - level) > np.where(lit, np.maximum(rule.own, rule.own_share * most), rule.own))
    if own.any():
        own = grown(own, rule.grow)
        masked |= own
        level, counts = background(image, masked, rule.box)
    middle = max(float(np.median(level)), 0.0)
    columns, rows, inner = _lines(image, level, masked, noise**2 + middle)
    at_row, at_column = np.nonzero(lit)
    level_there = level[lit] + (columns[0][at_column] + rows[0][at_row])
    fewest = int(counts[counts > 0].min()) if counts.any() else 1
    boxes = MEDIAN * inner / np.where(counts, counts, fewest).ravel()
    return _Target(level_there.astype(np.float32), columns[1], rows[1], boxes, own[lit])


def collect(signals: F32, good: Bool, noise: F64, rule: Rule | None = None) -> Lit:
    """Collect the pixels of one frame that tell crosstalk.

    Parameters
    ----------
    signals : `numpy.ndarray` [amplifier, y, x], float32
        In the order of the read-out, above the overscan, without correction of crosstalk, electron.
    good : `numpy.ndarray` [amplifier, y, x], bool
        Pixels that can be used: neither saturated nor flagged.
    noise : `numpy.ndarray` [amplifier], float64
        Read noise, electron.
    rule : `Rule`, optional
        Settings.

    Returns
    -------
    lit : `Lit`
        Without places if nothing is bright, or if the frame is lit evenly: then nobody can tell which amplifier's
        light an amplifier shows.
    """
    rule = rule or Rule()
    good = np.asarray(good & np.isfinite(signals))
    share = good.mean(axis=(1, 2))
    present = share >= ABSENT
    bright = np.asarray(good & (signals > rule.bright))
    number = bright[present].sum(axis=0)
    whole, lit = np.asarray(good[present].all(axis=0)), number > 0
    if not lit.any() or not present.any():
        return _lit(signals[:, :0, :0], rule, Seen(*_counted(signals, good, bright)))
    together = float(number[lit].mean() / present.sum())
    evenly = float((number[lit] > max(EVENLY * present.sum(), 1)).mean()) > EVENLY
    seen = Seen(*_counted(signals, good, bright), together, evenly)
    places = lit & whole
    if evenly or not places.any():
        return _lit(signals[:, :0, :0], rule, seen)
    around = grown(lit, rule.grow) | ~whole
    most = np.where(bright, signals, np.float32(0)).max(axis=0)
    found = _lit(np.ascontiguousarray(signals[:, places]), rule, seen, places, bright[:, places])
    for k in np.flatnonzero(present):
        target = _target(signals[k], good[k], around, places, most, float(noise[k]), rule)
        found.excess[k] = signals[k][places] - target.level
        found.variance[k] = noise[k] ** 2 + np.maximum(target.level, 0.0)
        found.usable[k] = ~target.own & ~found.bright[k]
        found.column_variance[k], found.row_variance[k] = target.column_variance, target.row_variance
        found.box_variance[k] = target.box_variance
    found.signals[~present] = 0
    return found


def _counted(signals: F32, good: Bool, bright: Bool) -> tuple[NDArray[np.int64], F64, F64]:
    """Give the bright pixels, the brightest good signal, and the share of good pixels of each amplifier."""
    most = np.where(good, signals, np.float32(-np.inf)).max(axis=(1, 2)).astype(np.float64)
    return bright.sum(axis=(1, 2)), np.where(np.isfinite(most), most, np.nan), good.mean(axis=(1, 2))


def _lit(signals: F32, rule: Rule, seen: Seen, places: Bool | None = None, bright: Bool | None = None) -> Lit:
    """Make a `Lit` of the ``signals`` [amplifier, place], whose other arrays are to be filled."""
    number = len(signals)
    if places is None or bright is None:
        nothing = np.zeros(0, np.int32)
        empty, none = np.zeros((number, 0), np.float32), np.zeros((number, 0))
        flags = np.zeros((number, 0), np.bool_)
        return Lit(empty, empty, empty, flags, flags, nothing, nothing, nothing, none, none, none, seen)
    row, column = (at.astype(np.int32) for at in np.nonzero(places))
    cuts = edges(places.shape, rule.box)
    down, across = (np.searchsorted(c, at, "right") - 1 for c, at in zip(cuts, (row, column), strict=True))
    box = (down * (len(cuts[1]) - 1) + across).astype(np.int32)
    columns, rows, boxes = (
        np.zeros((number, n)) for n in (places.shape[1], places.shape[0], (len(cuts[0]) - 1) * (len(cuts[1]) - 1))
    )
    excess, variance = np.zeros(signals.shape, np.float32), np.zeros(signals.shape, np.float32)
    usable = np.zeros(signals.shape, np.bool_)
    return Lit(signals, excess, variance, usable, bright, column, row, box, columns, rows, boxes, seen)
