"""Brighter-fatter effect, full wells, spots: simulated frames have the covariances and the charge of their truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fitsio
import numpy as np
import pytest
from astropy.table import Table
from numpy.typing import NDArray
from pydantic import ValidationError

from campaign.simulation.blocks import Block
from kernels.camera.geometry import Box, Detector
from kernels.simulation import brighter, diode, simulate, truth, truthfile
from kernels.simulation.rates import Rates
from kernels.simulation.scenes import scene
from kernels.simulation.wells import bloom
from tests.kernels.test_simulate import CAMERA, DETECTOR, SEED, exposure

STEPS, MEAN = 4, 8e4
CORNERS = [("C16", Box(0, 128, 128, 128)), ("C17", Box(128, 128, 128, 128)), ("C07", Box(128, 0, 128, 128))]


@pytest.fixture(scope="module")
def detector() -> Detector:
    amplifiers = [replace(a, target=box) for a, (_, box) in zip(DETECTOR.amplifiers, CORNERS, strict=False)]
    last = replace(DETECTOR.amplifiers[3], target=Box(0, 0, 128, 128))
    return replace(DETECTOR, amplifiers=(*amplifiers, last), size=(256, 256))


def collected(detector: Detector, light: NDArray[np.float32], frame: int) -> NDArray[np.float32]:
    streams = [np.random.Generator(np.random.SFC64([SEED, frame, k])) for k in range(4)]
    return brighter.collect(light, detector, streams, 1.0, STEPS)


def test_coefficients_are_the_laplacian_of_the_potential(detector: Detector) -> None:
    a = brighter.coefficients(detector, 1.0)
    assert abs(brighter.whole(a).sum()) < 1e-20 and a[0, 0] == pytest.approx(-2.9e-6, rel=0.05)
    realised = brighter.realised(brighter.potential(a))
    np.testing.assert_allclose(realised[:-1, :-1], a, atol=1e-15)
    assert np.abs(realised[-1]).max() < 2e-8


def test_flats_have_the_covariances_of_the_closed_form(detector: Detector) -> None:
    a = brighter.coefficients(detector, 1.0)
    wanted = brighter.covariances(brighter.realised(brighter.potential(a)), MEAN, STEPS)
    light = np.full((256, 256), MEAN, np.float32)
    inner = np.s_[8:-8, 8:-8]
    totals, number = np.zeros((3, 3)), 12
    for frame in range(number):
        image = collected(detector, light, frame)[inner].astype(float) - MEAN
        size_y, size_x = image.shape
        for y in range(3):
            for x in range(3):
                totals[y, x] += np.mean(image[y:, x:] * image[: size_y - y, : size_x - x])
    found, pixels = totals / number, number * image.size
    error = wanted[0, 0] / np.sqrt(pixels) * np.where(np.add.outer(range(3), range(3)) == 0, np.sqrt(2), 1)
    # 12 frames of 57,600 pixels: 0.17 % of the variance, and 80 % of Poisson's
    assert wanted[0, 0] / MEAN == pytest.approx(0.80, abs=0.01)
    assert np.abs((found - wanted[:3, :3]) / error).max() < 4


def test_charge_is_conserved_and_stars_grow(detector: Detector) -> None:
    v, u = np.mgrid[:256, :256]
    star = 9e4 * np.exp(-0.5 * ((u - 60) ** 2 + (v - 60) ** 2) / 1.9**2)
    light = star.astype(np.float32)
    with_effect = np.mean([collected(detector, light, frame) for frame in range(8)], axis=0)
    assert float(with_effect.sum()) == pytest.approx(float(light.sum()), abs=4 * float(np.sqrt(light.sum() / 8)))
    near = (np.hypot(u - 60, v - 60) < 12).astype(float)

    def size(image: NDArray[np.floating]) -> float:
        weight = image * near
        return float(np.sqrt((weight * (u - 60) ** 2).sum() / weight.sum()))

    assert 1.005 < size(with_effect) / size(light) < 1.01


def test_charge_above_the_wells_runs_along_the_column() -> None:
    charge = np.full((40, 3), 100.0, np.float32)
    charge[10, 1] += 1000
    wells = np.full_like(charge, 150.0)
    before = charge.copy()
    bloom(charge, wells)
    assert charge.sum(axis=0) == pytest.approx(before.sum(axis=0), rel=1e-6)
    assert charge.max() <= 150 and (charge[:, [0, 2]] == 100).all()
    full = np.flatnonzero(charge[:, 1] == 150)
    assert full[0] <= 2 and full[-1] >= 18 and len(full) in (19, 20, 21)


def test_saturated_flats_have_less_variance() -> None:
    rates = Rates(well_spread=0.01, cosmic_rays=0.0, hot=0.0, dead=0.0, qe=0.0)
    made = truth.make(SEED, DETECTOR, ["r_03"], rates)
    ratios = []
    for light in (8e4, 1.3e5):
        amplifier = DETECTOR.amplifiers[1]
        one, other = (
            simulate.frame(SEED, made, 1, exposure(n, "flat", 5.0, electrons=light), rates)[1][amplifier.data.slices]
            for n in (3, 4)
        )
        ratios.append(float(np.var((one - other) * amplifier.gain) / 2 / light))
    assert ratios[1] < 0.3 * ratios[0]


def test_spots_light_one_amplifier() -> None:
    rates = Rates(spot_sigma=2.0)
    parameters = exposure(5, "spot", 1.0, spots=5, lit=2)
    image = scene(SEED, DETECTOR, parameters, rates)
    assert image is not None
    lit = DETECTOR.amplifiers[2].target
    assert image[lit.slices].max() > 3e4
    image[lit.slices] = 0
    assert not image.any()
    assert scene(SEED, DETECTOR, exposure(5, "flat", 1.0), rates) is None


def test_a_gain_changes_from_a_night_on() -> None:
    rates = Rates(gain_steps={"R22_S01_C17": [20241209, 1.002]})
    before, after = (simulate.gains_at(DETECTOR, day, rates) for day in (20241208, 20241209))
    assert np.divide(after, before).tolist() == [1.0, 1.002, 1.0, 1.0]
    assert CAMERA["detectors"][1]["name"] == DETECTOR.name


def test_the_diode_reads_the_lamp() -> None:
    rates = Rates(diode_noise=1e-4)
    parameters = exposure(6, "flat", 5.0)
    light = simulate.light(SEED, parameters, rates)
    readings = [diode.trace(SEED + k, parameters, light, rates) for k in range(40)]
    charges = []
    for time, current in readings:
        baseline = np.mean(np.r_[current[: diode.DARK], current[-diode.DARK :]])
        charges.append(-np.trapezoid(current - baseline, time) / rates.diode_charge)
    assert np.mean(charges) == pytest.approx(light, rel=5e-5)
    assert 0.7e-4 < np.std(charges) / light < 1.5e-4
    table = Table.read(diode.text(*readings[0], parameters, "COMCAM").decode(), format="ascii.ecsv")
    np.testing.assert_array_equal(table["CURRENT"], readings[0][1])
    assert table["TIME"].unit == "s" and table.meta["OBSTYPE"] == "PHOTODIODE" and table.meta["seq_num"] == 6


def test_the_truth_file_holds_the_electronics(tmp_path: Path) -> None:
    steps = {"R22_S01_C17": [20241209, 1.002]}
    rates = Rates(brighter_fatter=1.0, well_spread=0.01, nonlinearity=0.01, crosstalk=1e-4, gain_steps=steps)
    made, file = truth.make(SEED, DETECTOR, [], rates), tmp_path / "truth.fits"
    bias = exposure(1, "bias", 0.0)
    file.write_bytes(truthfile.truth_bytes(SEED, made, 1, [bias], {bias["exposure"]: 0.0}, rates))
    with fitsio.FITS(file) as fits:
        assert abs(brighter.whole(fits["A"].read()).sum()) < 1e-18 and fits["A"].read_header()["STEPS"] == 8
        np.testing.assert_array_equal(fits["CROSSTALK"].read(), np.stack([made.electronics.c0, made.electronics.c1]))
        np.testing.assert_array_equal(fits["LINEARITY"].read()[1], made.electronics.values)
        assert fits["GAIN_STEPS"].read().tolist() == [("C17", 20241209, 1.002)]
        assert fits["WELLS"].read().std() / fits["WELLS"].read().mean() > 0.01


def test_ramps_of_pairs() -> None:
    block = {"type": "flat", "day_obs": 20241208, "first": 1, "count": 8, "electrons": (100.0, 2700.0)}
    pairs = Block.model_validate(block | {"pairs": True, "spacing": "log"})
    assert [round(pairs.along((100.0, 2700.0), k)) for k in range(8)] == [100, 100, 300, 300, 900, 900, 2700, 2700]
    for wrong in (
        {"time": -1.0},
        {"time": float("nan")},
        {"count": 10**9},
        {"pairs": True, "count": 7},
        {"spacing": "log", "electrons": (0.0, 10.0)},
    ):
        with pytest.raises(ValidationError):
            Block.model_validate(block | wrong)
