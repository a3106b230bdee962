"""The clip against its definition, written down a second time in plain Python."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from astropy.stats import SigmaClip
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels.statistics import clip, network, sample, weighted
from tests.kernels import reference

F32 = NDArray[np.float32]
NONE = np.empty((0, 0), np.float32)


def workspace(cube: Any) -> F32:
    """``cube[n, pixel]`` as the kernels want it: padded, and +infinity where masked."""
    cube = np.asarray(cube, np.float32)
    space = network.workspace(*cube.shape)
    space[: len(cube), : cube.shape[1]] = np.where(np.isfinite(cube), cube, np.inf)
    return space


def planes(width: int) -> tuple[F32, F32, NDArray[np.int16]]:
    return np.full(width, -7, np.float32), np.full(width, -7, np.float32), np.full(width, -7, np.int16)


def combined(cube: Any, variances: F32 = NONE, statistic: str = "MEANCLIP", **more: Any) -> Any:
    """Image, variance and count of ``cube[n, pixel]``; the variance propagated where ``variances`` are given."""
    n, pixels = np.shape(cube)
    space, rule = workspace(cube), clip.Rule(statistic, **more)
    image, variance, count = planes(space.shape[1])
    values, first = space.copy(), np.full(space.shape[1], -7, np.int16)
    if statistic == "WEIGHTED":
        weighted.weighted_mean(space, n, np.ones(n), image, variance, count)
    elif variances.size:
        padded = np.pad(variances, ((0, 0), (0, space.shape[1] - pixels)))
        clip.collapse(space, n, rule, image, variance, count, first)
        width, last = np.arange(space.shape[1]), np.maximum(first.astype(int) + count - 1, 0)
        limits = space[first, width], np.where(count > 0, space[last, width], np.float32(-np.inf))
        weighted.propagate(values, padded, limits, np.ones(n), np.ones(n + 1, np.float32), variance)
    else:
        clip.collapse(space, n, rule, image, variance, count)
    return image[:pixels], variance[:pixels], count[:pixels]


def one(*values: float, **more: Any) -> tuple[float, float, int]:
    image, variance, count = combined(np.array(values, np.float32)[:, None], **more)
    return float(image[0]), float(variance[0]), int(count[0])


def stack(n: int, seed: int, outliers: float = 0.1, masked: float = 0.05) -> F32:
    """Frames of noise and level like a flat's, with outliers and masked pixels."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(1000, 30, (n, 200)).astype(np.float32)
    cube[rng.random(cube.shape) < outliers] += 2000
    cube[rng.random(cube.shape) < masked] = np.nan
    return cube


