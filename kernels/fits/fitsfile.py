"""The only place where kernels open FITS files for cfitsio to read.

cfitsio interprets a file's name: brackets, ``+n``, ``!``, ``@`` and blanks at its
ends have a meaning, fitsio expands ``$`` and ``~``, and if there is no such file
other names are tried.  Here a path is a path: the operating system opens the
file, and cfitsio gets the open file.
"""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import fitsio

from kernels.errors import DataError
from kernels.fits.blocks import unpacking
from kernels.fits.cards import BLOCK, CARD

#: Errors of fitsio for a file that it cannot interpret.
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, SystemError, MemoryError),
    fitsio.FITSFormatError,
)
_CHUNK = 1 << 20
_EMPTY = ("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0")
#: Cards of an HDU that hold only inside its file.
_SUMS = (b"CHECKSUM", b"DATASUM ")


class Open:
    """A file that cfitsio reads by its number; the handle stays open, because cfitsio remembers files by name."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        try:
            self.fits = fitsio.FITS(f"/proc/self/fd/{handle}")
        except BaseException:
            os.close(handle)
            raise

    def close(self) -> None:
        """Close the file."""
        with suppress(*UNREADABLE):
            self.fits.close()
        os.close(self._handle)


@contextmanager
def opened(path: str) -> Iterator[fitsio.FITS]:
    """Open a file for cfitsio to read.

    Raises
    ------
    OSError
        There is no such file, or cfitsio cannot interpret it.
    """
    file = Open(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        yield file.fits
    finally:
        file.close()


def memory() -> int:
    """Make a file in memory; return its handle."""
    return os.memfd_create("fits", os.MFD_CLOEXEC)


def put(handle: int, data: bytes | memoryview) -> None:
    """Write all of the data."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def unpacked(path: str, file: IO[bytes], packed: str) -> int:
    """Unpack a file that is packed as a whole into memory; return its handle.

    Raises
    ------
    DataError
        The file is corrupt or truncated.
    """
    handle, source = memory(), unpacking(file, packed)
    try:
        while data := source.read(_CHUNK):
            put(handle, data)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        os.close(handle)
        raise DataError(path, f"corrupt, it cannot be unpacked: {error}") from error
    return handle


def alone(cards: list[bytes], data: bytes) -> Open:
    """Make a file in memory that holds one extension and nothing else, for cfitsio to read.

    Parameters
    ----------
    cards : `list` [`bytes`]
        Header of the extension without END, cards of 80 characters.
    data : `bytes`
        Data without padding.
    """
    handle = memory()
    for header in ([card.ljust(CARD).encode() for card in _EMPTY], [c for c in cards if c[:8] not in _SUMS]):
        text = b"".join([*header, b"END".ljust(CARD)])
        put(handle, text.ljust(-(-len(text) // BLOCK) * BLOCK))
    put(handle, data)
    put(handle, bytes(-len(data) % BLOCK))
    return Open(handle)
