"""FITS files in memory: written by cfitsio, sealed with reproducible checksums.

cfitsio's checksum cards include the time of writing, so that the same pixels
never give the same bytes.  Here DATASUM and CHECKSUM are those of the FITS
standard (4.0, section 4.4.2.7 and appendix J), without a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import fitsio
import numpy as np

BLOCK = 2880
CARD = 80
#: Characters that an encoded checksum avoids.
_AVOIDED = frozenset(b":;<=>?@[\\]^_`")


def folded(total: int) -> int:
    """Fold a plain sum into a 32-bit ones' complement sum by adding the carry."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def ones_sum(data: bytes) -> int:
    """Compute the 32-bit ones' complement sum of ``data``, a whole number of big-endian words."""
    return folded(int(np.frombuffer(data, ">u4").sum(dtype=np.uint64)))


def _letters(byte: int) -> list[int]:
    """Find four letters or digits that add up to ``byte``, counted from the digit 0."""
    quarter, rest = divmod(byte, 4)
    four = [quarter + rest + 48, quarter + 48, quarter + 48, quarter + 48]
    for a, b in ((0, 1), (2, 3)):
        while four[a] in _AVOIDED or four[b] in _AVOIDED:
            four[a] += 1
            four[b] -= 1
    return four


def encode(total: int) -> str:
    """Encode the complement of a sum in the 16 characters of CHECKSUM."""
    value = ~total & 0xFFFFFFFF
    text = np.array([_letters(value >> shift & 0xFF) for shift in (24, 16, 8, 0)], np.uint8)
    return np.roll(text.T.ravel(), 1).tobytes().decode("ascii")


def _cards(data: bytes, start: int) -> Iterator[bytes]:
    """Yield the cards of the header at ``start``, up to END."""
    while not (card := data[start : start + CARD]).startswith(b"END "):
        yield card
        start += CARD


def _data_bytes(cards: list[bytes]) -> int:
    """Compute the length of the data that follow a header, without padding."""
    integers = {c[:8].strip(): int(c[10:30]) for c in cards if c[10:30].strip().lstrip(b"-").isdigit()}
    axes = [integers[b"NAXIS%d" % n] for n in range(1, integers[b"NAXIS"] + 1)]
    if not axes:
        return 0
    return abs(integers[b"BITPIX"]) // 8 * (math.prod(axes) + integers.get(b"PCOUNT", 0))


def _card(key: str, value: str, comment: str) -> bytes:
    return f"{key:8}= '{value:<16}'   / {comment}".ljust(CARD).encode("ascii")


def sealed(cards: Sequence[bytes], total: int) -> bytes:
    """Build the blocks of a header.

    Parameters
    ----------
    cards : sequence of `bytes`
        80 characters each, without END, CHECKSUM and DATASUM.
    total : `int`
        `ones_sum` of the data that follow.
    """
    blank = _card("CHECKSUM", "0" * 16, "checksum for the current HDU")
    cards = [*cards, blank, _card("DATASUM", str(total), "checksum of the data records"), b"END".ljust(CARD)]
    header = b"".join(cards)
    header = header.ljust(-len(header) // BLOCK * -BLOCK)
    text = encode(ones_sum(total.to_bytes(4, "big") + header))
    return header.replace(blank, _card("CHECKSUM", text, "checksum for the current HDU"))


def _units(data: bytes) -> Iterator[tuple[list[bytes], bytes]]:
    """Yield cards, without blank ones, and data of every HDU of a file."""
    start = 0
    while start < len(data):
        cards = list(_cards(data, start))
        start += -((len(cards) + 1) * CARD) // BLOCK * -BLOCK
        end = start + -_data_bytes(cards) // BLOCK * -BLOCK
        yield [c for c in cards if c.strip()], data[start:end]
        start = end


def seal(data: bytes, more: Sequence[Sequence[bytes]] = ()) -> bytes:
    """Add CHECKSUM and DATASUM to every HDU of a FITS file without them.

    Parameters
    ----------
    more : sequence of sequence of `bytes`, optional
        Further cards of each HDU, 80 characters each.
    """
    units = list(_units(data))
    added = [*more, *[()] * (len(units) - len(more))]
    return b"".join(
        sealed([*own, *some], ones_sum(body)) + body for (own, body), some in zip(units, added, strict=True)
    )


def _bytes(write: Callable[[fitsio.FITS], None]) -> bytes:
    fits = fitsio.FITS("mem://", "rw")
    try:
        write(fits)
        return bytes(fits.read_raw())
    finally:
        fits.close()


def headers(write: Callable[[fitsio.FITS], None]) -> list[list[bytes]]:
    """Write a FITS file in memory; return the cards of every HDU, without END.

    Parameters
    ----------
    write : callable
        Called with the open, empty file.
    """
    return [cards for cards, _ in _units(_bytes(write))]


def written(write: Callable[[fitsio.FITS], None], more: Sequence[Sequence[bytes]] = ()) -> bytes:
    """Write a FITS file in memory, and seal it.

    Parameters
    ----------
    write : callable
        Called with the open, empty file.
    more : sequence of sequence of `bytes`, optional
        See `seal`.
    """
    return seal(_bytes(write), more)
