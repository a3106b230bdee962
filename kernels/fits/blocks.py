"""FITS files block by block: headers, and whether all of the data are there (FITS standard 4.0).

What is not as the standard has it, and can mean one thing only, is read: a last block that is not filled up, NULs in
place of blanks in a header, bytes after the last HDU (counted in `Hdus.beyond`).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import IO, cast

from kernels.errors import DataError
from kernels.fits.seal import ones_sum

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

_CONTINUED = re.compile(r"\s*'((?:[^']|'')*)&\s*'")
_NO_NAME = "COMPRESSED_IMAGE"
"""EXTNAME that fpack gives to an image without one; where the image has one, both stand in the header."""

MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
FOREIGN = {
    b"\x1f\x9d": "compress (.Z): unpack it with uncompress",
    b"PK\x03\x04": "zip: unpack it with unzip",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it with unzstd",
    b"7z\xbc\xaf": "7-Zip: unpack it with 7z",
}
"""How files are packed as a whole that are not unpacked here, and what to do."""

Value = str | int | float | bool | None


def packing(path: str, file: IO[bytes]) -> str:
    """How a file is packed as a whole: ``gzip``, ``bzip2``, ``xz``, or empty; its name does not count.

    Raises
    ------
    DataError
        It is packed in a way that is not read.
    """
    start = os.pread(file.fileno(), 8, 0)
    for magic, what in FOREIGN.items():
        if start.startswith(magic):
            raise DataError(path, f"not a FITS file: it is packed by {what}")
    return next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "")


def unpacking(file: IO[bytes], packed: str) -> IO[bytes]:
    """The file's bytes unpacked, all members of it; itself where it is not packed."""
    if packed == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if packed == "bzip2":
        return cast("IO[bytes]", bz2.BZ2File(file))
    return cast("IO[bytes]", lzma.LZMAFile(file)) if packed else file


