"""Raw frames that are read in parts: each byte once, and the DATASUM of every HDU is compared all the same."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.camera.geometry import Amplifier, Box
from kernels.errors import DataError
from kernels.fits import tiles
from kernels.fits.raw import Frames
from kernels.jobs.job import File
from tests.kernels import fitsforms

N = 6
HEIGHT, WIDTH = fitsforms.SHAPE


def _rice() -> bytes:
    return fitsforms.tiles()


def _apart() -> bytes:
    """Bytes that no tile refers to lie before the tiles."""
    return fitsforms.tiles(gap=40)


def _plain() -> bytes:
    return fitsforms.EMPTY + fitsforms.header(fitsforms.extension(16, fitsforms.SHAPE, {"EXTNAME": "A"})) + (
        fitsforms.padded(fitsforms.stored(fitsforms.image()))
    )  # fmt: skip


def _bytes() -> bytes:
    """Rows of 8 bits, which begin anywhere in a word of the sum."""
    values = (fitsforms.image() % 251).astype("u1")[:, : WIDTH - 1]
    return fitsforms.EMPTY + fitsforms.header(fitsforms.extension(8, values.shape, {"EXTNAME": "A"})) + (
        fitsforms.padded(values.tobytes())
    )  # fmt: skip


def _in_parts(path: Path, cuts: list[int], halo: int) -> np.ndarray[Any, Any]:
    """All rows of an image, read between the cuts, with more rows on both sides that do not count; then compared."""
    image = tiles.scan(str(path))["A"]
    assert isinstance(image, tiles.RowTiles) and image.datasum is not None
    size = image.width, image.height
    box, file, found, sums = Box(0, 0, *size), File(str(path)), [], []
    amplifier = Amplifier("A", "A", size, box, None, None, box, False, False, 1.0, 5.0, np.inf)
    with Frames(sums=True) as frames:
        for first, last in pairwise([0, *cuts, image.height]):
            low, high = max(0, first - halo), min(image.height, last + halo)
            stack = frames.stack([file], amplifier, low, high, summed=(first, last))
            out = np.empty((1, last - first, size[0]), np.int32)
            stack.rows(first, last, out)
            found.append(out[0])
            sums += stack.sums
        assert halo or None not in sums
        frames.compare(file, amplifier, sums)
    return np.concatenate(found)


@pytest.mark.parametrize("make", [_rice, _apart, _plain, _bytes])
def test_a_flipped_bit_is_refused_however_an_image_is_cut(make: Callable[[], bytes], tmp_path: Path) -> None:
    whole, path = fitsforms.sealed(make()), tmp_path / "a.fits"
    path.write_bytes(whole)
    image = tiles.scan(str(path))["A"]
    assert isinstance(image, tiles.RowTiles)
    pixels = fitsio.read(str(path), "A")

    @settings(max_examples=40, deadline=None)
    @given(
        cuts=st.sets(st.integers(1, image.height - 1), min_size=1).map(sorted),
        halo=st.integers(0, 2),
        place=st.integers(0, image.data_bytes - 1),
        bit=st.integers(0, 7),
    )
    def flipped(cuts: list[int], halo: int, place: int, bit: int) -> None:
        path.write_bytes(whole)
        np.testing.assert_array_equal(_in_parts(path, cuts, halo), pixels)
        broken = bytearray(whole)
        broken[image.table + place] ^= 1 << bit
        path.write_bytes(broken)
        with pytest.raises(DataError, match="HDU A"):
            _in_parts(path, cuts, halo)

    flipped()


@pytest.mark.parametrize(("card", "other"), [(b"ZBITPIX ", b"YBITPIX "), (b"'BINTABLE'", b"'BINTABLD'")])
def test_a_header_that_describes_no_image_fails_the_task(lab: Any, card: bytes, other: bytes) -> None:
    """Its data are what their DATASUM says: the header's bits alone have flipped."""
    paths = _frames(lab)
    Path(paths[3]).write_bytes(Path(paths[3]).read_bytes().replace(card, other, 1))
    plain = _job(lab, paths, "header", piece_bytes=3000)
    assert lab.serial(plain) == 1
    [failed] = [event for event in lab.journal(plain) if event["event"] == "failed"]
    assert f"{paths[3]}: HDU Segment10: " in failed["detail"]["error"]


