"""Simulated crosstalk and non-linearity, and that the truth's calibrations take them out."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from campaign.camera import model as cameras
from kernels import table
from kernels.calibrations import defects, linearity, ptc
from kernels.calibrations.crosstalk import Crosstalk, correct
from kernels.calibrations.linearity import Linearizer
from kernels.camera import geometry
from kernels.camera.geometry import Camera, Detector
from kernels.errors import JobError
from kernels.jobs import job
from kernels.simulation import electronics, simulate, truth
from kernels.simulation.rates import Rates
from tests.kernels.conftest import Lab

SEED, FILTER = 7, "r_03"
#: Nothing but light, its Poisson noise, and rounding.
QUIET = {"level_drift": 0.0, "row_drift": 0.0, "cosmic_rays": 0.0}
DISTORTED = {**QUIET, "crosstalk": 5e-4, "nonlinearity": 0.01}
FLAT = {
    "exposure": 2024120800001, "observation_type": "flat", "physical_filter": FILTER, "exposure_time": 12.0,
    "dark_time": 12.0,
}  # fmt: skip
Image = NDArray[Any]


def plain(unit: str) -> dict[str, Any]:
    """An E2V and an ITL detector, small and without read noise."""
    camera = cameras.load("LSSTCam").scaled(32).model_copy(update={"unit": unit})
    made = camera.plain([0, 94])
    for detector in made["detectors"]:
        detector["read_noises"] = [0.0] * len(detector["read_noises"])
    return made


@pytest.fixture(scope="module", params=["electron", "adu"])
def camera(request: pytest.FixtureRequest) -> Camera:
    return geometry.camera(plain(request.param))


def products_job(folder: Path, camera: dict[str, Any], ranks: int = 1) -> dict[str, Any]:
    kinds = ("crosstalk", "linearizer", "ptc", "defects")
    tasks = [
        {"task": f"truth:{d['id']}", "detector": d["id"], "provenance": {"TICKET": "DM-1"},
         "outputs": {kind: str(folder / f"{kind}-{d['id']}.fits") for kind in kinds}}
        for d in camera["detectors"]
    ]  # fmt: skip
    return {
        "version": 1, "kernel": "truth_products", "run": "r", "attempt": 1, "site": "here", "token": 1, "ranks": ranks,
        "journal": str(folder.with_suffix(".journal") / "truth"), "camera": camera, "files": {}, "tasks": tasks,
        "config": {"seed": SEED, "rates": DISTORTED},
    }  # fmt: skip


def products(folder: Path, unit: str) -> Path:
    frozen = job.from_plain(products_job(folder, plain(unit)))
    assert table.find(frozen.kernel).execute(frozen, None) == 0
    return folder


def raw(detector: Detector, parameters: dict[str, Any], settings: dict[str, Any]) -> list[Image]:
    rates = Rates(**settings)
    return simulate.frame(SEED, truth.make(SEED, detector, [FILTER], rates), 32, parameters, rates)


def above_overscan(detector: Detector, frames: list[Image], unit: str) -> NDArray[np.float32]:
    """[amplifier, row, column], overscan and all."""
    signals = []
    for a, pixels in zip(detector.amplifiers, frames, strict=True):
        assert a.serial_overscan is not None
        level = np.median(pixels[:, a.serial_overscan.x0 + 3 :], axis=1)
        signals.append((pixels - level[:, None]) * (a.gain if unit == "electron" else 1.0))
    return np.array(signals, np.float32)


def corrected(
    detector: Detector, camera: Camera, folder: Path, signal: NDArray[np.float32], *steps: str
) -> NDArray[np.float32]:
    """Imaging areas in ADU, corrected by the truth's calibrations in the order of the signature removal."""
    signal = signal.copy()
    if "crosstalk" in steps:
        found = Crosstalk.open(str(folder / f"crosstalk-{detector.id}.fits"), camera, detector, True)
        correct(signal, found.c0, found.c1)
    area = detector.amplifiers[0].data
    signal = np.ascontiguousarray(signal[:, area.y0 : area.y1, area.x0 : area.x1])
    gains = [a.gain if camera.unit == "electron" else 1.0 for a in detector.amplifiers]
    if "linearity" in steps:
        grid = Linearizer.open(str(folder / f"linearizer-{detector.id}.fits"), camera, detector).tables()
        for k, gain in enumerate(gains):
            linearity.apply(signal[k], grid.values[k], grid.step[k], gain)
    return signal / np.array(gains, np.float32)[:, None, None]


def worst(residual: NDArray[np.float32]) -> float:
    """Largest mean over an amplifier, ADU."""
    return float(np.abs(residual.mean(axis=(1, 2))).max())