class Stream:
    """Bytes of a frame in their order, unpacked where the file is packed as a whole (`packing`)."""

    def __init__(self, path: str, file: IO[bytes], packed: str = "") -> None:
        self.path = path
        self.position = 0
        self._file = unpacking(file, packed)
        self._size = None if packed else os.fstat(file.fileno()).st_size

    def take(self, count: int) -> bytes:
        """Read up to ``count`` bytes; fewer only at the end."""
        try:
            data = self._file.read(count)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
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
    """A header: keyword to the text after its ``=``; the first of a name counts.

    Of EXTNAME, one that fpack has put before the image's own does not count.
    """

    def __init__(self, path: str, hdu: int) -> None:
        self.path, self._hdu = path, hdu
        self._texts: dict[str, str] = {}
        self._open = ""  # the keyword whose value CONTINUE cards may go on with
        self.ended = False
        self.data_start = 0  # byte of the file, known once the header has been read
        self._blocks: list[bytes] = []

    def add(self, block: bytes) -> None:
        """Read the cards of one more block; NULs count as blanks."""
        self._blocks.append(block)
        text, texts = (block.replace(b"\0", b" ") if b"\0" in block else block).decode("latin-1"), self._texts
        for k in range(0, len(text), CARD):
            name = text[k : k + 8]
            if text[k + 8 : k + 10] == "= ":
                key, value = name.rstrip(), text[k + 10 : k + CARD]
                if key in texts or "&" in value or not key.isupper():
                    self._put(key, value)
                else:
                    texts[key], self._open = value, ""
                continue
            card = text[k : k + CARD]
            if name == "END     " and not card.strip("END "):
                self.ended = True
                return
            if name == "HIERARCH" and "=" in card and card[8] == " ":
                key, value = card[9:].split("=", 1)
                self._put(" ".join(key.split()), value)
            elif name == "CONTINUE" and self._open:
                self._continue(card[8:])
            elif name.strip():  # blank cards may stand between
                self._open = ""

    def _put(self, key: str, text: str) -> None:
        key = key.upper()
        first = key not in self._texts
        if key == "EXTNAME" and not first and _value_or_none(self._texts[key]) == _NO_NAME:
            first = True
        self._open = key if first and "&" in text and _CONTINUED.match(text) else ""
        if first:
            self._texts[key] = text

    def _continue(self, text: str) -> None:
        """Add what a CONTINUE card says (FITS standard 4.0, section 4.2.1.2)."""
        before, more = _CONTINUED.match(self._texts[self._open]), _STRING.match(text)
        if before is None or more is None:
            self._open = ""
            return
        self._texts[self._open] = f"'{before[1]}{more[1]}'"
        if not _CONTINUED.match(text):
            self._open = ""

    def get(self, keyword: str) -> Value:
        """Value of a keyword, in capitals; `None` where the header has none.

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

    def shape(self, prefix: str = "") -> list[int]:
        """Lengths of the axes without those of length 1 behind the second."""
        axes = self.axes(prefix)
        while len(axes) > 2 and axes[-1] == 1:
            axes.pop()
        return axes

    @property
    def hdu(self) -> int:
        """Where the HDU stands in the file, from 0."""
        return self._hdu

    @property
    def compressed(self) -> bool:
        """Whether it is an image in a table of tiles."""
        return self.get("ZIMAGE") is True

    @property
    def is_image(self) -> bool:
        """Whether it holds an image, or could: a primary HDU, IMAGE, or tiles."""
        return self.compressed or self.text("XTENSION") in (None, "IMAGE")

    @property
    def summed_by(self) -> str:
        """The card that `datasum` goes by."""
        return "DATASUM" if self.text("DATASUM") else "CHECKSUM"

    def datasum(self) -> int | None:
        """The sum that the data must have; `None` where the header does not say.

        Without DATASUM, CHECKSUM says it: header and data add up to all ones (FITS standard 4.0, section 4.4.2.7).
        """
        text, whole = self.text("DATASUM") or "", self.text("CHECKSUM") or ""
        if text:
            return int(text) if text.isdecimal() else None
        if len(whole) != 16 or whole == "0" * 16:
            return None
        return 0xFFFFFFFF - ones_sum(b"".join(self._blocks).ljust(len(self._blocks) * BLOCK))

    def cards(self) -> list[bytes]:
        """The cards as they stand, blank for NUL, without END."""
        text = b"".join(self._blocks).replace(b"\0", b" ")
        every = [text[k : k + CARD].ljust(CARD) for k in range(0, len(text), CARD)]
        return every[: next(k for k, card in enumerate(every) if card.startswith(b"END ") and not card.strip(b"END "))]

    def bytes(self) -> int:
        """Size of the data that follow, without padding (FITS standard 4.0, equation 2)."""
        bits = self.get("BITPIX")
        if bits not in BITPIX:
            raise DataError(self.path, f"HDU {self._hdu}: BITPIX is {bits!r}")
        axes = self.axes()
        pixels = self.count("GCOUNT", 1) * (self.count("PCOUNT", 0) + prod(axes)) if axes else 0
        return pixels * abs(cast(int, bits)) // 8

    def data_bytes(self) -> int:
        """Size of the data that follow, padding included."""
        return -(-self.bytes() // BLOCK) * BLOCK


def same_sum(one: int, other: int) -> bool:
    """Whether two ones' complement sums are one number: zero has two forms."""
    return (one - other) % 0xFFFFFFFF == 0


