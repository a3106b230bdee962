"""Products made from simulated frames by plain numpy agree with the truth; wrong ones do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.calibrations.config import IsrConfig
from kernels.camera import geometry
from kernels.fits import product
from kernels.isr import framenoise
from kernels.jobs import job
from kernels.simulation import compare, expected, simulate

pytestmark = pytest.mark.processes

N = 10
#: Variance of the clipped mean of ten inputs over the expected variance of the survivors / their number.
CLIPPED = 1.2435
IDS = {"bias": range(1, 1 + N), "dark": range(101, 101 + N), "flat": range(201, 201 + N)}
SECONDS = {"bias": 0.4, "dark": 30.0, "flat": 5.0}
NX, NY = 64, 128
GAINS = [1.35, 1.42, 1.68, 1.5]
Images = dict[int, NDArray[np.float64]]


def amplifier(name: str, column: int, top: bool) -> dict[str, Any]:
    """An ITL-like segment: read out mirrored in x, the upper ones in y too."""
    return {
        "name": f"C{name}", "hdu": f"Segment{name}", "raw": [3 + NX + 64, NY + 48], "data": [3, 0, NX, NY],
        "serial_overscan": [3 + NX, 0, 64, NY + 48], "parallel_overscan": [3, NY, NX, 48],
        "target": [column * NX, NY * top, NX, NY], "flip_x": True, "flip_y": top,
    }  # fmt: skip


CAMERA = {
    "name": "Small", "unit": "electron", "scale": 1,
    "types": {
        "ITL": {
            "size": [2 * NX, 2 * NY], "pixel_um": 10.0, "adc_max": 262143,
            "amplifiers": [amplifier("10", 0, True), amplifier("11", 1, True),
                           amplifier("01", 1, False), amplifier("00", 0, False)],
        }
    },
    "detectors": [
        {"id": d, "name": f"R22_S0{d}", "type": "ITL", "position_mm": [42.25 * d, 0.0], "yaw_deg": 0.0,
         "gains": GAINS, "read_noises": [6.2, 8.7, 5.4, 7.0], "saturations": [None] * 4}
        for d in (0, 1)
    ],
}  # fmt: skip


def make_job(folder: Path, kernel: str, config: dict[str, Any], files: Any, tasks: list[dict[str, Any]]) -> job.Job:
    return job.from_plain(
        {"version": 1, "kernel": kernel, "run": "r", "attempt": 1, "site": "here", "token": 1, "ranks": 1,
         "journal": str(folder / "journal" / kernel), "camera": CAMERA, "config": config, "files": files,
         "tasks": tasks}
    )  # fmt: skip


def exposure(kind: str, n: int) -> dict[str, Any]:
    return {
        "exposure": n, "obs_id": f"CC_O_20241208_{n:06d}", "day_obs": 20241208, "seq_num": n, "observation_type": kind,
        "exposure_time": 0.0 if kind == "bias" else SECONDS[kind], "dark_time": SECONDS[kind],
        "physical_filter": "r_03" if kind == "flat" else None, "begin": "2024-12-08T12:00:00.000", "mjd": 60652.5,
        "reason": kind, "program": "test",
    }  # fmt: skip


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors' frames and truth, with many cosmic rays."""
    folder = tmp_path_factory.mktemp("raws")
    exposures = [exposure(kind, n) for kind, ids in IDS.items() for n in ids]
    tasks = [
        {"task": f"raw:{e['exposure']},{d}", "detector": d, "outputs": {"raw": str(folder / f"{e['exposure']}-{d}")},
         "parameters": e}
        for d in (0, 1) for e in exposures
    ]  # fmt: skip
    tasks += [
        {"task": f"truth:{d}", "detector": d, "outputs": {"truth": str(folder / f"truth-{d}")},
         "parameters": {"exposures": exposures}}
        for d in (0, 1)
    ]  # fmt: skip
    config = {"seed": 11, "rates": {"cosmic_rays": 2.0, "hot": 1e-3, "dead": 1e-3}, "header": {"INSTRUME": "COMCAM"}}
    assert simulate.execute(make_job(folder, "simulate", config, {}, tasks), None) == 0
    return folder


def section(text: str) -> list[int]:
    return [int(v) for v in re.findall(r"\d+", text)]


