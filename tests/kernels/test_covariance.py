"""Covariances of flats in pairs: against plain numpy, against known truth, and the same bits for any split."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.transfer import covariance
from kernels.transfer.covariance import Rule, Unusable, measure
from kernels.transfer.lagsums import LARGEST, lag_sums, padded

Image = NDArray[Any]


def plain(image: Image, dx: int, dy: int) -> int:
    """The sum over pairs of pixels at (dx, dy), and at (-dx, dy) where neither is 0."""
    v, total = image.astype(np.int64), 0
    rows, columns = v.shape
    for sign in {1, -1} if dx and dy else {1}:
        x = sign * dx
        a = v[: max(rows - dy, 0), max(0, -x) : max(columns - max(0, x), 0)]
        b = v[dy:, max(0, x) : max(columns + min(0, x), 0)]
        total += int((a * b).sum()) if a.size and b.size else 0
    return total


def filled(values: Image, side: int) -> Image:
    whole, pixels = padded(*values.shape, side, values.dtype)
    pixels[:] = values
    return whole


@pytest.mark.parametrize(("shape", "side"), [((13, 5), 4), ((40, 33), 10), ((3, 1100), 12), ((1, 64), 10)])
@pytest.mark.parametrize("kind", [np.int16, np.int8])
def test_sums_of_lags_are_those_of_plain_loops(shape: tuple[int, int], side: int, kind: Any) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-LARGEST, LARGEST + 1, shape) if kind is np.int16 else rng.integers(0, 2, shape)
    sums = lag_sums(filled(values.astype(kind), side), side)
    assert sums.tolist() == [[plain(values, dx, dy) for dy in range(side)] for dx in range(side)]


@pytest.mark.parametrize(("value", "kind"), [(LARGEST, np.int16), (-LARGEST, np.int16), (1, np.int8)])
def test_the_largest_sums_do_not_overflow(value: int, kind: Any) -> None:
    values = np.full((140, 8192 if kind is np.int8 else 1024), value, kind)
    sums = lag_sums(filled(values, 2), 2)
    assert sums.tolist() == [[plain(values, dx, dy) for dy in range(2)] for dx in range(2)]
    with pytest.raises(ValueError, match="8193 columns, at most 8192"):
        padded(1, 8193, 2, kind)


def pair(rng: np.random.Generator, shape: tuple[int, int] = (150, 90)) -> tuple[Image, Image]:
    return tuple(rng.normal(level, 30, shape).astype(np.float32) for level in (1000, 1010))  # type: ignore[return-value]


def test_any_split_into_rows_gives_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    good = rng.random((150, 90)) > 0.1
    made = covariance.difference(pair(rng), good, (1000.0, 1010.0), Rule(least=1))
    whole = made.sums()
    for edges in ([0, 1, 150], [0, 7, 8, 63, 64, 149, 150], list(range(151))):
        first, *rest = (made.sums(a, b) for a, b in pairwise(edges))
        for one in rest:
            first = one + first
        assert (first.products == whole.products).all() and (first.counts == whole.counts).all()


def test_a_pair_is_measured_as_by_plain_numpy() -> None:
    rng = np.random.default_rng(3)
    first, second = pair(rng)
    good = rng.random(first.shape) > 0.05
    good[:, 40] = False
    first[5, 7], second[9, 9] = np.nan, 3000.0  # a bad pixel, and one that the clip takes
    found = measure((first, second), good, Rule(side=6, least=1))
    mu1, mu2 = (np.mean(im[good & np.isfinite(im) & (im < 2000)], dtype=float) for im in (first, second))
    assert found.means == pytest.approx((mu1, mu2), rel=1e-7)
    mu = found.mean
    d = first.astype(float) * (found.means[1] / mu) - second.astype(float) * (found.means[0] / mu)
    used = good & (np.abs(d) < 1000)
    v = np.where(used, d - d[used].mean(), 0)
    counts = np.array([[plain(used, i, j) for j in range(6)] for i in range(6)])
    assert (found.counts == counts).all()

    def sums(dx: int, dy: int) -> float:
        a = sum(
            float((v[: 150 - dy, max(0, -x) : 90 - max(0, x)] * v[dy:, max(0, x) : 90 + min(0, x)]).sum())
            for x in ({dx, -dx} if dx and dy else {dx})
        )
        return a / counts[dx, dy] / 2

    expected = np.array([[sums(i, j) for j in range(6)] for i in range(6)])
    expected += expected[0, 0] / (counts[0, 0] - 1)
    rounding = 4e-3 * expected[0, 0] / np.sqrt(counts)  # a thousandth of the noise
    assert (np.abs(found.covariances - expected) < rounding).all()
    assert found.variance == pytest.approx(expected[0, 0], rel=4e-5)  # rounded too: 0.003 of its own error
    rows = [d[y][used[y]].mean() for y in range(150)]
    assert found.row_mean_variance == pytest.approx(np.var(rows), rel=1e-3)


def test_covariances_of_known_noise_are_found_within_their_errors() -> None:
    """White noise, spread over neighbours by a filter whose autocorrelation is the truth."""
    rng, taps = np.random.default_rng(4), np.array([[0.05, 0.1, 0.0], [0.2, 1.0, 0.1], [0.0, 0.1, -0.1]])
    truth = np.zeros((4, 4))
    for i in range(3):
        for j in range(3):
            wide = np.pad(taps, 4)
            shifted = [np.roll(wide, (-j, -sign * i), (0, 1)) for sign in ((1, -1) if i and j else (1,))]
            truth[i, j] = 900 * np.mean([(wide * s).sum() for s in shifted])
    n = 400
    noise = rng.normal(0, 30, (2, n + 2, n + 2))
    images = [5000 + sum(taps[a, b] * w[a : a + n, b : b + n] for a in range(3) for b in range(3)) for w in noise]
    found = measure((images[0].astype(np.float32), images[1].astype(np.float32)), None, Rule(side=4))
    errors = truth[0, 0] / np.sqrt(found.counts)
    errors[0, 0] *= 2**0.5
    assert np.abs((found.covariances - truth) / errors).max() < 4.5  # the truth's own covariances widen errors by 1.2


def test_what_cannot_be_measured_is_refused_with_numbers() -> None:
    rng = np.random.default_rng(5)
    first, second = pair(rng)
    with pytest.raises(Unusable, match="13500 good pixels, 20000 are needed"):
        measure((first, second), None, Rule(least=20000))
    with pytest.raises(Unusable, match=r"no light: clipped means of 100\d and -5.*, scatter"):
        measure((first, second - 1015))
    with pytest.raises(Unusable, match="and nan, scatter"):
        measure((first, np.full_like(first, np.nan)))
    with pytest.raises(Unusable, match="no noise"):
        measure((np.full_like(first, 7), np.full_like(first, 7)))


def test_the_factor_of_a_clip_gives_back_the_variance() -> None:
    values = np.random.default_rng(6).standard_normal(1_000_000)
    assert covariance.clip_factor(2.0) == pytest.approx(1 / values[np.abs(values) < 2].var(), rel=5e-3)
    assert covariance.clip_factor(5.5) - 1 == pytest.approx(1.2e-6, rel=0.1)
