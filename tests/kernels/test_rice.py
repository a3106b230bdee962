"""The Rice decoder against an encoder in plain Python, against cfitsio, and against corruption."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Box
from kernels.errors import DataError
from kernels.fits import rice
from kernels.fits.raw import Frames
from kernels.fits.rowbytes import BLANK
from kernels.fits.tiles import FS_BITS
from kernels.jobs.job import File

Pixels = NDArray[Any]
KINDS = {1: np.uint8, 2: np.int16, 4: np.int32}


def codes(row: Sequence[int], size: int) -> list[int]:
    """A row's differences in the encoder's type, mapped to unsigned numbers; the first is 0."""
    span, found = 1 << 8 * size, []
    for before, pixel in zip([row[0], *row[:-1]], row, strict=True):
        step = (pixel - before + span // 2) % span - span // 2
        found.append(2 * step if step >= 0 else -2 * step - 1)
    return found


def natural(block: Sequence[int], size: int) -> int:
    """The ``fs`` with the fewest bits, -1 where all is zero, the largest where nothing helps."""
    if not any(block):
        return -1
    best = min(range(rice.FS_MAX[size]), key=lambda fs: sum((c >> fs) + fs + 1 for c in block))
    return best if sum((c >> best) + best + 1 for c in block) < 8 * size * len(block) else rice.FS_MAX[size]


def encode(row: Sequence[int], block: int, size: int, rng: np.random.Generator | None = None) -> bytes:
    """A tile; with a generator, every block in one of the ways that say the same."""
    bits, raw = [f"{row[0] % (1 << 8 * size):0{8 * size}b}"], rice.FS_MAX[size]
    steps = codes(row, size)
    for k in range(0, len(row), block):
        some = steps[k : k + block]
        fs = natural(some, size)
        if rng is not None and (fs >= 0 or rng.random() < 0.5):
            fs = max(int(rng.integers(0, raw + 1)), max(some).bit_length() - 9, 0)
        bits.append(f"{fs + 1:0{FS_BITS[size]}b}")
        if fs == raw:
            bits += [f"{c:0{8 * size}b}" for c in some]
        elif fs >= 0:
            bits += ["0" * (c >> fs) + "1" + (f"{c & ((1 << fs) - 1):0{fs}b}" if fs else "") for c in some]
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def decode(
    tiles: Sequence[bytes], width: int, block: int, size: int, zero: int = 0, filling: int = 0xFF
) -> tuple[int, Pixels]:
    """Decode tiles that lie apart, with ``filling`` between and behind them."""
    gap = bytes([filling]) * rice.SPARE
    starts = np.cumsum([0, *(len(tile) + len(gap) for tile in tiles[:-1])])
    data, out = (
        np.frombuffer(bytearray().join(t + gap for t in tiles), np.uint8),
        np.full((len(tiles), width), 7, np.int32),
    )
    lengths = np.array([len(tile) for tile in tiles])
    return rice.decode(data, starts, lengths, block, size, zero, out), out


def image(rng: np.random.Generator, size: int, rows: int, width: int, spread: float) -> Pixels:
    """Noise about a level, with pixels at the ends of the type, stretches of one value, and steps across both ends."""
    info = np.iinfo(KINDS[size])
    level = rng.choice([info.min + 1, (int(info.min) + int(info.max)) // 2, info.max - 1])
    pixels = np.clip(rng.normal(level, spread, (rows, width)), info.min, info.max - 128 * (size > 2)).astype(np.int64)
    wild = rng.random(pixels.shape) < rng.choice([0.0, 0.02, 0.5])
    pixels[wild] = rng.choice([info.min, info.min + 1, info.max - 1, info.max], int(wild.sum()))
    pixels[rng.random(rows) < 0.2] = level
    pixels[:, : width // 3] = np.where(rng.random((rows, 1)) < 0.3, level, pixels[:, : width // 3])
    return pixels


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 2, 4]),
    block=st.one_of(st.integers(1, 80), st.sampled_from([16, 32])),
    rows=st.integers(1, 40),
    width=st.integers(1, 120),
    spread=st.sampled_from([0.0, 0.4, 3.0, 100.0, 1e4, 1e8]),
    zero=st.sampled_from([0, 32768]),
)
def test_every_way_of_writing_a_tile_gives_its_pixels(
    seed: int, size: int, block: int, rows: int, width: int, spread: float, zero: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels, zero = image(rng, size, rows, width, spread), zero if size < 4 else 0
    tiles = [encode(row, block, size, rng if n % 3 else None) for n, row in enumerate(pixels.tolist())]
    corrupt, found = decode(tiles, width, block, size, zero)
    assert corrupt == -1
    np.testing.assert_array_equal(found, pixels + zero)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("spread", [0.0, 1.5, 40.0, 1e9])
def test_a_tile_that_lacks_its_end_is_corrupt(size: int, spread: float) -> None:
    """Even if the bytes behind it continue like the tile."""
    row = image(np.random.default_rng(1), size, 1, 75, spread)[0].tolist()
    whole = encode(row, 32, size)
    out = np.empty((1, 75), np.int32)
    for length in range(len(whole)):
        assert decode([whole[:length]], 75, 32, size)[0] == 0
        data = np.frombuffer(bytearray(whole + bytes(rice.SPARE)), np.uint8)
        assert rice.decode(data, np.array([0]), np.array([length]), 32, size, 0, out) == 0
    assert decode([whole], 75, 32, size)[0] == -1


def test_the_corrupt_row_is_found_among_many() -> None:
    rng = np.random.default_rng(2)
    good = [encode(row, 32, 4) for row in image(rng, 4, 50, 64, 5.0).tolist()]
    for bad in range(50):
        tiles = [tile[: len(tile) - 3 * (n == bad)] for n, tile in enumerate(good)]
        assert decode(tiles, 64, 32, 4)[0] == bad


def test_the_spare_bytes_are_as_many_as_a_stretch_can_run_over() -> None:
    """The longest code that is looked at has 64 bits and the largest ``fs``; a word of eight bytes follows."""
    assert rice.STRETCH * (64 + max(rice.FS_MAX.values())) // 8 + 16 <= rice.SPARE


def test_a_tile_outside_of_the_data_is_refused() -> None:
    data, out = np.zeros(rice.SPARE + 10, np.uint8), np.zeros((1, 5), np.int32)
    for start, length in ((-1, 5), (0, -1), (6, 5), (2**62, 2**62)):
        with pytest.raises(ValueError, match="outside"):
            rice.decode(data, np.array([start]), np.array([length]), 32, 4, 0, out)


def test_pixels_that_do_not_match_the_tiles_are_refused() -> None:
    data, one = np.zeros(rice.SPARE + 10, np.uint8), np.ones(3, np.int64)
    for out in (np.zeros((4, 5), np.int32), np.zeros((3, 10), np.int32)[:, ::2]):
        with pytest.raises(ValueError, match="3 tiles do not fit"):
            rice.decode(data, one, one, 32, 4, 0, out)


def damage(rng: np.random.Generator, tile: bytes) -> bytes:
    """Flip some bits, and cut off the end now and then."""
    content = bytearray(tile[: max(1, len(tile) - (int(rng.integers(0, 12)) if rng.random() < 0.3 else 0))])
    for _ in range(int(rng.integers(0, 4))):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(content)


def corrupt_at_random(rng: np.random.Generator, size: int, block: int, spread: float, times: int) -> int:
    """Damage one tile of eighteen; how often it was noticed.

    The answer must not depend on the bytes behind the tiles, nor on the others
    that are decoded with it.
    """
    width, noticed = 200, 0
    good = [encode(row, block, size) for row in image(rng, size, 18, width, spread).tolist()]
    for _ in range(times):
        bad = int(rng.integers(18))
        tiles = [damage(rng, tile) if n == bad else tile for n, tile in enumerate(good)]
        answers = [decode(tiles, width, block, size, filling=filling) for filling in (0x00, 0xFF, 0xA5)]
        alone, row = decode([tiles[bad]], width, block, size)
        assert {corrupt for corrupt, _ in answers} == {-1 if alone < 0 else bad}
        if alone < 0:
            for _, found in answers:
                np.testing.assert_array_equal(found, answers[0][1])
            np.testing.assert_array_equal(row[0], answers[0][1][bad])
        noticed += alone == 0
    return noticed


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("spread", [0.3, 6.0, 1000.0])
def test_corruption_never_depends_on_what_lies_behind_a_tile(size: int, spread: float) -> None:
    assert corrupt_at_random(np.random.default_rng(5), size, 32, spread, 120) > 20


@pytest.mark.soak
def test_corruption_never_depends_on_what_lies_behind_a_tile_for_long() -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    rng, noticed = np.random.default_rng(seed), 0
    for _ in range(1500):
        size, block = int(rng.choice([1, 2, 4])), int(rng.choice([16, 32, 32, 45, 128]))
        noticed += corrupt_at_random(rng, size, block, float(rng.choice([0.3, 3.0, 30.0, 1000.0])), 100)
    assert noticed > 15000


def written(path: Path, pixels: Pixels, bits: int, size: int, block: int, cards: Sequence[str] = ()) -> None:
    """A FITS file by hand: a compressed image whose parameters no other writer offers."""
    write_tiles(path, [encode(row, block, size) for row in pixels.tolist()], pixels.shape, bits, size, block, cards)


def write_tiles(
    path: Path,
    tiles: Sequence[bytes],
    shape: tuple[int, ...],
    bits: int,
    size: int,
    block: int,
    cards: Sequence[str] = (),
) -> None:
    starts = np.cumsum([0, *(len(tile) for tile in tiles[:-1])])
    table = np.array([[len(tile), start] for tile, start in zip(tiles, starts, strict=True)], ">i4").tobytes()
    heap = b"".join(tiles)
    (height, width), data = shape, table + heap
    described = {
        "XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": height, "PCOUNT": len(heap),
        "GCOUNT": 1, "TFIELDS": 1, "TTYPE1": "'COMPRESSED_DATA'", "TFORM1": f"'1PB({max(map(len, tiles))})'",
        "ZIMAGE": "T", "ZBITPIX": bits, "ZNAXIS": 2, "ZNAXIS1": width, "ZNAXIS2": height, "ZTILE1": width,
        "ZTILE2": 1, "ZCMPTYPE": "'RICE_1'", "ZNAME1": "'BLOCKSIZE'", "ZVAL1": block, "ZNAME2": "'BYTEPIX'",
        "ZVAL2": size, "EXTNAME": "'A'",
    }  # fmt: skip
    write_hdus(path, described, cards, data)


def uncompressed(path: Path, pixels: Pixels, bits: int, cards: Sequence[str]) -> None:
    described = {
        "XTENSION": "'IMAGE'", "BITPIX": bits, "NAXIS": 2, "NAXIS1": pixels.shape[1], "NAXIS2": pixels.shape[0],
        "PCOUNT": 0, "GCOUNT": 1, "EXTNAME": "'A'",
    }  # fmt: skip
    write_hdus(path, described, cards, pixels.astype({8: "u1", 16: ">i2", 32: ">i4"}[bits]).tobytes())


def write_hdus(path: Path, described: Mapping[str, Any], cards: Sequence[str], data: bytes) -> None:
    first = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0"]
    second = [f"{key:8}= {value:>20}" if not str(value).startswith("'") else f"{key:8}= {value}"
              for key, value in described.items()]  # fmt: skip
    headers = ["".join(f"{card:80}" for card in [*some, "END"]) for some in (first, [*second, *cards])]
    blocks = [h.ljust(-(-len(h) // 2880) * 2880).encode() for h in headers]
    path.write_bytes(b"".join(blocks) + data.ljust(-(-len(data) // 2880) * 2880, b"\0"))


def ours(path: Path, shape: tuple[int, ...]) -> Pixels:
    height, width = shape
    box = Box(0, 0, width, height)
    amplifier = Amplifier("A", "A", (width, height), box, None, None, box, False, False, 1.0, 5.0, np.inf)
    with Frames() as frames:
        return frames.rows(File(str(path)), amplifier, 0, height)


TYPES = [(8, 1), (8, 2), (8, 4), (16, 1), (16, 2), (16, 4), (32, 1), (32, 2), (32, 4)]


@pytest.mark.parametrize(("bits", "size"), TYPES)
@pytest.mark.parametrize("block", [1, 7, 16, 32, 33, 64, 1000])
def test_any_block_and_bytes_a_pixel_are_as_cfitsio_reads_them(
    tmp_path: Path, bits: int, size: int, block: int
) -> None:
    pixels = image(np.random.default_rng(block), min(bits // 8, size), 21, 150, 5.0)
    written(tmp_path / "a.fits", pixels, bits, size, block)
    np.testing.assert_array_equal(ours(tmp_path / "a.fits", pixels.shape), pixels)
    np.testing.assert_array_equal(fitsio.read(str(tmp_path / "a.fits"), "A"), pixels)


CARDS = ["BZERO", "BLANK", "ZBLANK", "BSCALE", "ZSCALE", "ZZERO"]
VALUES = ["0", "1", "128", "-128", "32768", "-32768", "2147483648", "100", "2.0", "0.5", "1.0"]


@pytest.mark.parametrize(("bits", "size"), [*TYPES, (8, 0), (16, 0), (32, 0)])
@pytest.mark.parametrize("card", CARDS)
def test_cards_that_change_numbers_do_what_they_do_to_cfitsio(tmp_path: Path, bits: int, size: int, card: str) -> None:
    """Whatever value they have: cfitsio's numbers where they are whole, else an error (0: not compressed)."""
    pixels = image(np.random.default_rng(3), min(bits // 8, size or 4), 17, 50, 3.0)
    pixels[2, 3] = 100
    path, read = tmp_path / "a.fits", 0
    for value in VALUES:
        if card.endswith("BLANK") and "." in value:
            continue
        if size:
            written(path, pixels, bits, size, 32, [f"{card:8}= {value:>20}"])
        else:
            uncompressed(path, pixels, bits, [f"{card:8}= {value:>20}"])
        try:
            expected = fitsio.read(str(path), "A").astype(np.float64)
        except OSError:  # it takes the type of the result from the cards, and may find it too small
            expected = pixels * (float(value) if card == "BSCALE" else 1) + (float(value) if card == "BZERO" else 0)
            expected = expected + 0.5 if card in ("ZSCALE", "ZZERO") else expected
        if card == "BLANK" or (card == "ZBLANK" and size):
            expected[expected == float(value)] = BLANK
        expected[(expected >= BLANK) | (expected < -(2.0**31))] = BLANK
        if (expected % 1).any():
            with pytest.raises(DataError, match="a.fits: HDU A"):
                ours(path, pixels.shape)
        else:
            np.testing.assert_array_equal(ours(path, pixels.shape), expected, f"{card} {value}")
            read += 1
    assert read


@pytest.mark.parametrize(("bits", "size"), [(8, 2), (8, 4), (16, 4)])
def test_what_the_images_type_cannot_hold_is_corrupt(tmp_path: Path, bits: int, size: int) -> None:
    """As by cfitsio: more bytes a pixel than in the image, and a number that needs them."""
    pixels = image(np.random.default_rng(4), bits // 8, 9, 40, 3.0)
    pixels[5, 7] = -1 if bits == 8 else 1 << 15
    written(tmp_path / "a.fits", pixels, bits, size, 32)
    with pytest.raises(OSError, match="overflow"):
        fitsio.read(str(tmp_path / "a.fits"), "A")
    with pytest.raises(DataError, match=r"a.fits: HDU A, row 5: its tile is corrupt"):
        ours(tmp_path / "a.fits", pixels.shape)


def test_a_tile_without_a_byte_is_an_error_as_cfitsio_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    written(path, image(np.random.default_rng(4), 2, 9, 40, 3.0), 16, 2, 32)
    content = bytearray(path.read_bytes())
    content[2 * 2880 + 8 * 6 : 2 * 2880 + 8 * 6 + 4] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(OSError, match="FITSIO"):
        fitsio.read(str(path), "A")
    with pytest.raises(DataError, match=r"a.fits: HDU A, row 6: its tile is corrupt"):
        ours(path, (9, 40))


@pytest.mark.parametrize("zeros", [40, 200, 255, 256, 300])
def test_a_code_beyond_its_type_wraps_as_cfitsios(tmp_path: Path, zeros: int) -> None:
    """Codes that no encoder writes, on which two decoders should still agree."""
    nothing = "1" + "0" * 24
    text = f"{7:032b}{24 + 1:05b}" + nothing + "0" * zeros + "1" + "011" * 8 + nothing * 30 + "0" * 5
    text += "0" * (-len(text) % 8)
    tile, path = int(text, 2).to_bytes(len(text) // 8, "big"), tmp_path / "a.fits"
    write_tiles(path, [tile, encode([7] * 64, 32, 4)], (2, 64), 32, 4, 32)
    np.testing.assert_array_equal(ours(path, (2, 64)), fitsio.read(str(path), "A"))


def test_blocks_without_a_pixel_are_refused(tmp_path: Path) -> None:
    """cfitsio would search for the end of the tile without end."""
    path = tmp_path / "a.fits"
    written(path, image(np.random.default_rng(4), 2, 9, 40, 3.0), 16, 2, 32)
    path.write_bytes(path.read_bytes().replace(b"ZVAL1   =                   32", b"ZVAL1   =                    0"))
    with pytest.raises(DataError, match=r"a.fits: HDU A: its Rice blocks have no pixel"):
        ours(path, (9, 40))
