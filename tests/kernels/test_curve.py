"""Photon transfer curves: turnoffs of real ones, and gain, noise and a against exact truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import convolve2d

from kernels.transfer import turnoff
from kernels.transfer.bfkernel import kernel
from kernels.transfer.covariance import Pair, measure
from kernels.transfer.covariance import Rule as PairRule
from kernels.transfer.curve import Bad, Curve, Model, Points, Rule, fit, solve
from kernels.transfer.turnoff import NoTurnoff
from tests.kernels.flats import MIXED, A, drawn, exposed, truth, whole

F64 = NDArray[np.float64]
GAIN, NOISE, SIDE = 1.5, 6.0, 5


@cache
def clean(side: int = 10) -> F64:
    """Covariances of the mixed schedule, electron^2, with read noise and a little of it in a row."""
    made = truth(MIXED, side=side)
    made[:, 0, 0] += NOISE**2
    made[:, 1, 0] += 0.5
    return made


def curves(number: int, side: int, pixels: int, rule: Rule, seed: int = 1) -> list[Curve]:
    rng = np.random.default_rng(seed)
    return [fit(drawn(rng, MIXED, clean(side), GAIN, pixels), rule) for _ in range(number)]


@pytest.mark.parametrize("kind", ["dense_normal", "dense_upturn", "sparse_normal", "sparse_upturn"])
def test_the_turnoff_of_a_real_curve_is_the_published_one(kind: str, oracle: Callable[[str], Path]) -> None:
    path = oracle(f"lsstcam_ptc_{kind}.csv")
    means, variances = np.loadtxt(path, delimiter=",").T
    published = float(path.read_text().splitlines()[0].split()[-1])
    assert turnoff.turnoff(means, variances).signal == published
    upside_down = turnoff.turnoff(means[::-1], variances[::-1])
    assert upside_down.signal == published and upside_down.good[::-1][means == published].all()


def test_a_point_off_the_curve_is_left_out_and_what_follows_a_gap_too() -> None:
    mean = np.linspace(500.0, 100_000.0, 200)
    variance = turnoff.Variance(-4e-6, 0.7, 30.0)(mean)
    variance[50] *= 1.2
    found = turnoff.turnoff(mean, variance)
    assert np.flatnonzero(~found.good).tolist() == [50] and found.signal == mean[-1]
    assert found.error == pytest.approx(500.0)
    assert (found.curve.slope, found.curve.inverse_gain) == (pytest.approx(-4e-6), pytest.approx(0.7))
    variance[150:170] *= 0.7
    found = turnoff.turnoff(mean, variance)
    assert found.signal == mean[149] and not found.good[150:].any()
    with pytest.raises(NoTurnoff, match=r"0 of 200 points lie below 49517.9 ADU, 4 needed"):
        turnoff.turnoff(mean + 80_000, variance + 1e5)


def test_a_rolloff_is_found_and_the_turnoff_stays() -> None:
    mean = np.linspace(500.0, 90_000.0, 300)
    curve = turnoff.Variance(-4e-6, 0.7, 30.0)
    loss = np.where(mean > 70_000, np.expm1((mean - 70_000) / 3000), 0.0)
    variance = curve(mean) - loss + np.random.default_rng(1).normal(0, 0.3, mean.size)
    end = turnoff.turnoff(mean, variance)
    found = turnoff.rolloff(mean, variance, end, share=0.005)
    assert found.scale == pytest.approx(3000, rel=0.02)
    assert found.start == pytest.approx(70_000, abs=500)
    true = mean[np.flatnonzero(loss > 0.005 * curve(mean))[0]]
    assert found.signal == pytest.approx(true, abs=300) and found.signal < end.signal
    assert (found.good == (mean <= found.signal)).all()


def test_the_exact_model_recovers_gain_noise_and_a() -> None:
    """The bars for 100,000 pixels: gain 0.091 %, a00 0.74, a01 1.7, a10 and a11 4, noise 0.55 %; four errors each."""
    points = drawn(np.random.default_rng(1), MIXED, clean(), GAIN, 100_000)
    for model in (Model.EXACT, Model.FULLCOVARIANCE_NO_B):
        found = fit(points, Rule(model))
        assert abs(found.gain / GAIN - 1) < 4 * 9.1e-4 and found.gain_error / GAIN == pytest.approx(9.1e-4, rel=0.05)
        off = np.abs(found.a[:2, :2] / A[:2, :2] - 1)
        assert (off < [[0.03, 0.07], [0.16, 0.16]]).all()
        assert abs(found.noise / NOISE - 1) < 0.022
        assert found.reduced == pytest.approx(1.0, abs=0.06) and found.freedom == 10_000 - 201
        assert np.abs(found.fitted[:, 0, 0] * GAIN**2 / clean()[:, 0, 0] - 1).max() < 0.02
    assert not found.b.any()


def pulls(found: list[Curve]) -> dict[str, F64]:
    truth_a, truth_n = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    truth_a[:3, :3], truth_n[0, 0], truth_n[1, 0] = A, NOISE**2, 0.5
    weights = np.outer([1, *[2] * (SIDE - 1)], [1, *[2] * (SIDE - 1)]).ravel()
    return {
        "gain": np.array([(one.gain - GAIN) / one.gain_error for one in found]),
        "noise": np.array([(one.noise - NOISE) / one.noise_error for one in found]),
        "a": np.concatenate([((one.a - truth_a) / one.a_error).ravel() for one in found]),
        "n": np.concatenate([((one.noise_matrix - truth_n) / one.noise_matrix_error).ravel() for one in found]),
        "sum": np.array([weights @ one.a.ravel() / np.sqrt(weights @ one.a_covariance @ weights) for one in found]),
    }


def test_errors_are_those_of_many_amplifiers() -> None:
    found = pulls(curves(60, SIDE, 10_000, Rule(side=SIDE)))
    for name in ("a", "n"):
        assert 0.93 < found[name].std() < 1.07 and abs(found[name].mean()) < 0.12, name
    for name in ("gain", "noise", "sum"):  # 60 of each: four errors
        assert 0.63 < found[name].std() < 1.37 and abs(found[name].mean()) < 0.5, name


@pytest.mark.soak
def test_errors_are_those_of_very_many_amplifiers() -> None:
    for model in (Model.EXACT, Model.FULLCOVARIANCE):
        found = pulls(curves(300, SIDE, 10_000, Rule(model, side=SIDE), seed=2))
        for name, values in found.items():
            assert 0.9 < values.std() < 1.1 and abs(values.mean()) < 0.2, (model, name)


def test_b_is_recovered_from_its_own_model() -> None:
    a, b = np.zeros((6, 6)), np.zeros((6, 6))
    a[:3, :3], b[0, 0], b[0, 1], b[1, 1] = A, -2e-6, 3e-6, 1e-6
    c, n = a * b, np.arange(40)

    def product(x: F64, y: F64) -> F64:
        wide = convolve2d(np.roll(whole(x, 51), (25, 25), (0, 1)), np.roll(whole(y, 51), (25, 25), (0, 1)), mode="same")
        return wide[25:35, 25:35].T

    aa = product(a, a)
    aaa, ac, delta = product(aa[:10], a), product(a, c), np.zeros((10, 10))
    a10, c10 = np.pad(a, (0, 4)), np.pad(c, (0, 4))
    delta[0, 0] = 1.0
    m = np.linspace(1000, 90_000, n.size)[:, np.newaxis, np.newaxis]
    model = m * (delta + a10 * m + 2 / 3 * (aa + c10) * m**2 + (aaa / 3 + 5 / 6 * ac) * m**3) + 36.0 * delta
    points = Points(m.ravel() / GAIN, model / GAIN**2, np.full(model.shape, 1e6))
    found = fit(points, Rule(Model.FULLCOVARIANCE, side=6))
    assert found.gain == pytest.approx(GAIN, rel=1e-7) and found.noise == pytest.approx(6.0, rel=1e-5)
    assert np.abs(found.a - a).max() < 1e-5 * -A[0, 0]
    assert np.abs(found.b - b)[a != 0].max() < 1e-9
    without = fit(points, Rule(Model.FULLCOVARIANCE_NO_B, side=6))
    assert without.chi2 > found.chi2 + 25


def test_the_approximation_recovers_a_curve_without_neighbours_and_errs_on_a_real_one() -> None:
    lonely = truth(MIXED, np.array([[-3e-6]]), 1)
    lonely[:, 0, 0] += NOISE**2
    points = Points(MIXED / GAIN, lonely / GAIN**2, np.full(lonely.shape, 1e5))
    found = fit(points, Rule(Model.EXPAPPROXIMATION))
    assert (found.gain, found.noise) == (pytest.approx(GAIN, rel=1e-6), pytest.approx(NOISE, rel=1e-5))
    assert found.a == pytest.approx(np.array([[-3e-6]]), rel=1e-5)
    real = fit(Points(MIXED / GAIN, clean() / GAIN**2, np.full(clean().shape, 1e5)), Rule(Model.EXPAPPROXIMATION))
    assert real.a[0, 0] / A[0, 0] - 1 == pytest.approx(-0.012, abs=0.004)
    assert real.gain / GAIN - 1 == pytest.approx(6e-4, abs=3e-4)


def test_bad_amplifiers_are_named_with_the_reason() -> None:
    points = drawn(np.random.default_rng(3), MIXED, clean(SIDE), GAIN, 10_000)
    few, dark = points.chosen(np.arange(100) % 40 == 0, SIDE), replace(points, means=np.full(100, np.nan))
    strange = replace(points, means=points.means / 100)
    least = 50_000.0
    found = solve({"C00": points, "C01": few, "C02": dark, "C03": strange}, Rule(side=SIDE))
    assert found.curves.keys() == {"C00"}
    assert found.bad.keys() == {"C01", "C02", "C03"}
    assert found.bad["C01"].startswith("2 of 3 points lie below") and "4 needed" in found.bad["C01"]
    assert found.bad["C02"].startswith("0 of 100 points")
    assert "electron/ADU is not within 0.1 and 10" in found.bad["C03"]
    with pytest.raises(Bad, match="0 of 100 points lie below"):
        fit(points, Rule(side=SIDE, least=least))


def test_levels_that_do_not_begin_at_zero_or_do_not_differ_are_refused() -> None:
    points = drawn(np.random.default_rng(1), MIXED, clean(3), GAIN, 100_000)
    with pytest.raises(Bad, match=r"light does not begin at 0 ADU but near 99"):
        fit(replace(points, means=points.means + 1000), Rule())
    level = points.chosen(np.full(100, False) | (np.arange(100) >= 95), 3)
    level = replace(level, means=np.full(5, 20_000.0), covariances=np.repeat(level.covariances[:1], 5, axis=0))
    with pytest.raises(Bad, match="5 points between 2e\\+04 and 2e\\+04 ADU do not determine"):
        fit(level, Rule(side=3))


def test_pairs_become_points() -> None:
    square = np.arange(4.0).reshape(2, 2)
    found = Points.of([Pair((1.0, 3.0), 1.0, square, square.astype(np.int64), 0.0)] * 3)
    assert found.means.tolist() == [2.0] * 3 and found.covariances.shape == found.counts.shape == (3, 2, 2)


@pytest.mark.soak
def test_simulated_frames_give_the_truth_end_to_end() -> None:
    """Frames with moved charge, read noise and whole ADU, a bad column and bad pixels: measured, then fitted."""
    rng, found = np.random.default_rng(5), []
    potential, levels = -kernel(A), np.concatenate([np.geomspace(200, 3000, 6), np.linspace(5000, 90_000, 14)])
    good = rng.random((200, 200)) > 2e-3
    good[:, 77] = False

    def frame(level: float) -> NDArray[np.float32]:
        light = np.full(good.shape, level * rng.normal(1, 0.01))
        charge = exposed(rng, light, potential) + rng.normal(0, NOISE, light.shape)
        return np.rint(charge / GAIN + 0.3).astype(np.float32)

    for _ in range(16):
        pairs = [measure((frame(level), frame(level)), good, PairRule(side=SIDE)) for level in levels]
        found.append(fit(Points.of(pairs), Rule(side=SIDE)))
    z = {
        "gain": np.array([(one.gain - GAIN) / one.gain_error for one in found]),
        "a": np.concatenate([((one.a - np.pad(A, (0, SIDE - 3))) / one.a_error).ravel() for one in found]),
        "n": np.array([(one.noise_matrix[0, 0] - NOISE**2 - GAIN**2 / 12) for one in found])
        / np.array([one.noise_matrix_error[0, 0] for one in found]),
    }
    assert 0.9 < z["a"].std() < 1.1 and abs(z["a"].mean()) < 0.2
    for name in ("gain", "n"):  # 16 of each: four errors
        assert 0.3 < z[name].std() < 1.7 and abs(z[name].mean()) < 1.0, name
    assert np.mean([one.reduced for one in found]) == pytest.approx(1.0, abs=0.05)
