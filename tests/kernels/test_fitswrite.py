"""Files written block by block equal those of cfitsio, byte for byte where it matters."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.fits import seal
from kernels.fits import write as fitswrite

IMAGES = {
    "less than a block": np.arange(7 * 3, dtype="i4").reshape(7, 3) - 9,
    "exactly a record": np.arange(20 * 36, dtype="f4").reshape(20, 36),
    "a few blocks": np.random.default_rng(2).normal(size=(401, 499)).astype("f4"),
    "more than a window": np.random.default_rng(3).integers(-(2**31), 2**31, (1100, 1001), "i4"),
    "zeros": np.zeros((300, 300), "i4"),
    "a transposed view": np.random.default_rng(4).normal(size=(30, 40)).astype("f4").T,
    "big-endian": np.arange(50, dtype=">f4").reshape(5, 10),
}
assert IMAGES["more than a window"].nbytes > fitswrite.WINDOW


def units(image: NDArray[Any]) -> list[fitswrite.Unit]:
    def describe(fits: fitsio.FITS) -> None:
        fits.write(None)
        fits.write(np.zeros((1, 1), image.dtype.newbyteorder("=")), extname="IMAGE")

    empty, cards = seal.headers(describe)
    return [(empty, None), (cards, image)]


def hdus(path: Path) -> list[bytes]:
    with fitsio.FITS(str(path)) as fits:
        places = [hdu.get_offsets() for hdu in fits]
    data = path.read_bytes()
    assert places[-1]["data_end"] == len(data)
    return [data[p["header_start"] : p["data_end"]] for p in places]


@pytest.mark.parametrize("name", IMAGES)
def test_the_file_is_cfitsios_but_for_the_checksums_comments(tmp_path: Path, name: str) -> None:
    image, mine, theirs = IMAGES[name], tmp_path / "mine.fits", tmp_path / "theirs.fits"
    digest = fitswrite.write(str(mine), units(image))
    assert digest == hashlib.sha256(mine.read_bytes()).hexdigest()
    with fitsio.FITS(str(theirs), "rw") as fits:
        fits.write(None)
        fits.write(np.ascontiguousarray(image, image.dtype.newbyteorder("=")), extname="IMAGE")
        for hdu in fits:
            hdu.write_checksum()
    with fitsio.FITS(str(mine)) as a, fitsio.FITS(str(theirs)) as b:
        for x, y in zip(a, b, strict=True):
            x.verify_checksum()
            assert int(x.read_header()["DATASUM"]) == int(y.read_header()["DATASUM"])
        np.testing.assert_array_equal(a["IMAGE"].read(), image)
    volatile = (b"CHECKSUM", b"DATASUM ")
    for x, y in zip(hdus(mine), hdus(theirs), strict=True):
        assert len(x) == len(y)
        pairs = zip(*([d[k : k + 80] for k in range(0, len(d), 80)] for d in (x, y)), strict=True)
        assert [p for p in pairs if p[0] != p[1] and not p[0].startswith(volatile)] == []


def test_checksums_are_encoded_as_cfitsio_encodes_them(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    with fitsio.FITS(str(path), "rw") as fits:
        for seed in range(40):
            fits.write(np.random.default_rng(seed).integers(0, 9, (5, 5), "i4"))
        for hdu in fits:
            hdu.write_checksum()
    for data in hdus(path):
        at = data.index(b"CHECKSUM= '") + 11
        assert seal.encode(seal.ones_sum(data[:at] + b"0" * 16 + data[at + 16 :])).encode() == data[at : at + 16]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_a_sum_of_words_does_not_overflow(words: list[int]) -> None:
    assert fitswrite.add_words(np.array(words, np.uint32)) == sum(words)


@pytest.mark.parametrize("size", [fitswrite.WORDS + d for d in (-1, 0, 1, 2)])
def test_the_largest_words_add_up(size: int) -> None:
    assert fitswrite.add_words(np.full(size, 2**32 - 1, np.uint32)) == size * (2**32 - 1)


def test_what_the_disk_takes_in_pieces_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal or a quota may cut a write short."""
    whole, write = IMAGES["a few blocks"], os.write
    expected = fitswrite.write(str(tmp_path / "a"), units(whole))
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:9999]))
    assert fitswrite.write(str(tmp_path / "b"), units(whole)) == expected
    assert hashlib.sha256((tmp_path / "b").read_bytes()).hexdigest() == expected
