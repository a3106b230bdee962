"""Rubin's own reader of images, from its distribution `lsst-images`, reads our products whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels.fits import product
from kernels.fits.product import PLANES

images = pytest.importorskip("lsst.images", reason="no lsst-images here (Python 3.12, the extra `judge`)")

#: Names that it gives to planes, where they are not afw's.
NAMES = {"SAT": "SATURATED", "INTRP": "INTERPOLATED", "CR": "COSMIC_RAY", "EDGE": "DETECTION_EDGE"}


@pytest.mark.parametrize("unit", ["electron", "adu", "electron/s", "adu/s", "1"])
def test_every_pixel_plane_and_variance_is_read(tmp_path: Path, unit: str) -> None:
    rng, shape = np.random.default_rng(7), (31, 23)
    image, variance = rng.normal(size=shape).astype("f4"), rng.gamma(3.0, size=shape).astype("f4")
    mask = np.zeros(shape, "i4")
    for bit in PLANES.values():
        mask |= (rng.uniform(size=shape) < 0.3).astype("i4") << bit
    path = tmp_path / "bias.fits"
    cards = [("OBSTYPE", "bias", ""), ("BUNIT", unit, ""), ("AMP_C00_READNOISE", 5.5, "a long keyword")]
    product.write(str(path), cards, image, mask, variance)
    found = images.MaskedImage.read_legacy(str(path))
    np.testing.assert_array_equal(found.image.array, image)
    np.testing.assert_array_equal(found.variance.array, variance)
    assert (found.bbox.x.start, found.bbox.y.start) == (0, 0)
    assert found.image.unit is not None and found.variance.unit == found.image.unit**2
    for plane, bit in PLANES.items():
        np.testing.assert_array_equal(found.mask.get(NAMES.get(plane, plane)), (mask >> bit & 1).astype(bool))
