"""Rows of tile-compressed images, read by ``pread`` and decoded here; what this cannot do is left to cfitsio."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.errors import DataError
from kernels.fitsblocks import Cards, Stream, walk
from kernels.rice import SPARE, decode

PIXELS = {1: np.uint8, 2: np.int16, 4: np.int32}
#: Values of BZERO that make an unsigned type of a signed one, or none, and fit into int32.
ZEROS = (0, 32768)
DESCRIPTORS = {"1P": (8, ">i4"), "1Q": (16, ">i8")}


@dataclass(frozen=True)
class RowTiles:
    """A Rice-compressed image whose tiles are rows; places in bytes of the file.

    Parameters
    ----------
    hdu : `str`
        EXTNAME or number, for messages.
    width, height : `int`
        Pixels.
    block, bytes : `int`
        Pixels a block, and bytes a pixel, of the compression.
    zero : `int`
        BZERO.
    table, heap, heap_bytes : `int`
        Where the tiles' descriptors and the tiles lie.
    descriptor : `str`
        Type of a descriptor's two numbers.
    data_bytes : `int`
        Of the whole HDU, padding included.
    datasum : `int` or `None`
        Checksum of these (FITS standard 4.0, appendix J).
    """

    hdu: str
    width: int
    height: int
    block: int
    bytes: int
    zero: int
    table: int
    heap: int
    heap_bytes: int
    descriptor: str
    data_bytes: int
    datasum: int | None


def _parameter(cards: Cards, name: str, default: int) -> int:
    """An algorithm's parameter: ``ZNAMEi`` says which, ``ZVALi`` what."""
    for i in range(1, 10):
        if cards.text(f"ZNAME{i}") == name:
            return cards.count(f"ZVAL{i}")
    return default


def row_tiles(hdu: str, cards: Cards) -> RowTiles | None:
    """Describe an HDU; `None` where it is not Rice by rows of plain integers."""
    kind = (cards.text("TFORM1") or "").strip()[:2]
    wanted = {"ZIMAGE": True, "ZNAXIS": 2, "TFIELDS": 1, "TTYPE1": "COMPRESSED_DATA", "PCOUNT": cards.get("PCOUNT")}
    if any(cards.get(key) != value for key, value in wanted.items()) or kind not in DESCRIPTORS:
        return None
    width, height = cards.axes("Z")
    tile = (cards.count("ZTILE1", width), cards.count("ZTILE2", 1))
    bits, size = cards.get("ZBITPIX"), _parameter(cards, "BYTEPIX", 4)
    row, descriptor = DESCRIPTORS[kind]
    integers = {1: (8,), 2: (8, 16), 4: (8, 16, 32)}.get(size, ())
    if cards.text("XTENSION") != "BINTABLE":
        return None
    usual = cards.text("ZCMPTYPE") in ("RICE_1", "RICE_ONE") and tile == (width, 1) and bits in integers
    scaled = (cards.get("BSCALE") or 1) != 1 or (cards.get("BZERO") or 0) not in ZEROS
    if not usual or scaled or (size == 2 and bits == 8) or cards.axes() != [row, height] or not width:
        return None
    heap = cards.count("THEAP", row * height)
    if not row * height <= heap <= row * height + cards.count("PCOUNT"):
        return None
    return RowTiles(
        hdu=hdu,
        width=width,
        height=height,
        block=min(max(1, _parameter(cards, "BLOCKSIZE", 32)), width),
        bytes=size,
        zero=int(cards.get("BZERO") or 0),
        table=cards.data_start,
        heap=cards.data_start + heap,
        heap_bytes=row * height + cards.count("PCOUNT") - heap,
        descriptor=descriptor,
        data_bytes=cards.data_bytes(),
        datasum=int(text) if (text := cards.text("DATASUM") or "").isdecimal() else None,
    )


