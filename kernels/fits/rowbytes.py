"""Bytes of rows: read by ``pread`` into a reused buffer, and compared with their DATASUM."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.errors import DataError
from kernels.fits.blocks import Stream, packing, walk
from kernels.fits.cards import same_sum
from kernels.fits.pread import Source, opened
from kernels.fits.seal import folded
from kernels.fits.tiles import Odd, RowTiles

CHUNK = 1 << 22
#: Raw value that marks a blank pixel: the largest, so that it sorts last and exceeds every limit.
BLANK = np.int32(2147483647)


def load(
    path: str,
    tiles: RowTiles,
    first: int,
    last: int,
    data: NDArray[np.uint8],
    at: int,
    whole: bool,
    handle: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Read the tiles of rows ``[first, last)``.

    Parameters
    ----------
    data : `numpy.ndarray` [byte], uint8
        Buffer; `room` bytes of it may be filled.
    at : `int`
        First byte to fill, a multiple of 8.
    whole : `bool`
        Read the whole HDU, and compare it with its DATASUM.
    handle : `int`, optional
        Handle of the unpacked file.

    Returns
    -------
    starts, lengths : `numpy.ndarray` [last - first], int64
        Place of each row's tile in ``data``.
    end : `int`
        Byte of ``data`` behind the tiles.

    Raises
    ------
    DataError
        The file cannot be read, its data are not those of its DATASUM, or a
        tile lies outside of its heap: file, HDU and row are named.
    """
    with opened(path, handle) as source:
        return _load(source, tiles, first, last, data, at, whole)


def check(path: str, image: Odd, handle: int | None = None) -> None:
    """Compare an image's data with their DATASUM, if there is one.

    Raises
    ------
    DataError
        Data and DATASUM disagree, or the file cannot be read.
    """
    expected, total = image.cards.datasum(), 0
    if expected is None:
        return
    size, used = image.cards.data_bytes(), image.cards.bytes()
    with opened(path, handle) as source:
        for done in range(0, size, CHUNK):
            data = np.empty(min(CHUNK, size - done), np.uint8)
            source.read(data, image.table + done, max(0, done + data.size - used))
            total += ones_complement_sum(data)
    if not same_sum(folded(total), expected):
        raise corrupt_data(path, image)


def corrupt_data(path: str, image: RowTiles | Odd) -> DataError:
    """Make the error for data that disagree with their header."""
    said = image.cards.summed_by if isinstance(image, Odd) else image.said
    return DataError(path, f"HDU {image.hdu}: corrupt, its data are not those of its {said}")


def room(tiles: RowTiles, rows: int) -> int:
    """Return the most bytes that `load` leaves filled, a multiple of 8; while loading it needs a whole HDU more."""
    needed = tiles.data_bytes if rows == tiles.height else min(tiles.heap_bytes, rows * tiles.longest)
    return (needed + 7) // 8 * 8


def _load(
    source: Source, tiles: RowTiles, first: int, last: int, data: NDArray[np.uint8], at: int, whole: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    heap = at + tiles.heap - tiles.table
    if whole:
        unit = data[at : at + tiles.data_bytes]
        source.read(unit, tiles.table, tiles.data_bytes - tiles.used)
        assert tiles.datasum is not None
        if not same_sum(ones_complement_sum(unit), tiles.datasum):
            raise corrupt_data(source.path, tiles)
    starts, lengths = _places(source, tiles, first, last)
    begin, end = int(starts.min()), int((starts + lengths).max())
    if whole and last - first == tiles.height:
        return heap + starts, lengths, heap + end
    if end - begin > (last - first) * tiles.longest:
        return _scattered(source, tiles, starts, lengths, data, at)
    if whole:
        np.copyto(data[at : at + end - begin], data[heap + begin : heap + end])  # works for overlapping ranges, too
    else:
        source.read(data[at : at + end - begin], tiles.heap + begin)
    return at - begin + starts, lengths, at + end - begin


def _scattered(
    source: Source,
    tiles: RowTiles,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    data: NDArray[np.uint8],
    at: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Read scattered tiles one by one."""
    ends = at + np.cumsum(lengths)
    for start, length, end in zip(starts, lengths, ends, strict=True):
        source.read(data[end - length : end], tiles.heap + int(start))
    return ends - lengths, lengths, int(ends[-1])


def _places(source: Source, tiles: RowTiles, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the rows in the heap."""
    if not tiles.descriptor:
        row = tiles.width * tiles.bytes
        return np.arange(first * row, last * row, row), np.full(last - first, row)
    size = np.dtype(tiles.descriptor).itemsize * 2
    table = np.empty(size * (last - first), np.uint8)
    source.read(table, tiles.table + size * first)
    lengths, starts = table.view(tiles.descriptor).astype(np.int64).reshape(-1, 2).T
    outside = np.flatnonzero((lengths < 0) | (starts < 0) | (starts > tiles.heap_bytes - lengths))
    if outside.size:
        where = f"HDU {tiles.hdu}, row {first + outside[0]}"
        raise DataError(source.path, f"{where}: its tile lies outside of the {tiles.heap_bytes} bytes of tiles")
    long = np.flatnonzero(lengths > tiles.longest)
    if long.size:
        raise corrupt_tile(source.path, tiles, first + int(long[0]))
    return starts, lengths


def corrupt_tile(path: str, tiles: RowTiles, row: int) -> DataError:
    """Make the error for a tile that cannot be decoded."""
    return DataError(path, f"HDU {tiles.hdu}, row {row}: its tile is corrupt")


@njit
def _add(words):  # type: ignore[no-untyped-def]
    """Sum big-endian words that are read as little-endian."""
    total = np.uint64(0)
    for k in range(words.shape[0]):
        word = words[k]
        turned = (word >> 24) | ((word >> 8) & 0xFF00) | ((word << 8) & 0xFF0000) | (word << 24)
        total += np.uint64(np.uint32(turned))
    return total


def verify(path: str, names: Collection[str]) -> None:
    """Compare HDUs with their DATASUM, if they have one.

    Parameters
    ----------
    names : collection of `str`
        EXTNAMEs; others are ignored.

    Raises
    ------
    DataError
        Data and DATASUM disagree, or the file is no FITS.
    """
    try:
        with open(path, "rb") as file:
            if packing(path, file):  # unpacking compares the packing's own checksum
                return
            for cards in walk(Stream(path, file)).headers:
                name = cards.text("EXTNAME") or ""
                if name in names:
                    check(path, Odd(name, 0, 0, cards))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error


def ones_complement_sum(data: NDArray[np.uint8]) -> int:
    """Compute FITS's checksum of bytes, whose number is a multiple of four (standard 4.0, appendix J)."""
    return folded(int(_add(data.view("<u4"))))
