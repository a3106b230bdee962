"""Which images have rows that can be read without cfitsio: compressed by tiles, or as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from kernels.errors import DataError
from kernels.fitsblocks import Cards, Stream, walk
from kernels.rice import FS_BITS

#: Values of BZERO, by ZBITPIX, that leave integers of at most 32 bits as cfitsio reads them.
ZEROS = {8: (0,), 16: (0, 32768), 32: (0,)}
DESCRIPTORS = {"1PB": (8, ">i4"), "1QB": (16, ">i8")}
#: Cards that bring in numbers of their own, which cfitsio knows how to treat.
SPECIAL = ("ZSCALE", "ZZERO", "ZBLANK")


@dataclass(frozen=True)
class RowTiles:
    """An image whose Rice tiles are rows, or that is not compressed; places in bytes of the file.

    Parameters
    ----------
    hdu : `str`
        EXTNAME or number, for messages.
    width, height : `int`
        Pixels.
    bits : `int`
        ZBITPIX, of the image.
    block, bytes : `int`
        Pixels a block (0: not compressed), and bytes a pixel, of the compression.
    zero : `int`
        BZERO.
    table, heap, heap_bytes : `int`
        Where the tiles' descriptors and the tiles lie.
    descriptor : `str`
        Type of a descriptor's two numbers; empty where there are none.
    data_bytes : `int`
        Of the whole HDU, padding included.
    datasum : `int` or `None`
        Checksum of these (FITS standard 4.0, appendix J).
    """

    hdu: str
    width: int
    height: int
    bits: int
    block: int
    bytes: int
    zero: int
    table: int
    heap: int
    heap_bytes: int
    descriptor: str
    data_bytes: int
    datasum: int | None

    @property
    def longest(self) -> int:
        """Bytes of a tile at most: no encoder needs more than the pixels themselves and a byte a block."""
        return self.bytes * (self.width + 1) + -(-self.width // max(1, self.block)) + 8


def _parameter(cards: Cards, name: str, default: int) -> int:
    """An algorithm's parameter: ``ZNAMEi`` says which, ``ZVALi`` what."""
    for i in range(1, 10):
        if cards.text(f"ZNAME{i}") == name:
            return cards.count(f"ZVAL{i}")
    return default


def _integers(bits: int, cards: Cards) -> bool:
    """Whether a type's numbers are those of cfitsio, as 32-bit integers, without any of its other arts."""
    usual = bits in ZEROS and cards.get("BZERO") in (None, *ZEROS[bits]) and cards.get("BSCALE") in (None, 1)
    return usual and cards.get("GCOUNT") in (None, 1) and not any(cards.has(key) for key in SPECIAL)


def _datasum(cards: Cards) -> int | None:
    return int(text) if (text := cards.text("DATASUM") or "").isdecimal() else None


def plain_rows(hdu: str, cards: Cards) -> RowTiles | None:
    """Describe an HDU; `None` where it is not an image of plain integers."""
    bits, kind = cast(int, cards.get("BITPIX")), cards.text("XTENSION")
    if kind not in (None, "IMAGE") or cards.get("NAXIS") != 2 or cards.get("PCOUNT") or not _integers(bits, cards):
        return None
    (width, height), start, size = cards.axes(), cards.data_start, bits // 8
    return RowTiles(
        hdu=hdu,
        width=width,
        height=height,
        bits=bits,
        block=0,
        bytes=size,
        zero=int(cards.get("BZERO") or 0),
        table=start,
        heap=start,
        heap_bytes=width * height * size,
        descriptor="",
        data_bytes=cards.data_bytes(),
        datasum=_datasum(cards),
    )


def row_tiles(hdu: str, cards: Cards) -> RowTiles | None:
    """Describe an HDU; `None` where it is not Rice by rows of plain integers."""
    kind = (cards.text("TFORM1") or "").strip()[:3]
    wanted = {"XTENSION": "BINTABLE", "BITPIX": 8, "TFIELDS": 1, "TTYPE1": "COMPRESSED_DATA", "ZIMAGE": True}
    if any(cards.get(key) != value for key, value in wanted.items()) or kind not in DESCRIPTORS:
        return None
    if cards.get("ZNAXIS") != 2:
        return None
    width, height = cards.axes("Z")
    bits, (row, descriptor) = cast(int, cards.get("ZBITPIX")), DESCRIPTORS[kind]
    size, block = _parameter(cards, "BYTEPIX", 4), _parameter(cards, "BLOCKSIZE", 32)
    usual = (
        cards.text("ZCMPTYPE") in ("RICE_1", "RICE_ONE"),
        (cards.count("ZTILE1", width), cards.count("ZTILE2", 1)) == (width, 1),
        _integers(bits, cards) and size in FS_BITS,
        cards.axes() == [row, height] and width > 0,
    )
    if not all(usual):
        return None
    if not block:
        raise DataError(cards.path, f"HDU {hdu}: its Rice blocks have no pixel")
    heap = cards.count("THEAP", row * height)
    if not row * height <= heap <= row * height + cards.count("PCOUNT"):
        return None
    return RowTiles(
        hdu=hdu,
        width=width,
        height=height,
        bits=bits,
        block=min(block, width),
        bytes=size,
        zero=int(cards.get("BZERO") or 0),
        table=cards.data_start,
        heap=cards.data_start + heap,
        heap_bytes=row * height + cards.count("PCOUNT") - heap,
        descriptor=descriptor,
        data_bytes=cards.data_bytes(),
        datasum=_datasum(cards),
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
        hdu = str(number - shift) if shift or not name else name
        tiles = row_tiles(hdu, cards) or plain_rows(hdu, cards)
        found[number - shift] = tiles
        if name:
            found.setdefault(name, tiles)
    return found
