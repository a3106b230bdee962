"""Sums of products of an image with itself, displaced, in whole numbers.

A direct sum beats a Fourier transform for few lags, knows each masked pixel, and in whole numbers has the same bits
whatever the order: for any split into blocks of rows, on any processor.

The sums of displacements (dx, dy) and (-dx, dy) are wanted together, so that a row is folded first: it holds
``v[x + dx] + v[x - dx]``, and one product makes both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import types
from numba.core.cgutils import ir
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.statistics.vectors import written

#: Largest value of a pixel: a folded row fits int16, and the products of a piece of a row int32.
LARGEST: Final = 2816
#: Displacements per pass over a row: their sums stay in registers.
GROUP: Final = 10
#: Pixels of a row in a piece, and the multiple that rows are padded to.
PIECE: Final = 1024
STEP: Final = 32
#: Rows, of at most 8 pieces, after which counts could overflow.
ROWS: Final = 63

I64 = NDArray[np.int64]
_I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))


def _vector(element: Any, lanes: int) -> Any:
    return ir.VectorType(element, lanes)


def _splat(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _multiplied(builder: Any, pixels: Any, others: Any) -> Any:
    """Multiply 16 pairs of int16 and add neighbours into 8 int32, in one instruction of most processors (pmaddwd)."""
    wide = _vector(_I32, 16)
    products, nothing = builder.mul(builder.sext(pixels, wide), builder.sext(others, wide)), ir.Constant(wide, None)
    even, odd = (ir.Constant(_vector(_I32, 8), list(range(k, 16, 2))) for k in (0, 1))
    return builder.add(builder.shuffle_vector(products, nothing, even), builder.shuffle_vector(products, nothing, odd))


def _widened(builder: Any, total: Any) -> Any:
    return builder.sext(total, _vector(_I64, 8))


def _selected(builder: Any, ones: Any, others: Any) -> Any:
    """Multiply by 0 or 1."""
    return builder.and_(builder.neg(ones), others)


def _halved(builder: Any, total: Any) -> Any:
    """Add the even and the odd ones of 32 small numbers."""
    pairs = builder.bitcast(total, _vector(_I16, 16))
    low = builder.and_(pairs, _splat(pairs.type, 255))
    return builder.add(low, builder.lshr(pairs, _splat(pairs.type, 8)))


def _load(builder: Any, array: Any, at: Any, kind: Any) -> Any:
    place = builder.bitcast(builder.gep(array, [at]), kind.as_pointer())
    return builder.load(place, align=1, typ=kind)


def _store(builder: Any, array: Any, at: Any, vector: Any) -> None:
    builder.store(vector, builder.bitcast(builder.gep(array, [at]), vector.type.as_pointer()), align=1)


def _begin(builder: Any, step: int, *zeros: Any) -> tuple[Any, Any, list[Any]]:
    """Begin a loop; return its variable, that of the next round, and sums that begin with ``zeros``."""
    before, loop = builder.block, builder.append_basic_block("loop")
    builder.branch(loop)
    builder.position_at_end(loop)
    x, *sums = phis = [builder.phi(zero.type) for zero in (_I64(0), *zeros)]
    for phi, zero in zip(phis, (_I64(0), *zeros), strict=True):
        phi.add_incoming(zero, before)
    x.add_incoming(following := builder.add(x, _I64(step)), loop)
    return x, following, sums


def _end(builder: Any, following: Any, pixels: Any) -> None:
    loop, done = builder.block, builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", following, pixels), loop, done)
    builder.position_at_end(done)


def _folds(kind: Any) -> Any:
    """Make an intrinsic that folds a row for `GROUP` displacements, from ``dx`` on."""

    def folds(builder: Any, image: Any, at: Any, dx: Any, folded: Any, stride: Any) -> None:
        """Read from ``image[at]`` on; write ``v[x + dx] + v[x - dx]``, twice ``v[x]`` for 0, ``stride`` apart."""
        x, following, _ = _begin(builder, kind.count)
        here, place = builder.add(at, x), x
        for k in range(GROUP):
            far = builder.add(dx, _I64(k))
            right, left = (_load(builder, image, step(here, far), kind) for step in (builder.add, builder.sub))
            _store(builder, folded, place, builder.add(right, left))
            place = builder.add(place, stride)
        _end(builder, following, stride)

    return written(types.void, **dict.fromkeys(("at", "dx", "stride"), types.int64))(folds)


def _dots(kind: Any, product: Callable[..., Any], sum_kind: Any, flushed: Callable[..., Any]) -> Any:
    """Make an intrinsic that adds the products of a piece of a row with `GROUP` folded rows to lanes of sums.

    Parameters
    ----------
    kind : `llvmlite.ir.VectorType`
        Pixels that are taken together.
    product : callable
        Writes the code that multiplies them, as ``sum_kind``.
    flushed : callable
        Writes the code that widens a sum to the lanes in memory.
    """

    def dots(
        builder: Any, image: Any, at: Any, folded: Any, x: Any, stride: Any, pixels: Any, sums: Any, k: Any
    ) -> None:
        """Begin at ``image[at]`` and ``folded[x]``; folded rows are ``stride`` apart; add to ``sums[k]`` and on."""
        chunk, following, running = _begin(builder, kind.count, *[_splat(sum_kind, 0)] * GROUP)
        mine, place = _load(builder, image, builder.add(at, chunk), kind), builder.add(x, chunk)
        for n, total in enumerate(running):
            others = _load(builder, folded, place, kind)
            running[n] = builder.add(total, product(builder, mine, others))
            total.add_incoming(running[n], builder.block)
            place = builder.add(place, stride)
        _end(builder, following, pixels)
        for total in running:
            wide = flushed(builder, total)
            _store(builder, sums, k, builder.add(_load(builder, sums, k, wide.type), wide))
            k = builder.add(k, _I64(wide.type.count))

    return written(types.void, **dict.fromkeys(("at", "x", "stride", "pixels", "k"), types.int64))(dots)


_STEPS, _ONES = _vector(_I16, 16), _vector(_I8, 32)
_fold_steps, _fold_ones = _folds(_STEPS), _folds(_ONES)
_products = _dots(_STEPS, _multiplied, _vector(_I32, 8), _widened)
_counts = _dots(_ONES, _selected, _ONES, _halved)


@njit
def _sum_products(image, pad, first, last, lags):  # type: ignore[no-untyped-def]
    """Sum over the rows ``[first, last)``: [dy, dx]."""
    rows, columns = image.shape
    width, flat = columns - 2 * pad, image.reshape(-1)
    folded, sums = np.empty(pad * width, np.int16), np.zeros(lags * pad * 8, np.int64)
    for y in range(first, min(rows, last + lags - 1)):
        for dx in range(0, pad, GROUP):
            _fold_steps(flat, y * columns + pad, dx, folded[dx * width :], width)
        for dy in range(max(0, y - last + 1), min(lags, y - first + 1)):
            at = (y - dy) * columns + pad
            for x in range(0, width, PIECE):
                for dx in range(0, pad, GROUP):
                    here, pixels = dx * width + x, min(PIECE, width - x)
                    _products(flat, at + x, folded, here, width, pixels, sums, (dy * pad + dx) * 8)
    return sums.reshape(lags, pad, 8).sum(axis=2)


@njit
def _sum_counts(image, pad, first, last, lags):  # type: ignore[no-untyped-def]
    """Count pairs of ones likewise."""
    rows, columns = image.shape
    width, flat = columns - 2 * pad, image.reshape(-1)
    folded, sums = np.empty(pad * width, np.int8), np.zeros(lags * pad * 16, np.uint16)
    whole, end = np.zeros(sums.size, np.int64), min(rows, last + lags - 1)
    for y in range(first, end):
        for dx in range(0, pad, GROUP):
            _fold_ones(flat, y * columns + pad, dx, folded[dx * width :], width)
        for dy in range(max(0, y - last + 1), min(lags, y - first + 1)):
            at = (y - dy) * columns + pad
            for x in range(0, width, PIECE):
                for dx in range(0, pad, GROUP):
                    here, pixels = dx * width + x, min(PIECE, width - x)
                    _counts(flat, at + x, folded, here, width, pixels, sums, (dy * pad + dx) * 16)
        if y % ROWS == 0 or y == end - 1:
            whole += sums
            sums[:] = 0
    return whole.reshape(lags, pad, 16).sum(axis=2)


def padding(side: int) -> int:
    """Compute the columns of zeros that `lag_sums` needs on either side, for displacements below ``side``."""
    return -(-side // GROUP) * GROUP


def padded(rows: int, columns: int, side: int, kind: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make an image of zeros for `lag_sums`, and the view of its pixels.

    Raises
    ------
    ValueError
        More than 8 `PIECE` columns, whose counts could overflow.
    """
    if columns > 8 * PIECE:
        raise ValueError(f"{columns} columns, at most {8 * PIECE} are possible")
    pad = padding(side)
    whole = np.zeros((rows, -(-columns // STEP) * STEP + 2 * pad), kind)
    return whole, whole[:, pad : pad + columns]


def lag_sums(image: NDArray[Any], side: int, first: int = 0, last: int | None = None) -> I64:
    """Sum the products of the pixels of rows ``[first, last)`` with those displaced to the right, the left and up.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], int16 or int8
        Made by `padded`: int16 within +-`LARGEST`, and 0 where masked; or int8, 0 or 1.
    side : `int`
        Number of displacements per axis, 0 included.
    first, last : `int`
        Block of rows; by default all.  The sums of all blocks add up to those of the image.

    Returns
    -------
    sums : `numpy.ndarray` [dx, dy], int64
        Sum over pixels of ``v(x, y) (v(x + dx, y + dy) + v(x - dx, y + dy))``; half of it where dx or dy is 0, so that
        each pair of pixels counts once.
    """
    last = image.shape[0] if last is None else last
    run = _sum_products if image.dtype == np.int16 else _sum_counts
    sums = np.ascontiguousarray(run(image, padding(side), first, last, side)[:, :side].T)
    sums[0] //= 2
    sums[1:, 0] //= 2
    return sums
