"""Images that cannot be read by rows of whole numbers: floats, other integers, other compressions.

cfitsio reads compressed images; it gets the HDU alone, so that the rest of the file cannot matter.  Other images are
read here.  The values of the pixels must be whole numbers, however they are stored; NaN and values beyond 32 bits
are blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kernels.errors import DataError
from kernels.fits.fitsfile import UNREADABLE, Open, alone
from kernels.fits.pread import part
from kernels.fits.rowbytes import BLANK
from kernels.fits.tiles import Odd, blanks

_STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_TYPES = {-32: "float32", -64: "float64"}
#: Bytes of an element of a table, by the letter of its TFORM.
_BYTES = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "E": 4, "K": 8, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")


@dataclass(frozen=True)
class Whole:
    """Rows [row, x] of whole numbers (int32, blank ones `BLANK`); number and an example of those beyond 32 bits."""

    pixels: NDArray[np.int32]
    beyond: int
    example: float = 0.0


def _bits(cards: Any) -> int:
    return int(cards.get("ZBITPIX" if cards.compressed else "BITPIX"))


def half(cards: Any, signed: bool) -> int:
    """Return half the range of an unsigned image whose upper half stands for negative numbers; 0 for other images."""
    bits = _bits(cards)
    zero = cards.get("BZERO") or 0
    return 1 << (bits - 1) if signed and bits > 0 and (bits == 8 or zero == 1 << (bits - 1)) else 0


@contextmanager
def understood(path: str, image: Odd) -> Iterator[None]:
    """Name the HDU whose header describes no image."""
    try:
        yield
    except UNREADABLE as error:
        raise DataError(path, f"HDU {image.hdu}: its header describes no image: {said(error)}") from error


def stored(path: str, image: Odd, first: int, last: int, handle: int | None) -> NDArray[Any]:
    """Read rows of an uncompressed image as they are stored."""
    kind = np.dtype(_STORED[int(cast(int, image.cards.get("BITPIX")))])
    row = image.width * kind.itemsize
    data = part(path, image.table + first * row, (last - first) * row, handle)
    return data.view(kind).reshape(last - first, image.width)


def whole_file(path: str, image: Odd, handle: int | None) -> Open:
    """Open the HDU of a compressed image alone, without the cards that change the stored numbers."""
    data, cards = part(path, image.table, image.cards.bytes(), handle), image.cards
    ours = {b"BSCALE", b"BZERO", b"BLANK", *([] if _bits(cards) < 0 else [b"ZBLANK"])}
    try:
        return alone([card for card in cards.cards() if card[:8].rstrip() not in ours], data.tobytes())
    except UNREADABLE as error:
        raise DataError(path, f"HDU {image.hdu}: {said(error)}") from error


def decompressed(path: str, image: Odd, file: Open, first: int, last: int) -> NDArray[Any]:
    """Read rows of a compressed image as they were stored before compression."""
    try:
        hdu = file.fits[1]
        more = len(hdu.get_info()["dims"]) - 2
        pixels = hdu[(*[slice(0, 1)] * more, slice(first, last), slice(0, image.width))]
    except UNREADABLE as error:
        raise DataError(path, f"HDU {image.hdu}: {said(error)}") from error
    return np.asarray(pixels).reshape(last - first, image.width)


def values(path: str, image: Odd, pixels: NDArray[Any], first: int, handle: int | None) -> NDArray[np.float64]:
    """Convert stored rows from ``first`` on to physical values; NaN where blank."""
    cards, found = image.cards, pixels.astype(np.float64)
    scale, zero = (_number(path, image, key, usual) for key, usual in (("BSCALE", 1.0), ("BZERO", 0.0)))
    if scale != 1 and not cards.holds():
        raise DataError(path, f"HDU {image.hdu}: BSCALE is {scale:g}, and the header is not what its CHECKSUM says")
    if _bits(cards) > 0:
        for value in blanks(cards):
            found[pixels == value] = np.nan
        if cards.compressed and (column := _blank_column(path, image, handle)) is not None:
            found[pixels == _by_tile(cards, column, first, len(pixels))] = np.nan
    if (scale, zero) == (1.0, 0.0):
        return found
    if _bits(cards) == 64:  # float64 holds only 53
        exact = np.where(np.isnan(found), np.longdouble(np.nan), pixels.astype(np.longdouble))
        return (exact * scale + zero).astype(np.float64)
    return found * scale + zero


def _number(path: str, image: Odd, key: str, usual: float) -> float:
    value = image.cards.get(key)
    if value is None:
        return usual
    if isinstance(value, bool | str):
        raise DataError(path, f"HDU {image.hdu}: {key} is {value!r}, not a number")
    return float(value)


def whole(path: str, image: Odd, found: NDArray[np.float64], upper: int) -> Whole:
    """Convert values to whole numbers; those from ``upper`` on have wrapped, and are negative (0: none).

    Raises
    ------
    DataError
        Some values are no whole numbers.
    """
    good = np.isfinite(found)
    if upper:
        found = np.where(found >= upper, found - 2 * upper, found)
    broken = int(np.count_nonzero(good & (found != np.rint(found))))
    if broken:
        what = f"{broken} of {found.size} pixels are no whole numbers: a raw frame holds integers"
        raise DataError(path, f"HDU {image.hdu} holds {_kind(image.cards)}, and {what}")
    beyond = good & ((found < -(2.0**31)) | (found >= float(BLANK)))
    number, out = int(np.count_nonzero(beyond)), np.full(found.shape, BLANK, np.int32)
    keep = good & ~beyond
    out[keep] = found[keep].astype(np.int32)
    return Whole(out, number, float(found[beyond][0]) if number else 0.0)


def _kind(cards: Any) -> str:
    bits = _bits(cards)
    lossy = ", quantised with a loss" if cards.compressed and bits < 0 and cards.has("ZQUANTIZ") else ""
    scaled = f", scaled by BSCALE {cards.get('BSCALE')}, BZERO {cards.get('BZERO')}" if cards.has("BSCALE") else ""
    return _TYPES.get(bits, f"{bits}-bit integers") + lossy + (scaled if bits > 0 else "")


def _blank_column(path: str, image: Odd, handle: int | None) -> NDArray[np.int64] | None:
    """Read the column ZBLANK, one value a tile; `None` without it."""
    cards, at, column = image.cards, 0, None
    for n in range(1, cards.count("TFIELDS", 0) + 1):
        match = _FORM.match((cards.text(f"TFORM{n}") or "").upper())
        if match is None:
            return None
        count, letter = int(match[1] or 1), match[2]
        if (cards.text(f"TTYPE{n}") or "").upper() == "ZBLANK":
            column = at, {"I": ">i2", "J": ">i4", "K": ">i8"}.get(letter, "u1")
        at += (count + 7) // 8 if letter == "X" else count * _BYTES[letter]
    if column is None:
        return None
    width, rows = cards.axes()
    table = part(path, image.table, width * rows, handle).reshape(rows, width)
    start, kind = column
    cells = np.ascontiguousarray(table[:, start : start + np.dtype(kind).itemsize])
    return cells.view(kind)[:, 0].astype(np.int64)


def _by_tile(cards: Any, column: NDArray[np.int64], first: int, rows: int) -> NDArray[np.int64]:
    """Spread a column's values over the pixels [row, x] of rows from ``first`` on."""
    width = cards.shape("Z")[0]
    wide, high = cards.count("ZTILE1", width), cards.count("ZTILE2", 1)
    across = -(-width // wide)
    tile = (np.arange(first, first + rows) // high)[:, np.newaxis] * across + np.arange(width) // wide
    return column[tile]


def shape(cards: Any) -> Sequence[int]:
    """Return the lengths of the axes, for comparison and messages."""
    axes: list[int] = cards.shape("Z" if cards.compressed else "")
    return axes if prod(axes) else []


def said(error: BaseException) -> str:
    """Format a fitsio error: its last line, which is the cause, then its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and not lines[-1].startswith("FITSIO"):
        return f"{lines[-1]} ({lines[0]})"
    return lines[0] if lines else repr(error)
