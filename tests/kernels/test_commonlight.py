"""The light of the focal plane: against a dense least squares, and against the lamp that made the signals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.transfer import commonlight, linearfit
from kernels.transfer.linearmodel import Amplifier, Light, Model, Rule, Unlinear
from kernels.transfer.splines import basis, coarse_nodes, even_nodes, fine_nodes, supported
from tests.kernels.test_linearfit import curved

F64 = NDArray[np.float64]
END = 95_000.0
RULE = Rule(monitor=0.01, floor=3e-5, photon=2.6e-3)
LIGHT = np.concatenate([np.geomspace(200, 3500, 30), np.linspace(4000, 90_000, 80)])


class Plane:
    """Amplifiers of a few detectors that saw one lamp."""

    def __init__(self, amplifiers: int, jitter: float, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.lamp = 1 + rng.normal(0, jitter, LIGHT.size)
        self.scales = rng.uniform(0.8, 1.05, amplifiers)
        self.bends = list(zip(rng.normal(0, 120, amplifiers), rng.uniform(0.6, 1.5, amplifiers), strict=True))
        photons = rng.normal(0, 1, (amplifiers, LIGHT.size))
        true = self.scales[:, np.newaxis] * LIGHT * self.lamp
        bent = np.array([curved(t, *bend) for t, bend in zip(true, self.bends, strict=True)])
        self.signals = bent * (1 + photons * np.sqrt(RULE.photon**2 / bent))

    def models(self, light: Light, some: slice = slice(None)) -> list[Model]:
        """One spline an amplifier."""
        return [self.model(signal[np.newaxis], light) for signal in self.signals[some]]

    def model(self, signals: F64, light: Light) -> Model:
        used, ptc = signals < END, np.full(len(signals), 60_000.0)
        return linearfit.prepare(signals, used, light, ptc, even_nodes(20, END), (), RULE)

    def errors(self, made: list[Amplifier]) -> F64:
        """Corrected signals over true ones, less their median [amplifier, signal]."""
        off = []
        for one, bend, scale in zip(made, self.bends, self.scales, strict=True):
            fine = np.linspace(500, 0.9 * 90_000 * scale, 500)
            ratio = one.correct(curved(fine, *bend)) / fine
            off.append(ratio / np.median(ratio) - 1)
        return np.array(off)


def smooth(models: list[Model]) -> F64:
    """Splines of the signal of 5 nodes, an offset and a factor, all over the signal [exposure, part]."""
    x = np.nanmedian(np.concatenate([np.where(m.used, m.signals, np.nan) for m in models]), axis=0)
    nodes = supported(even_nodes(5, x.max()), x)
    return np.column_stack([basis(nodes, np.zeros(5), x)[:, 1:] / x[:, np.newaxis], np.ones(x.size), 1 / x])


def dense(models: list[Model], found: commonlight.CommonLight) -> tuple[F64, F64]:
    """Solve for all parameters at once, by rows of all points and of the monitor; give them, and the light's change."""
    designs = [model.design()[0] for model in models]
    widths = [d.shape[2] for d in designs]
    parts = smooth(models)
    free = np.linalg.svd(parts)[0][:, parts.shape[1] :]
    rows, right = [], []
    for n, (model, design) in enumerate(zip(models, designs, strict=True)):
        at = sum(widths[:n])
        for k, j in np.argwhere(model.used):
            weight = 1 / np.hypot(RULE.floor, RULE.photon / np.sqrt(model.signals[k, j]))
            row = np.zeros(sum(widths) + free.shape[1])
            row[at : at + widths[n]] = weight * design[k, j] / model.signals[k, j]
            lit = model.slopes(k)[0][0] * model.light.amount[j]
            row[sum(widths) :] = weight * free[j] * lit / model.signals[k, j]
            rows.append(row)
            right.append(weight)
    for j in range(LIGHT.size):
        rows.append(np.concatenate([np.zeros(sum(widths)), free[j] / found.monitor]))
        right.append(-np.log(found.factor[j]) / found.monitor)
    matrix = np.array(rows)
    size = np.sqrt((matrix**2).sum(axis=0))
    solution = np.linalg.lstsq(matrix / size, np.array(right), rcond=None)[0] / size
    return solution[: sum(widths)], free @ solution[sum(widths) :]