@pytest.mark.parametrize("number", [0, 94])
def test_the_truth_takes_out_what_the_truth_put_in(camera: Camera, number: int, tmp_path: Path) -> None:
    """The same photons, with perfect electronics and with those of the truth, corrected."""
    folder, detector = products(tmp_path, camera.unit), camera.detectors[number]
    perfect, distorted = (above_overscan(detector, raw(detector, FLAT, r), camera.unit) for r in (QUIET, DISTORTED))
    wanted = corrected(detector, camera, folder, perfect)
    assert 1e4 < wanted.mean() < 6e4
    rest = corrected(detector, camera, folder, distorted, "crosstalk", "linearity") - wanted
    assert worst(rest) < 0.05
    # rounding of two frames, and nothing else: a flat has no edges that could hide in a mean
    assert np.sqrt((rest**2).mean()) < 0.45 and np.abs(rest).max() < 1.6
    without = {
        left: worst(corrected(detector, camera, folder, distorted, *steps) - wanted)
        for left, steps in {"crosstalk": ["linearity"], "linearity": ["crosstalk"]}.items()
    }
    assert without["crosstalk"] > 20 and without["linearity"] > 100


def test_before_rounding_what_is_left_is_a_few_thousandths(camera: Camera, tmp_path: Path) -> None:
    """Signals as floats, up to the full well, through crosstalk and bending and back."""
    folder, detector, rates = products(tmp_path, camera.unit), camera.detectors[94], Rates(**DISTORTED)
    true, rng = electronics.make(SEED, detector, rates), np.random.default_rng(5)
    area = detector.amplifiers[0].data
    signals = [rng.uniform(-40, 9e4, (area.ny, area.nx)).astype("f4") for _ in detector.amplifiers]
    bent = [electronics.bend(s, x, y) for s, x, y in zip(signals, true.nodes, true.values, strict=True)]
    gains = np.array([a.gain if camera.unit == "electron" else 1.0 for a in detector.amplifiers], "f4")
    whole = np.zeros((len(signals), *detector.amplifiers[0].raw[::-1]), np.float32)
    whole[:, area.y0 : area.y1, area.x0 : area.x1] = electronics.couple(bent, true) * gains[:, None, None]
    rest = corrected(detector, camera, folder, whole, "crosstalk", "linearity") - np.array(signals)
    assert np.abs(rest).max() < 0.05
    assert np.sqrt((rest**2).mean()) < 0.012  # float32 of 9e4 has steps of 0.008


def test_coefficients_are_of_the_size_asked_for(camera: Camera) -> None:
    detector = camera.detectors[0]
    true = electronics.make(SEED, detector, Rates(**DISTORTED))
    beside = np.concatenate([np.diagonal(true.c0, 1), np.diagonal(true.c0, -1)])
    assert (beside >= 0.7 * 5e-4).all() and (beside <= 1.3 * 5e-4).all()
    assert not np.diagonal(true.c0).any() and 0 < np.abs(true.c1 * 1e5).max() < 0.3 * beside.max()
    relative = np.abs(true.values[:, 1:] / true.nodes[:, 1:])
    assert 0.008 < relative.max() <= 0.01
    other = electronics.make(SEED, replace(detector, id=1), Rates(**DISTORTED))
    assert not ((other.c0 == true.c0) & (true.c0 > 0)).any() and (other.values[:, 1:] != true.values[:, 1:]).all()


def test_without_them_the_frames_are_what_they_were(camera: Camera) -> None:
    detector, flat = camera.detectors[0], {**FLAT, "exposure_time": 1.0}
    off = raw(detector, flat, {"crosstalk": 0.0, "nonlinearity": 0.0})
    assert all(np.array_equal(a, b) for a, b in zip(off, raw(detector, flat, {}), strict=True))
    for name in ("crosstalk", "nonlinearity"):
        assert not any(np.array_equal(a, b) for a, b in zip(off, raw(detector, flat, {name: 0.01}), strict=True))


def test_crosstalk_between_amplifiers_of_unlike_shape(camera: Camera) -> None:
    detector = camera.detectors[0]
    first, *others = detector.amplifiers
    odd = replace(detector, amplifiers=(replace(first, raw=(first.raw[0], first.raw[1] + 1)), *others))
    assert electronics.make(SEED, odd, Rates()) is not None
    with pytest.raises(JobError, match="has amplifiers of unlike shape"):
        electronics.make(SEED, odd, Rates(crosstalk=1e-4))


def test_the_other_calibrations_say_the_truth(camera: Camera, tmp_path: Path) -> None:
    folder, detector = products(tmp_path, camera.unit), camera.detectors[0]
    other = replace(detector, amplifiers=tuple(replace(a, gain=9.0, read_noise=9.0) for a in detector.amplifiers))
    assert ptc.apply(str(folder / "ptc-0.fits"), camera, other) == detector
    true = truth.make(SEED, detector, [], Rates())
    box = geometry.Box(0, 0, *detector.size)
    mask = defects.Defects.open(str(folder / "defects-0.fits"), camera, detector).mask(box)
    assert mask.any() and np.array_equal(mask, true.hot | true.dead)


def test_two_ranks_write_the_same_bytes(lab: Lab, tmp_path: Path) -> None:
    one, two = products(tmp_path / "one", "electron"), tmp_path / "two"
    path = lab.write_job(json.loads(json.dumps(products_job(two, plain("electron"), ranks=2))))
    subprocess.run(lab.command(path, 2), check=True, timeout=60)
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}
    assert len(list(one.iterdir())) == 8
