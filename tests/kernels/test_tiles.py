"""Rice by rows: the same pixels as cfitsio's, and no corruption that goes unnoticed or reads what it should not."""

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

from kernels import rice, tiles
from kernels.errors import DataError

Pixels = NDArray[Any]


def compressed(path: Path, image: Pixels) -> tiles.RowTiles:
    """Write an image as Rice by rows, without a DATASUM; describe it."""
    path.unlink(missing_ok=True)
    hdu = astropy_fits.CompImageHDU(image, name="A", compression_type="RICE_1", tile_shape=(1, image.shape[1]))
    astropy_fits.HDUList([astropy_fits.PrimaryHDU(), hdu]).writeto(path)
    found = tiles.scan(str(path))["A"]
    assert found is not None
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


@settings(max_examples=60, deadline=None)
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
    found = tiles.read_rows(str(path), described, 0, height)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, fitsio.read(str(path), "A").astype(np.int64))
    np.testing.assert_array_equal(found, image)
    first = height // 3
    np.testing.assert_array_equal(tiles.read_rows(str(path), described, first, height), image[first:])


@pytest.mark.parametrize("kind", ["i2", "i4"])
def test_frames_of_cfitsio_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.fits"
    image = noisy(np.random.default_rng(3), kind, (41, 576), 8.0)
    with fitsio.FITS(str(path), "rw") as fits:
        fits.write(None)
        fits.write(image, extname="Segment00", compress="RICE", tile_dims=(1, 576))
        fits[1].write_checksum()
    described = tiles.scan(str(path))["Segment00"]
    assert described is not None and described.datasum is not None
    tiles.verify(str(path), described)
    np.testing.assert_array_equal(tiles.read_rows(str(path), described, 0, 41), image)


def test_what_is_not_rice_by_rows_is_left_to_cfitsio(tmp_path: Path) -> None:
    image = noisy(np.random.default_rng(4), "i4", (16, 64), 5.0)
    whole = {"tile_dims": (16, 64)}
    others: list[tuple[Pixels, dict[str, Any]]] = [
        (image, {}),
        (image, {"compress": "RICE", **whole}),
        (image, {"compress": "GZIP", "tile_dims": (1, 64)}),
        (image.astype("f4"), {"compress": "RICE", "tile_dims": (1, 64), "qlevel": 4.0}),
    ]
    for number, (pixels, options) in enumerate(others):
        path = tmp_path / f"{number}.fits"
        fitsio.write(str(path), pixels, extname="A", **options)
        assert tiles.scan(str(path))["A"] is None, options


def tile_bytes(path: Path, described: tiles.RowTiles, rows: int) -> tuple[NDArray[np.uint8], Pixels, Pixels]:
    """All tiles with spare bytes behind, their starts and lengths."""
    raw = np.fromfile(path, np.uint8)
    table = raw[described.table : described.table + 8 * rows].view(">i4").astype(np.int64).reshape(rows, 2)
    heap = raw[described.heap : described.heap + described.heap_bytes]
    data = np.concatenate([heap, np.full(rice.SPARE, 0xFF, np.uint8)])
    return data, np.ascontiguousarray(table[:, 1]), np.ascontiguousarray(table[:, 0])


@pytest.mark.parametrize("kind", ["u1", "i2", "i4"])
def test_corruption_never_depends_on_what_lies_behind_a_tile(tmp_path: Path, kind: str) -> None:
    """Bits flipped and lengths changed: an error, or pixels that are the same whatever follows the tile."""
    rng = np.random.default_rng(5)
    image = np.rint(rng.normal(100, 6.0, (4, 200))).astype(kind)
    path = tmp_path / "a.fits"
    data, starts, lengths = tile_bytes(path, compressed(path, image), 4)
    noticed = 0
    for _ in range(1500):
        pieces = [data[a : a + n].copy() for a, n in zip(starts, lengths, strict=True)]
        k = int(rng.integers(4))
        pieces[k] = pieces[k][: pieces[k].size - (int(rng.integers(0, 12)) if rng.random() < 0.5 else 0)]
        for _ in range(int(rng.integers(0, 4))):
            pieces[k][rng.integers(pieces[k].size)] ^= 1 << rng.integers(8)
        answers = []
        for filling in (0x00, 0xFF, 0xA5):
            gap = np.full(rice.SPARE, filling, np.uint8)
            begins = np.cumsum([0, *(p.size + gap.size for p in pieces[:-1])])
            out = np.zeros((4, 200), kind)
            buffer = np.concatenate([part for p in pieces for part in (p, gap)])
            corrupt = rice.decode(buffer, begins, np.array([p.size for p in pieces]), 32, out)
            answers.append((corrupt, out.tobytes() if corrupt < 0 else b""))
        assert len(set(answers)) == 1
        noticed += answers[0][0] == k
    assert noticed > 100


def test_four_tiles_side_by_side_are_four_tiles_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    image = noisy(rng, "i4", (8, 333), 30.0)
    path = tmp_path / "a.fits"
    described = compressed(path, image)
    data, starts, lengths = tile_bytes(path, described, 8)
    for _ in range(300):
        broken = data.copy()
        broken[rng.integers(described.heap_bytes)] ^= 1 << rng.integers(8)
        together = np.zeros((8, 333), np.int32)
        first = rice.decode(broken, starts, lengths, 32, together)
        for row in range(8 if first < 0 else first // 4 * 4):
            alone = np.zeros((1, 333), np.int32)
            assert rice.decode(broken, starts[row : row + 1], lengths[row : row + 1], 32, alone) == -1
            np.testing.assert_array_equal(together[row], alone[0])


def test_a_tile_outside_of_the_data_is_refused() -> None:
    data, out = np.zeros(rice.SPARE + 10, np.uint8), np.zeros((1, 5), np.int32)
    for start, length in ((-1, 5), (0, -1), (6, 5), (2**62, 2**62)):
        with pytest.raises(ValueError, match="outside"):
            rice.decode(data, np.array([start]), np.array([length]), 32, out)


@pytest.mark.parametrize(("row", "word", "value"), [(2, 0, 10**8), (2, 0, -5), (0, 1, 2**31 - 1), (1, 1, -4)], ids=str)
def test_a_descriptor_that_points_away_is_named(tmp_path: Path, row: int, word: int, value: int) -> None:
    path = tmp_path / "a.fits"
    described = compressed(path, noisy(np.random.default_rng(7), "i4", (4, 64), 5.0))
    content = bytearray(path.read_bytes())
    at = described.table + 8 * row + 4 * word
    content[at : at + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.fits: HDU A, row {row}: its tile lies outside"):
        tiles.read_rows(str(path), described, 0, 4)


def test_a_corrupt_tile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    described = compressed(path, noisy(np.random.default_rng(8), "i4", (6, 640), 5.0))
    _, starts, lengths = tile_bytes(path, described, 6)
    content = bytearray(path.read_bytes())
    begin, left = described.heap + int(starts[4]) + 4, int(lengths[4]) - 4
    content[begin : begin + left] = bytes([0x18, *bytes(left - 1)])  # fs = 2, and then a code without an end
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.fits: HDU A, row 4: its tile is corrupt"):
        tiles.read_rows(str(path), described, 0, 6)


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
            described = tiles.scan(str(path)).get("A")
            found = None if described is None else tiles.read_rows(str(path), described, 0, described.height)
        except DataError:
            refused += 1
            continue
        agreed += found is not None and np.array_equal(found, image)
    assert refused > 1000
    assert agreed > 100
