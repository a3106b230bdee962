"""Rice row tiles of FITS tile-compressed images, decoded without cfitsio and without the GIL.

RICE_1 (FITS standard 4.0, section 10.4.1; Pence et al. 2009, PASP 121, 414): a
tile begins with its first pixel, verbatim.  Each block then has a number
``fs + 1`` of a few bits, and a difference a pixel: ``fs + 1 = 0`` means that all
differences are zero, the largest ``fs`` that they are verbatim, any other that
each is a unary number followed by ``fs`` bits.  Differences are mapped to
unsigned numbers: 0, -1, 1, -2, ...

The place of a code depends on the code before it, so that a single tile cannot
be decoded in parallel.  Instead sixteen tiles are, in the lanes of the
processor's vectors, four codes from each eight bytes read.  There are two slower
paths.  If the four codes of a lane are longer than the `WIDEST` bits that eight
bytes are sure to hold, all lanes continue code by code.  If a single code is
longer, if a lane's differences are verbatim, or if a lane leaves its tile, that
lane decodes the stretch again with every bit checked.  The tile's end is checked
after every `STRETCH` pixels, so the buffer must have `SPARE` bytes behind its
tiles; no pixel is accepted that needs bits from behind its own tile.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import inlined, njit
from kernels.fits.tiles import FS_BITS
from kernels.statistics.vectors import (
    LANES,
    bits,
    leading_zeros,
    load,
    prefetch,
    scatter,
    scatter_eight,
    store,
    where,
    word_at,
    words,
    words_at,
)

#: Room for the codes (64 + 25 bits at most) between two checks of the tile's end, and for eight bytes read at a time.
SPARE: Final = 512
STRETCH: Final = 32
#: Bits that eight bytes hold behind the first seven bits.
WIDEST: Final = 57
#: Bytes of a cache line.
LINE: Final = 64
#: Largest ``fs``, by the bytes of a pixel.
FS_MAX: Final = {1: 6, 2: 14, 4: 25}
#: Constants m and b that bring a sum into the encoder's type by ``((sum + b) & m) - b``, by the bytes of a pixel.
RANGE: Final = {1: (0xFF, 0), 2: (0xFFFF, 0x8000), 4: (-1, 0)}


@inlined
def _next(word, fs, last):  # type: ignore[no-untyped-def]
    """Take a code from the words; return the words behind it, its unary part, and the new sum."""
    one = words(1)
    zeros = leading_zeros(word | one)
    word = word << zeros  # the terminating one, and the low bits behind it
    code = (zeros << fs) | ((word >> (words(63) - fs)) ^ (one << fs))
    return word << (fs + one), zeros, last + ((code >> one) ^ (words(0) - (code & one)))


@inlined
def _four(data, at, fs, last):  # type: ignore[no-untyped-def]
    """Take four codes of each lane: their end, a negative number if they are too long, and the sums."""
    word, z0, l0 = _next(words_at(data, at), fs, last)
    word, z1, l1 = _next(word, fs, l0)
    word, z2, l2 = _next(word, fs, l1)
    word, z3, l3 = _next(word, fs, l2)
    used = (z0 + z1) + (z2 + z3) + ((fs + words(1)) << words(2))
    return at + used, words(WIDEST) - used, l0, l1, l2, l3


@inlined
def _singly(data, at, fs, plain, last, bad, first, end, mask, zero, out, places):  # type: ignore[no-untyped-def]
    """Decode pixels ``[first, end)`` code by code; lanes without codes (not plain) stay unchanged."""
    for x in range(first, end):
        _, zeros, sums = _next(words_at(data, at), fs, last)
        used = (zeros + fs + words(1)) & plain
        bad = bad | (words(WIDEST) - used)
        at, last = at + used, (sums & plain) | (last & (plain ^ words(-1)))
        scatter(last, mask, zero, out, places, x)
    return at, last, bad


@inlined
def _bits(data, at, n):  # type: ignore[no-untyped-def]
    """Read the next ``n`` (1 to 32) bits."""
    return (word_at(data, at >> 3) << np.uint64(at & 7)) >> np.uint64(64 - n)


@inlined
def _signed(code):  # type: ignore[no-untyped-def]
    return np.int64(code >> np.uint64(1)) ^ -np.int64(code & np.uint64(1))


@njit
def _checked(data, at, end, fs, fs_max, size, last, mask, zero, out):  # type: ignore[no-untyped-def]
    """Decode one lane's pixels, every bit checked; return the position behind them (-1: none left) and the sum."""
    if fs > fs_max:
        return np.int64(-1), last
    for x in range(out.shape[0]):
        zeros = np.int64(0)
        if 0 <= fs < fs_max:
            while at < end and not (data[at >> 3] >> (7 - (at & 7))) & 1:
                zeros += 1
                at += 1
            at += 1
        low = 0 if fs < 0 else size if fs == fs_max else fs
        at += low
        if at > end:
            return np.int64(-1), last
        if fs >= 0:
            code = (np.uint64(zeros) << np.uint64(low)) | (_bits(data, at - low, low) if low else np.uint64(0))
            last += _signed(code & np.uint64(0xFFFFFFFF))
        out[x] = (last & mask) + zero
    return at, last


