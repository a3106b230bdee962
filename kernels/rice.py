"""Rice row tiles of FITS tile-compressed images, decoded without cfitsio and without the GIL.

RICE_1 (FITS standard 4.0, section 10.4.1; Pence et al. 2009, PASP 121, 414): a
tile starts with its first pixel as it is.  Then, block by block, stands a
number ``fs + 1`` of a few bits, and a difference a pixel: ``fs + 1 = 0`` says
that all of them are zero, the largest ``fs`` that they stand as they are, any
other that each is a unary number followed by ``fs`` bits.  Differences are
mapped to unsigned numbers: 0, -1, 1, -2, ...

Four tiles are decoded side by side, because where a code stands depends on the
one before it, and one tile alone would have the processor wait.  The fast path
takes at most `WIDEST` bits a pixel and looks at the tile's end once a block,
which is why the buffer must have `SPARE` bytes after its tiles.  What the fast
path does not like, the checked one decodes again from the block's start; a
tile whose codes do not end before it does is corrupt, whatever lies behind it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

#: A block of the fast path: 32 codes of 64 zeros, a one and up to 25 bits, and the eight bytes read at a time.
SPARE: Final = 512
FAST_BLOCK: Final = 32
WIDEST: Final = 57
STREAMS: Final = 4
#: Bits of ``fs + 1``, and its largest value, by bytes a pixel.
FS_BITS: Final = {1: 3, 2: 4, 4: 5}
FS_MAX: Final = {1: 6, 2: 14, 4: 25}


@intrinsic
def _word(typing: Any, data: Any, byte: Any) -> Any:
    """Eight bytes from ``byte`` on, the first one highest; neither aligned nor checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        at = builder.gep(array.data, [arguments[1]])
        return builder.bswap(
            builder.load(builder.bitcast(at, context.get_value_type(types.uint64).as_pointer()), align=1)
        )

    return types.uint64(data, types.int64), generate


@intrinsic
def _leading_zeros(typing: Any, word: Any) -> Any:
    """Leading zero bits of a word; 64 where it is 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], cgutils.false_bit)

    return types.uint64(types.uint64), generate


@njit(inline="always")
def _code(data, at, fs):  # type: ignore[no-untyped-def]
    """The code at bit ``at``, and its length; right where the length is at most `WIDEST`."""
    word = _word(data, at >> 3) << np.uint64(at & 7)
    zeros = _leading_zeros(word)
    rest = (word << zeros) << np.uint64(1)
    low = (rest >> np.uint64(1)) >> (np.uint64(63) - fs)
    return (zeros << fs) | low, np.int64(zeros + fs) + 1


@njit(inline="always")
def _signed(code):  # type: ignore[no-untyped-def]
    return np.int64(code >> np.uint64(1)) ^ -np.int64(code & np.uint64(1))


@njit(inline="always")
def _bits(data, at, n):  # type: ignore[no-untyped-def]
    """The next ``n`` (1 to 32) bits."""
    return (_word(data, at >> 3) << np.uint64(at & 7)) >> np.uint64(64 - n)


@njit(cache=True, nogil=True)
def _checked_block(data, at, end, last, fs, out):  # type: ignore[no-untyped-def]
    """One block's codes, every bit checked; the position behind them (-1: the tile has ended) and the last pixel."""
    for k in range(out.shape[0]):
        zeros = np.int64(0)
        while at < end and not (data[at >> 3] >> (7 - (at & 7))) & 1:
            zeros += 1
            at += 1
        at += 1 + fs
        if at > end:
            return np.int64(-1), last
        low = np.uint64(0) if fs == 0 else _bits(data, at - fs, fs)
        last += _signed((np.uint64(zeros) << np.uint64(fs)) | low)
        out[k] = last
    return at, last


@njit(cache=True, nogil=True)
def _block(data, at, end, last, fs, fs_max, bits, out):  # type: ignore[no-untyped-def]
    """One block of one tile, whatever its kind; as `_checked_block`."""
    if fs < 0:
        out[:] = last
        return at, last
    if fs != fs_max:
        return _checked_block(data, at, end, last, fs, out)
    if at + out.shape[0] * bits > end:
        return np.int64(-1), last
    for k in range(out.shape[0]):
        last += _signed(_bits(data, at, bits))
        at += bits
        out[k] = last
    return at, last