@pytest.mark.parametrize("double", [False, True])
def test_it_is_the_joint_least_squares(double: bool) -> None:
    plane = Plane(5, 0.01)
    light = Light.of(LIGHT)
    models = plane.models(light)
    if double:  # one detector whose amplifiers share a spline, and one that is alone
        own, used = [fine_nodes(60_000, END)] * 2, plane.signals[:3] < END
        together = plane.signals[:3], used, light, np.full(3, 6e4), coarse_nodes(END, 8000.0), own, RULE
        models = [linearfit.prepare(*together), *models[3:]]
    found = commonlight.solve(models, RULE)
    parameters, change = dense(models, found)
    assert np.abs(change).max() < 2e-6  # nothing is left to be changed
    ours = np.concatenate([np.concatenate([m.parameters, *m.values]) for m in models])
    wanted = 1e-5 * np.maximum(np.abs(parameters), 5.0)
    assert (np.abs(ours - parameters) < np.maximum(wanted, 0.02)).all()


def test_amplifiers_agree_however_the_lamp_flickers() -> None:
    """Nine detectors of four amplifiers, a lamp of 1 % and no diode."""
    plane = Plane(36, 0.01)
    models = plane.models(Light.of(LIGHT))
    found = commonlight.solve(models, RULE)
    together = plane.errors([model.amplifier(0) for model in models])
    common = np.median(together, axis=0)
    assert (together - common).std() < 2e-4
    assert found.monitor == pytest.approx(0.01, rel=0.35) and not found.off.any() and found.chi2 < 1.3
    each = (signal[np.newaxis] for signal in plane.signals)
    part = Light.of(LIGHT), np.array([6e4]), even_nodes(20, END), (), RULE
    alone = plane.errors([linearfit.fit(signal, signal < END, *part)[0] for signal in each])
    print(together.std(), common.std(), alone.std(), (alone - np.median(alone, axis=0)).std())
    assert together.std() < 0.5 * alone.std()


def test_a_good_diode_gives_the_bar() -> None:
    plane = Plane(8, 1e-4)
    models = plane.models(Light.of(LIGHT))
    found = commonlight.solve(models, Rule(monitor=1e-3, floor=3e-5, photon=2.6e-3))
    assert found.monitor < 2e-4
    off = plane.errors([model.amplifier(0) for model in models])
    assert np.mean(np.abs(off) < 2e-4) > 0.98 and off.std() < 1e-4


def test_a_monitor_that_is_off_is_left_to_the_frames() -> None:
    plane = Plane(6, 1e-3)
    read = LIGHT.copy()
    read[[40, 70]] *= [1.3, 0.5]
    found = commonlight.solve(plane.models(Light.of(read)), RULE)
    assert np.flatnonzero(found.off).tolist() == [40, 70]
    lamp = found.factor * read / LIGHT / plane.lamp
    assert np.abs(lamp / np.median(lamp) - 1).max() < 2e-3


def test_exposures_that_nobody_saw_stay_as_they_are() -> None:
    plane = Plane(3, 1e-3)
    plane.signals[:, 50] = np.nan
    found = commonlight.solve(plane.models(Light.of(LIGHT)), RULE)
    assert found.factor[50] == 1 and found.error[50] == np.inf and np.isfinite(np.delete(found.error, 50)).all()
    with pytest.raises(Unlinear, match="no detector has a linearity"):
        commonlight.solve([], RULE)
    few = [replace_used(model) for model in plane.models(Light.of(LIGHT))]
    with pytest.raises(Unlinear, match="points do not determine"):
        commonlight.solve(few, RULE)


def replace_used(model: Model) -> Model:
    """Leave six points."""
    model.used[:, 6:] = False
    model.rule = replace(model.rule, rounds=3)
    return model
