"""Mean and count of a large sample, by a thin sample and one pass, against the passes over all pixels: bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.statistics import level, pool
from kernels.statistics.clip import IQR_TO_SIGMA
from kernels.statistics.sample import clipped_mean

SHAPE = (310, 270)
Rng = np.random.Generator
#: Whether a thin sample must do, whatever the seed.
FLATS: dict[str, Callable[[Rng, int], Any]] = {
    "normal": lambda rng, n: rng.normal(20000, 140, n),
    "whole numbers": lambda rng, n: rng.poisson(20000, n),
    "hot pixels": lambda rng, n: rng.normal(900, 30, n) + 6e4 * (rng.random(n) < 1e-2),
    "a gradient": lambda rng, n: rng.normal(1, 0.01, n) * np.linspace(2e4, 3e4, n),
    "two levels": lambda rng, n: rng.normal(1, 0.01, n) * np.where(np.arange(n) % 3, 2.0e4, 2.1e4),
    "faint and deep": lambda rng, n: rng.normal(1e-30, 1e-32, n),
    "the brightest": lambda rng, n: rng.normal(1e38, 1e36, n),
}
ODD: dict[str, Callable[[Rng, int], Any]] = {
    "about zero": lambda rng, n: rng.normal(0, 5, n),
    "one value": lambda rng, n: np.full(n, 7.25),
    "few counts": lambda rng, n: rng.poisson(3, n),
    "many magnitudes": lambda rng, n: 10 ** rng.uniform(-30, 30, n),
    "below zero": lambda rng, n: rng.normal(-1000, 5, n),
    "in steps": lambda rng, n: np.repeat(rng.normal(1000, 5, n // 90 + 1), 90)[:n],
    "heavy tails": lambda rng, n: 1000 + np.clip(rng.standard_cauchy(n) ** 3, -1e30, 1e30),
}


def sample(made: Any, rng: Rng, lacking: float) -> NDArray[np.float32]:
    """An image with a part of its pixels saturated or blank, and a few infinite."""
    image = np.asarray(made, np.float32).reshape(SHAPE)
    image[rng.random(SHAPE) < lacking] = np.nan
    image[rng.random(SHAPE) < lacking / 100] = np.inf
    return image


def same(image: NDArray[np.float32], box: Box | None = None, nsigma: float = 3.0, passes: int = 3) -> bool:
    """Compare with the passes over all pixels."""
    mean, _, count = clipped_mean(image, box, nsigma, passes)
    return bool(np.array_equal(level.clipped_level(image, box, nsigma, passes), (mean, count), equal_nan=True))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([*FLATS, *ODD]),
    st.integers(0, 9999),
    st.sampled_from([0.0, 1e-3, 0.3, 1.0]),
    st.sampled_from([1.5, 3.0, 6.0]),
    st.integers(1, 5),
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_bits_are_those_of_all_passes(name: str, seed: int, lacking: float, nsigma: float, passes: int) -> None:
    rng = np.random.default_rng(seed)
    image = sample((FLATS | ODD)[name](rng, SHAPE[0] * SHAPE[1]), rng, lacking)
    assert same(image, None, nsigma, passes)
    image[rng.integers(SHAPE[0]), rng.integers(SHAPE[1])] = -np.inf
    assert same(image, Box(3, 1, 261, 307), nsigma, passes)


@pytest.mark.parametrize("name", FLATS)
@pytest.mark.parametrize("lacking", [0.0, 0.3])
def test_a_thin_sample_will_do_for_a_flat(name: str, lacking: float) -> None:
    rng = np.random.default_rng(5)
    image = sample(FLATS[name](rng, SHAPE[0] * SHAPE[1]), rng, lacking)
    box = Box(1, 2, 265, 300)
    found = level._quick(image, box, 3.0, 3, level.thinned(image, box))
    mean, _, count = clipped_mean(image, box, 3.0, 3)
    assert found == (mean, count)


@pytest.mark.parametrize("beyond", [0, 1, 5])
def test_pixels_at_a_limit_and_beside_it(beyond: int) -> None:
    """Pixels lie at the first limits to the bit, or a few steps of float32 outside of them."""
    nsigma, rng = 4 / IQR_TO_SIGMA, np.random.default_rng(7)
    assert nsigma * IQR_TO_SIGMA == 4
    image = np.concatenate([1024 + np.arange(-64, 65).repeat(640) / 8, rng.normal(1024, 5, 1190)]).astype(np.float32)
    image = image[: SHAPE[0] * SHAPE[1]].reshape(SHAPE)
    lower, middle, upper = np.percentile(image.astype(np.float64), (25, 50, 75))
    ends = np.array([middle - 4 * (upper - lower), middle + 4 * (upper - lower)]).astype(np.float32)
    assert abs(float(ends[1] - middle)) == 4 * (upper - lower)
    for _ in range(beyond):
        ends = np.nextafter(ends, np.array([0, 4096], np.float32))
    image[::31, 5] = np.resize(ends, 10)
    assert same(image, None, nsigma, 1) and same(image, None, nsigma, 3)
    box = Box(0, 0, SHAPE[1], SHAPE[0])
    assert level._quick(image, box, nsigma, 1, level.thinned(image, box)) is not None


def test_a_limit_in_doubt_is_not_taken() -> None:
    """Were the sums of squares known to a percent only, pixels would lie between the limits that this allows."""
    rng = np.random.default_rng(8)
    thin = rng.normal(2000, 40, 90_000).astype(np.float32)
    guess = level.Guess.of(thin, 3.0, 3)
    part = level.scan(thin.reshape(300, 300), Box(0, 0, 300, 300), guess)
    assert part is not None
    limit = 3 * IQR_TO_SIGMA * float(np.subtract(*np.percentile(thin, (75, 25))))
    exact, rough = (level._Found(guess, part.kept, part.sums, rounding) for rounding in (1e-12, 1e-2))
    assert exact.clipped(guess.base, limit, 3.0, 3) is not None
    assert rough.clipped(guess.base, limit, 3.0, 3) is None
    assert rough.clipped(guess.base, 2 * limit, 3.0, 3) is None


def exposure(rng: Rng, light: float, tilt: float = 0.0) -> list[NDArray[np.float32]]:
    """Three parts of unlike response, the last one dark, in which light grows by ``tilt`` along the columns."""
    parts = []
    for response in (1.0, 1.02, 0.0):
        level = light * response * (1 + tilt * np.linspace(-1, 1, SHAPE[1]))
        parts.append(rng.normal(level, np.sqrt(level) + 1, SHAPE).astype(np.float32))
    return parts


def pooled(before: list[NDArray[np.float32]], now: list[NDArray[np.float32]]) -> tuple[float, int] | None:
    """Pool all parts but the dark one by those of another exposure."""
    box, pixels = Box(0, 0, *SHAPE[::-1]), SHAPE[0] * SHAPE[1]
    means = [level.clipped_level(part)[0] for part in before]
    earlier = pool.Earlier([pixels, pixels, 0], means, [level.thinned(part, box) for part in before])
    assert earlier.some
    whole = pool.Pool(earlier, 3.0, 3)
    for k, part in enumerate(now):
        whole.add(k, part, box, level.clipped_level(part)[0])
    return whole.level()


@pytest.mark.parametrize("ratio", [0.6, 1.0, 1.7])
def test_parts_are_measured_by_an_earlier_exposure(ratio: float) -> None:
    """Other light, another noise, and pixels that are saturated now: the bits are those of all pixels at once."""
    rng = np.random.default_rng(9)
    before, now = exposure(rng, 2e4), exposure(rng, ratio * 2e4)
    now[1][rng.random(SHAPE) < 1e-3] = np.nan
    mean, _, count = clipped_mean(np.concatenate(now[:2]), None, 3.0, 3)
    assert pooled(before, now) == (mean, count)


def test_an_unlike_exposure_is_not_measured_by_brackets() -> None:
    rng = np.random.default_rng(10)
    before = exposure(rng, 2e4)
    assert pooled(before, exposure(rng, 5e4)) is None
    assert pooled(before, exposure(rng, 2e4, 0.05)) is None
    infinite = exposure(rng, 2e4)
    infinite[1][3, 4] = -np.inf
    assert pooled(before, infinite) is None
