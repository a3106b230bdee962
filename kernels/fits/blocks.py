"""FITS files block by block: read the headers, and make sure that the data are complete (FITS standard 4.0).

Unambiguous deviations from the standard are accepted: an incomplete last block, NULs in place of blanks in a header,
bytes after the last HDU (counted in `Hdus.beyond`).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, cast

from kernels.errors import DataError
from kernels.fits.cards import BLOCK, NO_NAME, Cards

_CHUNK = 1 << 20
_LONGEST = 2000
"""Blocks of the longest header that is accepted: 72000 cards, 5.5 MiB."""


MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
FOREIGN = {
    b"\x1f\x9d": "compress (.Z): unpack it with uncompress",
    b"PK\x03\x04": "zip: unpack it with unzip",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it with unzstd",
    b"7z\xbc\xaf": "7-Zip: unpack it with 7z",
}
"""Packings that are not unpacked here, with the remedy."""


def packing(path: str, file: IO[bytes]) -> str:
    """Recognise a packed file by its first bytes: ``gzip``, ``bzip2``, ``xz``, or empty.

    Raises
    ------
    DataError
        The file is packed in a way that is not read.
    """
    start = os.pread(file.fileno(), 8, 0)
    for magic, what in FOREIGN.items():
        if start.startswith(magic):
            raise DataError(path, f"not a FITS file: it is packed by {what}")
    return next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), "")


def unpacking(file: IO[bytes], packed: str) -> IO[bytes]:
    """Unpack all members of a file; return the file itself if it is not packed."""
    if packed == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if packed == "bzip2":
        return cast("IO[bytes]", bz2.BZ2File(file))
    return cast("IO[bytes]", lzma.LZMAFile(file)) if packed else file


class Stream:
    """Bytes of a frame in order, unpacked if the file is packed as a whole (`packing`)."""

    def __init__(self, path: str, file: IO[bytes], packed: str = "") -> None:
        self.path = path
        self.position = 0
        self._file = unpacking(file, packed)
        self._handle = None if packed else file.fileno()
        self._size = None if packed else os.fstat(file.fileno()).st_size

    def take(self, count: int) -> bytes:
        """Read up to ``count`` bytes; fewer only at the end."""
        try:
            data = self._file.read(count) if self._handle is None else self._unbuffered(self._handle, count)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(self.path, f"corrupt after {self.position} unpacked bytes: {error}") from error
        self.position += len(data)
        return data

    def _unbuffered(self, handle: int, count: int) -> bytes:
        """Read no byte beyond the count, as a buffered file would: behind a header lie pixels."""
        data = os.pread(handle, count, self.position)
        while data and len(data) < count and (more := os.pread(handle, count - len(data), self.position + len(data))):
            data += more
        return data

    def skip(self, count: int) -> int:
        """Skip up to ``count`` bytes; return the number skipped."""
        start = self.position
        if self._size is not None:
            self.position = min(self._size, self.position + count)
        else:  # unpack in pieces, to verify the checksum at the end in little memory
            while (left := count - (self.position - start)) and self.take(min(left, _CHUNK)):
                pass
        return self.position - start


@dataclass(frozen=True)
class Names:
    """EXTNAMEs of a file's HDUs by number (empty without), by which a camera file names them."""

    path: str
    names: tuple[str, ...]

    def label(self, number: int) -> str:
        """Name an HDU for a message."""
        name = self.names[number]
        return name if name and name != NO_NAME else str(number)

    def number(self, key: str | int) -> int:
        """Find an HDU by number, or by EXTNAME in any case.

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
    """Headers of a file.

    An image packed by fpack (ZSIMPLE) counts as its original primary HDU, and the
    HDUs behind it keep their numbers.

    Attributes
    ----------
    primary : `list` [`Cards`]
        The header for the whole file; for a packed image, two.
    headers : `list` [`Cards`]
        Headers by number.
    names : `Names`
    beyond : `int`
        Number of bytes after the last HDU.
    """

    def __init__(self, path: str, headers: Sequence[Cards], beyond: int = 0) -> None:
        packed = len(headers) > 1 and not headers[0].bytes() and headers[1].get("ZSIMPLE") is True
        self.beyond = beyond
        self.primary = list(headers[: 2 if packed else 1])
        self.headers = list(headers[1 if packed else 0 :])
        self.names = Names(path, tuple(cards.text("EXTNAME") or "" for cards in self.headers))

    def of(self, key: str | int) -> list[Cards]:
        """List the headers in which to search a keyword of an HDU."""
        number = self.names.number(key)
        return self.primary if number == 0 else [self.headers[number]]


def _is_cut(block: bytes) -> bool:
    """Whether a file's last bytes are the beginning of a header."""
    return b"XTENSION=".startswith(block[:9])


def _header(stream: Stream, hdu: int) -> Cards | None:
    """Read the next header; `None` at the end."""
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
    """Read the primary header; for a single image packed by fpack (ZSIMPLE), also the header with its cards.

    Raises
    ------
    DataError
        The file is no FITS, or is truncated.
    """
    first = _header(stream, 0)
    assert first is not None
    second = None if first.data_bytes() else _header(stream, 1)
    return Hdus(stream.path, [first] if second is None else [first, second])


def walk(stream: Stream) -> Hdus:
    """Read every header of a file and skip the data.

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
