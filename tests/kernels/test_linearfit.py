"""Linearity: real tables with published results, and splines against the truth that made the signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator

from kernels.transfer.linearfit import fit
from kernels.transfer.linearmodel import Amplifier, Light, Rule, Spline, Unlinear
from kernels.transfer.nonlinearity import NoLine, groups, linear_turnoff
from kernels.transfer.splines import basis, coarse_nodes, even_nodes, fine_nodes, supported

F64 = NDArray[np.float64]
TURNOFF = 90_000.0
PTC = np.array([60_000.0])


def curved(light: F64, size: float, kind: float = 1.0) -> F64:
    """Signals whose true spline is smooth, ``size`` ADU at most: mu - S(mu) = light."""
    signal = light.copy()
    for _ in range(50):
        signal = light + size * np.sin(kind * signal / 15_000)
    return signal


def error(made: Amplifier, light: F64, size: float, kind: float = 1.0) -> F64:
    """Corrected signals over true ones, less their median, relative."""
    ratio = made.correct(curved(light, size, kind)) / light
    return np.asarray(ratio / np.median(ratio) - 1)


def test_the_basis_is_akimas_spline() -> None:
    rng = np.random.default_rng(1)
    nodes = np.sort(rng.uniform(0, 10, 9))
    values, x = rng.normal(0, 1, 9), np.linspace(nodes[0], nodes[-1], 100)
    np.testing.assert_allclose(basis(nodes, values, x) @ values, Akima1DInterpolator(nodes, values)(x), atol=1e-12)
    assert Spline(nodes, values)(np.array([-5.0, 20.0])).tolist() == pytest.approx([values[0], values[-1]])
    straight = basis(nodes, 2 * nodes + 1, x) @ (2 * nodes + 1)
    np.testing.assert_allclose(straight, 2 * x + 1, atol=1e-12)


def test_nodes_are_denser_where_signals_are_faint_and_where_they_saturate() -> None:
    assert fine_nodes(30_000, 35_000).tolist() == [
        0, *np.linspace(100, 5000, 7), *np.linspace(5000, 30_000, 5)[1:], *np.linspace(30_000, 35_000, 3)[1:],
    ]  # fmt: skip
    assert fine_nodes(3000, 3000).tolist() == np.linspace(0, 3000, 5).tolist()
    assert supported(np.arange(7.0), np.array([0.5, 0.6, 2.5, 2.6, 2.7, 3.5, 5.5])).tolist() == [0, 1, 3, 6]
    assert coarse_nodes(90_000).tolist() == np.linspace(0, 90_000, 30).tolist()


def test_groups_are_found_by_the_ratio_to_the_light() -> None:
    light = np.tile(np.geomspace(1, 100, 30), 2)
    scale = np.repeat([100.0, 900.0], 30)
    signal = np.minimum(light * scale, 50_000.0)
    signal[3] = np.nan
    assert groups(signal, light).tolist() == [0, 0, 0, -1, *[0] * 26, *[1] * 30]
    assert groups(np.full(3, np.nan), np.ones(3)).tolist() == [-1] * 3


def test_the_turnoff_is_the_last_point_near_the_line() -> None:
    light = np.linspace(0.1, 12, 60)
    signal = np.minimum(10_000 * light, 100_000 + 10 * light)
    signal[10] *= 1.05
    found = linear_turnoff(light, signal, signal < 60_000)
    assert found.signal == signal[signal <= 100_100][-1] and not found.good[10]
    assert found.largest == pytest.approx(100_000, rel=2e-3)
    assert linear_turnoff(light, signal, signal < 60_000, ptc=50_000).signal <= 65_000
    with pytest.raises(NoLine, match="of 60 points fewer than 5 lie within 0.01 of a line"):
        linear_turnoff(light, np.random.default_rng(1).uniform(2e3, 9e4, 60), signal < 20_000)


def real(path: Path, column: int) -> tuple[F64, F64, F64]:
    table = np.loadtxt(path, delimiter=",")
    return table[:, column], table[:, -2], table[:, -1] > 0


def test_comcams_table_is_linear_to_its_published_turnoff(oracle: Callable[[str], Path]) -> None:
    light, signal, mask = real(oracle("comcam_linearity.csv"), 0)
    end = linear_turnoff(light, signal, mask)
    assert (end.signal, end.largest) == (pytest.approx(99756.305, abs=1e-3), pytest.approx(108730.328, abs=1e-3))
    below = signal[np.newaxis] <= end.signal
    (made,) = fit(
        signal[np.newaxis], below, Light.of(light), signal[mask].max(keepdims=True), even_nodes(10, end.signal)
    )
    assert made.scatter <= 5.5e-4 and np.nanmax(np.abs(made.residuals)) <= 8e-4
    assert np.isfinite(made.residuals).sum() == 91  # nothing was rejected


@pytest.mark.parametrize(("column", "limit"), [(1, 6.2e-4), (0, 7.6e-4)])
def test_lsstcams_table_of_three_groups_is_linear(column: int, limit: float, oracle: Callable[[str], Path]) -> None:
    path = oracle("lsstcam_linearity.csv")
    light, signal, mask = real(path, column)
    group = groups(signal, real(path, 0)[0])
    end = linear_turnoff(light, signal, mask, group)
    below = signal[np.newaxis] <= end.signal
    nodes = even_nodes(10, end.signal)
    (made,) = fit(signal[np.newaxis], below, Light(light, group), signal[mask].max(keepdims=True), nodes)
    assert made.scatter <= limit and np.nanmax(np.abs(made.residuals)) <= 4e-3
    assert made.slopes.keys() == {0, 1, 2} and np.isfinite(made.residuals).sum() >= 230


def test_a_good_diode_gives_the_linearity_and_its_slope() -> None:
    """The bars: 2e-4 from 500 electrons to 90 % of the turnoff with a diode of 1e-4; its slope to 0.15 % rms."""
    rng = np.random.default_rng(1)
    light = np.concatenate([np.geomspace(200, 3000, 50), np.linspace(3500, TURNOFF, 250)])
    diode, signal = light * (1 + rng.normal(0, 1e-4, 300)), curved(light, 150)
    nodes = coarse_nodes(TURNOFF + 200)
    (made,) = fit(signal[np.newaxis], np.ones((1, 300), bool), Light.of(diode), PTC, nodes, rule=Rule(monitor=1e-4))
    fine = np.linspace(330, 0.9 * TURNOFF, 2000)
    assert np.abs(error(made, fine, 150)).max() < 2e-4
    corrected = made.correct(curved(fine, 150))
    slope = np.gradient(corrected, fine)
    assert np.std(slope / slope.mean() - 1) < 1.5e-3
    assert np.abs(error(replace(made, absolute=made.absolute.scaled(0.0 + 1e-9)), fine, 150)).max() > 1e-3


def test_amplifiers_are_told_apart_however_noisy_the_monitor() -> None:
    rng = np.random.default_rng(2)
    light = np.concatenate([np.geomspace(200, 3000, 50), np.linspace(3500, TURNOFF, 200)])
    scales, sizes = np.array([1.0, 0.9, 1.1]), (150, 80, -120)
    kinds = (1.0, 1.6, 0.7)
    true = np.array([curved(light * s, a, b) for s, a, b in zip(scales, sizes, kinds, strict=True)])
    signals = true * (1 + rng.normal(0, 2e-5, true.shape))
    ptc, end = np.full(3, 60_000.0), float(signals.max())
    own = [fine_nodes(60_000, end)] * 2
    used = np.ones(true.shape, bool)
    for noise, limit in ((1e-4, 2e-4), (3e-3, 4e-3)):
        monitor = light * (1 + rng.normal(0, noise, light.size))
        rule = Rule(monitor=noise, floor=2e-5)
        made = fit(signals, used, Light.of(monitor), ptc, coarse_nodes(end), own, rule)
        fine = np.linspace(500, 0.85 * TURNOFF, 1000)
        off = [error(m, fine * s, a, b) for m, s, a, b in zip(made, scales, sizes, kinds, strict=True)]
        assert np.abs(off[0]).max() < limit
        for other in off[1:]:
            assert np.abs(other - off[0]).max() < 2e-4, noise
        assert [m.relative is None for m in made] == [True, False, False]


def test_groups_temperature_date_and_offset_are_recovered_with_their_errors() -> None:
    rng, n = np.random.default_rng(4), 240
    light = np.tile(np.geomspace(300, 80_000, n // 2), 2)
    group = np.repeat([0, 1], n // 2)
    kelvin, day = rng.normal(0, 1, n), rng.uniform(-1, 1, n)
    pulls = []
    for _ in range(30):
        scale = np.where(group == 0, 1.0, 2.5)
        signal = (curved(light, 150) + 5.0) / ((1 + 3e-3 * kelvin) * (1 - 2e-3 * day))
        diode = light / scale * (1 + rng.normal(0, 2e-4, n))
        (made,) = fit(
            signal[np.newaxis], np.ones((1, n), bool), Light(diode, group, kelvin, day), PTC,
            coarse_nodes(82_000, 8000.0), rule=Rule(monitor=2e-4),
        )  # fmt: skip
        assert (made.temperature, made.date) == (pytest.approx(3e-3, abs=1e-4), pytest.approx(-2e-3, abs=1e-4))
        assert made.slopes[1] / made.slopes[0] == pytest.approx(2.5, rel=2e-4)
        pulls.append((made.offset - 5.0) / made.offset_error)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.4)


def test_exposures_and_points_that_are_off_are_rejected_and_the_rest_is_kept() -> None:
    rng = np.random.default_rng(5)
    light = np.geomspace(300, TURNOFF, 120)
    signals = np.array([curved(light, size) for size in (100, 50, 70)]) * (1 + rng.normal(0, 2e-5, (3, 120)))
    diode = light * (1 + rng.normal(0, 2e-4, 120))
    diode[[10, 50]] *= 1.02  # the diode is off: all amplifiers
    signals[1, 80] *= 1.003  # one amplifier
    nodes = coarse_nodes(9.1e4)
    made = fit(
        signals, np.ones(signals.shape, bool), Light.of(diode), np.full(3, 6e4), nodes, [nodes] * 2,
        Rule(monitor=2e-4, floor=2e-5),
    )  # fmt: skip
    lost = [set(np.flatnonzero(np.isnan(one.residuals))) for one in made]
    assert {10, 50} <= lost[0] and {10, 50, 80} <= lost[1] and 80 not in lost[0] | lost[2]
    assert max(map(len, lost)) < 8


def test_too_few_points_are_refused() -> None:
    light = np.array([1e3, 2e4, 9e4])
    with pytest.raises(Unlinear, match="3 points support fewer than 3 nodes"):
        fit(light[np.newaxis], np.ones((1, 3), bool), Light.of(light), PTC, coarse_nodes(9e4))
    few = np.linspace(1e4, 9e4, 6)
    with pytest.raises(Unlinear, match="6 points do not determine . parameters: fewer nodes"):
        fit(few[np.newaxis], np.ones((1, 6), bool), Light(few, np.arange(6)), PTC, even_nodes(3, 9e4))
