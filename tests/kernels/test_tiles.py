"""Files of tiles: those decoded here and those left to cfitsio, checksums, wrong pointers, corruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Box
from kernels.errors import DataError
from kernels.fits import tiles
from kernels.fits.raw import Frames
from kernels.fits.rowbytes import ones_complement_sum
from kernels.jobs.job import File

Pixels = NDArray[Any]


def through_frames(path: Path, hdu: str, size: tuple[int, int], first: int, last: int) -> Pixels:
    """Rows of an HDU, through the front door."""
    box = Box(0, 0, *size)
    amplifier = Amplifier("A", hdu, size, box, None, None, box, False, False, 1.0, 5.0, np.inf)
    with Frames() as frames:
        return frames.rows(File(str(path)), amplifier, first, last)


def rows(path: Path, described: tiles.RowTiles, first: int, last: int) -> Pixels:
    """Rows of an HDU that was described."""
    return through_frames(path, described.hdu, (described.width, described.height), first, last)


def compressed(path: Path, image: Pixels) -> tiles.RowTiles:
    """Write an image as Rice by rows, without a DATASUM; describe it."""
    path.unlink(missing_ok=True)
    hdu = astropy_fits.CompImageHDU(image, name="A", compression_type="RICE_1", tile_shape=(1, image.shape[1]))
    astropy_fits.HDUList([astropy_fits.PrimaryHDU(), hdu]).writeto(path)
    found = tiles.scan(str(path))["A"]
    assert isinstance(found, tiles.RowTiles)
    return found


def noisy(rng: np.random.Generator, kind: str, shape: tuple[int, int], spread: float) -> Pixels:
    """Pixels about a level, some of them anywhere in the type's range, some rows constant."""
    info = np.iinfo(kind)
    level = (int(info.min) + int(info.max)) // 2
    image = np.clip(rng.normal(level, spread, shape), float(info.min), float(info.max) - 128).astype(kind)
    wild = rng.random(shape) < 0.02
    image[wild] = rng.integers(info.min, info.max, int(wild.sum()), dtype=kind)
    image[rng.random(shape[0]) < 0.2] = level
    return image


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["u1", "i2", "u2", "i4"]),
    height=st.integers(1, 11),
    width=st.integers(1, 150),
    spread=st.sampled_from([0.0, 0.4, 3.0, 100.0, 1e4, 1e8]),
)
def test_pixels_are_those_of_cfitsio(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str, height: int, width: int, spread: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "rice.fits"
    image = noisy(np.random.default_rng(seed), kind, (height, width), spread)
    described = compressed(path, image)
    found = rows(path, described, 0, height)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, fitsio.read(str(path), "A").astype(np.int64))
    np.testing.assert_array_equal(found, image)
    first = height // 3
    np.testing.assert_array_equal(rows(path, described, first, height), image[first:])


@pytest.mark.parametrize("kind", ["i2", "i4"])
def test_frames_of_cfitsio_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.fits"
    image = noisy(np.random.default_rng(3), kind, (41, 576), 8.0)
    with fitsio.FITS(str(path), "rw") as fits:
        fits.write(None)
        fits.write(image, extname="Segment00", compress="RICE", tile_dims=(1, 576))
        fits[1].write_checksum()
    described = tiles.scan(str(path))["Segment00"]
    assert isinstance(described, tiles.RowTiles) and described.datasum is not None
    np.testing.assert_array_equal(rows(path, described, 0, 41), image)


OTHERS: list[dict[str, Any]] = [
    {"compress": "RICE", "tile_dims": (16, 64)},
    {"compress": "RICE", "tile_dims": (3, 20)},
    {"compress": "RICE", "tile_dims": (1, 40)},
    {"compress": "GZIP", "tile_dims": (1, 64)},
    {"compress": "GZIP_2", "tile_dims": (1, 64)},
    {"compress": "PLIO", "tile_dims": (1, 64)},
    {"compress": "HCOMPRESS", "tile_dims": (16, 64), "hcomp_scale": 0},
]


@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_what_is_not_rice_by_rows_is_left_to_cfitsio(tmp_path: Path, options: dict[str, Any]) -> None:
    path, image = tmp_path / "a.fits", np.random.default_rng(4).integers(0, 5000, (16, 64)).astype("i4")
    fitsio.write(str(path), image, extname="A", **options)
    assert isinstance(tiles.scan(str(path))["A"], tiles.Odd)
    np.testing.assert_array_equal(through_frames(path, "A", (64, 16), 5, 11), image[5:11])


