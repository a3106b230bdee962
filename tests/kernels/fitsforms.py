"""Forms of FITS in the wild: each is a file, with its pixels or the reason of its refusal.

Most are legal (FITS standard 4.0); the others mean one thing only, and cameras or archives write them.  All hold the
same small image, so that a form differs from `plain` as its name says.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from kernels.fits.rowbytes import BLANK
from tests.kernels.test_rice import encode

BLOCK, CARD = 2880, 80
WIDTH, HEIGHT = 48, 20
Pixels = NDArray[Any]
Cards = Mapping[str, Any]


def image() -> Pixels:
    """Int64, about 1000; never one value alone."""
    return np.random.default_rng(8).normal(1000, 5, (HEIGHT, WIDTH)).astype(np.int64)


def holed() -> Pixels:
    """The image with pixels that hold nothing."""
    pixels = image()
    pixels[5, 5:9] = pixels[10, 20] = BLANK
    return pixels


@dataclass(frozen=True)
class Form:
    """A kind of file.

    Parameters
    ----------
    name : `str`
        Also the file's name, unless ``file`` gives another.
    data : `bytes`
        The file.
    pixels : `numpy.ndarray` [y, x], int64, or `None`
        `BLANK` where blank; `None`: it is refused.
    why : `str`
        Regular expression for the refusal.
    hdu : `int` or `str`
        HDU that the camera file names.
    astropy : `int` or `None`
        The HDU by astropy's count; `None` where astropy reads something else, or nothing.
    """

    name: str
    data: bytes
    pixels: Pixels | None
    why: str = ""
    hdu: int | str = 0
    astropy: int | None = 0
    file: str = ""


def card(key: str, value: Any) -> bytes:
    """Make a card; a text that begins with ``=`` or a blank is verbatim."""
    if isinstance(value, str) and value[:1] in ("=", " "):
        return f"{key:8}{value}".ljust(CARD).encode("latin-1")
    shown = {True: "T", False: "F"}[value] if isinstance(value, bool) else value
    text = f"'{value:8}'" if isinstance(value, str) else f"{shown!s:>20}"
    return f"{key:8}= {text}".ljust(CARD).encode("latin-1")


def header(cards: Cards | Sequence[bytes], end: bytes = b"END".ljust(CARD), fill: bytes = b" ") -> bytes:
    """Blocks of a header."""
    every = cards if isinstance(cards, Sequence) else [card(key, value) for key, value in cards.items()]
    text = b"".join([*every, end])
    return text.ljust(-(-len(text) // BLOCK) * BLOCK, fill)


def padded(data: bytes, fill: bytes = b"\0") -> bytes:
    """Whole blocks."""
    return data.ljust(-(-len(data) // BLOCK) * BLOCK, fill)


def primary(bits: int, shape: Sequence[int], more: Cards | None = None) -> dict[str, Any]:
    """Make the cards of a primary HDU; the shape is numpy's."""
    axes = {f"NAXIS{n}": size for n, size in enumerate(reversed(shape), 1)}
    return {"SIMPLE": True, "BITPIX": bits, "NAXIS": len(shape), **axes, **(more or {})}


def extension(bits: int, shape: Sequence[int], more: Cards | None = None) -> dict[str, Any]:
    """Cards of an IMAGE extension."""
    cards = primary(bits, shape)
    del cards["SIMPLE"]
    return {"XTENSION": "IMAGE", **cards, "PCOUNT": 0, "GCOUNT": 1, **(more or {})}


def stored(pixels: Pixels, kind: str = ">i2") -> bytes:
    """Big-endian pixels."""
    return pixels.astype(kind).tobytes()


EMPTY = header(primary(8, ()))
SHAPE = (HEIGHT, WIDTH)
KINDS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def plain(bits: int = 16, values: Pixels | None = None, more: Cards | None = None) -> bytes:
    """A primary HDU alone."""
    return header(primary(bits, SHAPE, more)) + padded(stored(image() if values is None else values, KINDS[bits]))


