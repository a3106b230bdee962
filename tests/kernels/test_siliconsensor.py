"""Photon transfer of flats that another simulator exposes: SiliconSensor of GalSim, a model of pixel edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.transfer.covariance import Rule as PairRule
from kernels.transfer.covariance import measure
from kernels.transfer.curve import Points, Rule, fit

pytestmark = pytest.mark.soak

SENSORS = ("lsst_e2v_50_8", "lsst_itl_50_8")
GAIN, NOISE, SIZE, STEPS, SIDE = 1.5, 5.0, 192, 12, 4
LEVELS = [*np.geomspace(300, 3000, 4), *np.linspace(8_000, 80_000, 10)]
SETS = 5


def areas(sensor: Any, charge: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of the pixels [y, x] under the charge [y, x], electron; 1 in a flat."""
    import galsim

    return np.asarray(sensor.calculate_pixel_areas(galsim.ImageD(np.ascontiguousarray(charge))).array)


def truth(sensor: Any) -> NDArray[np.float64]:
    """a [i along x, j along y], 1/electron: changes of the areas about one charged pixel."""
    charge, n = np.zeros((41, 41)), 20
    empty = areas(sensor, charge)
    charge[n, n] = 20_000.0
    changes = (areas(sensor, charge) / empty - 1) / 20_000.0
    return np.asarray(changes[n : n + SIDE, n : n + SIDE].T)


def exposed(sensor: Any, rng: np.random.Generator, level: float) -> NDArray[np.float32]:
    """Expose a frame in steps, each by the areas that the charge before it and half of its own light make."""
    charge, light = np.zeros((SIZE, SIZE)), level / STEPS
    for _ in range(STEPS):
        ahead = charge * (1 + light / (2 * charge.mean())) if charge.any() else charge
        charge += rng.poisson(areas(sensor, ahead) * light)
    read = charge + rng.normal(0, NOISE, charge.shape)
    return np.rint(read / GAIN).astype(np.float32)


@pytest.mark.parametrize("name", SENSORS)
def test_gain_and_a_of_another_simulator_are_recovered(name: str) -> None:
    galsim = pytest.importorskip("galsim", reason="no GalSim (make soak)")
    rng, sensor = np.random.default_rng(3), galsim.SiliconSensor(name=name, rng=galsim.BaseDeviate(1))
    rule = PairRule(side=SIDE, least=1)
    pairs = [
        measure((exposed(sensor, rng, level), exposed(sensor, rng, level)), None, rule)
        for _ in range(SETS)
        for level in LEVELS
    ]
    found, true = fit(Points.of(pairs), Rule(side=SIDE)), truth(sensor)
    assert abs(found.gain - GAIN) < 3 * found.gain_error
    z = (found.a - true) / found.a_error
    assert abs(z[0, 0]) < 3 and abs(z[0, 1]) < 3, (found.a[:2, :2], true[:2, :2], z[:2, :2])
    assert np.sqrt(np.mean(z**2)) < 1.6
    assert found.reduced == pytest.approx(1.0, abs=0.15)
