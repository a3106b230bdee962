"""Binned images against the mean of each bin's good pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.statistics.binning import binned


@settings(max_examples=60)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 25), st.integers(0, 99))
def test_masked_and_infinite_pixels_count_for_nothing(ny: int, nx: int, binning: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 10, (ny, nx)).astype(np.float32)
    mask = rng.choice([0, 0, 1, 256, -(2**31)], image.shape).astype(np.int32)
    image[mask == 256] = np.nan
    image[rng.random(image.shape) < 0.1] = np.inf
    small = binned(image, binning, mask)
    assert small.shape == (-(-ny // binning), -(-nx // binning))
    for (j, i), value in np.ndenumerate(small):
        at = slice(j * binning, (j + 1) * binning), slice(i * binning, (i + 1) * binning)
        good = image[at][(mask[at] == 0) & np.isfinite(image[at])].astype(float)
        np.testing.assert_allclose(value, good.mean() if good.size else np.nan, rtol=1e-6)


def test_a_mask_says_the_same_as_not_a_number() -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(1e4, 10, (130, 70)).astype(np.float32)
    mask = rng.integers(0, 2, image.shape, np.int32)
    blank = np.where(mask == 0, image, np.float32(np.nan))
    np.testing.assert_array_equal(binned(image, 8, mask), binned(blank, 8))


def test_sums_are_not_rounded_to_float32() -> None:
    image = np.full((64, 64), 2.0**24, np.float32)
    image[0, 0] += 4096 * 2  # in float32 sums of 2**36 this is lost
    assert binned(image, 64)[0, 0] == 2.0**24 + 2


def test_views_are_binned_as_copies_are() -> None:
    image = np.random.default_rng(6).normal(size=(40, 50)).astype(np.float32)
    mask = (image > 1).astype(np.int32)
    np.testing.assert_array_equal(binned(image.T, 8, mask.T), binned(image.T.copy(), 8, mask.T.copy()))