def test_a_quantised_float_is_left_to_cfitsio(tmp_path: Path) -> None:
    image = np.random.default_rng(4).normal(0, 9, (16, 64)).astype("f4")
    fitsio.write(str(tmp_path / "a.fits"), image, extname="A", compress="RICE", tile_dims=(1, 64), qlevel=4.0)
    assert isinstance(tiles.scan(str(tmp_path / "a.fits"))["A"], tiles.Odd)


def by_hand(path: Path, image: Pixels) -> tuple[tiles.RowTiles, bytearray, NDArray[np.int64]]:
    """A file of Rice tiles, its bytes, and its descriptors [row, (length, start)] to be changed."""
    described = compressed(path, image)
    content = bytearray(path.read_bytes())
    table = np.frombuffer(content, ">i4", 2 * len(image), described.table).reshape(-1, 2).astype(np.int64)
    return described, content, table


def test_tiles_that_may_be_gzipped_are_left_to_cfitsio(tmp_path: Path) -> None:
    """cfitsio puts tiles that it could not compress into a second column."""
    path, image = tmp_path / "a.fits", noisy(np.random.default_rng(4), "i4", (16, 64), 5.0)
    described, content, table = by_hand(path, image)
    header = bytes(content[: described.table])
    for old, new in (("TFIELDS =                    1", "TFIELDS =                    2"),
                     ("NAXIS1  =                    8", "NAXIS1  =                   16")):  # fmt: skip
        assert old.encode() in header
        header = header.replace(old.encode(), new.encode())
    end = header.rindex(b"END" + b" " * 77)
    cards = [f"{card:80}".encode() for card in ("TTYPE2  = 'GZIP_COMPRESSED_DATA'", "TFORM2  = '1PB(0)'", "END")]
    header = (header[:end] + b"".join(cards)).ljust(described.table)
    assert len(header) == described.table
    both = np.column_stack([table, np.zeros_like(table)]).astype(">i4").tobytes()
    data = both + bytes(content[described.heap : described.heap + described.heap_bytes])
    path.write_bytes(header + data.ljust(-(-len(data) // 2880) * 2880, b"\0"))
    np.testing.assert_array_equal(fitsio.read(str(path), "A"), image)
    assert isinstance(tiles.scan(str(path))["A"], tiles.Odd)
    np.testing.assert_array_equal(through_frames(path, "A", (64, 16), 0, 16), image)


def test_tiles_may_lie_in_any_order_and_far_apart(tmp_path: Path) -> None:
    """Rows whose tiles were written last come first, one serves two rows, and 60 kB lie between them."""
    path, image = tmp_path / "a.fits", noisy(np.random.default_rng(10), "i4", (30, 50), 9.0)
    described, content, table = by_hand(path, image)
    heap = bytes(content[described.heap : described.heap + described.heap_bytes])
    pieces = [heap[start : start + length] for length, start in table]
    new, starts = b"", {}
    for row in reversed(range(30)):
        starts[row] = len(new)
        new += pieces[row] + bytes(60000 if row == 11 else 3)
    starts[4], table[4, 0], image[4] = starts[20], table[20, 0], image[20]
    table[:, 1] = [starts[row] for row in range(30)]
    content[described.table : described.heap] = table.astype(">i4").tobytes()
    header = bytes(content[: described.table]).replace(
        f"PCOUNT  = {described.heap_bytes:20}".encode(), f"PCOUNT  = {len(new):20}".encode()
    )
    data = bytes(content[described.table : described.heap]) + new
    path.write_bytes(header + data.ljust(-(-len(data) // 2880) * 2880, b"\0"))
    np.testing.assert_array_equal(fitsio.read(str(path), "A"), image)
    scanned = tiles.scan(str(path))["A"]
    assert isinstance(scanned, tiles.RowTiles)
    described = scanned
    assert described.heap_bytes == len(new) > 30 * described.longest
    np.testing.assert_array_equal(rows(path, described, 0, 30), image)
    np.testing.assert_array_equal(rows(path, described, 9, 14), image[9:14])
    out, size, box = np.empty((4, 5, 50), np.int32), (50, 30), Box(0, 0, 50, 30)
    with Frames() as frames:  # four, in a buffer without room for the bytes in between
        amplifier = Amplifier("A", "A", size, box, None, None, box, False, False, 1.0, 5.0, np.inf)
        frames.stack([File(str(path))] * 4, amplifier, 9, 14).rows(9, 14, out)
    np.testing.assert_array_equal(out, [image[9:14]] * 4)
    with fitsio.FITS(str(path), "rw") as fits:
        fits[1].write_checksum()
    for first, last in ((0, 30), (9, 14), (20, 30)):
        np.testing.assert_array_equal(rows(path, described, first, last), image[first:last])


def test_descriptors_of_64_bits(tmp_path: Path) -> None:
    path, image = tmp_path / "a.fits", noisy(np.random.default_rng(11), "i2", (19, 70), 9.0)
    described, content, table = by_hand(path, image)
    header = (
        bytes(content[: described.table])
        .replace(b"'1PB(", b"'1QB(")
        .replace(b"NAXIS1  =                    8", b"NAXIS1  =                   16")
    )
    data = table.astype(">i8").tobytes() + bytes(content[described.heap : described.heap + described.heap_bytes])
    path.write_bytes(header + data.ljust(-(-len(data) // 2880) * 2880, b"\0"))
    found = tiles.scan(str(path))["A"]
    assert isinstance(found, tiles.RowTiles) and found.descriptor == ">i8"
    np.testing.assert_array_equal(rows(path, found, 3, 19), image[3:])
    np.testing.assert_array_equal(fitsio.read(str(path), "A"), image)


@pytest.fixture(scope="module")
def loaded() -> None:
    """Load the machine code: the first call takes longer than Hypothesis lets one call take."""
    ones_complement_sum(np.zeros(4, np.uint8))


@pytest.mark.usefixtures("loaded")
@given(words=st.lists(st.integers(0, 2**32 - 1), max_size=300), times=st.sampled_from([1, 997]))
def test_the_checksum_is_that_of_its_definition(words: list[int], times: int) -> None:
    expected = 0
    for word in words * times:
        expected += word
        expected = (expected & 0xFFFFFFFF) + (expected >> 32)
    assert ones_complement_sum(np.frombuffer(np.array(words * times, ">u4").tobytes(), np.uint8)) == expected


@pytest.mark.parametrize(("row", "word", "value"), [(2, 0, 10**8), (2, 0, -5), (0, 1, 2**31 - 1), (1, 1, -4)], ids=str)
def test_a_descriptor_that_points_away_is_named(tmp_path: Path, row: int, word: int, value: int) -> None:
    path = tmp_path / "a.fits"
    described = compressed(path, noisy(np.random.default_rng(7), "i4", (4, 64), 5.0))
    content = bytearray(path.read_bytes())
    at = described.table + 8 * row + 4 * word
    content[at : at + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.fits: HDU A, row {row}: its tile lies outside"):
        rows(path, described, 0, 4)


def test_a_tile_longer_than_any_encoder_makes_it_is_corrupt(tmp_path: Path) -> None:
    path, image = tmp_path / "a.fits", noisy(np.random.default_rng(8), "i4", (40, 64), 5.0)
    described, content, _ = by_hand(path, image)
    content[described.table + 8 * 3 : described.table + 8 * 3 + 4] = (described.longest + 1).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.fits: HDU A, row 3: its tile is corrupt"):
        rows(path, described, 0, 40)
    np.testing.assert_array_equal(rows(path, described, 4, 40), image[4:])


def test_a_corrupt_tile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    described, content, table = by_hand(path, noisy(np.random.default_rng(8), "i4", (6, 640), 5.0))
    begin, left = described.heap + int(table[4, 1]) + 4, int(table[4, 0]) - 4
    content[begin : begin + left] = bytes([0x18, *bytes(left - 1)])  # fs = 2, and then a code without an end
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.fits: HDU A, row 4: its tile is corrupt"):
        rows(path, described, 0, 6)


@pytest.mark.soak
def test_whole_files_corrupted_at_random(tmp_path: Path) -> None:
    """Headers, descriptors and tiles: a clear error, or the pixels that cfitsio finds in the same bytes."""
    rng = np.random.default_rng(9)
    path = tmp_path / "a.fits"
    image = noisy(rng, "i4", (24, 576), 6.0)
    compressed(path, image)
    good, agreed, refused = path.read_bytes(), 0, 0
    for _ in range(20000):
        content = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            described = tiles.scan(str(path))["A"]
            found = rows(path, described, 0, described.height) if isinstance(described, tiles.RowTiles) else None
        except DataError:
            refused += 1
            continue
        agreed += found is not None and np.array_equal(found, image)
    assert refused > 1000
    assert agreed > 100