def corrected(path: Path, parallel: bool) -> NDArray[np.float64]:
    """Apply overscan, gain and assembly by the frame's own header: an independent reading of the geometry."""
    image = np.full((2 * NY, 2 * NX), np.nan)
    with fitsio.FITS(str(path)) as fits:
        for gain, hdu in zip(GAINS, fits[1:], strict=True):
            header, raw = hdu.read_header(), hdu.read().astype(float)
            x0, x1, y0, y1 = section(header["DATASEC"])
            raw -= np.median(raw[:, x1 + 3 :], axis=1)[:, None]
            if parallel:
                raw -= np.median(raw[y1:], axis=0)
            u0, u1, v0, v1 = section(header["DETSEC"])
            columns = np.arange(u0, u1 - 1, -1) if u0 > u1 else np.arange(u0, u1 + 1)
            rows = 2 * NY + 1 - (np.arange(v0, v1 - 1, -1) if v0 > v1 else np.arange(v0, v1 + 1))
            image[np.ix_(rows - 1, columns - 1)] = gain * raw[y0 - 1 : y1, x0 - 1 : x1]
    assert np.isfinite(image).all()
    return image


def meanclip(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Clipped mean over the first axis, 3 sigma x 3: mean, variance of the survivors, their number."""
    low, centre, high = np.percentile(values, [25, 50, 75], axis=0)
    limit = 3 * 0.7413 * (high - low)
    for _ in range(3):
        kept = np.abs(values - centre) <= limit
        n = kept.sum(axis=0)
        centre = np.where(kept, values, 0).sum(axis=0) / n
        variance = np.where(kept, (values - centre) ** 2, 0).sum(axis=0) / (n - 1)
        limit = 3 * np.sqrt(variance)
    return centre, variance, n


def exposure_scales(frames: dict[int, list[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Scales of the flats [exposure], normalised over the focal plane."""
    measured = [[meanclip(f.ravel()) for f in frames[d]] for d in (0, 1)]
    means, counts = (np.array([[m[k] for m in row] for row in measured], float) for k in (0, 2))
    logs, of_detector = np.log(means), np.zeros(2)
    of_exposure = np.average(logs, axis=0, weights=counts)
    for _ in range(10):
        of_detector = np.average(logs - of_exposure, axis=1, weights=counts)
        of_exposure = np.average(logs - of_detector[:, None], axis=0, weights=counts)
        of_detector -= np.log(np.average(np.exp(of_detector), weights=counts.sum(axis=1)))
    return np.exp(np.average(logs - of_detector[:, None], axis=0, weights=counts))


Products = dict[str, dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]]


