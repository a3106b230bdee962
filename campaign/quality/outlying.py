"""Finds values far from the others, and values that fall into heaps; all in their own errors."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

NSIGMA = 5.0
#: Range of a heap that errors alone explain, in errors.
KNOWN = 4.0
#: Steepest slope of a member against the shared deviation.
STEEPEST = 3.0


def allowed(n: int) -> float:
    """Give the largest deviation over the scatter (1.4826 MAD) that one table of ``n`` normal values in 1000 has."""
    return 5 + 200 / n**1.5 if n > 3 else 100.0


def parted(n: int) -> float:
    """Give the largest gap over the wider part's range that one table of ``n`` normal values in 1000 has."""
    return max(2.5, 30 * (4 / n) ** 3.3)


def middle(values: F64, axis: int) -> F64:
    """Take the median of the finite values; NaN, without a warning, where there are none."""
    if not values.shape[axis]:
        return np.full(np.delete(values.shape, axis), np.nan)
    line = np.sort(values, axis=axis)  # NaN last; numpy's nanmedian of few values takes ten times as long
    many = (~np.isnan(values)).sum(axis=axis, keepdims=True)
    low, high = (np.take_along_axis(line, k, axis) for k in (np.maximum(many - 1, 0) // 2, many // 2))
    return np.asarray(((low + high) / 2).squeeze(axis))


def odd(values: F64, least: float = NSIGMA) -> NDArray[np.bool_]:
    """Which values [exposure, member], in errors, are far from the others of their member.

    Members that scatter by more than their errors are judged by the usual scatter
    of members; members that scatter by more than that, by their own.
    """
    n = np.isfinite(values).sum(axis=0)
    scatter = 1.4826 * middle(np.abs(values - middle(values, 0)), 0)
    many = float(np.nanmedian(scatter)) if np.isfinite(scatter).sum() >= 5 else 0.0
    usual = max(1.0, many)
    wild = scatter > usual * (1 + 3.5 / np.sqrt(np.maximum(n, 1)))
    limit = np.where(wild, np.array([allowed(max(int(k), 1)) for k in n]), NSIGMA) * scatter
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(values) > np.maximum(least * usual, limit)) & (n > 2))


def groups(values: F64, gap: float) -> list[list[int]]:
    """Split values that lie in two or more heaps; give the heaps' indices, or nothing.

    Parameters
    ----------
    values : `numpy.ndarray` [n], float64
        In errors; NaN is left out.
    gap : `float`
        Least distance between heaps.
    """
    order = [int(k) for k in np.argsort(values, kind="stable") if np.isfinite(values[k])]
    line = [float(values[k]) for k in order]
    steps = sorted(range(1, len(line)), key=lambda k: line[k - 1] - line[k])
    for cuts in range(1, min(4, len(line) // 2)):
        edges = [0, *sorted(steps[:cuts]), len(line)]
        parts = [order[a:b] for a, b in pairwise(edges)]
        widest = max(float(values[p[-1]] - values[p[0]]) for p in parts)
        widest = max(widest - KNOWN, widest / 3)
        narrowest = min(line[k] - line[k - 1] for k in steps[:cuts])
        if min(map(len, parts)) > 1 and narrowest > gap and narrowest > cuts * parted(len(line)) * widest:
            return parts
    return []


def follow(shared: F64, far: F64) -> F64:
    """Remove the shared deviation [exposure] from the deviations [exposure, member]; give the residuals.

    Each member follows along a line of its own: by the same drift, a member with
    less noise is further off in its errors.
    """
    there = np.flatnonzero(np.isfinite(shared))
    order = there[np.argsort(shared[there], kind="stable")]
    half = len(order) // 2
    low, high = order[: len(order) - half], order[half:]
    run = shared[high] - shared[low]
    pairs = run > 0
    slope = np.ones(far.shape[1])
    if pairs.any():
        slopes = middle((far[high] - far[low])[pairs] / run[pairs, np.newaxis], 0)
        slope = np.clip(np.nan_to_num(slopes, nan=1.0), 0.0, STEEPEST)
    rest = far - slope * shared[:, np.newaxis]
    return np.asarray(rest - middle(rest, 0))


def straight(x: F64, y: F64) -> F64:
    """Give the residuals of ``y`` about a line in ``x``: the median slope of pairs half a table apart."""
    good = np.isfinite(x) & np.isfinite(y)
    order = np.flatnonzero(good)[np.argsort(x[good], kind="stable")]
    half = len(order) // 2
    low, high = order[: len(order) - half], order[half:]
    run, rise = x[high] - x[low], y[high] - y[low]
    slope = float(np.median(rise[run > 0] / run[run > 0])) if half and (run > 0).any() else 0.0
    rest = y - slope * x
    return np.asarray(rest - np.nanmedian(rest)) if good.any() else y