def _value_or_none(text: str) -> Value:
    try:
        return _value(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Names:
    """The EXTNAMEs of a file's HDUs by number, empty without: how a camera file names them."""

    path: str
    names: tuple[str, ...]

    def label(self, number: int) -> str:
        """What a message calls an HDU."""
        name = self.names[number]
        return name if name and name != _NO_NAME else str(number)

    def number(self, key: str | int) -> int:
        """Which HDU a number, or an EXTNAME in whatever case, means.

        Raises
        ------
        DataError
            None, or several.
        """
        if isinstance(key, int):
            if key < len(self.names):
                return key
            raise DataError(self.path, f"HDU {key}: there is none of that number, the file has {len(self.names)}")
        found = [n for n, name in enumerate(self.names) if name.upper() == key.strip().upper()]
        if not found:
            raise DataError(self.path, f"HDU {key}: there is none of that name")
        if len(found) > 1:
            which = ", ".join(map(str, found))
            raise DataError(self.path, f"HDU {key}: HDUs {which} have that name; the camera file must give the number")
        return found[0]


class Hdus:
    """The headers of a file.

    An image packed by fpack (ZSIMPLE) is the primary HDU that it was, and those
    behind it keep their numbers.

    Attributes
    ----------
    primary : `list` [`Cards`]
        The header that speaks of the whole file; of a packed image, two.
    headers : `list` [`Cards`]
        By number.
    names : `Names`
    beyond : `int`
        Bytes after the last HDU, which are none of it.
    """

    def __init__(self, path: str, headers: Sequence[Cards], beyond: int = 0) -> None:
        packed = len(headers) > 1 and not headers[0].bytes() and headers[1].get("ZSIMPLE") is True
        self.beyond = beyond
        self.primary = list(headers[: 2 if packed else 1])
        self.headers = list(headers[1 if packed else 0 :])
        self.names = Names(path, tuple(cards.text("EXTNAME") or "" for cards in self.headers))

    def of(self, key: str | int) -> list[Cards]:
        """The headers in which a keyword of an HDU is looked for."""
        number = self.names.number(key)
        return self.primary if number == 0 else [self.headers[number]]


def _is_cut(block: bytes) -> bool:
    """Whether a file's last bytes are the beginning of a header."""
    return b"XTENSION=".startswith(block[:9])


def _header(stream: Stream, hdu: int) -> Cards | None:
    """The next header; `None` where there is none."""
    start, block = stream.position, stream.take(BLOCK)
    if hdu and not block:
        return None
    opening = b"XTENSION=" if hdu else b"SIMPLE  ="
    if not block.startswith(opening):
        if hdu and block.startswith(b"SIMPLE  ="):
            raise DataError(stream.path, f"another FITS file follows at byte {start}: a frame is a file of its own")
        if hdu and not _is_cut(block):
            return None
        found = f"{len(block)} bytes" if len(block) < BLOCK else repr(block[:9])[1:]
        what = f"{found} after the last HDU, at byte {start}" if hdu else f"not a FITS file: it starts with {found}"
        raise DataError(stream.path, what if block else "the file is empty")
    cards = Cards(stream.path, hdu)
    while block and stream.position - start <= _LONGEST * BLOCK:
        cards.add(block)
        if cards.ended:
            return cards
        block = stream.take(BLOCK)
    where = f"bytes {start} to {stream.position}"
    raise DataError(stream.path, f"HDU {hdu}: truncated in its header, no END card in the blocks of {where}")


def opening(stream: Stream) -> Hdus:
    """The primary header; of a single image packed by fpack (ZSIMPLE) the header that holds its cards, too.

    Raises
    ------
    DataError
        The file is no FITS, or truncated.
    """
    first = _header(stream, 0)
    assert first is not None
    second = None if first.data_bytes() else _header(stream, 1)
    return Hdus(stream.path, [first] if second is None else [first, second])


def walk(stream: Stream) -> Hdus:
    """Every header of a file, whose data are passed over.

    Raises
    ------
    DataError
        The file is no FITS, or is truncated.
    """
    headers: list[Cards] = []
    while cards := _header(stream, len(headers)):
        cards.data_start = start = stream.position
        expected = cards.data_bytes()
        found = stream.skip(expected)
        if found < cards.bytes():
            what = f"HDU {cards.text('EXTNAME') or len(headers)}: truncated in its data"
            raise DataError(stream.path, f"{what}, {start + expected} bytes expected by its end, {start + found} found")
        headers.append(cards)
        end = stream.position
    beyond = stream.position - end
    while count := stream.skip(_CHUNK):
        beyond += count
    return Hdus(stream.path, headers, beyond)
