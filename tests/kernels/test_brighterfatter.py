"""The brighter-fatter effect: its kernel, and corrections of simulated flats and stars against closed forms."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.transfer.bfkernel import Invalid, balanced, centre_error, kernel, mean_a, solve, tiled
from kernels.transfer.brighterfatter import Method, Rule, correct
from kernels.transfer.covariance import Rule as PairRule
from kernels.transfer.covariance import measure
from tests.kernels.flats import SIZE, A, exposed, whole

F64 = NDArray[np.float64]
LEVEL = 100_000.0
MARGIN = 24
COULTON, STEPPED = Rule(Method.COULTON), Rule()


def smoothed(image: F64) -> F64:
    """The five-point Laplacian, with 0 just outside."""
    wide = np.pad(image, 1)
    return np.asarray(wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2] - 4 * image)


def test_the_kernel_solves_poissons_equation() -> None:
    source = np.random.default_rng(1).normal(0, 1, (21, 21))
    np.testing.assert_allclose(smoothed(solve(source)), source, atol=1e-13)
    made = kernel(A)
    around = smoothed(made)
    for i in range(3):
        for j in range(3):
            for y, x in ((10 + j, 10 + i), (10 - j, 10 + i), (10 + j, 10 - i), (10 - j, 10 - i)):
                assert around[y, x] == pytest.approx(-A[i, j], rel=1e-9)


def test_the_sum_of_a_is_made_0_and_what_is_no_kernel_is_refused() -> None:
    off = A.copy()
    off[0, 0] *= 0.9
    assert tiled(off).sum() == pytest.approx(0.0, abs=1e-20)
    assert np.array_equal(kernel(off), kernel(A)) or np.allclose(kernel(off), kernel(A), rtol=1e-9)
    with pytest.raises(Invalid, match="the kernel's centre, .* is not its minimum"):
        kernel(-A)
    with pytest.raises(Invalid, match="12 x 12 lags do not fit a kernel of 21 pixels"):
        kernel(np.zeros((12, 12)))
    ring = np.zeros((8, 8))
    ring[0, 0], ring[6, 0], ring[7, 7] = -1e-6, -8e-6, 4.3e-6
    with pytest.raises(Invalid, match=r"of its centre's|is not its minimum"):
        kernel(ring)


def test_the_mean_of_amplifiers_is_weighted_by_their_errors() -> None:
    mean, error = mean_a({"C00": (A, np.full((3, 3), 1e-8)), "C01": (2 * A, np.full((3, 3), 2e-8))})
    np.testing.assert_allclose(mean, 1.2 * A)
    np.testing.assert_allclose(error, 1e-8 / 1.25**0.5)
    with pytest.raises(Invalid, match="no amplifier"):
        mean_a({})


def test_the_sum_of_a_is_made_0_as_variances_allow() -> None:
    rng, error = np.random.default_rng(5), np.full((10, 10), 1e-9)
    error[0] *= 2**0.5
    true = np.zeros((10, 10))
    true[:3, :3] = A
    drawn = [true + error * rng.standard_normal(error.shape) for _ in range(400)]
    even = [balanced(a, error) for a in drawn]
    centres = np.array([[tiled(a)[10, 10] for a in drawn], [tiled(a)[10, 10] for a in even]])
    assert centres[1].std() == pytest.approx(error[0, 0], rel=0.15) and centres[0].std() > 15 * error[0, 0]
    peaks = np.array([solve(-tiled(a))[10, 10] for a in even])
    assert peaks.std() == pytest.approx(centre_error(error, 21), rel=0.15)
    assert peaks.mean() == pytest.approx(kernel(A)[10, 10], abs=3 * peaks.std() / 20)


@cache
def frames() -> list[F64]:
    """Flats of 100,000 electrons."""
    rng, light = np.random.default_rng(2), np.full((256, 256), LEVEL)
    return [exposed(rng, light, -kernel(A)) for _ in range(24)]


def covariances(images: list[NDArray[np.float32]]) -> tuple[F64, F64]:
    """Mean over pairs of C_ij [i, j] of frames without margins, and its error for the full variance."""
    inner = [np.ascontiguousarray(image[MARGIN:-MARGIN, MARGIN:-MARGIN]) for image in images]
    found = [measure(pair, None, PairRule(side=3)) for pair in zip(inner[::2], inner[1::2], strict=True)]
    counts = np.sum([one.counts for one in found], axis=0)
    errors = LEVEL / np.sqrt(counts)
    errors[0, 0] *= 2**0.5
    return np.mean([one.covariances for one in found], axis=0), errors


def closed(factor: F64) -> F64:
    """Covariances after a correction with this share of the exact spectrum [exp(2x) - 1] / 2x."""
    x = np.fft.fft2(whole(A)).real * LEVEL
    spectrum = LEVEL * np.where(np.abs(x) < 1e-12, 1.0, np.expm1(2 * x) / np.where(x == 0, 1, 2 * x)) * factor
    return np.asarray(np.fft.ifft2(spectrum).real[:3, :3].T)


def test_flats_are_corrected_as_the_closed_forms_say() -> None:
    x = np.fft.fft2(whole(A)).real * LEVEL
    fine, k = np.ones((256, 256), bool), kernel(A)
    images = [frame.astype(np.float32) for frame in frames()]
    before, errors = covariances(images)
    assert (np.abs(before - closed(np.ones((SIZE, SIZE)))) < 4 * errors + 2e-3 * LEVEL).all()
    deficit = LEVEL - before[0, 0]
    assert deficit > 0.15 * LEVEL
    after, errors = covariances([correct(image, fine, k, LEVEL, Rule(Method.COULTON, 8)) for image in images])
    assert (np.abs(after - closed(1 / (1 + x / 2) ** 2)) < 3 * errors + 1e-3 * LEVEL).all()
    assert 1.08 < (after[0, 0] - before[0, 0]) / deficit < 1.25  # of first order: over-corrected
    stepped, errors = covariances([correct(image, fine, k, LEVEL, STEPPED) for image in images])
    assert 0.97 < (stepped[0, 0] - before[0, 0]) / deficit < 1.05
    assert (np.abs(stepped)[1:, 1:] < 4 * errors[1:, 1:] + 2e-3 * LEVEL).all()


def width(image: F64) -> float:
    """Root of the mean square size of a star in the middle, pixel."""
    n = image.shape[0]
    y, x = np.indices(image.shape) - (n // 2)
    inside = x**2 + y**2 <= 12**2
    return float(np.sqrt((image * (x**2 + y**2) * inside).sum() / (2 * (image * inside).sum())))


@pytest.mark.parametrize(("rule", "left"), [(COULTON, 0.05), (STEPPED, 0.01)])
def test_stars_get_back_their_size(rule: Rule, left: float) -> None:
    n, k = 64, kernel(A)
    y, x = np.indices((n, n)) - n // 2
    fine = np.ones((n, n), bool)
    star = np.exp(-(x**2 + y**2) / (2 * 1.9**2))
    for peak in (30_000.0, 90_000.0):
        light = peak * star + 100.0
        measured = exposed(None, light, -k, steps=64)
        found = correct(measured.astype(np.float32), fine, k, 100.0, rule)
        grown = width(measured - 100) / width(light - 100) - 1
        assert grown > 5e-4 * peak / 30_000
        assert abs(width(found.astype(np.float64) - 100) / width(light - 100) - 1) < left * grown
        assert found.sum(dtype=np.float64) == pytest.approx(measured.sum(), rel=1e-7)
        assert np.abs(found / light - 1).max() < 0.02


@pytest.mark.parametrize("rule", [COULTON, STEPPED, Rule(rounds=2, steps=2)])
def test_rows_have_the_same_bits_in_any_block(rule: Rule) -> None:
    rng, k = np.random.default_rng(3), kernel(A, 9)
    image = rng.normal(50_000, 220, (190, 45)).astype(np.float32)
    good = rng.random(image.shape) > 0.05
    good[100] = False
    whole_frame, halo = correct(image, good, k, 5e4, rule), rule.halo(9)
    assert whole_frame.shape == image.shape and not np.array_equal(whole_frame, image)
    for first, last in ((0, 33), (33, 100), (70, 71), (95, 190)):
        low, high = max(first - halo, 0), min(last + halo, 190)
        block = correct(image[low:high], good[low:high], k, 5e4, rule)
        assert np.array_equal(block[first - low : last - low], whole_frame[first:last])


def test_bad_pixels_are_interpolated_for_the_potential_and_come_out_unchanged() -> None:
    n, k = 64, kernel(A)
    rng = np.random.default_rng(4)
    light = 40_000 + 20_000 * np.exp(-((np.arange(n) - 32) ** 2) / 50)[np.newaxis] * np.ones((n, 1))
    measured = exposed(rng, light, -k).astype(np.float32)
    fine = np.ones((n, n), bool)
    clean = correct(measured, fine, k, 5e4)
    broken, good = measured.copy(), fine.copy()
    for y, x, value in ((30, 30, np.nan), (20, 0, 1e9), (40, n - 1, -np.inf), (10, 12, 0.0)):
        broken[y, x], good[y, x] = value, False
    found = correct(broken, good, k, 5e4)
    assert np.array_equal(found[~good], broken[~good], equal_nan=True)
    moved = np.abs(clean - measured)[good].mean()
    assert np.abs(found - clean)[good].max() < 3 * moved and np.abs(found - clean)[good].mean() < 0.03 * moved
    assert np.isfinite(correct(broken, np.zeros((n, n), bool), k, 5e4)[0, 0])