def tiles(more: Cards | None = None, columns: Cards | None = None, gap: int = 0, **changes: Any) -> bytes:
    """Rice by rows, by hand: a table of tiles behind an empty primary HDU, and cards that replace the usual ones.

    ``columns`` are further columns: form and bytes [row].
    """
    heap = [encode(row.tolist(), 32, 4) for row in image()]
    starts = np.cumsum([0, *(len(tile) for tile in heap[:-1])])
    rows = [np.array([len(tile), start], ">i4").tobytes() for tile, start in zip(heap, starts, strict=True)]
    cards: dict[str, Any] = {"TFORM1": f"1PB({max(map(len, heap))})"}
    for n, (name, (form, cells)) in enumerate((columns or {}).items(), 2):
        cards |= {f"TTYPE{n}": name, f"TFORM{n}": form}
        rows = [row + cell for row, cell in zip(rows, cells, strict=True)]
    table, packed = b"".join(rows) + bytes(gap), b"".join(heap)
    described = {
        "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": len(rows[0]), "NAXIS2": HEIGHT,
        "PCOUNT": len(packed) + gap, "GCOUNT": 1, "TFIELDS": 1 + len(columns or {}), "TTYPE1": "COMPRESSED_DATA",
        **cards, "ZIMAGE": True, "ZBITPIX": 32, "ZNAXIS": 2, "ZNAXIS1": WIDTH, "ZNAXIS2": HEIGHT, "ZTILE1": WIDTH,
        "ZTILE2": 1, "ZCMPTYPE": "RICE_1", "ZNAME1": "BLOCKSIZE", "ZVAL1": 32, "ZNAME2": "BYTEPIX", "ZVAL2": 4,
        **({"THEAP": len(table)} if gap else {}), "EXTNAME": "A", **(more or {}), **changes,
    }  # fmt: skip
    return EMPTY + header(described) + padded(table + packed)


def by_astropy(pixels: Pixels, more: Cards | None = None, **how: Any) -> bytes:
    """Tiles that astropy compresses."""
    from io import BytesIO

    hdu = fits.CompImageHDU(pixels, name="A", **how)
    hdu.header.update(more or {})
    file = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)
    return file.getvalue()


def sealed(data: bytes, flip: bool = False, name: bytes = b"DATASUM ") -> bytes:
    """Make a file with checksums, DATASUM under another name; then flip a bit of a pixel."""
    from io import BytesIO

    file = BytesIO()
    with fits.open(BytesIO(data)) as hdus:
        hdus.writeto(file, checksum=True)
    made = bytearray(file.getvalue())
    made[-BLOCK + 3] ^= 4 * flip
    if name == b"DATASUM ":
        return bytes(made)
    # the renamed card changes the checksum of the whole: correct it by the difference
    text = bytes(made[:BLOCK])
    at, check = text.index(b"DATASUM "), text.index(b"CHECKSUM")
    made[at : at + 8] = name
    from kernels.fits.seal import encode as ascii_of
    from kernels.fits.seal import ones_sum

    made[check + 11 : check + 27] = b"0" * 16
    made[-BLOCK + 3] ^= 4 * flip
    made[check + 11 : check + 27] = ascii_of(ones_sum(bytes(made))).encode()
    made[-BLOCK + 3] ^= 4 * flip
    return bytes(made)


def wrong(name: str, data: bytes, why: str, **more: Any) -> Form:
    """A form that is refused."""
    return Form(name, data, None, why, **{"astropy": None, **more})


def with_blank(bits: int, zero: int, blank: int) -> bytes:
    """Make a plain image with pixels that hold BLANK."""
    values = holed()
    return plain(
        bits, np.where(values == BLANK, blank, values - zero), {"BLANK": blank, **({"BZERO": zero} if zero else {})}
    )


