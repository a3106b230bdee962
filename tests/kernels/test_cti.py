"""Deferred charge: the model and its inverse, the fit, and the whole job against the simulator's truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from campaign.camera import model as cameras
from kernels import run
from kernels.calibrations import cti
from kernels.calibrations.deferred import Deferral, defer, restore, restoring
from kernels.camera import geometry
from kernels.camera.geometry import Camera
from kernels.errors import DataError, JobError
from kernels.jobs import job
from kernels.response.ctifit import Fit, Ranges, fit
from kernels.statistics.sample import clipped_mean
from tests.kernels.conftest import Lab

SEED, SCALE, DETECTOR = 11, 16, 4
RATES = {"cti": 10**-5.1, "output_drift": 5e-5, "cosmic_rays": 0.5, "lamp": 1000.0, "vignetting_mm": [9e5, 1e6]}


def clocked(charge: NDArray[np.float64], d: Deferral) -> NDArray[np.float64]:
    """The same clock by clock: the register is shifted, and each packet leaves a part behind."""
    free, read, offset = charge.copy(), np.empty_like(charge), np.zeros(len(charge))
    for x in range(charge.shape[1]):
        moved, left = free * (1 - d.cti), free * d.cti
        offset = np.maximum(d.drift * moved[:, 0], offset * d.kept)
        read[:, x] = moved[:, 0] + offset
        free = np.concatenate([moved[:, 1:], np.zeros((len(free), 1))], axis=1) + left
    return read


@pytest.mark.parametrize("deferral", [Deferral(1e-4), Deferral(0.0, 2e-4, 2.0), Deferral(8e-6, 1e-4, 1.7)])
def test_the_model_is_what_clocks_do_and_its_inverse_undoes_it(deferral: Deferral) -> None:
    rng = np.random.default_rng(1)
    charge = rng.uniform(0, 1e5, (8, 300))
    charge[:, 250:] = 0  # the overscan
    charge[3, 100:120] = 0
    read = defer(charge.astype(np.float32), deferral)
    np.testing.assert_allclose(read, clocked(charge, deferral), rtol=3e-6, atol=0.02)
    for first in (0, 10):  # whether the prescan is there or not
        back = read[:, first:].copy()
        restore(back, restoring(deferral, first, back.shape[1]), deferral.drift, deferral.kept)
        np.testing.assert_allclose(back[:, 5:], charge[:, first + 5 :], rtol=3e-6, atol=0.05)
    assert np.abs(read - charge)[:, 250:253].max() > 1  # there was something to be undone


def measured(d: Deferral, signal: NDArray[np.float64], rng: np.random.Generator, error: float = 0.1) -> Any:
    n = np.arange(1, 14)
    tail = np.outer(signal, d.drift * np.exp(-n / d.decay))
    tail[:, 0] += 500 * d.cti * signal
    return tail + rng.normal(0, error, tail.shape)


RAMP = np.concatenate([np.linspace(100, 9900, 80), np.geomspace(12000, 100000, 10)])


def test_a_fit_finds_what_was_put_in() -> None:
    rng, d = np.random.default_rng(2), Deferral(1.5e-6, 5e-5, 2.2)
    found = fit(RAMP, measured(d, RAMP, rng), np.full(90, 0.1), 500, Ranges())
    assert abs(found.cti - d.cti) < 4 * found.cti_error < 0.1 * d.cti
    assert abs(found.drift - d.drift) < 4 * found.drift_error < 3e-5 and abs(found.decay / d.decay - 1) < 0.2
    assert found.exposures == 80 and found.eper > found.cti


def test_errors_of_a_fit_are_what_it_scatters_by() -> None:
    rng, d = np.random.default_rng(3), Deferral(1.5e-6)
    fits = [fit(RAMP, measured(d, RAMP, rng), np.full(90, 0.1), 500, Ranges()) for _ in range(300)]
    pulls = np.array([(f.cti - d.cti) / f.cti_error for f in fits])
    assert 0.9 < pulls.std() < 1.12 and abs(pulls.mean()) < 0.2
    assert sum(f.drift == 0 for f in fits) > 270  # an absent offset is not fitted


def test_an_amplifier_without_light_is_not_measured() -> None:
    dark = np.random.default_rng(4).normal(0, 0.1, 90)
    assert fit(dark, np.zeros((90, 13)), np.full(90, 0.1), 500, Ranges()) == Fit()
    assert fit(np.full(90, np.nan), np.full((90, 13), np.nan), np.full(90, 0.1), 500, Ranges()).exposures == 0


@pytest.mark.parametrize(
    "wrong", [{"offset_columns": [1, 9]}, {"offset_columns": [3]}, {"offset_columns": [4, 4]}, {"cti_columns": [2, 3]}]
)
def test_ranges_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="columns"):
        Ranges.from_plain(wrong)


def described(
    folder: Path, kernel: str, tasks: list[dict[str, Any]], scale: int = SCALE, **more: Any
) -> dict[str, Any]:
    camera = cameras.load("LSSTComCam").scaled(scale).plain([DETECTOR])
    return {
        "version": 1, "kernel": kernel, "run": "r", "attempt": 1, "site": "here", "token": 1, "ranks": 1,
        "journal": str(folder / "journal" / kernel), "camera": camera, "files": {}, "tasks": tasks, **more,
    }  # fmt: skip


def common(folder: Path, kernel: str, tasks: list[dict[str, Any]], **more: Any) -> int:
    plain = described(folder, kernel, tasks, **more)
    frozen = job.from_plain(json.loads(json.dumps(plain)))
    return run._kernel(kernel)(frozen, None)


def shots(lit: bool = True) -> list[dict[str, Any]]:
    times = [0.1 * k for k in range(1, 81)] + [10.0 * k for k in range(1, 11)]
    return [
        {
            "exposure": 2024080600001 + k, "day_obs": 20240806, "seq_num": 1 + k, "obs_id": f"CC_O_20240806_{k:06d}",
            "observation_type": "flat", "physical_filter": "r_03", "exposure_time": t, "dark_time": t,
            "begin": "2024-08-06T21:00:00.000", "mjd": 60528.9, "reason": "comcam_ptc", "program": "BLOCK-T68",
            "lamp": 1.0 if lit else 0.0,
        }
        for k, t in enumerate(times)
    ]  # fmt: skip


def simulated(
    folder: Path, exposures: list[dict[str, Any]], scale: int = SCALE, rates: dict[str, Any] = RATES
) -> list[str]:
    raws = [str(folder / f"raw{p['exposure']}.fits") for p in exposures]
    tasks = [
        {"task": f"raw:{k}", "detector": DETECTOR, "outputs": {"raw": path}, "parameters": p}
        for k, (path, p) in enumerate(zip(raws, exposures, strict=True))
    ]
    tasks.append({"task": "truth", "detector": DETECTOR, "outputs": {"truth": str(folder / "truth.fits")},
                  "parameters": {"exposures": exposures}})  # fmt: skip
    config = {"seed": SEED, "rates": rates, "header": {"INSTRUME": "COMCAM"}}
    assert common(folder, "simulate", tasks, config=config, scale=scale) == 0
    return raws


def solving(folder: Path, raws: list[str], isr: dict[str, Any]) -> dict[str, Any]:
    task = {"task": "cti:4", "detector": DETECTOR, "inputs": {"raw": raws},
            "outputs": {"cti": str(folder / "cti.fits")}, "provenance": {"TICKET": "DM-1"}}  # fmt: skip
    files = {path: {"path": path} for path in raws}
    config = {"isr": isr, "permissions": {}, "offset_columns": [3, 13]}
    return {"kernel": "cti", "tasks": [task], "config": config, "files": files}


def solve(folder: Path, raws: list[str], isr: dict[str, Any]) -> int:
    return common(folder, **solving(folder, raws, isr))


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("cti")
    raws = simulated(folder, shots())
    assert solve(folder, raws, {"serial": "median", "parallel": False, "saturation": False}) == 0
    return folder, raws


@pytest.mark.soak
def test_a_full_size_detector_gives_what_the_camera_really_has(tmp_path: Path) -> None:
    """ITL, 1.5e-6 (SITCOMTN-148): 512 transfers and 2000 rows."""
    settings = {**RATES, "cti": 1.5e-6, "cosmic_rays": 0.05}
    raws = simulated(tmp_path, shots(), scale=1, rates=settings)
    isr = {"serial": "median", "parallel": False, "saturation": False}
    assert common(tmp_path, **solving(tmp_path, raws, isr), scale=1) == 0
    truth, table = (
        fitsio.read(str(tmp_path / "truth.fits"), ext="AMPLIFIERS"),
        fitsio.read(str(tmp_path / "cti.fits"), ext="CTI"),
    )
    off = np.log10(table["GLOBAL_CTI"] / truth["cti"])
    assert abs(np.median(off)) < 0.02 and np.abs(off).max() < 0.1
    pulls = (table["DRIFT_SCALE"] - truth["drift"]) / table["DRIFT_SCALE_ERROR"]
    assert np.abs(pulls).max() < 4 and abs(pulls.mean()) < 0.5


@pytest.mark.processes
def test_three_ranks_give_the_same(ramp: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Pieces of other ranks are valid until the next piece, and must not be kept."""
    folder, raws = ramp
    isr = {"serial": "median", "parallel": False, "saturation": False}
    plain = {**described(tmp_path, **solving(tmp_path, raws, isr)), "journal": str(tmp_path / "journal" / "cti")}
    done = Lab(tmp_path).mpi(plain, 3)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cti.fits").read_bytes() == (folder / "cti.fits").read_bytes()


