"""FITS files block by block: headers, and whether all of the data are there (FITS standard 4.0)."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from functools import lru_cache
from math import prod
from typing import IO, cast

from kernels.errors import DataError

BLOCK = 2880
"""A FITS file is made of blocks of this many bytes."""

CARD = 80
BITPIX = (8, 16, 32, 64, -32, -64)
LARGEST = 1 << 48
"""No count in a header is believed beyond this."""

_CHUNK = 1 << 20
_LONGEST = 2000
"""Blocks of the longest header believed in: 72000 cards, 5.5 MiB."""

_STRING = re.compile(r"\s*'((?:[^']|'')*)'")
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([EDed][+-]?\d+)?")
_LOGICAL = {"T": True, "F": False, "": None}

Value = str | int | float | bool | None


class Stream:
    """Bytes of a frame in their order, unpacked where the file is gzipped."""

    def __init__(self, path: str, file: IO[bytes], packed: bool) -> None:
        self.path = path
        self.position = 0
        self._file = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        self._size = None if packed else os.fstat(file.fileno()).st_size

    def take(self, count: int) -> bytes:
        """Read up to ``count`` bytes; fewer only at the end."""
        try:
            data = self._file.read(count)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(self.path, f"corrupt after {self.position} unpacked bytes: {error}") from error
        self.position += len(data)
        return data

    def skip(self, count: int) -> int:
        """Pass over up to ``count`` bytes and say how many there were."""
        start = self.position
        if self._size is not None:
            self.position = min(self._size, self.position + count)
            self._file.seek(self.position)
        else:  # unpacked in pieces, so that the checksum at its end is verified in little memory
            while (left := count - (self.position - start)) and self.take(min(left, _CHUNK)):
                pass
        return self.position - start


@lru_cache(maxsize=4096)  # the headers of a frame, and those of the next one, say mostly the same
def _value(text: str) -> Value:
    """Value of a card (FITS standard 4.0, section 4.2) from what follows its ``=``.

    Raises
    ------
    ValueError
        The text is no FITS value.
    """
    if match := _STRING.match(text):
        return match[1].replace("''", "'").rstrip()
    text = text.split("/", 1)[0].strip()
    if text in _LOGICAL:
        return _LOGICAL[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.upper().replace("D", "E"))
    raise ValueError(text)


class Cards:
    """A header: keyword to the text after its ``=``; the first of a name counts."""

    def __init__(self, path: str, hdu: int) -> None:
        self.path, self._hdu = path, hdu
        self._texts: dict[str, str] = {}
        self.ended = False
        self.data_start = 0  # byte of the file, known once the header has been read

    def add(self, block: bytes) -> None:
        """Read the cards of one more block."""
        text = block.decode("latin-1")
        for k in range(0, len(text), CARD):
            name = text[k : k + 8]
            if text[k + 8 : k + 10] == "= ":
                self._texts.setdefault(name.rstrip(), text[k + 10 : k + CARD])
            elif name == "END     ":
                self.ended = True
                return
            elif name == "HIERARCH" and "=" in (card := text[k : k + CARD]) and card[8] == " ":
                key, value = card[9:].split("=", 1)
                self._texts.setdefault(key.strip(), value)

    def get(self, keyword: str) -> Value:
        """Value of a keyword; `None` where the header has none.

        Raises
        ------
        DataError
            What stands there is no FITS value.
        """
        if keyword not in self._texts:
            return None
        try:
            return _value(self._texts[keyword])
        except ValueError as error:
            raise DataError(self.path, f"HDU {self._hdu}: {keyword} is {error}, which is no FITS value") from error

    def text(self, keyword: str) -> str | None:
        """Value of a keyword as text."""
        value = self.get(keyword)
        return None if value is None else str(value).strip()

    def count(self, keyword: str, default: int | None = None) -> int:
        """A whole number, not negative."""
        value = self.get(keyword)
        number = default if value is None else value
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < LARGEST:
            raise DataError(self.path, f"HDU {self._hdu}: {keyword} is {number!r}, not a whole number")
        return number

    def has(self, keyword: str) -> bool:
        """Tell whether the header has the keyword."""
        return keyword in self._texts

    def axes(self, prefix: str = "") -> list[int]:
        """Lengths of the axes, NAXIS1 first."""
        return [self.count(f"{prefix}NAXIS{n + 1}") for n in range(self.count(f"{prefix}NAXIS"))]

    def data_bytes(self) -> int:
        """Size of the data that follow, padding included (FITS standard 4.0, equation 2)."""
        bits = self.get("BITPIX")
        if bits not in BITPIX:
            raise DataError(self.path, f"HDU {self._hdu}: BITPIX is {bits!r}")
        axes = self.axes()
        pixels = self.count("GCOUNT", 1) * (self.count("PCOUNT", 0) + prod(axes)) if axes else 0
        return -(-pixels * abs(cast(int, bits)) // 8 // BLOCK) * BLOCK


def _header(stream: Stream, hdu: int) -> Cards | None:
    """The next header; `None` at the end of the file."""
    start, block = stream.position, stream.take(BLOCK)
    if hdu and not block:
        return None
    opening = b"XTENSION=" if hdu else b"SIMPLE  ="
    if not block.startswith(opening):
        found = f"{len(block)} bytes" if len(block) < BLOCK else repr(block[:9])[1:]
        what = f"{found} after the last HDU, at byte {start}" if hdu else f"not a FITS file: it starts with {found}"
        raise DataError(stream.path, what if block else "the file is empty")
    cards = Cards(stream.path, hdu)
    while len(block) == BLOCK and stream.position - start <= _LONGEST * BLOCK:
        cards.add(block)
        if cards.ended:
            return cards
        block = stream.take(BLOCK)
    where = f"bytes {start} to {stream.position}"
    raise DataError(stream.path, f"HDU {hdu}: truncated in its header, no END card in the blocks of {where}")


def opening(stream: Stream) -> list[Cards]:
    """The primary header; of a single image packed by fpack (ZSIMPLE) the header that holds its cards, too.

    Raises
    ------
    DataError
        The file is no FITS, or truncated.
    """
    first = _header(stream, 0)
    assert first is not None
    if first.data_bytes():
        return [first]
    second = _header(stream, 1)
    return [first, second] if second is not None and second.get("ZSIMPLE") is True else [first]


def walk(stream: Stream) -> list[Cards]:
    """Every header of a file, whose data are passed over.

    Raises
    ------
    DataError
        The file is no FITS, is truncated, or has something after its end.
    """
    headers: list[Cards] = []
    while cards := _header(stream, len(headers)):
        cards.data_start = start = stream.position
        expected = cards.data_bytes()
        found = stream.skip(expected)
        if found < expected:
            what = f"HDU {cards.text('EXTNAME') or len(headers)}: truncated in its data"
            raise DataError(stream.path, f"{what}, {start + expected} bytes expected by its end, {start + found} found")
        headers.append(cards)
    return headers