def _uncompressed() -> bytes:
    """Make tiles, of which the third is in the column UNCOMPRESSED_DATA."""
    heap = [encode(row.tolist(), 32, 4) for row in image()]
    heap[3] = b""
    end, there = sum(map(len, heap)), stored(image()[3], ">i4")
    starts = np.cumsum([0, *(len(tile) for tile in heap[:-1])])
    rows = [
        np.array([len(tile), start, *((WIDTH, end) if n == 3 else (0, 0))], ">i4").tobytes()
        for n, (tile, start) in enumerate(zip(heap, starts, strict=True))
    ]
    data, most = b"".join(rows) + b"".join(heap) + there, max(map(len, heap))
    described = {
        "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 16, "NAXIS2": HEIGHT, "PCOUNT": end + len(there),
        "GCOUNT": 1, "TFIELDS": 2, "TTYPE1": "COMPRESSED_DATA", "TFORM1": f"1PB({most})", "TTYPE2": "UNCOMPRESSED_DATA",
        "TFORM2": f"1PJ({WIDTH})", "ZIMAGE": True, "ZBITPIX": 32, "ZNAXIS": 2, "ZNAXIS1": WIDTH, "ZNAXIS2": HEIGHT,
        "ZTILE1": WIDTH, "ZTILE2": 1, "ZCMPTYPE": "RICE_1", "ZNAME1": "BLOCKSIZE", "ZVAL1": 32, "ZNAME2": "BYTEPIX",
        "ZVAL2": 4, "EXTNAME": "A",
    }  # fmt: skip
    return EMPTY + header(described) + padded(data)


def _extensions(*names: str) -> bytes:
    """An empty primary HDU and images, each one more than the one before."""
    parts = [
        header(extension(16, SHAPE, {"EXTNAME": name})) + padded(stored(image() + n)) for n, name in enumerate(names)
    ]
    return EMPTY + b"".join(parts)


def _table() -> bytes:
    return header({
        "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 4, "NAXIS2": 3, "PCOUNT": 0, "GCOUNT": 1,
        "TFIELDS": 1, "TTYPE1": "T", "TFORM1": "1J", "EXTNAME": "A",
    }) + padded(bytes(12))  # fmt: skip


def _nul_header() -> bytes:
    cards = [card(key, value).rstrip().ljust(CARD, b"\0") for key, value in primary(16, SHAPE).items()]
    return header(cards, b"END".ljust(CARD, b"\0"), b"\0") + padded(stored(image()))


def _unlike(values: Pixels, kind: str) -> Pixels:
    """Make floats, of which some are no numbers."""
    floats = values.astype(kind)
    floats[values == BLANK] = np.nan
    return floats


_SMALL = plain()
_FRACTION = image() + 0.25

AFTER = [
    Form("one-byte-after", _SMALL + b"x", image()),
    Form("half-a-block-after", _SMALL + bytes(1440), image()),
    Form("a-block-after", _SMALL + bytes(BLOCK), image()),
    Form("special-records-after", _SMALL + b"log of the night".ljust(3 * BLOCK), image(), astropy=None),
    wrong("another-file-after", _SMALL + _SMALL, "another FITS file follows"),
    Form("no-padding", _SMALL[: header(primary(16, SHAPE)).__len__() + 2 * HEIGHT * WIDTH], image()),
    wrong("a-row-short", _SMALL[: BLOCK + 2 * (HEIGHT - 1) * WIDTH], "truncated in its data"),
    Form("padding-of-blanks", header(primary(16, SHAPE)) + padded(stored(image()), b" "), image()),
]