def scan(path: str) -> dict[str | int, RowTiles | None]:
    """The HDUs of a file, by number and by EXTNAME; empty for one that is gzipped as a whole.

    An fpacked single image counts as the primary HDU that it was.

    Raises
    ------
    DataError
        The file cannot be read, is no FITS or truncated.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) == b"\x1f\x8b":
                return {}
            file.seek(0)
            headers = walk(Stream(path, file, packed=False))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    shift = 1 if len(headers) > 1 and headers[1].get("ZSIMPLE") is True else 0
    found: dict[str | int, RowTiles | None] = {}
    for number, cards in enumerate(headers):
        name = cards.text("EXTNAME")
        tiles = row_tiles(str(number - shift) if shift or not name else name, cards)
        found[number - shift] = tiles
        if name:
            found.setdefault(name, tiles)
    return found


def read_rows(path: str, tiles: RowTiles, first: int, last: int) -> NDArray[np.int32]:
    """Decode rows ``[first, last)``.

    Returns
    -------
    rows : `numpy.ndarray` [last - first, width], int32

    Raises
    ------
    DataError
        A tile lies outside of its heap or is corrupt: file, HDU and row are named.
    """
    size = np.dtype(tiles.descriptor).itemsize * 2
    with open(path, "rb", buffering=0) as file:
        table = np.frombuffer(
            _exactly(file.fileno(), path, size * (last - first), tiles.table + size * first), np.uint8
        )
        lengths, starts = table.view(tiles.descriptor).astype(np.int64).reshape(-1, 2).T
        outside = np.flatnonzero((lengths < 0) | (starts < 0) | (starts > tiles.heap_bytes - lengths))
        if outside.size:
            where = f"HDU {tiles.hdu}, row {first + outside[0]}"
            raise DataError(path, f"{where}: its tile lies outside of the {tiles.heap_bytes} bytes of tiles")
        begin, end = int(starts.min()), int((starts + lengths).max())
        data = np.full(end - begin + SPARE, 0xFF, np.uint8)
        data[: end - begin] = np.frombuffer(_exactly(file.fileno(), path, end - begin, tiles.heap + begin), np.uint8)
    rows = np.empty((last - first, tiles.width), PIXELS[tiles.bytes])
    corrupt = decode(data, starts - begin, np.ascontiguousarray(lengths), tiles.block, rows)
    if corrupt >= 0:
        raise DataError(path, f"HDU {tiles.hdu}, row {first + corrupt}: its tile is corrupt")
    return rows if rows.dtype == np.int32 and not tiles.zero else rows.astype(np.int32) + np.int32(tiles.zero)


def _exactly(handle: int, path: str, count: int, at: int) -> bytes:
    data = os.pread(handle, count, at)
    if len(data) < count:
        raise DataError(path, f"truncated: {count} bytes wanted at byte {at}, {len(data)} found")
    return data


@njit(cache=True, nogil=True)
def _add_words(data):  # type: ignore[no-untyped-def]
    total = np.uint64(0)
    for k in range(0, data.shape[0], 4):
        total += (
            (np.uint64(data[k]) << np.uint64(24))
            | (np.uint64(data[k + 1]) << np.uint64(16))
            | (np.uint64(data[k + 2]) << np.uint64(8))
            | np.uint64(data[k + 3])
        )
    return total


def ones_complement_sum(data: NDArray[np.uint8]) -> int:
    """FITS's checksum of bytes, a multiple of four of them (standard 4.0, appendix J)."""
    total = int(_add_words(data))
    while total >> 32:  # what is carried over is added again
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def verify(path: str, tiles: RowTiles) -> None:
    """Compare an HDU's data with its DATASUM, where it has one.

    Raises
    ------
    DataError
        They disagree.
    """
    if tiles.datasum is None:
        return
    with open(path, "rb", buffering=0) as file:
        data = np.frombuffer(_exactly(file.fileno(), path, tiles.data_bytes, tiles.table), np.uint8)
    if ones_complement_sum(data) != tiles.datasum:
        raise DataError(path, f"HDU {tiles.hdu}: corrupt, its data are not those of its DATASUM")
