"""Percentiles by histogram against numpy's, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.statistics.percentiles import percentiles

PERCENTS = (0, 5, 16, 50, 84, 95, 100)
LARGEST = float(np.finfo("f4").max)
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "normal": lambda rng, n: rng.normal(1000, 5, n),
    "about zero": lambda rng, n: rng.normal(0, 1e-3, n),
    "counts": lambda rng, n: rng.poisson(3, n),
    "one value": lambda rng, n: np.full(n, 7.25),
    "two values": lambda rng, n: rng.integers(0, 2, n),
    "hot pixels": lambda rng, n: rng.normal(0, 5, n) + 6e4 * (rng.random(n) < 1e-3),
    "a ramp": lambda rng, n: np.arange(n),
    "heavy tails": lambda rng, n: np.clip(rng.standard_cauchy(n) ** 5, -LARGEST, LARGEST),
    "the largest": lambda rng, n: rng.choice([-LARGEST, 0.0, 1e-45, LARGEST], n),
}


def agree(image: NDArray[np.float32], mask: NDArray[np.int32], box: Box) -> bool:
    """Compare values and count with numpy's, bit for bit."""
    good = image[box.slices][mask[box.slices] == 0]
    good = good[np.isfinite(good)]
    values, n = percentiles(image, mask, box, PERCENTS)
    with np.errstate(over="ignore"):
        theirs = np.percentile(good, PERCENTS) if good.size else np.zeros(len(PERCENTS))
    return n == good.size and np.array_equal(values, theirs, equal_nan=True)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_they_are_numpys(name: str, share: float) -> None:
    rng = np.random.default_rng(8)
    image = np.asarray(DISTRIBUTIONS[name](rng, 310 * 270), np.float32).reshape(310, 270)
    mask = np.where(rng.random(image.shape) < share, 1 << 8, 0).astype(np.int32)
    image[mask > 0] = 1e9
    assert agree(image, mask, Box(20, 10, 241, 299))


@settings(max_examples=100)
@given(st.lists(st.floats(width=32), min_size=1, max_size=60), st.integers(0, 2**60 - 1))
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_few_pixels_of_any_value(pixels: list[float], bits: int) -> None:
    """Also none good, one good, signed zeros and values that are not finite."""
    image = np.array([pixels], np.float32)
    mask = np.array([[bits >> k & 1 for k in range(len(pixels))]], np.int32)
    assert agree(image, mask, Box(0, 0, len(pixels), 1))


def test_views_will_do() -> None:
    image = np.random.default_rng(9).normal(size=(60, 80)).astype(np.float32)
    mask = (image > 2).astype(np.int32)
    assert agree(image.T, mask.T, Box(3, 4, 50, 70))


def test_a_box_beyond_the_image_is_its_part_inside() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    values, good = percentiles(image, np.zeros((3, 4), np.int32), Box(2, 1, 9, 9), (0, 100))
    assert (list(values), good) == ([6, 11], 4)