HEADERS = [
    Form(
        "end-with-nuls",
        header(primary(16, SHAPE), b"END".ljust(CARD, b"\0")) + padded(stored(image())),
        image(),
        astropy=None,
    ),
    Form("nuls-for-blanks", _nul_header(), image(), astropy=None),
    Form("a-third-axis", header(primary(16, (1, *SHAPE))) + padded(stored(image())), image()),
    Form("a-fourth-axis", header(primary(16, (1, 1, *SHAPE))) + padded(stored(image())), image()),
    wrong(
        "two-planes", header(primary(16, (2, *SHAPE))) + padded(stored(image()) * 2), r"HDU 0 is \(48, 20, 2\) pixels"
    ),
    Form("comment-in-latin-1", plain(more={"OBSERVER": "= 'me'      / Universit\xe4t"}), image()),
    Form("blank-cards", plain(more={"": " ", "COMMENT": " nothing", "HISTORY": " none"}), image()),
    Form("many-cards", plain(more={f"KEY{n}": n for n in range(90)}), image()),
    Form("exponent-d", plain(more={"BZERO": "= 0.0D0", "BSCALE": "= 1.D+00"}), image()),
    Form(
        "inherit",
        EMPTY + header(extension(16, SHAPE, {"INHERIT": True})) + padded(stored(image())),
        image(),
        hdu=1,
        astropy=1,
    ),
    Form("primary-and-more", _SMALL + _extensions("B")[BLOCK:], image()),
    Form(
        "an-image-behind-tables",
        EMPTY + _table() + header(extension(16, SHAPE)) + padded(stored(image())),
        image(),
        hdu=2,
        astropy=2,
    ),
    Form("tables-behind-an-image", _SMALL + _table(), image()),
    wrong("a-table-for-an-image", EMPTY + _table(), "HDU 1 is no image", hdu=1),
    wrong("random-groups", header(primary(16, (HEIGHT, 0), {"GROUPS": True, "PCOUNT": 0, "GCOUNT": 1})), "HDU 0 is"),
    Form("extname-in-small-letters", _extensions("Amp1", "amp2"), image() + 1, hdu="AMP2", astropy=2),
    wrong("a-name-twice", _extensions("A", "B", "A"), "HDU A: HDUs 1, 3 have that name", hdu="A"),
    Form("a-name-twice-by-number", _extensions("A", "B", "A"), image() + 2, hdu=3, astropy=3),
    wrong("no-such-name", _extensions("A"), "HDU C: there is none of that name", hdu="C"),
    wrong("no-such-number", _extensions("A"), "HDU 2: there is none of that number", hdu=2),
]

NUMBERS = [
    *(Form(f"bitpix{bits}", plain(bits, image() % 128), image() % 128) for bits in (8, 16, 32, 64, -32, -64)),
    Form("signed-bytes", plain(8, image() % 128, {"BZERO": -128}), image() % 128 - 128),
    Form("unsigned-16", plain(16, image() - 32768, {"BZERO": 32768, "BSCALE": "= 1.0"}), image()),
    Form("unsigned-32", plain(32, image() - (1 << 31), {"BZERO": 1 << 31}), image()),
    Form("unsigned-64", plain(64, image() + np.iinfo(np.int64).min, {"BZERO": 1 << 63}), image(), astropy=None),
    Form("bzero-100", plain(16, image(), {"BZERO": 100}), image() + 100),
    Form("bscale-2", plain(16, image(), {"BSCALE": 2}), image() * 2),
    Form("halves-that-are-whole", plain(16, 2 * image(), {"BSCALE": 0.5}), image()),
    wrong("halves", plain(16, image(), {"BSCALE": 0.5}), "BSCALE 0.5.* are no whole numbers"),
    Form("floats-with-nan", plain(-32, _unlike(holed(), "f4")), holed()),
    Form("doubles-with-nan", plain(-64, _unlike(holed(), "f8")), holed()),
    wrong("fractions", plain(-32, _FRACTION), "HDU 0 holds float32, and .* pixels are no whole numbers"),
    wrong("bzero-of-letters", plain(more={"BZERO": "none"}), "BZERO"),
]

BLANKS = [
    Form("blank-16", with_blank(16, 0, -32768), holed()),
    Form("blank-unsigned-16", with_blank(16, 32768, -32768), holed()),
    Form("blank-32", with_blank(32, 0, -(1 << 31)), holed()),
    Form("blank-64", with_blank(64, 0, -1), holed()),
    Form(
        "blank-8",
        plain(8, np.where(holed() == BLANK, 255, image() % 128), {"BLANK": 255}),
        np.where(holed() == BLANK, BLANK, image() % 128),
    ),
    Form("blank-gzip", gzip.compress(with_blank(16, 0, -32768)), holed()),
    Form("blank-of-no-pixel", plain(more={"BLANK": -1}), image()),
    Form("blank-of-a-float-is-none", plain(-32, image(), {"BLANK": int(image()[0, 0])}), image(), astropy=None),
    wrong("blank-of-letters", plain(more={"BLANK": "none"}), "BLANK is 'none', not a whole number"),
]