def combine_all(raws: Path, parallel: bool) -> Products:
    """Image and variance of the three products of both detectors."""
    frames = {k: {d: [corrected(raws / f"{n}-{d}", parallel) for n in IDS[k]] for d in (0, 1)} for k in IDS}

    def combined(inputs: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        image, variance, n = meanclip(np.array(inputs))
        return image, CLIPPED * variance / n

    made: Products = {"bias": {d: combined(frames["bias"][d]) for d in (0, 1)}, "dark": {}, "flat": {}}
    bias = {d: made["bias"][d][0] for d in (0, 1)}
    darks = {d: combined([(f - bias[d]) / SECONDS["dark"] for f in frames["dark"][d]]) for d in (0, 1)}
    flats = {d: [f - bias[d] - darks[d][0] * SECONDS["flat"] for f in frames["flat"][d]] for d in (0, 1)}
    scales = exposure_scales(flats)
    of_bias, of_dark = np.mean(1 / scales), np.mean(SECONDS["flat"] / scales)
    for d in (0, 1):
        own, of_frames = made["bias"][d][1], darks[d][1]
        made["dark"][d] = darks[d][0], of_frames + own / SECONDS["dark"] ** 2
        image, variance = combined([f / s for f, s in zip(flats[d], scales, strict=True)])
        left = of_bias - of_dark / SECONDS["dark"]
        made["flat"][d] = image, variance + of_dark**2 * of_frames + left**2 * own
    return made


@pytest.fixture(scope="module", params=[False, True], ids=["serial", "parallel"])
def products(raws: Path, request: pytest.FixtureRequest) -> tuple[Products, bool]:
    return combine_all(raws, request.param), request.param


@pytest.fixture(scope="module")
def serial(raws: Path) -> Products:
    return combine_all(raws, False)


def in_mpi(this: job.Job, path: Path) -> int:
    """Run a job over its ranks; return the exit code."""
    path.write_text(json.dumps(asdict(this)))
    mpiexec = str(Path(sysconfig.get_path("scripts")) / "mpiexec")
    command = [mpiexec, "-n", str(this.ranks), sys.executable, "-P", "-m", "mpi4py", "-m", "kernels.run", str(path)]
    return subprocess.run(command, timeout=60).returncode


Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def against_truth(raws: Path, tmp_path: Path) -> Compare:
    """Write a product of both detectors and compare it with the truth."""

    def run(
        kind: str, made: Products, parallel: bool = False, bad: NDArray[np.bool_] | None = None, ranks: int = 1
    ) -> dict[str, Any]:
        files: dict[str, Any] = {}
        tasks = []
        parameters = {
            "type": kind, "exposures": list(IDS[kind]), "isr": {"parallel": parallel},
            "bias": list(IDS["bias"]) if kind != "bias" else [], "dark": list(IDS["dark"]) if kind == "flat" else [],
            "physical_filter": "r_03" if kind == "flat" else None,
        }  # fmt: skip
        for d, (image, variance) in made[kind].items():
            path = tmp_path / f"{kind}-{d}.fits"
            mask = np.zeros(image.shape, np.int32) if bad is None else bad.astype(np.int32) * product.BAD
            cards = [("CALUNIT", "electron", "")]
            product.write(str(path), cards, image.astype(np.float32), mask, variance.astype(np.float32))
            files |= {f"p{d}": {"path": str(path)}, f"t{d}": {"path": str(raws / f"truth-{d}")}}
            tasks.append(
                {"task": f"compare:{d}", "detector": d, "inputs": {"product": [f"p{d}"], "truth": [f"t{d}"]},
                 "parameters": parameters}
            )  # fmt: skip
        result = tmp_path / "result.json"
        this = replace(make_job(tmp_path, "compare", {"result": str(result)}, files, tasks), ranks=ranks)
        failed = compare.execute(this, None) if ranks == 1 else in_mpi(this, tmp_path / "job.json")
        return {**json.loads(result.read_text()), "failed": failed}

    return run


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_a_right_product_agrees(kind: str, products: tuple[Products, bool], against_truth: Compare) -> None:
    made, parallel = products
    result = against_truth(kind, made, parallel)
    assert result["problems"] == []
    assert result["failed"] == 0
    assert 0.985 < result["rms_z"] < 1.015
    assert result["good_pixels"] == 2 * 4 * NX * NY
    assert 0.97 < result["variance_ratio"] < 1.03
    assert result["max_abs_amp_mean_z"] == max(d["max_abs_amp_mean_z"] for d in result["per_detector"]) < 4


def test_two_ranks_find_the_same(serial: Products, against_truth: Compare) -> None:
    assert against_truth("flat", serial, ranks=2) == against_truth("flat", serial)


def test_a_gain_that_is_off_by_a_percent_is_caught(serial: Products, against_truth: Compare) -> None:
    image, variance = serial["flat"][1]
    image = image.copy()
    image[:NY, :NX] *= 1.01
    result = against_truth("flat", {"flat": {0: serial["flat"][0], 1: (image, variance)}})
    assert result["rms_z"] > 1.03
    assert result["max_abs_amp_mean_z"] > 50
    assert [d["worst_amplifier"] for d in result["per_detector"]][1] == "C00"


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wrong_flip_is_caught(axis: int, serial: Products, against_truth: Compare) -> None:
    image, variance = serial["bias"][0]
    image = image.copy()
    image[:NY, :NX] = np.flip(image[:NY, :NX], axis)
    result = against_truth("bias", {"bias": {0: (image, variance), 1: serial["bias"][1]}})
    assert any(problem.startswith("rms(z)") for problem in result["problems"])


def test_a_cosmic_ray_left_in_is_caught_unless_it_is_flagged(
    raws: Path, serial: Products, against_truth: Compare
) -> None:
    rays = fitsio.read(str(raws / "truth-0"), ext="COSMIC_RAYS")
    hit = rays[np.isin(rays["exposure"], list(IDS["dark"]))]
    brightest = hit[np.argmax(hit["charge"])]
    image, variance = serial["dark"][0]
    image = image.copy()
    image[brightest["y"], brightest["x"]] += brightest["charge"] / N / SECONDS["dark"]
    made = {"dark": {0: (image, variance), 1: serial["dark"][1]}}
    assert against_truth("dark", made)["defects_showing"] == 1
    flagged = np.zeros(image.shape, bool)
    flagged[brightest["y"], brightest["x"]] = True
    result = against_truth("dark", made, bad=flagged)
    assert (result["defects_showing"], result["good_pixels"]) == (0, 2 * (4 * NX * NY - 1))


def test_a_flat_of_another_level_is_caught_by_its_level_alone(serial: Products, against_truth: Compare) -> None:
    scaled = {d: (image * 1.01, variance * 1.01**2) for d, (image, variance) in serial["flat"].items()}
    (problem,) = against_truth("flat", {"flat": scaled})["problems"]
    assert "mean level is 1.0" in problem


def test_a_pixel_without_value_must_be_flagged(serial: Products, against_truth: Compare) -> None:
    image, variance = serial["bias"][0]
    image = image.copy()
    image[3, 4] = np.nan
    result = against_truth("bias", {"bias": {0: (image, variance), 1: serial["bias"][1]}})
    assert result["failed"] == 1
    assert result["detectors"] == 1
    assert "bias-0.fits: 1 pixels are not finite and not flagged BAD" in result["problems"][0]


def test_a_variance_of_the_survivors_alone_is_caught(serial: Products, against_truth: Compare) -> None:
    plain = {d: (image, variance / CLIPPED) for d, (image, variance) in serial["bias"].items()}
    (problem,) = against_truth("bias", {"bias": plain})["problems"]
    assert re.match(r"VARIANCE is 0\.8\d\d of the variance of IMAGE, not 0\.97 to 1\.03", problem)


def test_common_noise_counts_in_the_mean() -> None:
    """The predicted error of an amplifier's mean agrees with simulated products with row and column errors."""
    rng, shape = np.random.default_rng(1), (30, 20)
    own, row, column, common = 1.0, 0.5, 0.7, 0.2
    e = expected.Expected(np.zeros(shape), np.full(shape, own + row + column), row, column, common)
    good = rng.random(shape) < 0.8
    draws = (
        rng.standard_normal((4000, *shape))
        + np.sqrt(row) * rng.standard_normal((4000, shape[0], 1))
        + np.sqrt(column - common) * rng.standard_normal((4000, 1, shape[1]))
        + np.sqrt(common) * rng.standard_normal((4000, 1, 1))
    )
    z = draws[:, good].mean(axis=1) / np.sqrt(own + row + column)
    assert e.mean_error(good) == pytest.approx(z.std(), rel=0.05)


def test_overscan_noise_is_that_of_medians_of_rounded_pixels() -> None:
    """Row and column variances, and the columns' common part, against a Monte Carlo of the subtraction."""
    detector = geometry.camera(CAMERA).detectors[0]
    gain, read_noise, rng = 1.4, 7.0, np.random.default_rng(2)
    noise = framenoise.frame_noise(detector.amplifiers[0], gain, read_noise, IsrConfig(parallel=True))
    level = rng.random((2000, 48, 1))
    pixels = np.rint(level + read_noise / gain * rng.standard_normal((2000, 48, 61 + 8)))
    rows = np.median(pixels[:, :, 8:], axis=2, keepdims=True)
    columns = gain * np.median(pixels[:, :, :8] - rows, axis=1)
    assert noise.row == pytest.approx(gain**2 * np.var(rows - level), rel=0.03)
    assert noise.column == pytest.approx(np.var(columns), rel=0.05)
    shared = np.cov(columns.T)[np.triu_indices(8, 1)].mean()
    assert noise.common == pytest.approx(shared, rel=0.5)


def test_the_clip_costs_what_the_table_says() -> None:
    values = np.random.default_rng(3).standard_normal((10, 300_000))
    mean, variance, n = meanclip(values)
    assert mean.std() * np.sqrt(10) == pytest.approx(framenoise.inefficiency(10), abs=4e-3)
    assert mean.var() / np.mean(variance / n) == pytest.approx(CLIPPED, rel=0.01)
