"""Bytes of rows: read by ``pread`` into a reused buffer, and compared with their DATASUM."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.errors import DataError
from kernels.fits.blocks import Stream, packing, walk
from kernels.fits.cards import BLOCK, same_sum
from kernels.fits.pread import Source, opened
from kernels.fits.seal import folded
from kernels.fits.tiles import Odd, RowTiles

CHUNK = 1 << 22
#: Raw value that marks a blank pixel: the largest, so that it sorts last and exceeds every limit.
BLANK = np.int32(2147483647)


@dataclass(frozen=True)
class Wanted:
    """Rows ``[first, last)`` of an image to read, and what becomes of the image's DATASUM."""

    first: int
    last: int
    #: Read the whole HDU, and compare it with its DATASUM.
    verify: bool = False
    #: Rows whose bytes are added up, where other reads add the rest.
    summed: tuple[int, int] | None = None


@dataclass(frozen=True, order=True)
class Summed:
    """Sum of some rows' descriptors, and of bytes ``[first, last)`` of the data, where their tiles lie."""

    first: int
    last: int
    total: int


@dataclass(frozen=True)
class Loaded:
    """Rows in a buffer."""

    #: [row], int64: Place of each row's tile in the buffer.
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    #: Byte of the buffer behind the tiles.
    end: int
    #: Sum of the bytes of `Wanted.summed`.
    summed: Summed | None = None


def load(
    path: str, tiles: RowTiles, rows: Wanted, data: NDArray[np.uint8], at: int, handle: int | None = None
) -> Loaded:
    """Read the tiles of rows; an image of which all rows are wanted, in one piece.

    Parameters
    ----------
    data : `numpy.ndarray` [byte], uint8
        Buffer; `room` bytes of it may be filled.
    at : `int`
        First byte to fill, a multiple of 8.
    handle : `int`, optional
        Handle of the unpacked file.

    Raises
    ------
    DataError
        The file cannot be read, its data are not those of its DATASUM, or a
        tile lies outside of its heap: file, HDU and row are named.
    """
    with opened(path, handle) as source:
        whole = rows.verify or rows.last - rows.first == tiles.height
        return (_by_hdu if whole else _by_rows)(source, tiles, rows, data, at)


def check(path: str, image: RowTiles | Odd, handle: int | None = None) -> None:
    """Compare an image's data with their DATASUM, if there is one.

    Raises
    ------
    DataError
        Data and DATASUM disagree, or the file cannot be read.
    """
    expected, total, size = image.datasum, 0, image.data_bytes
    if expected is None:
        return
    with opened(path, handle) as source:
        for done in range(0, size, CHUNK):
            data = np.empty(min(CHUNK, size - done), np.uint8)
            source.read(data, image.table + done, max(0, done + data.size - image.used))
            total += ones_complement_sum(data)
    if not same_sum(folded(total), expected):
        raise corrupt_data(path, image)


def compare(path: str, tiles: RowTiles, parts: Sequence[Summed], handle: int | None = None) -> None:
    """Compare the sums of all rows of an image with its DATASUM; read it whole if they leave out any byte.

    Raises
    ------
    DataError
        Data and DATASUM disagree, or the file cannot be read.
    """
    ends = [_entries(tiles, 0, tiles.height).stop, *(part.last for part in sorted(parts))]
    starts = [*(part.first for part in sorted(parts)), tiles.data_bytes]
    if ends != starts:
        check(path, tiles, handle)
    elif not same_sum(folded(sum(part.total for part in parts)), tiles.datasum or 0):
        raise corrupt_data(path, tiles)


def corrupt_data(path: str, image: RowTiles | Odd) -> DataError:
    """Make the error for data that disagree with their header."""
    return DataError(path, f"HDU {image.hdu}: corrupt, its data are not those of its {image.said}")


def room(tiles: RowTiles, rows: Wanted) -> int:
    """Return the most bytes that `load` leaves filled, a multiple of 8; to verify some rows it needs an HDU more."""
    number = rows.last - rows.first
    needed = tiles.data_bytes if number == tiles.height else min(tiles.heap_bytes, number * tiles.longest) + BLOCK
    return (needed + 15) // 8 * 8