def _holes(value: int) -> Pixels:
    """The image with a value in place of blanks, for astropy to compress."""
    return np.where(holed() == BLANK, value, holed()).astype(np.int32)


def _of_tiles(column: Mapping[int, int]) -> list[bytes]:
    """Cells of a column ZBLANK."""
    return [np.array(column.get(n, -1), ">i4").tobytes() for n in range(HEIGHT)]


_FIRST = int(image()[7, 0])
COMPRESSED = [
    Form("rice-by-rows", tiles(), image(), hdu="A", astropy=1),
    Form("rice-of-a-cube", tiles(ZNAXIS=3, ZNAXIS3=1, ZTILE3=1), image(), hdu="A", astropy=None),
    Form("rice-with-a-gap", tiles(gap=64), image(), hdu="A", astropy=1),
    Form(
        "rice-with-blank", tiles({"BLANK": _FIRST}), np.where(image() == _FIRST, BLANK, image()), hdu="A", astropy=None
    ),
    Form(
        "rice-with-zblank",
        tiles({"ZBLANK": _FIRST}),
        np.where(image() == _FIRST, BLANK, image()),
        hdu="A",
        astropy=None,
    ),
    Form(
        "rice-with-a-column-of-zblank",
        tiles(columns={"ZBLANK": ("1J", _of_tiles({7: _FIRST}))}),
        np.where((image() == _FIRST) & (np.arange(HEIGHT)[:, np.newaxis] == 7), BLANK, image()),
        hdu="A",
        astropy=None,
    ),
    Form("uncompressed-tiles", _uncompressed(), image(), hdu="A", astropy=1),
    Form("fpacked-primary", tiles({"ZSIMPLE": True, "EXTNAME": "COMPRESSED_IMAGE"}), image(), hdu=0, astropy=1),
    *(
        Form(
            f"{kind}-of-{shape[0]}x{shape[1]}",
            by_astropy(_holes(0), {}, compression_type=kind, tile_shape=shape),
            _holes(0).astype(np.int64),
            hdu="A",
            astropy=1,
        )
        for kind, shape in (
            ("RICE_1", SHAPE),
            ("RICE_1", (7, 13)),
            ("GZIP_1", (1, WIDTH)),
            ("GZIP_2", (4, WIDTH)),
            ("GZIP_2", (5, 9)),
            ("PLIO_1", (1, WIDTH)),
            ("HCOMPRESS_1", (10, 24)),
        )
    ),
    wrong(
        "not-compressed-tiles",
        by_astropy(_holes(0), {}, compression_type="NOCOMPRESS"),
        "unknown compression algorithm",
        hdu="A",
    ),
    Form(
        "gzip-tiles-with-blank",
        by_astropy(_holes(-99), {"BLANK": -99}, compression_type="GZIP_1"),
        holed(),
        hdu="A",
        astropy=None,
    ),
    Form(
        "gzip-tiles-unsigned",
        by_astropy(image().astype("u2"), {}, compression_type="GZIP_1"),
        image(),
        hdu="A",
        astropy=1,
    ),
    Form(
        "gzip-tiles-unsigned-32",
        by_astropy(image().astype("u4"), {}, compression_type="GZIP_1"),
        image(),
        hdu="A",
        astropy=1,
    ),
    Form(
        "floats-without-loss",
        by_astropy(_unlike(holed(), "f4"), {}, compression_type="GZIP_2", quantize_level=0.0),
        holed(),
        hdu="A",
        astropy=1,
    ),
    wrong(
        "floats-with-a-loss",
        by_astropy(_FRACTION.astype("f4"), {}, compression_type="RICE_1", quantize_level=16.0, quantize_method=1),
        "float32, quantised with a loss, and .* no whole numbers",
        hdu="A",
    ),
    Form(
        "whole-floats-in-steps-of-1",
        by_astropy(_unlike(image(), "f4"), {}, compression_type="RICE_1", quantize_level=-1.0, quantize_method=-1),
        image(),
        hdu="A",
        astropy=1,
    ),
]


