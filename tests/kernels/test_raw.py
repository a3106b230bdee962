"""Rows of raw frames, from every container and pixel type that cameras write."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Box
from kernels.errors import DataError
from kernels.fits.raw import Frames
from kernels.fits.rowbytes import BLANK
from kernels.jobs.job import File

WIDTH, HEIGHT = 40, 30
Pixels = NDArray[Any]


def amplifier(hdu: str | int, raw: tuple[int, int] = (WIDTH, HEIGHT)) -> Amplifier:
    box = Box(0, 0, *raw)
    return Amplifier("A", hdu, raw, box, None, None, box, False, False, 1.0, 5.0, np.inf)


def pixels(kind: str = "i4") -> Pixels:
    """Values up to the ends of a type."""
    rng, info = np.random.default_rng(1), np.iinfo(kind)
    low, high = max(info.min, 0), min(info.max, 200000)
    image = rng.integers(low, high, (HEIGHT, WIDTH), endpoint=True).astype(kind)
    image[0, :2] = low, high
    return image


def read(path: Path, hdu: str | int, first: int = 0, last: int = HEIGHT, **known: Any) -> Pixels:
    with Frames() as frames:
        return frames.rows(File(str(path), **known), amplifier(hdu), first, last)


def plain(path: Path, image: Pixels) -> int:
    fitsio.write(str(path), image)
    return 0


def extension(path: Path, image: Pixels) -> str:
    with fitsio.FITS(str(path), "rw") as fits:
        fits.write(None)
        fits.write(image, extname="Segment00", compress="RICE", tile_dims=(1, WIDTH))
    return "Segment00"


def by_astropy(path: Path, image: Pixels) -> int:
    astropy_fits.PrimaryHDU(image).writeto(path, checksum=True)
    return 0


def packed_by_astropy(path: Path, image: Pixels) -> int:
    """As from fpack: ZSIMPLE marks an original primary image."""
    hdu = astropy_fits.CompImageHDU(image)
    hdu.writeto(path)
    with fitsio.FITS(str(path), "rw") as fits:
        fits[1].write_key("ZSIMPLE", True)
        fits[1].write_checksum()
    return 0


def gzipped(path: Path, image: Pixels) -> int:
    """Gzip, under a name that does not say so."""
    plain(path.with_suffix(".tmp"), image)
    path.write_bytes(gzip.compress(path.with_suffix(".tmp").read_bytes()))
    return 0


CONTAINERS = [plain, extension, by_astropy, packed_by_astropy, gzipped]


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4"])
@pytest.mark.parametrize("write", CONTAINERS)
def test_rows_come_as_they_were_written(tmp_path: Path, write: Callable[[Path, Pixels], str | int], kind: str) -> None:
    path, image = tmp_path / "a.fits", pixels(kind)
    hdu = write(path, image)
    found = read(path, hdu)
    assert found.dtype == np.int32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(read(path, hdu, 7, 11), image[7:11])


def test_the_name_says_nothing_about_the_container(tmp_path: Path) -> None:
    image, path = pixels(), tmp_path / "a.fits.gz"
    plain(tmp_path / "b.fits", image)
    (tmp_path / "b.fits").rename(path)
    np.testing.assert_array_equal(read(path, 0), image)
    gzipped(tmp_path / "c.fits.gz", image)
    np.testing.assert_array_equal(read(tmp_path / "c.fits.gz", 0), image)


def test_an_fpacked_image_is_found_without_its_mark_only_where_it_is(tmp_path: Path) -> None:
    """An extension that was an extension before it was packed stays where it is counted."""
    image, path = pixels(), tmp_path / "a.fits"
    extension(path, image)
    np.testing.assert_array_equal(read(path, 1), image)
    with pytest.raises(DataError, match="a.fits: HDU 0"):
        read(path, 0)


@pytest.mark.parametrize("write", CONTAINERS)
def test_a_truncated_file_is_named(tmp_path: Path, write: Callable[[Path, Pixels], str | int]) -> None:
    path = tmp_path / "a.fits"
    hdu = write(path, pixels())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 2900 if len(data) > 6000 else len(data) // 2])
    with pytest.raises(DataError, match="a.fits: "):
        read(path, hdu)


@pytest.mark.parametrize("write", [by_astropy, packed_by_astropy])
def test_a_flipped_bit_is_found_by_the_data_sum(tmp_path: Path, write: Callable[[Path, Pixels], int]) -> None:
    path = tmp_path / "a.fits"
    hdu, image = write(path, pixels()), pixels()
    np.testing.assert_array_equal(read(path, hdu), image)
    data = bytearray(path.read_bytes())
    data[-2880 + 5] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match="HDU 0: corrupt, its data are not those of its DATASUM"):
        read(path, hdu)


def test_another_size_than_at_ingest_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    plain(path, pixels())
    size = path.stat().st_size
    np.testing.assert_array_equal(read(path, 0, bytes=size), pixels())
    with pytest.raises(DataError, match=f"a.fits: has {size} bytes, it had {size + 2880} when the run was planned"):
        read(path, 0, bytes=size + 2880)


@pytest.mark.parametrize(
    ("path", "message"),
    [("none.fits", "none.fits: .*No such file"), ("text.fits", "text.fits: "), (".", "FITS|directory")],
)
def test_what_is_no_frame_is_named(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "text.fits").write_text("SIMPLE? no.")
    with pytest.raises(DataError, match=message):
        read(tmp_path / path, 0)


def test_a_frame_of_another_shape_is_refused(tmp_path: Path) -> None:
    plain(tmp_path / "a.fits", pixels())
    with Frames() as frames, pytest.raises(DataError) as caught:
        frames.rows(File(str(tmp_path / "a.fits")), amplifier(0, (WIDTH, HEIGHT + 1)), 0, 3)
    assert caught.value.why == f"HDU 0 is {(WIDTH, HEIGHT)} pixels, the camera says {(WIDTH, HEIGHT + 1)}"


def test_a_missing_hdu_is_named(tmp_path: Path) -> None:
    extension(tmp_path / "a.fits", pixels())
    with pytest.raises(DataError, match="a.fits: HDU Segment17: "):
        read(tmp_path / "a.fits", "Segment17")


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_floats_are_read_where_they_are_whole_numbers(tmp_path: Path, kind: str) -> None:
    """Values that are no numbers are blank; a fraction is refused, whichever rows are read."""
    image = pixels().astype(kind)
    expected = image.astype(np.int64)
    image[4, 5], image[4, 6], image[7, 8] = np.nan, -np.inf, 1e20
    expected[4, 5:7] = expected[7, 8] = BLANK
    plain(tmp_path / "a.fits", image)
    np.testing.assert_array_equal(read(tmp_path / "a.fits", 0), expected)
    image[20, 3] = 0.5
    plain(tmp_path / "b.fits", image)
    what = f"b.fits: HDU 0 holds float{8 * image.itemsize}, and 1 of 1200 pixels are no whole numbers"
    with pytest.raises(DataError, match=what):
        read(tmp_path / "b.fits", 0)


def in_memory() -> set[str]:
    """Handles of files in memory."""
    links = [p for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
    return {p.name for p in links if "memfd:fits" in os.readlink(p)}


def test_many_files_are_read_with_few_handles(tmp_path: Path) -> None:
    for n in range(6):
        gzipped(tmp_path / f"{n}.fits", pixels() + n)
    before = in_memory()
    with Frames(limit=2) as frames:
        for n in [*range(6), *range(6)]:
            rows = frames.rows(File(str(tmp_path / f"{n}.fits")), amplifier(0), 0, 3)
            np.testing.assert_array_equal(rows, pixels()[:3] + n)
            assert 0 < len(in_memory() - before) <= 2


def whole_by_gzip_tiles(path: Path, image: Pixels) -> str:
    fitsio.write(str(path), image, extname="Segment00", compress="GZIP", tile_dims=(1, WIDTH))
    return "Segment00"


def plain_extension(path: Path, image: Pixels) -> str:
    fitsio.write(str(path), image, extname="Segment00")
    return "Segment00"


def summed(path: Path, image: Pixels) -> str:
    extension(path, image)
    with fitsio.FITS(str(path), "rw") as fits:
        fits[1].write_checksum()
    return "Segment00"


WRITERS = [extension, summed, whole_by_gzip_tiles, plain_extension]


def frames_of(folder: Path, n: int, writers: Any, kinds: Any) -> tuple[list[File], Pixels]:
    """Frames of several kinds in any order, and their pixels [frame, y, x]."""
    rng, files, cube = np.random.default_rng(n), [], []
    for k in range(n):
        writer, kind = writers[rng.integers(len(writers))], kinds[rng.integers(len(kinds))]
        info = np.iinfo(kind)
        image = np.clip(rng.normal(100 * (k + 1), 7, (HEIGHT, WIDTH)), info.min, info.max).astype(kind)
        writer(folder / f"{k}.fits", image)
        files.append(File(str(folder / f"{k}.fits")))
        cube.append(image.astype(np.int32))
    return files, np.array(cube)


@pytest.mark.parametrize("writers", [[extension], [summed], WRITERS], ids=["rice", "summed", "mixed"])
@pytest.mark.parametrize("kinds", [["i4"], ["u2"], ["u1", "i2", "u2", "i4"]], ids=str)
def test_a_stack_has_the_rows_of_all_frames(tmp_path: Path, writers: Any, kinds: Any) -> None:
    """Whatever they are made of, in any row blocks, and as often as one likes; the buffers serve again."""
    files, cube = frames_of(tmp_path, 11, writers, kinds)
    out = np.empty((11, HEIGHT, WIDTH), np.int32)
    with Frames() as frames:
        for first, last, step in ((0, HEIGHT, HEIGHT), (0, HEIGHT, 7), (3, 22, 4), (25, HEIGHT, 1), (0, 10, 3)):
            stack = frames.stack(files, amplifier("Segment00"), first, last)
            for top in [*range(first, last, step), first]:
                block = out[:, : min(step, last - top)].reshape(-1)[: 11 * min(step, last - top) * WIDTH]
                block = np.ascontiguousarray(block).reshape(11, -1, WIDTH)
                stack.rows(top, min(top + step, last), block)
                np.testing.assert_array_equal(block, cube[:, top : top + step][:, : last - top])


def test_one_frame_is_read_while_a_stack_lives(tmp_path: Path) -> None:
    files, cube = frames_of(tmp_path, 5, [summed], ["u2"])
    out = np.empty_like(cube)
    with Frames() as frames:
        stack = frames.stack(files, amplifier("Segment00"), 0, HEIGHT)
        np.testing.assert_array_equal(frames.rows(files[3], amplifier("Segment00"), 2, 9), cube[3, 2:9])
        stack.rows(0, HEIGHT, out)
    np.testing.assert_array_equal(out, cube)


def test_a_stack_keeps_no_file_open(tmp_path: Path) -> None:
    files, _ = frames_of(tmp_path, 5, [extension], ["i4"])
    with Frames() as frames:
        frames.stack(files, amplifier("Segment00"), 0, HEIGHT)
        held = [p for p in Path("/proc/self/fd").iterdir() if str(p.resolve()).startswith(str(tmp_path))]
    assert not held


@pytest.mark.parametrize("writers", [[extension], WRITERS], ids=["rice", "mixed"])
def test_a_stack_names_the_frame_and_the_row_that_are_corrupt(tmp_path: Path, writers: Any) -> None:
    files, _ = frames_of(tmp_path, 9, writers, ["i4"])
    image = np.random.default_rng(1).normal(1000, 9, (HEIGHT, WIDTH)).astype("i4")
    extension(tmp_path / "bad.fits", image)
    content = bytearray((tmp_path / "bad.fits").read_bytes())
    at = content.index(b"XTENSION") // 2880 * 2880
    table = -(-content.index(b"END" + b" " * 77, at) // 2880) * 2880
    content[table + 8 * 17 + 3] -= 9  # the 17th tile loses its end
    (tmp_path / "bad.fits").write_bytes(content)
    files.insert(6, File(str(tmp_path / "bad.fits")))
    out = np.empty((10, 10, WIDTH), np.int32)
    with Frames() as frames:
        stack = frames.stack(files, amplifier("Segment00"), 5, HEIGHT)
        stack.rows(5, 15, out)
        with pytest.raises(DataError, match=r"bad.fits: HDU Segment00, row 17: its tile is corrupt"):
            stack.rows(15, 25, out)
        stack.rows(18, 28, out)


def test_a_block_of_another_shape_is_refused(tmp_path: Path) -> None:
    files, _ = frames_of(tmp_path, 3, [extension], ["i4"])
    with Frames() as frames:
        stack = frames.stack(files, amplifier("Segment00"), 0, 5)
        for block in (np.empty((3, 10, WIDTH), np.int32)[:, ::2], np.empty((3, 6, WIDTH), np.int32)):
            with pytest.raises(ValueError, match="copy|do not fit"):
                stack.rows(0, 5, block)


def test_numbers_beyond_32_bits_are_blank_or_negative(tmp_path: Path) -> None:
    """An unsigned number that had no room for its sign, where the camera file says so."""
    image = pixels("u4")
    plain(tmp_path / "a.fits", image)
    np.testing.assert_array_equal(read(tmp_path / "a.fits", 0), image)
    image[3, 4] = 4294950308
    expected = image.astype(np.int64)
    plain(tmp_path / "b.fits", image)
    for signed, value in ((False, BLANK), (True, 4294950308 - (1 << 32))):
        expected[3, 4] = value
        with Frames() as frames:
            found = frames.rows(File(str(tmp_path / "b.fits")), replace(amplifier(0), signed=signed), 0, HEIGHT)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("write", [plain, extension], ids=["plain", "rice"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_wrapped_numbers_are_negative_where_the_camera_says_so(tmp_path: Path, write: Any, kind: str) -> None:
    image = pixels(kind)
    hdu = write(tmp_path / "a.fits", image)
    with Frames() as frames:
        found = frames.rows(File(str(tmp_path / "a.fits")), replace(amplifier(hdu), signed=True), 0, HEIGHT)
    np.testing.assert_array_equal(found, image.view(kind.replace("u", "i")))
