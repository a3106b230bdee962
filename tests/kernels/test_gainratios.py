"""Ratios of gains from flats: size and sign of known steps, on smooth light."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.transfer.gainratios import (
    Bins,
    NoRatios,
    Ratios,
    Rule,
    adjusted,
    binned,
    combined,
    levelled,
    ratios,
    reference,
    scaled,
    stacked,
)

F64 = NDArray[np.float64]
NX, NY, N = 128, 240, 8
BOXES = [(k % 4 * NX, k // 4 * NY, NX, NY) for k in range(N)]
Y, X = np.indices((2 * NY, 4 * NX))
RADIUS = np.hypot(X - 900, Y - 700)


def flat(rng: np.random.Generator, gains: F64, assumed: F64, level: float = 30_000.0) -> F64:
    """A flat in electrons by the assumed gains, of light with a gradient and a radial fall."""
    light = level * (1 + 4e-5 * X - 3e-5 * Y) * (1 - 1e-8 * RADIUS**2)
    image = rng.normal(light, np.sqrt(light))
    for k, (x0, y0, nx, ny) in enumerate(BOXES):
        image[y0 : y0 + ny, x0 : x0 + nx] *= assumed[k] / gains[k]
    return image


def with_radius(bins: Bins) -> Bins:
    return Bins(bins.values, bins.amplifier, bins.x, bins.y, np.hypot(bins.x - 900, bins.y - 700))


def test_a_step_of_gain_is_found_with_its_size_and_sign() -> None:
    """The bar: a step of 0.2 % within 0.02 %."""
    rng, gains = np.random.default_rng(1), np.linspace(1.4, 1.6, N)
    before = flat(rng, gains, gains, 1e5)
    changed = gains.copy()
    changed[5] *= 1.002  # the amplifier gives fewer ADU an electron from now on
    pulls = []
    for _ in range(10):
        now = flat(rng, changed, gains, 1e5)
        found = ratios(binned(now / before, BOXES), N, 2)
        corrected = gains / found.factors
        assert abs(corrected[5] / changed[5] - 1) < 4 * found.errors[5] and found.errors[5] < 1e-4
        pulls.append((found.factors[5] * 1.002 - 1) / found.errors[5])
    many = combined([ratios(binned(flat(rng, changed, gains, 1e5) / before, BOXES), N, 2) for _ in range(10)])
    assert gains[5] / many.factors[5] / gains[5] - 1 == pytest.approx(2e-3, abs=2e-4)
    assert np.std(pulls) < 2


def test_ratios_of_gains_are_told_from_the_light() -> None:
    rng, gains = np.random.default_rng(2), np.linspace(1.4, 1.6, N)
    assumed = gains * (1 + rng.normal(0, 5e-3, N))
    found = ratios(with_radius(binned(flat(rng, gains, assumed), BOXES)), N, 3, Rule(order=1, nodes=6))
    true = assumed / gains / (assumed[3] / gains[3])
    assert (np.abs(found.factors - true) < 5 * found.errors + 1e-12).all() and found.factors[3] == 1.0
    better = adjusted(assumed, found)
    assert np.ptp(better / gains) < 0.2 * np.ptp(assumed / gains)


def test_an_amplifier_far_off_is_left_out_and_keeps_its_gain() -> None:
    rng, gains = np.random.default_rng(3), np.full(N, 1.5)
    assumed = gains.copy()
    assumed[6] *= 1.08
    image = flat(rng, gains, assumed)
    image[:NY, :NX] = np.nan
    found = ratios(binned(image, BOXES), N, 3)
    assert np.flatnonzero(np.isnan(found.factors)).tolist() == [0, 6]
    assert adjusted(assumed, found)[[0, 6]].tolist() == assumed[[0, 6]].tolist()
    for bad in (0, 6):
        with pytest.raises(NoRatios, match=f"amplifier {bad}, the reference"):
            ratios(binned(image, BOXES), N, bad)


def test_bins_keep_off_edges_and_bad_pixels() -> None:
    image = np.ones((480, 512))
    image[20:24, 20:28] = np.nan  # half a bin
    image[28:36, 20:28] = np.nan  # a whole one
    image[:20], image[:, :20] = 7.0, 7.0
    found = binned(image, BOXES)
    known = np.isfinite(found.values)
    assert (found.values[known] == 1.0).all() and found.values.size == N * 11 * 25 and known.sum() == known.size - 1
    assert (found.x.min(), found.y.min()) == (24.0, 24.0)
    with pytest.raises(NoRatios, match="no amplifier has a bin of 8 pixels 20 pixels from its edges"):
        binned(np.ones((40, 40)), [(0, 0, 40, 40)])


def test_flats_are_combined_by_medians() -> None:
    error = np.array([0.0, 1e-3, np.nan])
    flats = [Ratios(np.array([1.0, f, np.nan]), error, error) for f in (1.01, 1.02, 1.5)]
    found = combined(flats)
    assert found.factors[:2].tolist() == [1.0, 1.02] and np.isnan(found.factors[2])
    assert found.errors[1] == pytest.approx(1e-3 * np.sqrt(np.pi / 2 / 3))


def test_the_reference_has_the_middle_gain_of_the_quiet_ones() -> None:
    gains = np.array([1.0, 1.1, 1.2, 1.3, np.nan])
    noises, turnoffs = np.array([5.0, 5.0, 5.0, 20.0, 5.0]), np.array([9e4, 9e4, 9e4, 9e4, np.nan])
    assert reference(gains, noises, turnoffs) == 1
    assert reference(gains, noises, np.array([9e4, 1e4, 9e4, 9e4, 9e4])) == 0
    with pytest.raises(NoRatios, match="a noise of at most 3 electrons"):
        reference(gains, noises, turnoffs, most=3)


def test_outliers_are_left_out_of_the_mean_over_flats_and_a_changing_amplifier_is_seen() -> None:
    rng, amplifier = np.random.default_rng(4), np.repeat(np.arange(4), 500)
    flats = rng.normal(1, 1e-3, (8, 2000)).astype(np.float32)
    flats[3, 700], flats[5, :500], flats[:, 1999] = 1.5, np.nan, np.nan
    flats[6, 1000:1500] *= np.float32(1.001)
    found = stacked(flats, amplifier, 4)
    assert np.abs(found.values[:1000] - 1).max() < 2e-3 and np.isnan(found.values[1999])
    assert found.rejected[3] == 1 and found.rejected.sum() < 5
    pulls = found.drifts - 1
    pulls /= found.errors
    assert np.isnan(pulls[5, 0]) and np.nanargmax(pulls) == 6 * 4 + 2 and np.sort(pulls[np.isfinite(pulls)])[-2] < 4
    assert found.drifts[6, 2] == pytest.approx(1.001 - 1e-3 / 8, abs=3e-4)
    pair = stacked(flats[3:5], amplifier, 4)
    assert pair.rejected.sum() == 0 and pair.values[700] == pytest.approx(1.25, abs=1e-2)


def test_an_offset_of_the_electronics_does_not_change_ratios() -> None:
    """Two ADU in one amplifier are 0.2 % of a faint flat, and nothing of the light."""
    rng, levels = np.random.default_rng(6), np.array([1000.0, 2000.0, 4000.0, 8000.0, 16_000.0])
    error = np.array([0.0, 1e-4, 1e-4])
    flats = [
        Ratios(np.array([1.0, 1.004 * (1 + 2 / level), 0.99]) + rng.normal(0, error), error, error) for level in levels
    ]
    found, plain = levelled(flats, levels), combined(flats)
    assert abs(found.factors[1] - 1.004) < 4 * found.apart[1] < 1e-3 < abs(plain.factors[1] - 1.004) * 2.5
    assert abs(found.factors[2] - 0.99) < 4 * found.apart[2]
    alike = levelled(flats, np.full(5, 1e4))
    assert alike.factors[1] == plain.factors[1]


def test_ratios_against_the_mean_are_known_better_than_against_a_corner_and_scale_with_gains() -> None:
    rng, gains = np.random.default_rng(5), np.linspace(1.4, 1.6, N)
    bins = binned(flat(rng, gains, gains), BOXES)
    corner, mean = ratios(bins, N, 0), ratios(bins, N, None)
    assert np.allclose(mean.factors / mean.factors[0], corner.factors, rtol=1e-12)
    assert np.nanmedian(mean.apart) < 0.7 * np.nanmedian(corner.errors)
    wrong = np.linspace(0.99, 1.01, N)
    again = ratios(binned(flat(np.random.default_rng(5), gains, gains * wrong), BOXES), N, None)
    assert np.allclose(scaled(mean, wrong).factors / again.factors, (scaled(mean, wrong).factors / again.factors)[0])