@pytest.mark.parametrize("n", range(1, 61))
def test_every_number_of_inputs_is_as_the_definition_says(n: int, slow_meanclip: Any) -> None:
    cube = stack(n, n)
    expected = np.array([slow_meanclip(column) for column in cube.T.tolist()])
    image, variance, count = combined(cube)
    np.testing.assert_array_equal(count, expected[:, 2])
    np.testing.assert_allclose(image, expected[:, 0], rtol=2e-7)
    np.testing.assert_allclose(variance, expected[:, 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("passes", [1, 2, 3, 6])
@pytest.mark.parametrize("nsigma", [1.5, 2.5, 4.0])
def test_other_settings_are_as_the_definition_says(nsigma: float, passes: int, slow_meanclip: Any) -> None:
    cube = stack(20, 99)
    expected = np.array([slow_meanclip(column, nsigma, passes) for column in cube.T.tolist()])
    image, _, count = combined(cube, nsigma=nsigma, passes=passes)
    np.testing.assert_array_equal(count, expected[:, 2])
    np.testing.assert_allclose(image, expected[:, 0], rtol=2e-7)


ADU = st.lists(st.one_of(st.integers(0, 40), st.sampled_from([-1e4, 65535, np.nan, np.inf])), min_size=1, max_size=25)


@settings(max_examples=100)
@given(ADU)
def test_ties_are_as_the_definition_says(slow_meanclip: Any, values: list[float]) -> None:
    image, variance, count = one(*values)
    mean, expected, kept = slow_meanclip(values)
    assert count == kept
    np.testing.assert_allclose([image, variance], [mean, expected], rtol=1e-6, atol=1e-6)


def test_an_inter_quartile_range_of_0_keeps_only_the_median() -> None:
    assert one(5, 5, 5, 5, 5, 5, 5, 6, 4) == (5, 0, 7)


def test_a_value_may_come_back() -> None:
    """The first pass drops 3.7 (about the median, by the inter-quartile range), the second keeps it."""
    values = [-3.5, -1.7, -0.9, -0.6, -0.4, -0.3, 0.9, 1.3, 3.7]
    assert one(*values, passes=1)[2] == 8
    image, _, count = one(*values)
    assert (image, count) == (pytest.approx(np.mean(values), rel=1e-5), 9)


def test_one_value_has_no_scatter() -> None:
    image, variance, count = one(3.5, np.nan, np.inf)
    assert (image, count) == (3.5, 1)
    assert np.isnan(variance)


@pytest.mark.parametrize("statistic", clip.STATISTICS)
def test_two_values_are_averaged_however_far_apart(statistic: str) -> None:
    factor = np.pi / 2 if statistic == "MEDIAN" else 1
    image, variance, count = one(10, 30, statistic=statistic)
    assert (image, count) == (20, 2)
    assert variance == pytest.approx(factor * 200 / 2)


@pytest.mark.parametrize("statistic", clip.STATISTICS)
def test_nothing_but_masked_inputs_is_not_a_number(statistic: str) -> None:
    image, variance, count = one(np.nan, np.inf, -np.inf, statistic=statistic)
    assert np.isnan(image) and np.isnan(variance) and count == 0


@pytest.mark.parametrize(("sigmas", "at_least"), [(8.0, 0.99), (-8.0, 0.99), (12.0, 0.9999), (-1e5, 1.0), (1e5, 1.0)])
def test_one_outlier_among_ten_is_dropped(sigmas: float, at_least: float) -> None:
    """The limit is symmetric: if a value is dropped, it is the farthest."""
    cube = np.random.default_rng(3).normal(100, 5, (10, 20000)).astype(np.float32)
    cube[4] = 100 + 5 * sigmas
    image, _, count = combined(cube)
    dropped = count <= 9
    assert dropped.mean() >= at_least
    assert np.abs(image - 100)[dropped].max() < 5 * 2


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.sampled_from(sorted(set(clip.STATISTICS) - {"WEIGHTED"})))
def test_the_order_of_the_inputs_changes_no_bit(n: int, seed: int, statistic: str) -> None:
    rng = np.random.default_rng(seed)
    cube = np.concatenate(
        [stack(n, seed), rng.choice(np.array([0.0, -0.0, 1.0, np.nan], np.float32), (n, 100))], axis=1
    )
    variances = rng.uniform(1, 1e4, cube.shape).astype(np.float32) if n < 5 else NONE
    order = rng.permutation(n)
    ours = combined(cube, variances, statistic)
    others = combined(cube[order], variances[order] if n < 5 else NONE, statistic)
    assert [a.tobytes() for a in ours] == [a.tobytes() for a in others]


@settings(max_examples=25)
@given(st.integers(2, 20), st.integers(-12, 12), st.integers(0, 99))
def test_a_power_of_two_scales_every_bit(n: int, power: int, seed: int) -> None:
    cube, factor = stack(n, seed), np.float32(2.0**power)
    image, variance, count = combined(cube)
    scaled = combined(cube * factor)
    np.testing.assert_array_equal(scaled[0], image * factor)
    np.testing.assert_array_equal(scaled[1], variance * factor**2)
    np.testing.assert_array_equal(scaled[2], count)


@settings(max_examples=25)
@given(st.integers(2, 20), st.integers(-5000, 5000), st.integers(0, 99))
def test_a_constant_shifts_the_image_alone(n: int, shift: int, seed: int) -> None:
    cube = np.rint(stack(n, seed))  # whole numbers: the shift itself is exact
    image, variance, count = combined(cube)
    shifted = combined(cube + np.float32(shift))
    np.testing.assert_allclose(shifted[0], image + np.float32(shift), rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(shifted[1], variance, rtol=1e-6)
    np.testing.assert_array_equal(shifted[2], count)


def test_median_and_mean_are_those_of_numpy() -> None:
    cube = stack(11, 5)
    counts = np.isfinite(cube).sum(axis=0)
    scatter = np.nanvar(cube.astype(float), axis=0, ddof=1)
    image, variance, count = combined(cube, statistic="MEAN")
    np.testing.assert_allclose(image, np.nanmean(cube.astype(float), axis=0), rtol=1e-7)
    np.testing.assert_allclose(variance, scatter / counts, rtol=1e-6)
    np.testing.assert_array_equal(count, counts)
    image, variance, count = combined(cube, statistic="MEDIAN")
    np.testing.assert_array_equal(image, np.nanmedian(cube, axis=0))
    np.testing.assert_allclose(variance, np.pi / 2 * scatter / counts, rtol=1e-6)
    np.testing.assert_array_equal(count, counts)


@pytest.mark.parametrize("statistic", ["MEANCLIP", "MEAN"])
def test_variances_are_propagated_from_the_survivors(statistic: str) -> None:
    cube = np.array([[10, 10], [12, np.nan], [11, 12], [13, 11]], np.float32)
    variances = np.array([[1, 1], [2, 1e9], [4, 3], [8, 5]], np.float32)
    image, variance, count = combined(cube, variances, statistic)
    np.testing.assert_array_equal(image, np.array([11.5, 11], np.float32))
    np.testing.assert_array_equal(count, [4, 3])
    np.testing.assert_array_equal(variance, np.array([15 / 16, 9 / 9], np.float32))


def test_a_clipped_input_gives_no_variance() -> None:
    cube = np.array([5] * 9 + [5000], np.float32)[:, None]
    variances = np.array([2] * 9 + [1e6], np.float32)[:, None]
    _, variance, count = combined(cube, variances)
    assert count[0] == 9
    assert variance[0] == np.float32(2 / 9)


def test_the_pixel_beside_changes_nothing() -> None:
    cube = stack(12, 8)
    whole, parts = combined(cube), [combined(cube[:, n : n + 7]) for n in range(0, 200, 7)]
    for a, b in zip(whole, map(np.concatenate, zip(*parts, strict=True)), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("size", [1, 2, 1000, 40000])
def test_a_large_sample_is_clipped_by_the_same_definition(size: int, slow_meanclip: Any) -> None:
    rng = np.random.default_rng(size)
    values = rng.normal(20000, 140, size).astype(np.float32)
    values[: size // 50] += 5000
    values[size // 50 : size // 25] = np.nan
    mean, sigma, count = sample.clipped_mean(values[np.newaxis])
    expected, variance, kept = slow_meanclip(values.tolist())
    assert count == kept
    assert mean == pytest.approx(expected, rel=1e-12)
    assert sigma == pytest.approx(np.sqrt(variance * kept) if size > 1 else 0.0, rel=1e-9)


def test_nothing_to_clip_is_not_a_number() -> None:
    mean, sigma, count = sample.clipped_mean(np.array([[np.nan, np.inf]], np.float32))
    assert np.isnan(mean) and np.isnan(sigma) and count == 0


def test_the_noise_of_the_clip_is_the_published_one() -> None:
    """The error is 1.057 times that of a plain mean of ten frames."""
    cube = np.random.default_rng(1).standard_normal((10, 300000), dtype=np.float32)
    image, variance, _ = combined(cube)
    assert image.std() * np.sqrt(10) == pytest.approx(1.057, abs=0.006)
    assert abs(image.mean()) < 5 * 1.057 / np.sqrt(3e6)
    assert 0.85 / 10 < variance.mean() < 1 / 10


EVERY_N = [*range(1, 41), 100, 500]
MODES = [("MEANCLIP", {}), ("SIGMACLIP", {"ddof": 0}), ("SIGMACLIP", {"ddof": 1}), ("MEDIAN", {}), ("MEAN", {})]


def stacks(n: int, pixels: int) -> dict[str, F32]:
    """Frames as they come, by kind."""
    rng = np.random.default_rng(1000 + n)
    plain = rng.normal(300, 10, (n, pixels)).astype(np.float32)
    hits = np.where(rng.random(plain.shape) < 0.02, plain + 400, plain).astype(np.float32)
    masked = np.where(rng.random(plain.shape) < rng.choice([0.01, 0.5], pixels), np.float32(np.nan), hits)
    tied = np.rint(rng.normal(20, 1.5, (n, pixels // 4))).astype(np.float32)
    return {"plain": plain, "masked": masked, "tied": tied, "constant": np.full((n, 64), 7.25, np.float32)}


@pytest.mark.parametrize(("statistic", "more"), MODES)
def test_every_number_of_inputs_agrees_with_float64(statistic: str, more: dict[str, Any]) -> None:
    """Counts of at least 99.999 % of the pixels; where they agree, values and variances."""
    other = total = 0
    for n in EVERY_N:
        for kind, cube in stacks(n, 4000 if n <= 40 else 1500).items():
            image, variance, count = combined(cube, statistic=statistic, **more)
            mean, scatter, kept = reference.combine(cube, statistic, **more)
            same = (count == kept) & np.isfinite(mean)
            other, total = other + np.count_nonzero(count != kept), total + count.size
            np.testing.assert_array_equal(np.isnan(image), np.isnan(mean), err_msg=f"{n} {kind}")
            np.testing.assert_array_equal(np.isnan(variance), np.isnan(scatter), err_msg=f"{n} {kind}")
            np.testing.assert_allclose(image[same], mean[same], rtol=0, atol=2e-4, err_msg=f"{n} {kind}")
            np.testing.assert_allclose(variance[same], scatter[same], rtol=1e-4, atol=1e-12, err_msg=f"{n} {kind}")
    assert other <= 1e-5 * total


@pytest.mark.parametrize("n", [3, 10, 20, 37])
def test_sigmaclip_is_astropys(n: int) -> None:
    cube = stacks(n, 3000)["masked"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the NaN that are meant
        clipped = SigmaClip(sigma=3.0, maxiters=None, cenfunc="median", stdfunc="std")(cube.astype(float), axis=0)
    kept = (~np.ma.getmaskarray(clipped)).sum(axis=0)
    mean = np.ma.filled(clipped.mean(axis=0), np.nan)
    image, _, count = combined(cube, statistic="SIGMACLIP", ddof=0)
    same = count == kept
    assert np.count_nonzero(~same) <= 1
    np.testing.assert_allclose(image[same], mean[same], rtol=0, atol=2e-4)


@pytest.mark.parametrize(("statistic", "more"), MODES[:3])
@pytest.mark.parametrize("sigmas", [50.0, -50.0, 1e5])
def test_an_outlier_of_50_sigma_is_dropped_by_every_clip(statistic: str, more: dict[str, Any], sigmas: float) -> None:
    cube = np.random.default_rng(3).normal(100, 5, (10, 20000)).astype(np.float32)
    cube[4] = 100 + 5 * sigmas
    _, _, counts = combined(np.delete(cube, 4, axis=0), statistic=statistic, **more)
    image, _, count = combined(cube, statistic=statistic, **more)
    assert (count <= 9).all()
    same = count == counts
    assert same.mean() > 0.5
    assert np.abs(image - 100).max() < 5 * 2


def test_a_weighted_mean_is_numpys_whatever_the_order() -> None:
    cube, weights = stack(9, 4), np.random.default_rng(2).uniform(0.5, 3, 9)
    space = workspace(cube)
    image, variance, count = planes(space.shape[1])
    weighted.weighted_mean(space, 9, weights, image, variance, count)
    good = np.isfinite(cube)
    w, values = np.where(good, weights[:, None], 0), np.where(good, cube, 0).astype(float)
    mean = (w * values).sum(axis=0) / w.sum(axis=0)
    np.testing.assert_allclose(image[:200], mean, rtol=1e-6)
    np.testing.assert_array_equal(count[:200], good.sum(axis=0))
    other = planes(space.shape[1])
    weighted.weighted_mean(workspace(cube[::-1]), 9, weights[::-1].copy(), *other)
    np.testing.assert_allclose(other[0][:200], image[:200], rtol=1e-6)
    np.testing.assert_allclose(other[1][:200], variance[:200], rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "power"),
    [([1, 8], -1), *((w, p) for w in ([1, 1, 1, 1, 2], [1, 9, 1, 9, 1, 9, 1, 9, 1, 9]) for p in (-1, 0, 1))],
)
def test_the_variance_of_a_weighted_mean_is_right_whatever_the_inputs_are(weights: list[float], power: int) -> None:
    """Inputs with variances weight^power; one with over two fifths of the weight is taken to be as good as that."""
    w = np.array(weights, float)
    cube = np.random.default_rng(7).normal(0, w[:, None] ** (power / 2), (len(w), 100_000)).astype(np.float32)
    space = workspace(cube)
    image, variance, count = planes(space.shape[1])
    weighted.weighted_mean(space, len(w), w, image, variance, count)
    truth = (w**2 * w**power).sum() / w.sum() ** 2
    assert variance[:100_000].mean(dtype=float) == pytest.approx(truth, rel=0.015)
    assert image[:100_000].var(dtype=float) == pytest.approx(truth, rel=0.015)


def test_equal_weights_are_the_mean() -> None:
    cube = stack(12, 6)
    for ours, plain in zip(combined(cube, statistic="WEIGHTED"), combined(cube, statistic="MEAN"), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-6)


def test_a_result_of_another_width_is_refused() -> None:
    space = workspace(stack(5, 1))
    with pytest.raises(ValueError, match="must be as wide"):
        clip.collapse(space, 5, clip.Rule(), *planes(200))