@njit(cache=True, nogil=True)
def _four_blocks(data, at, ends, last, fs, row, x, n, out):  # type: ignore[no-untyped-def]
    """A block of four tiles side by side; False, and nothing moved on, where one of them needs the checked way."""
    a0, a1, a2, a3 = at[0], at[1], at[2], at[3]
    l0, l1, l2, l3 = last[0], last[1], last[2], last[3]
    f0, f1, f2, f3 = np.uint64(fs[0]), np.uint64(fs[1]), np.uint64(fs[2]), np.uint64(fs[3])
    o0, o1, o2, o3 = out[row, x : x + n], out[row + 1, x : x + n], out[row + 2, x : x + n], out[row + 3, x : x + n]
    widest = np.int64(0)
    for i in range(n):
        code, used = _code(data, a0, f0)
        widest, a0, l0 = max(widest, used), a0 + used, l0 + _signed(code)
        o0[i] = l0
        code, used = _code(data, a1, f1)
        widest, a1, l1 = max(widest, used), a1 + used, l1 + _signed(code)
        o1[i] = l1
        code, used = _code(data, a2, f2)
        widest, a2, l2 = max(widest, used), a2 + used, l2 + _signed(code)
        o2[i] = l2
        code, used = _code(data, a3, f3)
        widest, a3, l3 = max(widest, used), a3 + used, l3 + _signed(code)
        o3[i] = l3
    if widest > WIDEST or a0 > ends[0] or a1 > ends[1] or a2 > ends[2] or a3 > ends[3]:
        return False
    at[0], at[1], at[2], at[3] = a0, a1, a2, a3
    last[0], last[1], last[2], last[3] = l0, l1, l2, l3
    return True


@njit(cache=True, nogil=True)
def _decode(data, starts, lengths, block, fs_bits, fs_max, bits, out):  # type: ignore[no-untyped-def]
    """Decode rows; the first corrupt one, or -1."""
    rows, width = out.shape
    at, ends = np.empty(STREAMS, np.int64), np.empty(STREAMS, np.int64)
    last, fs = np.empty(STREAMS, np.int64), np.empty(STREAMS, np.int64)
    for row in range(0, rows, STREAMS):
        several = min(STREAMS, rows - row)
        for k in range(several):
            at[k], ends[k] = starts[row + k] * 8 + bits, (starts[row + k] + lengths[row + k]) * 8
            if at[k] > ends[k]:
                return row + k
            last[k] = np.int64(_bits(data, at[k] - bits, bits))
        for x in range(0, width, block):
            n = min(block, width - x)
            plain = several == STREAMS and n <= FAST_BLOCK
            for k in range(several):
                at[k] += fs_bits
                if at[k] > ends[k]:
                    return row + k
                fs[k] = np.int64(_bits(data, at[k] - fs_bits, fs_bits)) - 1
                if fs[k] > fs_max:
                    return row + k
                plain = plain and 0 <= fs[k] < fs_max
            if plain and _four_blocks(data, at, ends, last, fs, row, x, n, out):
                continue
            for k in range(several):
                o = out[row + k, x : x + n]
                at[k], last[k] = _block(data, at[k], ends[k], last[k], fs[k], fs_max, bits, o)
                if at[k] < 0:
                    return row + k
    return -1


def decode(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    block: int,
    out: NDArray[np.uint8] | NDArray[np.int16] | NDArray[np.int32],
) -> int:
    """Decode tiles of one row each.

    Parameters
    ----------
    data : `numpy.ndarray` [byte], uint8
        The tiles, and at least `SPARE` bytes behind the last one.
    starts, lengths : `numpy.ndarray` [row], int64
        Where each tile lies in ``data``, byte.
    block : `int`
        Pixels a block.
    out : `numpy.ndarray` [row, x], uint8, int16 or int32
        Filled; its type says how many bytes a pixel the tiles were made of
        (sums wrap around as the encoder's do).

    Returns
    -------
    corrupt : `int`
        The first row whose tile is corrupt; -1 where none is.

    Raises
    ------
    ValueError
        A tile would lie outside of ``data``.
    """
    limit = data.size - SPARE
    if np.any((starts < 0) | (lengths < 0) | (starts > limit) | (lengths > limit - starts)):
        raise ValueError("a tile lies outside of the data")
    size = out.dtype.itemsize
    return int(_decode(data, starts, lengths, block, FS_BITS[size], FS_MAX[size], 8 * size, out))
