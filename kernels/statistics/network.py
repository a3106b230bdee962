"""Sorting across exposures: a comparator network over whole vectors of pixels.

The values of one pixel in ``n`` exposures are sorted by the same comparators for
every pixel (Batcher 1968, odd-even merging, Proc. AFIPS 32, 307), so that a
vector register holds 16 pixels of one exposure and nothing branches.  Up to
`STRAIGHT` exposures the whole network is one piece of straight-line code in
registers; above, a table of comparators is walked for 64 pixels at a time.

The straight-line code is made for a few sizes; a smaller number of exposures
is padded by rows of +infinity.  The size is part of the compiled function's
*type* (a tuple of that length), because numba's cache does not tell functions
apart by the globals that they close over.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numba import types
from numpy.typing import NDArray

from kernels.compiled import inlined, njit
from kernels.statistics.vectors import LANES, load, load_at, store, store_at, where, written

F32 = NDArray[np.float32]

#: The width of a cube is padded to a multiple of this many pixels.
TILE: Final = 64
#: Sizes of the straight-line networks; a table serves larger ones.
SIZES: Final = (4, 8, 12, 16, 20, 24, 32)
STRAIGHT: Final = SIZES[-1]
#: Rows that begin a multiple of this many bytes apart would compete for a few sets of the cache.
_PAGE: Final = 4096


def comparators(n: int) -> list[tuple[int, int]]:
    """List the comparators of Batcher's odd-even merge sort of ``n`` values: pairs (low, high) to be put in order."""
    pairs, p = [], 1
    while p < n:
        k = p
        while k >= 1:
            pairs += [
                (i + j, i + j + k)
                for j in range(k % p, n - k, 2 * k)
                for i in range(min(k, n - j - k))
                if (i + j) // (2 * p) == (i + j + k) // (2 * p)
            ]
            k //= 2
        p *= 2
    return pairs


def rows_of(n: int) -> int:
    """Count the rows of a cube of ``n`` exposures, padding included; a multiple of four."""
    return next((size for size in SIZES if size >= n), -(-n // 4) * 4)


def workspace(n: int, pixels: int) -> F32:
    """Make a cube to be sorted in place.

    Returns
    -------
    cube : `numpy.ndarray` [rows_of(n), width], float32
        ``width`` is a multiple of `TILE`, at least ``pixels``; filled with
        +infinity, which stays in the rows and columns of the padding.
    """
    width = -(-pixels // TILE) * TILE
    if width * 4 % _PAGE == 0:
        width += TILE
    return np.full((rows_of(n), width), np.inf, np.float32)


@written(types.void, at=types.int64, stride=types.int64)
def _sort_vectors(builder: Any, flat: Any, at: Any, stride: Any, size: Any) -> None:
    """Sort the ``len(size)`` vectors at ``flat[at + k stride]``, without checking the addresses."""
    rows = range(size.type.count)
    places = [builder.add(at, builder.mul(stride, stride.type(k))) for k in rows]
    values = [load_at(builder, flat, place) for place in places]
    for i, j in comparators(len(rows)):
        x, y = values[i], values[j]
        less = builder.fcmp_ordered("<", x, y)
        values[i], values[j] = builder.select(less, x, y), builder.select(less, y, x)
    for place, value in zip(places, values, strict=True):
        store_at(builder, flat, place, value)


@inlined
def _exchange(flat, low, high):  # type: ignore[no-untyped-def]
    """Put the `LANES` values at ``flat[low]`` and at ``flat[high]`` in order, without checking the addresses."""
    x, y = load(flat, low), load(flat, high)
    less = x < y
    store(flat, low, where(less, x, y))
    store(flat, high, where(less, y, x))


@njit
def _straight(flat, stride, size):  # type: ignore[no-untyped-def]
    for at in range(0, stride, LANES):
        _sort_vectors(flat, at, stride, size)


@njit
def _by_table(flat, stride, pairs):  # type: ignore[no-untyped-def]
    for at in range(0, stride, TILE):
        for k in range(pairs.shape[0]):
            low, high = pairs[k, 0] * stride + at, pairs[k, 1] * stride + at
            for lane in range(0, TILE, LANES):
                _exchange(flat, low + lane, high + lane)


@cache
def _table(n: int) -> NDArray[np.int64]:
    return np.array(comparators(n), np.int64).reshape(-1, 2)


def sort(cube: F32, n: int) -> None:
    """Sort a cube over its first axis, in place.

    Parameters
    ----------
    cube : `numpy.ndarray` [row, pixel], float32
        From `workspace`; no NaN.  Rows from ``n`` on must hold +infinity.
    n : `int`
        Exposures.

    Raises
    ------
    ValueError
        The cube has not the shape that `workspace` gives.
    """
    rows, width = cube.shape
    if rows != rows_of(n) or width % TILE or not cube.flags.c_contiguous or cube.dtype != np.float32:
        raise ValueError(f"a cube of {rows} x {width} {cube.dtype} cannot hold {n} exposures")
    if n <= STRAIGHT:
        _straight(cube.reshape(-1), width, (0,) * rows)
    else:
        _by_table(cube.reshape(-1), width, _table(n))