@njit
def _lanes(data, starts, ends, lasts, block, fs_bits, fs_max, size, mask, zero, out, places, width):  # type: ignore[no-untyped-def]
    """Decode a tile in every lane; return a lane with a corrupt tile, or -1."""
    at, end, last = load(starts, 0), load(ends, 0), load(lasts, 0)
    kinds, befores = np.empty(LANES, np.int64), np.empty((2, LANES), np.int64)
    for left in range(0, width, block):
        kind = (words_at(data, at) >> words(64 - fs_bits)) - words(1)
        at = at + words(fs_bits)
        raw = words(fs_max - 1) - kind
        plain = where((kind | raw) < words(0), words(0), words(-1))
        fs, right = kind & plain, min(left + block, width)
        usual = bits(plain < words(0)) == 2**LANES - 1
        for first in range(left, right, STRETCH):
            at0, last0, bad, x, stop = at, last, raw, first, min(first + STRETCH, right)
            while usual and x + 8 <= stop:
                at1, bad1, l0, l1, l2, l3 = _four(data, at, fs, last)
                at1, bad2, l4, l5, l6, l7 = _four(data, at1, fs, l3)
                if bits((bad1 | bad2) < words(0)):
                    at, last, bad = _singly(data, at, fs, plain, last, bad, x, x + 8, mask, zero, out, places)
                else:
                    scatter_eight((l0, l1, l2, l3, l4, l5, l6, l7), mask, zero, out, places, x)
                    at, last = at1, l7
                x += 8
            at, last, bad = _singly(data, at, fs, plain, last, bad, x, stop, mask, zero, out, places)
            doubted = bits((bad | (end - at)) < words(0))
            if doubted:
                store(starts, 0, at)
                store(lasts, 0, last)
                store(kinds, 0, kind)
                store(befores[0], 0, at0)
                store(befores[1], 0, last0)
                for k in range(LANES):
                    if doubted >> k & 1:
                        row = out[places[k] + first : places[k] + stop]
                        starts[k], lasts[k] = _checked(
                            data, befores[0, k], ends[k], kinds[k], fs_max, size, befores[1, k], mask, zero, row
                        )
                        if starts[k] < 0:
                            return k
                at, last = load(starts, 0), load(lasts, 0)
    return -1


@njit
def _decode(data, starts, lengths, block, fs_bits, fs_max, size, bias, mask, zero, out):  # type: ignore[no-untyped-def]
    """Decode rows; return a row with a corrupt tile, or -1."""
    rows, width = out.shape
    at, ends = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    last, places = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    flat = out.reshape(-1)
    for first in range(0, rows, LANES):
        for k in range(LANES):
            row = min(first + k, rows - 1)  # spare lanes repeat the last row
            at[k], ends[k], places[k] = starts[row] * 8 + size, (starts[row] + lengths[row]) * 8, row * width
            if at[k] > ends[k]:
                return row
            last[k] = np.int64(_bits(data, at[k] - size, size)) + bias
            ahead = min(first + LANES + k, rows - 1)
            for byte in range(starts[ahead], starts[ahead] + lengths[ahead], LINE):
                prefetch(data, byte)
        corrupt = _lanes(data, at, ends, last, block, fs_bits, fs_max, size, mask, zero, flat, places, width)
        if corrupt >= 0:
            return min(first + corrupt, rows - 1)
    return -1


def decode(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    block: int,
    size: int,
    zero: int,
    out: NDArray[np.int32],
) -> int:
    """Decode tiles of one row each.

    Parameters
    ----------
    data : `numpy.ndarray` [byte], uint8
        The tiles, and at least `SPARE` bytes behind the last one.
    starts, lengths : `numpy.ndarray` [row], int64
        Place of each tile in ``data``, byte.
    block : `int`
        Pixels of a block.
    size : `int`
        Bytes of a pixel before compression: 1 (unsigned), 2 or 4 (signed).
        Sums wrap around as in the encoder.
    zero : `int`
        Added to every pixel.
    out : `numpy.ndarray` [row, x], int32
        Filled; C-contiguous.

    Returns
    -------
    corrupt : `int`
        A row with a corrupt tile; -1 without any.

    Raises
    ------
    ValueError
        A tile lies outside of ``data``, or ``out`` has not one row for each tile, contiguously.
    """
    if not starts.shape == lengths.shape == out.shape[:1] or not out.flags.c_contiguous:
        raise ValueError(f"{len(starts)} tiles do not fit into {out.shape} pixels with strides {out.strides}")
    limit = data.size - SPARE
    if np.any((starts < 0) | (lengths < 0) | (starts > limit) | (lengths > limit - starts)):
        raise ValueError("a tile lies outside of the data")
    mask, bias = RANGE[size]
    return int(
        _decode(data, starts, lengths, block, FS_BITS[size], FS_MAX[size], 8 * size, bias, mask, zero - bias, out)
    )
