"""Every form of FITS in the wild: the pixels are those of astropy, or the refusal gives the reason."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Box
from kernels.errors import DataError
from kernels.fits import identity, product
from kernels.fits.raw import Frames
from kernels.fits.rowbytes import BLANK
from kernels.jobs.job import File
from kernels.products import headers
from tests.kernels import fitsforms
from tests.kernels.fitsforms import FORMS, HEIGHT, NAMES, SHAPE, WIDTH, Form


def frame(hdu: int | str) -> Amplifier:
    box = Box(0, 0, WIDTH, HEIGHT)
    return Amplifier("A", hdu, (WIDTH, HEIGHT), box, None, None, box, False, False, 1.0, 5.0, np.inf)


def read(path: Path, hdu: int | str) -> NDArray[np.int32]:
    """The whole image, and some of its rows by themselves, which must be the same."""
    with Frames() as frames:
        file = File(str(path), path.stat().st_size)
        some = frames.rows(file, frame(hdu), 7, 12)
        whole = frames.rows(file, frame(hdu), 0, HEIGHT)
        np.testing.assert_array_equal(some, whole[7:12])
        np.testing.assert_array_equal(frames.rows(file, frame(hdu), 7, 12), some)
    return whole


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_pixels_are_those_that_were_written(form: Form, tmp_path: Path) -> None:
    path = fitsforms.write(form, tmp_path)
    if form.pixels is None:
        with pytest.raises(DataError, match=form.why) as caught:
            read(path, form.hdu)
        assert caught.value.path == str(path)
    else:
        np.testing.assert_array_equal(read(path, form.hdu), form.pixels)


@pytest.mark.parametrize("form", [f for f in FORMS if f.astropy is not None], ids=lambda form: form.name)
def test_astropy_reads_the_same(form: Form, tmp_path: Path) -> None:
    path = fitsforms.write(form, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as hdus:
            found = np.asarray(hdus[form.astropy].data, np.float64).reshape(SHAPE)
            stored = hdus[form.astropy].header.get("BLANK")
    assert form.pixels is not None
    good = np.isfinite(found) if stored is None else np.isfinite(found) & (form.pixels != BLANK)
    np.testing.assert_array_equal(form.pixels[good], found[good])
    np.testing.assert_array_equal(form.pixels[~good], BLANK)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_ingest_finds_what_a_task_would_find(form: Form, tmp_path: Path) -> None:
    """Whatever cannot be read is known before a task is planned, but for a flipped bit, which takes all of the data."""
    path, why = fitsforms.write(form, tmp_path), ""
    try:
        found = headers.read(str(path), [])
    except DataError as error:
        why = error.why
    else:
        named = [h for h in found["hdus"] if form.hdu in (h["hdu"], (h["extname"] or "").upper())]
        if len(named) == 1 and named[0]["shape"] == [WIDTH, HEIGHT]:
            why = named[0]["unreadable"] or ""
        elif form.pixels is not None:
            why = f"{named}"
        else:
            return  # the camera's shape or name is missing, which `campaign.camera.translation` reports
    if form.pixels is not None or form in fitsforms.SUMS or "no image" in form.why:
        assert why == ""
    else:
        assert why


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["bitpix16", "GZIP_2-of-5x9", "gzip"])
def test_a_path_is_a_path(name: str, form: str, tmp_path: Path) -> None:
    """Whatever its name, and with another file where cfitsio would have looked."""
    chosen, path = next(f for f in FORMS if f.name == form), tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(chosen.data)
    assert chosen.pixels is not None
    np.testing.assert_array_equal(read(path, chosen.hdu), chosen.pixels)
    with pytest.raises(DataError, match="No such file"), Frames() as frames:
        frames.rows(File(f"{path}[0]"), frame(0), 0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_product_has_any_path(name: str, tmp_path: Path) -> None:
    path, image = tmp_path / name, np.arange(12, dtype=np.float32).reshape(3, 4)
    path.parent.mkdir(exist_ok=True)
    product.write(str(path), [("CALUNIT", "adu", "")], image)
    np.testing.assert_array_equal(product.Product.open(str(path), "adu").read(Box(1, 1, 3, 2)), image[1:, 1:])


CARDS = [
    *("LONG    = 'a value that &'", "CONTINUE  'goes on''s &'", "CONTINUE  '' / nothing", "CONTINUE  'not to this'"),
    *("AMP     = 'this &that&'", "", "NEXT    = 'x'", "CONTINUE  'nothing to continue'"),
    *("HIERARCH ESO  DET OUT1 NAME = 'long &'", "CONTINUE  'name'", "EXPTIME = 1.5D1", "QUOTE   = 'it''s'"),
    *("TWICE   = 'one&'", "TWICE   = 'two&'", "CONTINUE  'three'", "BARE    = bias", "IMAGETYP= 'Bias Frame'"),
]
WANTED = {
    "LONG": "a value that goes on's", "AMP": "this &that&", "NEXT": "x", "ESO DET OUT1 NAME": "long name",
    "EXPTIME": 15.0, "QUOTE": "it's", "TWICE": "one&", "IMAGETYP": "Bias Frame",
}  # fmt: skip


def with_cards(extension: bool) -> bytes:
    """A frame with its keywords in the primary header, or in its only extension."""
    cards = [card.ljust(80).encode() for card in CARDS]
    make = fitsforms.extension if extension else fitsforms.primary
    of_image = [fitsforms.card(key, value) for key, value in make(16, SHAPE).items()]
    data = fitsforms.header([*of_image, *cards]) + fitsforms.padded(fitsforms.stored(fitsforms.image()))
    return fitsforms.EMPTY + data if extension else data


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("source", [0, 1, "AMP1"], ids=str)
def test_values_are_whole_wherever_they_stand(source: int | str, packed: bool, tmp_path: Path) -> None:
    data = with_cards(source != 0)
    if source == "AMP1":
        data = data.replace(b"GCOUNT  =                    1".ljust(80), b"EXTNAME = 'Amp1'".ljust(80), 1)
    path = tmp_path / "a.fits"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert headers.read(str(path), list(WANTED), [source])["headers"] == WANTED
    with pytest.raises(DataError, match="BARE is bias, which is no FITS value"):
        headers.read(str(path), ["BARE"], [source])
    detector: Any = type("Named", (), {"name": "it's", "id": 3})()
    rule = {"accept": {"LONG": [WANTED["LONG"]]}, "detector": ["QUOTE"], "headers": [source]}
    identity.require(str(path), rule, detector)
    with pytest.raises(DataError, match="a frame of another camera"):
        identity.require(str(path), rule | {"accept": {"NEXT": ["y"]}}, detector)


def test_keywords_of_an_hdu_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(with_cards(True))
    with pytest.raises(DataError, match="HDU AMP7: there is none of that name"):
        headers.read(str(tmp_path / "a.fits"), ["LONG"], ["AMP7"])
