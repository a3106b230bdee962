"""Binned images and focal-plane mosaics: every pixel where the geometry says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.camera import geometry
from kernels.fits import product
from kernels.products.mosaic import places
from kernels.statistics.binning import binned

PIXEL_MM = 0.01
#: Centres, mm, and yaws of detectors of 48 x 40 pixels that do not overlap.
PLACES = [((0.0, 0.0), 0.0), ((1.0, 0.1), 90.0), ((0.05, 0.9), 180.0), ((1.1, 1.0), 270.0), ((-0.9, 0.3), -90.0)]
Image = NDArray[Any]


@settings(max_examples=60)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9), st.integers(0, 99))
def test_a_bin_is_the_mean_of_its_good_pixels(ny: int, nx: int, binning: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 10, (ny, nx)).astype(np.float32)
    image[rng.random(image.shape) < 0.3] = np.nan
    small = binned(image, binning)
    assert small.dtype == np.float32
    assert small.shape == (-(-ny // binning), -(-nx // binning))
    for (j, i), value in np.ndenumerate(small):
        block = image[j * binning : (j + 1) * binning, i * binning : (i + 1) * binning].astype(float)
        good = block[np.isfinite(block)]
        np.testing.assert_allclose(value, good.mean() if good.size else np.nan, rtol=1e-6)


def test_no_binning_is_a_copy() -> None:
    image = np.ones((3, 4), np.float32)
    same = binned(image, 1)
    same[0, 0] = 5
    assert image[0, 0] == 1


def camera_of(lab: Any) -> dict[str, Any]:
    camera: dict[str, Any] = lab.camera(detectors=range(len(PLACES)))
    for detector, (position, yaw) in zip(camera["detectors"], PLACES, strict=True):
        detector |= {"position_mm": list(position), "yaw_deg": yaw}
    return camera


def focal_plane(position: tuple[float, float], yaw: float, size: tuple[int, int]) -> Image:
    """Focal-plane x and y [2, y, x] of a detector's pixels, mm: turned counter-clockwise about its centre."""
    y, x = np.indices(size[::-1]).astype(float)
    u, v = (x - (size[0] - 1) / 2) * PIXEL_MM, (y - (size[1] - 1) / 2) * PIXEL_MM
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    return np.array([position[0] + c * u - s * v, position[1] + s * u + c * v])


def mosaic_of(lab: Any, images: list[Image], binning: int, missing: int | None = None) -> Image:
    inputs, numbers = [], [d for d in range(len(images)) if d != missing]
    for d in numbers:
        path = lab.folder / f"small{binning}-{d}.fits"
        path.unlink(missing_ok=True)
        product.write(str(path), [], binned(images[d].astype(np.float32), binning))
        inputs.append(str(path))
    out = lab.folder / "mosaic.fits"
    out.unlink(missing_ok=True)
    parameters = {"detectors": numbers, "binning": binning}
    task = {"task": "mosaic:", "inputs": {"binned": inputs}, "outputs": {"m": str(out)}, "parameters": parameters,
            "provenance": {"TICKET": "DM-1"}}  # fmt: skip
    assert lab.serial(lab.job("mosaic", [task], camera=camera_of(lab))) == 0
    return np.asarray(fitsio.read(str(out), ext="IMAGE"))


@pytest.mark.parametrize("binning", [1, 4, 7])
def test_every_pixel_lies_where_its_detector_looks(lab: Any, binning: int) -> None:
    """Mosaics of the pixels' own focal-plane x and y rise by one bin a pixel, along x and y, for every yaw."""
    coordinates = [focal_plane(position, yaw, lab.size) for position, yaw in PLACES]
    x, y = (mosaic_of(lab, [c[axis] for c in coordinates], binning) for axis in (0, 1))
    good = np.isfinite(x)
    j, i = np.nonzero(good)
    expected = -(-lab.size[0] // binning) * -(-lab.size[1] // binning) * len(PLACES)
    assert good.sum() == expected, "no detector hides another"
    for values, at in ((x[good], i), (y[good], j)):
        rest = values / (PIXEL_MM * binning) - at
        assert np.ptp(rest) < 1.01 + (binning > 1), "detectors are moved to the next whole pixel, no further"


def test_what_is_not_there_is_not_a_number(lab: Any) -> None:
    images = [np.full(lab.size[::-1], d + 1.0) for d in range(len(PLACES))]
    images[3][:4, :4] = np.nan
    whole, without = mosaic_of(lab, images, 4), mosaic_of(lab, images, 4, missing=2)
    assert sorted({*whole[np.isfinite(whole)]}) == [1, 2, 3, 4, 5]
    assert np.count_nonzero(whole == 4) == 12 * 10 - 1
    assert sorted({*without[np.isfinite(without)]}) == [1, 2, 4, 5]
    with astropy_fits.open(lab.folder / "mosaic.fits", checksum=True) as fits:
        fits.verify("exception")
        header = fits[0].header
        assert (header["NDETECT"], header["BINNING"], header["TICKET"]) == (4, 4, "DM-1")


def test_places_start_at_the_corner(lab: Any) -> None:
    camera = geometry.camera(camera_of(lab))
    one = camera.detectors[0]
    shape, boxes = places(camera, [one], 8)
    assert shape == (5, 6) and boxes == [geometry.Box(0, 0, 6, 5)]
    turned = replace(one, yaw_deg=90.0)
    assert places(camera, [turned], 8)[0] == (6, 5)
    shape, boxes = places(camera, list(camera.detectors.values()), 8)
    assert min(b.x0 for b in boxes) == min(b.y0 for b in boxes) == 0
    assert shape == (max(b.y1 for b in boxes), max(b.x1 for b in boxes))


def test_a_missing_input_is_named(lab: Any, tmp_path: Path) -> None:
    inputs = {"binned": [str(tmp_path / "none.fits")]}
    task = {"task": "mosaic:", "inputs": inputs, "outputs": {"m": str(tmp_path / "m.fits")}}
    plain = lab.job("mosaic", [task | {"parameters": {"detectors": [0], "binning": 8}}])
    assert lab.serial(plain) == 1
    assert lab.journal(plain)[-1]["detail"]["error"].startswith(f"{tmp_path / 'none.fits'}: IMAGE: ")