def test_a_scale_that_is_not_sealed_is_refused(tmp_path: Path) -> None:
    """A flipped bit makes BSCALE 3, of an image whose data are what their DATASUM says."""
    more, shape, data = (
        {"EXTNAME": "A", "BSCALE": 1},
        fitsforms.SHAPE,
        fitsforms.padded(fitsforms.stored(fitsforms.image())),
    )
    path = tmp_path / "a.fits"
    path.write_bytes(fitsforms.EMPTY + fitsforms.header(fitsforms.extension(16, shape, more)) + data)
    with fitsio.FITS(str(path), "rw") as fits:
        fits[1].write_checksum()
    whole, card = path.read_bytes(), b"BSCALE  =                    1"
    assert card in whole
    box = Box(0, 0, *shape[::-1])
    amplifier = Amplifier("A", "A", shape[::-1], box, None, None, box, False, False, 1.0, 5.0, np.inf)
    with Frames() as frames:
        assert frames.rows(File(str(path)), amplifier, 0, 4).any()
    path.write_bytes(whole.replace(card, card[:-1] + b"3"))
    with Frames() as frames, pytest.raises(DataError, match="HDU A: BSCALE is 3, and the header is not what"):
        frames.rows(File(str(path)), amplifier, 0, 4)


def _frames(lab: Any, n: int = N) -> list[str]:
    rng, paths = np.random.default_rng(5), []
    for k in range(n):
        paths.append(lab.write(f"bias{k}.fits", lab.expose(rng, 0.0)))
        with fitsio.FITS(paths[-1], "rw") as fits:
            for hdu in fits:
                hdu.write_checksum()
    return paths


def _job(lab: Any, paths: list[str], name: str, **config: Any) -> dict[str, Any]:
    task = {
        "task": "bias:0", "detector": 0, "inputs": {"raw": paths}, "parameters": lab.parameters(len(paths)),
        "outputs": {"bias": str(lab.folder / name / "bias.fits")},
    }  # fmt: skip
    plain: dict[str, Any] = lab.job("combine", [task], name=name, config={"type": "bias", **config})
    return plain


def _read_bytes() -> int:
    """Bytes that this process has read so far, from wherever."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


@pytest.mark.parametrize("parallel", [False, True])
def test_a_pass_reads_the_raws_once(lab: Any, parallel: bool) -> None:
    """In pieces or not, headers included; the rows of a parallel overscan are read twice where there are pieces."""
    paths = _frames(lab, 2 * N)
    for block in (1 << 24, 3000):
        used = []
        for n in (2 * N, N, 2 * N):  # the first turn also imports, and loads what is compiled
            name = f"{block}-{len(used)}"
            plain = _job(lab, paths[:n], name, piece_bytes=block * n, isr=lab.isr | {"parallel": parallel})
            before = _read_bytes()
            assert lab.serial(plain) == 0
            used.append(_read_bytes() - before)
        more = sum(Path(path).stat().st_size for path in paths[N:])
        assert 0.8 * more < used[2] - used[1] < 1.1 * more


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.processes
def test_a_bit_that_no_pixel_depends_on_fails_the_task(lab: Any, ranks: int) -> None:
    """It lies behind the tiles of an HDU that is read in pieces; on two ranks, one has its first rows alone."""
    paths = _frames(lab)
    image = tiles.scan(paths[3])["Segment01"]
    assert isinstance(image, tiles.RowTiles)
    data = bytearray(Path(paths[3]).read_bytes())
    data[image.table + image.data_bytes - 1] ^= 1
    Path(paths[3]).write_bytes(data)
    plain = _job(lab, paths, "flipped", piece_bytes=3000)
    assert (lab.serial(plain) if ranks == 1 else lab.mpi(plain, ranks).returncode) == 1
    [failed] = [event for event in lab.journal(plain) if event["event"] == "failed"]
    assert failed["detail"]["error"] == (f"{paths[3]}: HDU Segment01: corrupt, its data are not those of its DATASUM")
    assert not list((lab.folder / "flipped").glob("*.fits"))
