"""Every reader gets the same from a product as if cfitsio had written it."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.units import Unit

from kernels.calibrations.applied import Calibrations
from kernels.calibrations.defects import Defects
from kernels.camera import geometry
from kernels.camera.geometry import Box
from kernels.errors import DataError
from kernels.fits import product
from kernels.fits.product import BAD, PLANES, Card

CARDS: list[Card] = [
    ("OBSTYPE", "bias", "calibration product"),
    ("BUNIT", "electron", "unit of IMAGE; VARIANCE is its square"),
    ("A_LONG_KEYWORD", "x" * 150, "and a comment"),
    ("CPP_INPUT_SCALE_12", 1.0000001, "pixels were divided by it"),
    ("LSST BUTLER INPUT 0 RUN", "a/run/with 'quotes' & ampersands &", ""),
    ("LONGCOM", "v" * 40, "c" * 60),
    ("N", 3, ""),
    ("NEGATIVE", -(2**40), "a 64-bit integer"),
    ("SMALL", 1e-30, ""),
    ("YES", True, "a logical"),
    ("EMPTY", "", ""),
]
RNG = np.random.default_rng(1)
IMAGE, VARIANCE = (RNG.normal(size=(30, 20)).astype("f4") for _ in range(2))
MASK = (IMAGE > 1).astype("i4")
#: Their comments say when cfitsio computed them.
SUMS = ["CHECKSUM", "DATASUM"]


def by_cfitsio(path: Path, **images: Any) -> None:
    """The same product, written HDU by HDU."""
    with fitsio.FITS(str(path), "rw") as fits:
        fits.write(None, header=[{"name": n, "value": v, "comment": c} for n, v, c in CARDS])
        for name, pixels in images.items():
            fits.write(pixels, extname=name)
            for key, value, comment in product.described(name, "electron"):
                fits[-1].write_key(key, value, comment=comment)
        for hdu in fits:
            hdu.write_checksum()


def cards_of(hdu: Any) -> list[str]:
    return [record["card_string"] for record in hdu.read_header().records() if record["name"] not in SUMS]


@pytest.mark.parametrize("planes", [(None, None), (MASK, None), (None, VARIANCE), (MASK, VARIANCE)])
def test_a_product_reads_as_one_of_cfitsios(tmp_path: Path, planes: tuple[Any, Any]) -> None:
    mine, theirs = tmp_path / "mine.fits", tmp_path / "theirs.fits"
    product.write(str(mine), CARDS, IMAGE, *planes)
    by_cfitsio(
        theirs, IMAGE=IMAGE, **{n: p for n, p in zip(("MASK", "VARIANCE"), planes, strict=True) if p is not None}
    )
    difference = astropy_fits.FITSDiff(str(mine), str(theirs), ignore_keywords=SUMS)
    assert difference.identical, difference.report()
    with fitsio.FITS(str(mine)) as a, fitsio.FITS(str(theirs)) as b:
        for x, y in zip(a, b, strict=True):
            x.verify_checksum()
            assert cards_of(x) == cards_of(y)


def test_the_checksums_and_the_values_hold_for_astropy(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    product.write(str(path), CARDS, IMAGE, MASK, VARIANCE)
    with astropy_fits.open(path, checksum=True) as fits:  # a wrong sum is a warning, and a warning an error
        fits.verify("exception")
        assert [hdu.name for hdu in fits] == ["PRIMARY", "IMAGE", "MASK", "VARIANCE"]
        assert {name: fits[0].header[name] for name, _, _ in CARDS} == {name: value for name, value, _ in CARDS}
        assert {plane: fits["MASK"].header[f"MP_{plane}"] for plane in PLANES} == PLANES


def test_pixels_are_of_afws_types_whatever_comes(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    product.write(str(path), [], IMAGE.astype("f8")[::2], (MASK > 0)[::2], VARIANCE[::2])  # type: ignore[arg-type]
    with fitsio.FITS(str(path)) as fits:
        assert [fits[n].read().dtype for n in (1, 2, 3)] == ["f4", "i4", "f4"]
        for n, pixels in enumerate((IMAGE, MASK, VARIANCE), 1):
            np.testing.assert_array_equal(fits[n].read(), pixels[::2])


def test_the_same_product_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = {product.write(str(tmp_path / name), CARDS, IMAGE, MASK) for name in "ab"}
    assert len(digests) == 1
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_value_that_fits_cannot_say_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="NaN"):
        product.write(str(tmp_path / "a"), [("LEVEL", float("nan"), "")], IMAGE)


def test_a_box_is_read_back(tmp_path: Path) -> None:
    path, box = str(tmp_path / "a.fits"), Box(3, 5, 10, 20)
    product.write(path, [("CALUNIT", "electron", "")], IMAGE, MASK)
    opened = product.Product.open(path, "electron")
    np.testing.assert_array_equal(opened.read(box), IMAGE[box.slices])
    np.testing.assert_array_equal(opened.read(box, "MASK"), MASK[box.slices])
    with pytest.raises(DataError, match="IMAGE is 20 x 30 pixels: of another detector type"):
        opened.read(Box(0, 0, 21, 30))
    with pytest.raises(DataError, match=r"is in electron \(CALUNIT\), the frames it is to correct are in adu"):
        product.Product.open(path, "adu")


BOXES = [Box(3, 5, 10, 20), Box(0, 0, 20, 30), Box(0, 7, 20, 1), Box(19, 29, 1, 1)]


@pytest.mark.parametrize("box", BOXES)
def test_own_files_are_read_as_cfitsio_reads_them(tmp_path: Path, box: Box) -> None:
    path, image, mask = str(tmp_path / "a.fits"), IMAGE.copy(), MASK << np.int32(3) | RNG.integers(0, 9, MASK.shape)
    image[5:8, 3:9] = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.0e38]
    product.write(path, [("CALUNIT", "electron", "")], image, mask.astype(np.int32), VARIANCE)
    opened = product.Product.open(path, "electron")
    assert opened.planes.keys() == {"IMAGE", "MASK", "VARIANCE"}
    for hdu in opened.planes:
        found, expected = opened.read(box, hdu), product.read(path, box, hdu)
        assert found.tobytes() == expected.astype(found.dtype).tobytes() and found.dtype.isnative
    for bits in (BAD, BAD << 3, BAD | 1 << 9):
        np.testing.assert_array_equal(opened.flagged(box, bits), (product.read(path, box, "MASK") & bits) != 0)


def test_files_of_another_layout_are_left_to_cfitsio(tmp_path: Path) -> None:
    """Scaled, of other numbers, of more axes, packed by tiles or as a whole, twice of one name."""
    scaled, cube = {"BSCALE": 2.0}, np.stack([IMAGE, IMAGE])
    forms: dict[str, list[tuple[Any, dict[str, Any]]]] = {
        "scaled": [(IMAGE, {"header": scaled})],
        "of 64 bits": [(IMAGE.astype("f8"), {})],
        "of 16 bits": [(MASK.astype("i2"), {})],
        "unsigned": [(MASK.astype("u4"), {})],
        "a cube": [(cube, {})],
        "packed by tiles": [(MASK, {"compress": "RICE"})],
        "twice": [(IMAGE, {}), (VARIANCE, {})],
    }
    for name, images in forms.items():
        path = tmp_path / f"{name}.fits"
        with fitsio.FITS(str(path), "rw") as fits:
            fits.write(None, header={"CALUNIT": "adu"})
            for pixels, how in images:
                fits.write(pixels, extname="IMAGE", **how)
            fits.write(MASK, extname="MASK")
        opened, box = product.Product.open(str(path), "adu"), Box(1, 2, 15, 20)
        assert opened.planes.keys() == {"MASK"}, name
        if name != "a cube":
            np.testing.assert_array_equal(opened.read(box), product.read(str(path), box))
        packed = tmp_path / f"{name}.fits.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert not product.Product.open(str(packed), "adu").planes


def test_a_file_that_was_cut_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    product.write(str(path), [("CALUNIT", "adu", "")], IMAGE)
    opened = product.Product.open(str(path), "adu")
    os.truncate(path, path.stat().st_size - 2880)
    for box in BOXES[:2]:
        with pytest.raises(DataError, match="truncated"):
            opened.read(box)


def test_flags_of_a_detector_are_those_of_all_its_calibrations(tmp_path: Path, lab: Any) -> None:
    detector = geometry.camera(lab.camera()).detectors[1]
    masks = [np.where(RNG.random(lab.size[::-1]) < 0.2, RNG.integers(0, 4, lab.size[::-1]), 0) for _ in range(2)]
    opened = []
    for name, mask in zip("ab", masks, strict=True):
        product.write(str(tmp_path / name), [("CALUNIT", "adu", "")], np.zeros(mask.shape, "f4"), mask.astype("i4"))
        opened.append(product.Product.open(str(tmp_path / name), "adu"))
    defects = Defects(np.array([[5, 3, 17, 4]]))
    calibrations = Calibrations(detector, *opened, defects=defects)
    for box in [a.target for a in detector.amplifiers] + [Box(5, 3, 9, 30), Box(0, 0, *detector.size)]:
        expected = ((masks[0] | masks[1])[box.slices] & BAD != 0) | defects.mask(box)
        np.testing.assert_array_equal(calibrations.flagged(box), expected)


@pytest.mark.parametrize(
    ("unit", "square"),
    [("electron", "electron2"), ("adu/s", "adu2/s2"), ("1", "1"), ("electron m-2", ""), ("", "")],
)
def test_the_square_of_a_unit_is_one_that_astropy_knows(unit: str, square: str) -> None:
    assert product.squared(unit) == square
    assert not square or Unit(square) == Unit(unit) ** 2


@pytest.mark.parametrize("unit", ["electron", "adu/s", "1"])
def test_astropy_reads_every_pixel_with_its_unit_mask_and_variance(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.fits"
    product.write(str(path), [("BUNIT", unit, "")], IMAGE, MASK * 256, VARIANCE)
    found = CCDData.read(path, hdu_uncertainty="VARIANCE")
    assert found.unit == Unit(unit)
    assert isinstance(found.uncertainty, VarianceUncertainty)
    np.testing.assert_array_equal(found.data, IMAGE)
    np.testing.assert_array_equal(found.mask, MASK != 0)
    np.testing.assert_array_equal(found.uncertainty.array, VARIANCE)
    with astropy_fits.open(path) as fits:
        assert Unit(fits["VARIANCE"].header["BUNIT"]) == Unit(unit) ** 2
