"""Crosstalk fitted from spots of several amplifiers at once, against the coefficients that made them."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.transfer.crosstalkfit import Crosstalk, Rows, Rule, background, fit, gather

F64 = NDArray[np.float64]
N, SHAPE, NOISE = 5, (120, 130), 6.0


def coefficients(rng: np.random.Generator) -> tuple[F64, F64]:
    c0 = rng.normal(0, 1, (N, N)) * 10 ** rng.uniform(-5.5, -3.0, (N, N))
    c1 = rng.normal(0, 3e-10, (N, N))
    np.fill_diagonal(c0, 0)
    np.fill_diagonal(c1, 0)
    return c0, c1


def frame(rng: np.random.Generator, c0: F64, c1: F64, spots: int = 6) -> NDArray[np.float32]:
    """Spots of 30,000 to 150,000 electrons on a sloping sky, with noise and crosstalk."""
    y, x = np.indices(SHAPE)
    light = np.stack([400 + 30 * k + 0.5 * x + 0.3 * y for k in range(N)])
    for image in light:
        for _ in range(spots):
            middle = rng.uniform(8, 112, 2)
            near = (y - middle[0]) ** 2 + (x - middle[1]) ** 2
            image += rng.uniform(40_000, 150_000) * np.exp(-near / (2 * 2.0**2))
    light += np.sqrt(light) * rng.standard_normal(light.shape)
    light += np.einsum("ts,syx->tyx", c0, light) + np.einsum("ts,syx->tyx", c1, light**2)
    return np.asarray(light + rng.normal(0, NOISE, light.shape), np.float32)


def measured(frames: list[NDArray[np.float32]], rule: Rule) -> Crosstalk:
    good = np.ones((N, *SHAPE), bool)
    good[1, :, 60] = False
    made = [gather(one, good, np.full(N, NOISE), rule) for one in frames]
    return fit([reduce(add, rows) for rows in zip(*made, strict=True)], rule)


def test_coefficients_lie_within_their_errors() -> None:
    """The bar: 99 % within 3 errors, rms of z 0.9 to 1.1; here 160 of each kind, whose rms is good to 0.06."""
    z: dict[str, list[F64]] = {"c0": [], "c1": []}
    off, rule = ~np.eye(N, dtype=bool), Rule(grow=6, box=40)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        c0, c1 = coefficients(rng)
        found = measured([frame(rng, c0, c1) for _ in range(3)], rule)
        z["c0"].append(((found.c0 - c0) / found.c0_error)[off])
        z["c1"].append(((found.c1 - c1) / found.c1_error)[off])
        assert np.isnan(found.c0[~off]).all() and (found.counts[off] > 100).all()
        assert found.chi2 == pytest.approx(np.ones(N), abs=0.2)
    for name, values in z.items():
        every = np.concatenate(values)
        assert 0.85 < every.std() < 1.15 and abs(every.mean()) < 0.3, name
        assert (np.abs(every) > 3).sum() <= 3, name


def test_validity_goes_by_the_errors_and_c1_can_be_left_out() -> None:
    rng = np.random.default_rng(10)
    c0, c1 = np.zeros((N, N)), np.zeros((N, N))
    c0[0, 1], c0[2, 3] = 1e-3, -4e-4
    frames = [frame(rng, c0, c1) for _ in range(3)]
    rule = Rule(grow=6, box=40, quadratic=False)
    found = measured(frames, rule)
    assert found.valid[0, 1] and found.valid[2, 3] and found.valid.sum() <= 3
    assert (found.c1[found.counts > 0] == 0).all()
    assert (found.c0_error[0, 1:] < 0.5 * measured(frames, Rule(grow=6, box=40)).c0_error[0, 1:]).all()


def test_a_source_that_was_never_bright_has_no_coefficient() -> None:
    rng = np.random.default_rng(11)
    one = frame(rng, *coefficients(rng))
    one[4] = np.minimum(one[4], 20_000)
    found = measured([one], Rule(grow=6, box=40))
    assert np.isnan(found.c0[:, 4]).all() and not found.valid[:, 4].any() and not found.counts[:4, 4].any()
    assert np.isfinite(found.c0[0, 1:4]).all()
    dark = measured([np.minimum(one, 20_000)], Rule())
    assert np.isnan(dark.c0).all() and not dark.counts.any()
    assert dark.bad == dict.fromkeys(range(N), "0 pixels beside bright ones, at most 0 of one source")


def test_sources_that_only_shine_together_are_not_told_apart() -> None:
    x = np.random.default_rng(12).uniform(3e4, 1e5, 100)
    rows = Rows(np.stack([np.zeros(100), x, x], axis=1), 1e-3 * x, np.full(100, 36.0))
    none = replace(rows, sources=rows.sources[:0], target=rows.target[:0], variance=rows.variance[:0])
    found = fit([rows, none, none])
    assert np.isnan(found.c0).all() and found.bad[0] == "in 100 pixels some sources only shine together"


def test_light_of_the_target_itself_does_not_count() -> None:
    rng = np.random.default_rng(13)
    c0, c1 = np.zeros((N, N)), np.zeros((N, N))
    one = frame(rng, c0, c1)
    one[0] += np.where(one[1] > 30_000, 5000, 0)  # as a star at the same place
    assert len(gather(one, np.ones(one.shape, bool), np.full(N, NOISE), Rule(grow=6, box=40))[0].target) < 0.9 * len(
        gather(one, np.ones(one.shape, bool), np.full(N, NOISE), Rule(grow=6, box=40, own=1e9))[0].target
    )


def test_the_background_is_smooth_and_ignores_what_is_masked() -> None:
    y, x = np.indices((100, 120))
    image = (500 + 0.5 * x + 0.2 * y).astype(np.float32)
    masked = np.zeros(image.shape, bool)
    masked[40:50, 30:60] = True
    image[masked] = 9e4
    found = background(image, masked, 30)
    assert np.abs(found - (500 + 0.5 * x + 0.2 * y))[20:-20, 20:-20].max() < 3
    assert (background(image, np.ones(image.shape, bool), 30) == 0).all()