def _by_hdu(source: Source, tiles: RowTiles, rows: Wanted, data: NDArray[np.uint8], at: int) -> Loaded:
    heap, unit = at + tiles.heap - tiles.table, data[at : at + tiles.data_bytes]
    source.read(unit, tiles.table, tiles.data_bytes - tiles.used)
    if rows.verify:
        assert tiles.datasum is not None
        if not same_sum(ones_complement_sum(unit), tiles.datasum):
            raise corrupt_data(source.path, tiles)
    starts, lengths = _places(source.path, tiles, rows, unit[_entries(tiles, rows.first, rows.last)])
    begin, end, number = int(starts.min()), int((starts + lengths).max()), rows.last - rows.first
    if number == tiles.height:
        return Loaded(heap + starts, lengths, heap + end)
    if end - begin > number * tiles.longest:
        return _scattered(source, tiles, rows, (starts, lengths), data, at)
    np.copyto(data[at : at + end - begin], data[heap + begin : heap + end])  # works for overlapping ranges, too
    return Loaded(at - begin + starts, lengths, at + end - begin)


def _by_rows(source: Source, tiles: RowTiles, rows: Wanted, data: NDArray[np.uint8], at: int) -> Loaded:
    entries = _entries(tiles, rows.first, rows.last)
    table = np.empty(entries.stop - entries.start, np.uint8)
    source.read(table, tiles.table + entries.start)
    starts, lengths = _places(source.path, tiles, rows, table)
    heap, ends, number = tiles.heap - tiles.table, starts + lengths, rows.last - rows.first
    begin, end = int(starts.min()), int(ends.max())
    # the last row's sum includes all bytes behind its tile
    stop = tiles.data_bytes - heap if rows.summed and rows.summed[1] == tiles.height else end
    if stop - begin > number * tiles.longest + (BLOCK if stop > end else 0):
        return _scattered(source, tiles, rows, (starts, lengths), data, at)
    at += (heap + begin) % 8  # words of the sum are words of the buffer
    source.read(data[at : at + stop - begin], tiles.heap + begin, max(0, heap + stop - tiles.used))
    summed = None
    if rows.summed is not None:
        (first, last), part = rows.summed, _entries(tiles, *rows.summed)
        low = int(starts[first - rows.first : last - rows.first].min())
        high = stop if last == tiles.height else int(ends[first - rows.first : last - rows.first].max())
        total = _sum(table[part.start - entries.start : part.stop - entries.start], 0)
        total += _sum(data[at + low - begin : at + high - begin], heap + low)
        summed = Summed(heap + low, heap + high, total)
    return Loaded(at - begin + starts, lengths, at + end - begin, summed)


def _scattered(
    source: Source,
    tiles: RowTiles,
    rows: Wanted,
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    data: NDArray[np.uint8],
    at: int,
) -> Loaded:
    """Read scattered tiles one by one; they are not added up, because bytes that are not read lie between them."""
    starts, lengths = places
    ends = at + np.cumsum(lengths)
    for start, length, end in zip(starts, lengths, ends, strict=True):
        source.read(data[end - length : end], tiles.heap + int(start))
    return Loaded(ends - lengths, lengths, int(ends[-1]), None if rows.summed is None else Summed(0, 0, 0))


def _entries(tiles: RowTiles, first: int, last: int) -> slice:
    """Find the bytes of rows in the table of descriptors; none of an uncompressed image."""
    size = 2 * np.dtype(tiles.descriptor).itemsize if tiles.descriptor else 0
    return slice(size * first, size * last)


def _places(
    path: str, tiles: RowTiles, rows: Wanted, table: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the rows in the heap."""
    if not tiles.descriptor:
        row = tiles.width * tiles.bytes
        return np.arange(rows.first * row, rows.last * row, row), np.full(rows.last - rows.first, row)
    lengths, starts = table.view(tiles.descriptor).astype(np.int64).reshape(-1, 2).T
    outside = np.flatnonzero((lengths < 0) | (starts < 0) | (starts > tiles.heap_bytes - lengths))
    if outside.size:
        where = f"HDU {tiles.hdu}, row {rows.first + outside[0]}"
        raise DataError(path, f"{where}: its tile lies outside of the {tiles.heap_bytes} bytes of tiles")
    long = np.flatnonzero(lengths > tiles.longest)
    if long.size:
        raise corrupt_tile(path, tiles, rows.first + int(long[0]))
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


def _sum(data: NDArray[np.uint8], place: int) -> int:
    """Sum the big-endian words to which bytes from byte ``place`` of the data on belong; aligned as they are."""
    head = min(-place % 4, data.size)
    tail = head + (data.size - head) // 4 * 4
    ends = bytes(place % 4) + data[:head].tobytes(), data[tail:].tobytes()
    return int(_add(data[head:tail].view("<u4"))) + sum(int.from_bytes(end.ljust(4, b"\0"), "big") for end in ends)


def ones_complement_sum(data: NDArray[np.uint8]) -> int:
    """Compute FITS's checksum of bytes, whose number is a multiple of four (standard 4.0, appendix J)."""
    return folded(int(_add(data.view("<u4"))))
