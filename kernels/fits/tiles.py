"""Images whose rows can be read without cfitsio: compressed by tiles, or uncompressed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from kernels.errors import DataError
from kernels.fits.blocks import Hdus, Names, Stream, packing, walk
from kernels.fits.cards import Cards

#: Values of BZERO, by ZBITPIX, with which pixels read as 32-bit integers equal those that cfitsio gives.
ZEROS = {8: (0,), 16: (0, 32768), 32: (0,)}
#: Bits of Rice's ``fs + 1``, by bytes a pixel.
FS_BITS: Final = {1: 3, 2: 4, 4: 5}
DESCRIPTORS = {"1PB": (8, ">i4"), "1QB": (16, ">i8")}
#: Cards that change the stored numbers in ways that only cfitsio handles.
SPECIAL = ("ZSCALE", "ZZERO")


@dataclass(frozen=True)
class Odd:
    """An image that cannot be read row by row; see `kernels.fits.oddimage`.

    ``hdu`` is its name or number, for messages; ``width`` and ``height`` are in pixels, 0 if it has not two axes.
    """

    hdu: str
    width: int
    height: int
    cards: Cards

    @property
    def table(self) -> int:
        """First byte of its data in the file."""
        return self.cards.data_start

    @property
    def data_bytes(self) -> int:
        """Size of its data, padding included."""
        return self.cards.data_bytes()

    @property
    def used(self) -> int:
        """Size of its data, without padding."""
        return self.cards.bytes()

    @property
    def datasum(self) -> int | None:
        """Checksum of its data."""
        return self.cards.datasum()

    @property
    def said(self) -> str:
        """Name of the card with the checksum."""
        return self.cards.summed_by


@dataclass(frozen=True)
class RowTiles:
    """An image whose Rice tiles are rows, or an uncompressed one; places are bytes of the file."""

    #: EXTNAME or number, for messages.
    hdu: str
    #: Pixels.
    width: int
    height: int
    #: ZBITPIX or BITPIX of the image.
    bits: int
    #: Pixels of a block (0: not compressed), and bytes of a pixel, of the compression.
    block: int
    bytes: int
    #: BZERO.
    zero: int
    #: Places of the tiles' descriptors and of the tiles, and size of the latter.
    table: int
    heap: int
    heap_bytes: int
    #: Type of a descriptor's two numbers; empty without descriptors.
    descriptor: str
    #: Size of the data of the HDU, padding included.
    data_bytes: int
    #: The same without padding, which may be missing in the file.
    used: int
    #: Checksum of the data (FITS standard 4.0, appendix J).
    datasum: int | None
    #: Value of blank pixels, as the image's numbers are read.
    blank: int | None
    #: Name of the card with the checksum.
    said: str

    @property
    def longest(self) -> int:
        """Largest size of a tile: the verbatim pixels, and a byte a block."""
        return self.bytes * (self.width + 1) + -(-self.width // max(1, self.block)) + 8

    def half(self, signed: bool) -> int:
        """Return the smallest value of an unsigned type that is a wrapped negative number; 0: there is none."""
        span = 1 << (self.bits - 1)
        return span if signed and self.zero == (0 if self.bits == 8 else span) else 0


def _parameter(cards: Cards, name: str, default: int) -> int:
    """Read a parameter of the compression: ``ZNAMEi`` names it, ``ZVALi`` holds it."""
    for i in range(1, 10):
        if cards.text(f"ZNAME{i}") == name:
            return cards.count(f"ZVAL{i}")
    return default


def blanks(cards: Cards) -> list[int]:
    """Read the stored values of blank pixels: BLANK, and ZBLANK of a compressed image.

    Raises
    ------
    DataError
        A value is not a whole number.
    """
    found = []
    for key in ("BLANK", "ZBLANK"):
        value = cards.get(key) if key == "BLANK" or cards.compressed else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | None):
            raise DataError(
                cards.path, f"HDU {cards.text('EXTNAME') or cards.hdu}: {key} is {value!r}, not a whole number"
            )
        if value is not None and value not in found:
            found.append(value)
    return found


def _blank(cards: Cards) -> int | None:
    return next((value + int(cards.get("BZERO") or 0) for value in blanks(cards)), None)


def _integers(bits: int, cards: Cards) -> bool:
    """Whether pixels read as 32-bit integers equal those that cfitsio gives."""
    usual = bits in ZEROS and cards.get("BZERO") in (None, *ZEROS[bits]) and cards.get("BSCALE") in (None, 1)
    usual = usual and cards.get("GCOUNT") in (None, 1) and not any(cards.has(key) for key in SPECIAL)
    return usual and len(blanks(cards)) < 2


def plain_rows(hdu: str, cards: Cards) -> RowTiles | None:
    """Describe an HDU; `None` if it is not an image of plain integers."""
    bits, kind, shape = cast(int, cards.get("BITPIX")), cards.text("XTENSION"), cards.shape()
    if kind not in (None, "IMAGE") or len(shape) != 2 or cards.get("PCOUNT") or not _integers(bits, cards):
        return None
    (width, height), start, size = shape, cards.data_start, bits // 8
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
        used=cards.bytes(),
        datasum=cards.datasum(),
        blank=_blank(cards),
        said=cards.summed_by,
    )


def row_tiles(hdu: str, cards: Cards) -> RowTiles | None:
    """Describe an HDU; `None` if it does not hold plain integers in Rice tiles of one row."""
    kind = (cards.text("TFORM1") or "").strip()[:3]
    wanted = {"XTENSION": "BINTABLE", "BITPIX": 8, "TFIELDS": 1, "TTYPE1": "COMPRESSED_DATA", "ZIMAGE": True}
    if any(cards.get(key) != value for key, value in wanted.items()) or kind not in DESCRIPTORS:
        return None
    if len(cards.shape("Z")) != 2:
        return None
    width, height = cards.shape("Z")
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
        used=cards.bytes(),
        datasum=cards.datasum(),
        blank=_blank(cards),
        said=cards.summed_by,
    )


@dataclass(frozen=True)
class Scanned:
    """Images of a file by number; `None` for an HDU that is no image."""

    hdus: Names
    images: tuple[RowTiles | Odd | None, ...]

    def __getitem__(self, key: str | int) -> RowTiles | Odd | None:
        """Return the image that a camera file names; see `Names.number`."""
        return self.images[self.hdus.number(key)]


def _image(hdus: Hdus, number: int) -> RowTiles | Odd | None:
    cards, hdu = hdus.headers[number], hdus.names.label(number)
    if tiles := row_tiles(hdu, cards) or plain_rows(hdu, cards):
        return tiles
    if not cards.is_image:
        return None
    shape = cards.shape("Z" if cards.compressed else "")
    width, height = shape if len(shape) == 2 else (0, 0)
    return Odd(hdu, width, height, cards)


def described(hdus: Hdus) -> Scanned:
    """Describe the images of a file whose headers are known.

    Raises
    ------
    DataError
        A header is contradictory.
    """
    return Scanned(hdus.names, tuple(_image(hdus, number) for number in range(len(hdus.headers))))


def scan(path: str, handle: int | None = None) -> Scanned:
    """Scan the images of a file.

    Parameters
    ----------
    handle : `int`, optional
        Handle of the unpacked file.

    Raises
    ------
    DataError
        The file cannot be read, is no FITS or is truncated.
    """
    try:
        with open(path if handle is None else handle, "rb", closefd=handle is None) as file:
            file.seek(0)
            return described(walk(Stream(path, file, packing(path, file) if handle is None else "")))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