def _two_names() -> bytes:
    """Make names as some archives do: fpack's, and then the image's own."""
    one, two = card("EXTNAME", "COMPRESSED_IMAGE"), card("EXTNAME", "A")
    whole = tiles({"EXTNAME": "COMPRESSED_IMAGE"})
    at, end = whole.index(one) + CARD, whole.index(b"END" + b" " * 77, BLOCK)
    return whole[:at] + two + whole[at : end + CARD] + whole[end + 2 * CARD :]


PACKED = [
    Form("gzip", gzip.compress(_SMALL), image()),
    Form("gzip-of-two-members", gzip.compress(_SMALL[:4000]) + gzip.compress(_SMALL[4000:]), image(), astropy=None),
    Form("gzip-padded", gzip.compress(_SMALL) + bytes(512), image(), astropy=None),
    wrong("gzip-cut", gzip.compress(_SMALL)[:-20], "corrupt"),
    Form("gzip-of-rice", gzip.compress(tiles()), image(), hdu="A", astropy=None),
    Form(
        "gzip-of-tiles-by-gzip",
        gzip.compress(by_astropy(_holes(0), {}, compression_type="GZIP_1")),
        _holes(0).astype(np.int64),
        hdu="A",
        astropy=None,
    ),
    Form("bzip2", bz2.compress(_SMALL), image(), astropy=None),
    Form("xz", lzma.compress(_SMALL), image(), astropy=None),
    wrong("compress", b"\x1f\x9d\x90" + _SMALL, r"compress \(.Z\): unpack it with uncompress", file="a.fits.Z"),
    wrong("zip", b"PK\x03\x04" + _SMALL, "zip: unpack it with unzip"),
    Form("a-name-that-lies", _SMALL, image(), file="a.fits.gz", astropy=None),
    Form("another-that-lies", gzip.compress(_SMALL), image(), file="a.fit", astropy=None),
    Form("a-name-like-anothers", bz2.compress(_SMALL), image(), file="a.fits.Z", astropy=None),
]

SUMS = [
    Form("sums", sealed(_SMALL), image()),
    wrong("a-bit-flipped", sealed(_SMALL, flip=True), "corrupt, its data are not those of its DATASUM"),
    Form("no-datasum", sealed(_SMALL, name=b"DATASAM "), image()),
    wrong("no-datasum-and-a-bit-flipped", sealed(_SMALL, flip=True, name=b"DATASAM "), "corrupt"),
    wrong("datasum-of-a-damaged-name", sealed(_SMALL).replace(b"DATASUM ", b"DATASUL "), "corrupt"),
    Form(
        "datasum-without-quotes",
        plain(more={"DATASUM": int(np.frombuffer(_SMALL[BLOCK:], ">u4").sum() % 0xFFFFFFFF)}),
        image(),
    ),
    Form("datasum-unknown", plain(more={"DATASUM": "", "CHECKSUM": ""}), image()),
    Form("checksum-not-made", plain(more={"CHECKSUM": "0" * 16}), image()),
    wrong("datasum-0", plain(more={"DATASUM": "0"}), "corrupt"),
    Form("sums-without-padding", sealed(_SMALL)[: BLOCK + 2 * HEIGHT * WIDTH], image()),
]

FORMS: list[Form] = [
    *AFTER,
    *HEADERS,
    *NUMBERS,
    *BLANKS,
    *COMPRESSED,
    Form("two-names", _two_names(), image(), hdu="A", astropy=1),
    *PACKED,
    *SUMS,
]

#: Names that a path may have, and that cfitsio, fitsio or a shell would take for something else.
NAMES = [
    "night [1]/a.fits", "a.fits[1]", "a.fits+1", "!a.fits", "@a.fits", " a.fits ", "a.fits;b", "$HOME.fits", "~a.fits",
    "a(b).fits", "mem:a.fits", "http:a.fits", "B [OIII]#1 %41?.fits", "-", "a\tb.fits", "\u00fc.fits", "a.fits.gz",
]  # fmt: skip


def write(form: Form, folder: Path) -> Path:
    """Write a form's file."""
    path = folder / (form.file or f"{form.name}.fits")
    path.write_bytes(form.data)
    return path