def camera() -> Camera:
    return geometry.camera(cameras.load("LSSTComCam").scaled(SCALE).plain([DETECTOR]))


def test_a_ramp_of_flats_gives_the_truth(ramp: tuple[Path, list[str]]) -> None:
    folder, _ = ramp
    truth = fitsio.read(str(folder / "truth.fits"), ext="AMPLIFIERS")
    table = fitsio.read(str(folder / "cti.fits"), ext="CTI")
    off = np.log10(table["GLOBAL_CTI"] / truth["cti"])
    assert abs(np.median(off)) < 0.03 and (np.abs(off) < 0.1).mean() >= 0.95
    assert np.abs((table["GLOBAL_CTI"] - truth["cti"]) / table["GLOBAL_CTI_ERROR"]).max() < 5
    third = (
        [t["DRIFT_SCALE"] * np.exp(-3 / t["DECAY_TIME"]) for t in table],
        [t["drift"] * np.exp(-3 / t["decay"]) for t in truth],
    )
    np.testing.assert_allclose(*third, atol=1.2e-5)  # four standard errors of the means of the bright ones
    assert (table["EXPOSURES"] > 60).all()


def test_the_first_overscan_column_is_empty_after_correction(ramp: tuple[Path, list[str]]) -> None:
    folder, raws = ramp
    detector = camera().detectors[DETECTOR]
    deferrals, _ = cti.read(str(folder / "cti.fits"), camera(), detector)
    before, after = [], []
    for path in raws[50:90]:
        with fitsio.FITS(path) as fits:
            for a, d in zip(detector.amplifiers, deferrals, strict=True):
                assert a.serial_overscan is not None
                raw, data = fits[a.hdu].read().astype(np.float64), a.data
                level = np.median(raw[:, a.serial_overscan.x0 + 3 :], axis=1, keepdims=True)
                rows = np.ascontiguousarray(((raw - level) * a.gain)[: data.ny], np.float32)
                error = a.read_noise / np.sqrt(data.ny)
                before.append(clipped_mean(rows[:, data.x1 :][:, :1].copy())[0] / error)
                restore(rows, restoring(d, 0, rows.shape[1]), d.drift, d.kept)
                after.append(clipped_mean(rows[:, data.x1 :][:, :1].copy())[0] / error)
    faint, bright = np.array(after).reshape(40, 16)[:30], np.array(after).reshape(40, 16)[30:]
    assert np.median(before) > 3
    assert (np.abs(faint) < 3).mean() > 0.98 and abs(faint.mean()) < 0.3
    # a fit to faint exposures leaves residuals of its own error in bright ones
    assert np.abs(bright).mean() < 0.08 * np.array(before).reshape(40, 16)[30:].mean()


def test_frames_without_light_are_refused(tmp_path: Path) -> None:
    raws = simulated(tmp_path, shots(lit=False)[:3])
    assert solve(tmp_path, raws, {"serial": "median", "parallel": False, "saturation": False}) == 1
    said = (tmp_path / "journal").rglob("*.jsonl")
    assert "no amplifier has light" in "".join(path.read_text() for path in said)
    assert not (tmp_path / "cti.fits").exists()


def test_a_table_with_what_no_amplifier_has_is_refused(tmp_path: Path) -> None:
    detector, path = camera().detectors[DETECTOR], str(tmp_path / "cti.fits")
    rows = [(1e-6, 0, 1e-4, 0, 2.0, 1e-6, 9)] * 15 + [(0.5, 0, 0, 0, 1.0, 0, 9)]
    cti.write(path, camera(), detector, rows)
    with pytest.raises(DataError, match="amplifier C00: cti 0.5"):
        cti.read(path, camera(), detector)
