"""Simulated frames: the camera's headers, the recorded truth in the pixels, the same bytes from the same seed."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from campaign.camera import model as cameras
from kernels.camera import geometry
from kernels.errors import JobError
from kernels.fits import seal
from kernels.jobs import job
from kernels.simulation import rawfile, simulate, truth, truthfile
from kernels.simulation.rates import Rates

pytestmark = pytest.mark.processes

NX, NY = 48, 100
GAIN, NOISE, SEED = 1.5, 6.0, 42
SEGMENTS = {"16": (0, True, True), "17": (1, True, True), "07": (1, False, False), "06": (0, False, False)}
CAMERA: dict[str, Any] = {
    "name": "Small", "unit": "electron", "scale": 1,
    "types": {
        "E2V": {
            "size": [2 * NX, 2 * NY], "pixel_um": 10.0, "adc_max": 262143,
            "amplifiers": [
                {"name": f"C{name}", "hdu": f"Segment{name}", "raw": [10 + NX + 54, NY + 46], "data": [10, 0, NX, NY],
                 "serial_overscan": [10 + NX, 0, 54, NY + 46], "parallel_overscan": [10, NY, NX, 46],
                 "target": [NX * column, NY * top, NX, NY], "flip_x": flip, "flip_y": top}
                for name, (column, top, flip) in SEGMENTS.items()
            ],
        }
    },
    "detectors": [
        {"id": d, "name": f"R22_S0{d}", "type": "E2V", "position_mm": [42.25 * d, 0.0], "yaw_deg": 0.0,
         "gains": [GAIN] * 4, "read_noises": [NOISE] * 4, "saturations": [None, 1e5, None, None]}
        for d in (0, 1)
    ],
}  # fmt: skip
DETECTOR = geometry.camera(CAMERA).detectors[1]


def exposure(n: int, kind: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "exposure": 2024120800000 + n, "obs_id": f"CC_O_20241208_{n:06d}", "day_obs": 20241208, "seq_num": n,
        "observation_type": kind, "exposure_time": seconds, "dark_time": seconds, "begin": "2024-12-08T12:00:00.000",
        "physical_filter": "r_03" if kind == "flat" else None, "mjd": 60652.5, "reason": kind, "program": "BLOCK-1",
    } | more  # fmt: skip


EXPOSURES = [exposure(1, "bias", 0.0), exposure(2, "dark", 30.0), exposure(3, "flat", 5.0), exposure(4, "flat", 5.0)]


def plain_job(folder: Path, seed: int = SEED, ranks: int = 1) -> dict[str, Any]:
    tasks: list[dict[str, Any]] = []
    for d in (0, 1):
        tasks += [
            {"task": f"raw:{e['exposure']},{d}", "detector": d, "parameters": e,
             "outputs": {"raw": str(folder / f"{e['exposure']}-{d}.fits")}}
            for e in EXPOSURES
        ]  # fmt: skip
        outputs = {"truth": str(folder / f"truth-{d}.fits")}
        tasks.append({"task": f"truth:{d}", "detector": d, "outputs": outputs, "parameters": {"exposures": EXPOSURES}})
    config = {"seed": seed, "rates": {"cosmic_rays": 20.0}, "header": {"INSTRUME": "COMCAM"}}
    return {
        "version": 1, "kernel": "simulate", "run": "r", "attempt": 1, "site": "here", "token": 1, "ranks": ranks,
        "journal": str(folder.with_suffix(".journal") / "simulate"), "camera": CAMERA, "config": config,
        "files": {}, "tasks": tasks,
    }  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    assert simulate.execute(job.from_plain(plain_job(folder)), None) == 0
    return folder


def pixels_of(parameters: dict[str, Any], detector: geometry.Detector, **rates: Any) -> list[NDArray[np.int32]]:
    settings = Rates(**rates)
    return simulate.frame(SEED, truth.make(SEED, detector, ["r_03"], settings), 1, parameters, settings)


def test_the_same_seed_gives_the_same_bytes_on_two_ranks(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    path = tmp_path / "job.json"
    path.write_text(json.dumps(plain_job(folder, ranks=2)))
    mpiexec = Path(sysconfig.get_path("scripts")) / "mpiexec"
    command = [str(mpiexec), "-n", "2", sys.executable, "-P", "-m", "mpi4py", "-m", "kernels.run", str(path)]
    subprocess.run(command, check=True, timeout=60)
    assert contents(folder) == contents(made)


def test_another_seed_gives_other_pixels(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    assert simulate.execute(job.from_plain(plain_job(folder, seed=43)), None) == 0
    assert not set(contents(folder).values()) & set(contents(made).values())


def test_a_frame_that_exists_is_not_overwritten(made: Path) -> None:
    before = contents(made)
    assert simulate.execute(job.from_plain(plain_job(made, seed=43)), None) == len(before)
    assert contents(made) == before


def section(text: str) -> list[int]:
    return [int(v) for v in re.findall(r"\d+", text)]


def segments(path: Path) -> list[tuple[Any, NDArray[np.float64]]]:
    """Header and pixels of the segments."""
    with fitsio.FITS(str(path)) as fits:
        return [(hdu.read_header(), hdu.read().astype(float)) for hdu in fits[1:]]


def assembled(path: Path) -> NDArray[np.float64]:
    """Assemble ADU above the serial overscan by the frame's own header."""
    image = np.zeros((2 * NY, 2 * NX))
    for header, raw in segments(path):
        x0, x1, y0, y1 = section(header["DATASEC"])
        raw -= np.median(raw[:, x1 + 3 :], axis=1)[:, None]
        u0, u1, v0, v1 = section(header["DETSEC"])
        columns = np.arange(u0, u1 - 1, -1) if u0 > u1 else np.arange(u0, u1 + 1)
        rows = 2 * NY + 1 - (np.arange(v0, v1 - 1, -1) if v0 > v1 else np.arange(v0, v1 + 1))
        image[np.ix_(rows - 1, columns - 1)] = raw[y0 - 1 : y1, x0 - 1 : x1]
    return image


def test_every_recorded_cosmic_ray_is_where_the_truth_says(made: Path) -> None:
    image = GAIN * assembled(made / "2024120800002-1.fits")
    recorded = truthfile.read(str(made / "truth-1.fits"), None)
    rays = recorded.rays[recorded.rays["exposure"] == 2024120800002]
    assert len(rays) > 20
    rest = image[rays["y"], rays["x"]] - rays["charge"] - 30 * recorded.dark[rays["y"], rays["x"]]
    assert np.abs(rest).max() < 6 * np.hypot(NOISE, 10)
    image[rays["y"], rays["x"]] = 0
    image[recorded.defects] = 0
    assert image.max() < 80  # noise and structure are far below a ray's charge


def test_overscans_hold_level_and_noise_and_no_structure(made: Path) -> None:
    recorded = fitsio.read(str(made / "truth-1.fits"), ext="AMPLIFIERS")
    for level, (_, raw) in zip(recorded["level"], segments(made / "2024120800001-1.fits"), strict=True):
        overscan = raw[:, 10 + NX :]
        assert overscan.mean() == pytest.approx(level, abs=10)
        flat = raw - overscan.mean(axis=1)[:, None]
        assert GAIN * flat[:, 10 + NX :].std() == pytest.approx(np.hypot(NOISE, GAIN / 12**0.5), rel=0.03)
        assert flat[NY:, 10 : 10 + NX].mean() == pytest.approx(0, abs=0.5)
        assert GAIN * flat[NY:, 10 : 10 + NX].mean(axis=0).std() < 1.5 * NOISE / 46**0.5


def test_a_flat_is_light_times_response_with_poisson_noise(made: Path) -> None:
    recorded = truthfile.read(str(made / "truth-0.fits"), "r_03")
    assert recorded.response is not None
    images = [GAIN * assembled(made / f"202412080000{n}-0.fits") for n in (3, 4)]
    lights = [recorded.exposures[2024120800000 + n]["light"] for n in (3, 4)]
    assert lights[0] != lights[1]
    scaled = [image / light for image, light in zip(images, lights, strict=True)]
    clean = ~recorded.defects
    clean[recorded.rays["y"], recorded.rays["x"]] = False
    ratio = (scaled[0] / recorded.response)[clean]
    assert ratio.mean() == pytest.approx(1, abs=1e-3)
    expected = (np.mean(recorded.response[clean]) / np.array(lights) + (NOISE / np.array(lights)) ** 2).sum()
    assert np.var((scaled[0] - scaled[1])[clean]) == pytest.approx(expected, rel=0.05)


def test_dead_pixels_are_dark_in_a_flat_and_hot_ones_bright_in_a_dark() -> None:
    made = truth.make(SEED, DETECTOR, ["r_03"], Rates(hot=0.002, dead=0.001))
    assert (made.hot.sum(), made.dead.sum(), (made.hot & made.dead).sum()) == (39, 20, 0)
    assert made.response["r_03"][made.dead].max() < 0.35 < made.response["r_03"][~made.dead].min()
    assert made.dark[made.hot].min() >= 5 > made.dark[~made.hot].max()
    assert made.dark[made.hot].max() <= 200
    assert np.median(made.dark) == pytest.approx(0.023, rel=0.05)


def test_a_response_does_not_depend_on_the_other_filters() -> None:
    alone, both = (truth.make(SEED, DETECTOR, names, Rates()).response for names in (["r_03"], ["g_01", "r_03"]))
    assert np.array_equal(alone["r_03"], both["r_03"])
    assert not np.array_equal(both["g_01"], both["r_03"])


def test_vignetting_sets_in_at_its_radius() -> None:
    def median(x: float) -> float:
        made = truth.make(SEED, replace(DETECTOR, position_mm=(x, 0.0)), ["r_03"], Rates(lamp_gradient=0.0))
        return float(np.median(made.response["r_03"]))

    assert median(315) / median(0) == pytest.approx(0.97, abs=0.005)
    assert median(333.5) / median(0) == pytest.approx(0.97 * 0.7, abs=0.02)
    assert median(360) / median(0) == pytest.approx(0.97 * 0.4, abs=0.02)


def test_saturation_is_the_amplifiers_or_the_models() -> None:
    bright = exposure(9, "flat", 5.0, lamp=20.0)
    images = pixels_of(bright, DETECTOR)
    plateaus = [GAIN * (np.median(i[:NY, 10 : 10 + NX]) - np.median(i[:NY, 10 + NX :])) for i in images]
    assert plateaus == pytest.approx([1.2e5, 1.05e5, 1.2e5, 1.2e5], abs=20)  # a little above the threshold of SAT
    clipped = pixels_of(bright, replace(DETECTOR, adc_max=65535))
    assert [i.max() for i in clipped] == [65535] * 4


def test_a_lamp_can_be_left_on_or_off() -> None:
    quiet = {"cosmic_rays": 0.0, "hot": 0.0}
    lit, unlit = (
        np.median([i[:NY, 10 : 10 + NX] - np.median(i[:NY, 10 + NX :]) for i in pixels_of(p, DETECTOR, **quiet)])
        for p in (exposure(7, "dark", 5.0, lamp=0.1, physical_filter="r_03"), exposure(8, "flat", 5.0, lamp=0.0))
    )
    assert lit > 1000
    assert abs(unlit) < 5


def test_an_unknown_rate_is_refused_with_the_known_ones() -> None:
    with pytest.raises(JobError, match=r"unknown key 'cosmics'; known are .*cosmic_rays"):
        Rates.from_plain({"cosmics": 1})


def cards(data: bytes, hdu: int) -> dict[str, str]:
    """Read the verbatim cards of a header, some of which fitsio translates."""
    starts = [0] + [m.start() for m in re.finditer(rb"XTENSION= '(IMAGE|BINTABLE)", data)]
    text = data[starts[hdu] : starts[hdu] + 28800].decode("latin1")
    lines = [text[k : k + 80] for k in range(0, len(text), 80)]
    lines = lines[: next(k for k, line in enumerate(lines) if line.startswith("END "))]
    return {line[:8].strip(): line[10:].split(" /")[0].strip() for line in lines if line[8:10] == "= "}


#: Real frames, their cameras and detectors, and the simulator's parameters for them.
REAL = {
    "3019053000001-R22-S00-det000.fits": ("LSSTComCam", 0, "CC_C_20190530_000001", "bias", "COMCAM", None),
    "30211212000310-R22-S22-det098.fits": ("LSSTCam", 98, "MC_C_20211212_000310", "flat", "lsstCam", "SDSSi"),
}


#: Times, and numbers that are written in another way.
UNLIKE = {"DATE", "DATE-OBS", "MJD", "MJD-OBS", "EXPTIME", "DARKTIME", "CHECKSUM", "DATASUM",
          "BITPIX", "CCDGAIN", "CCDNOISE", "CCDTEMP"}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_headers_are_those_of_the_real_camera(name: str, frames: Callable[[str], Path]) -> None:
    camera, number, obs_id, kind, instrument, physical_filter = REAL[name]
    real = gzip.decompress((frames("lsst_headers") / name).read_bytes())
    detector = geometry.camera(cameras.load(camera).plain([number])).detectors[number]
    width, height = detector.amplifiers[0].raw
    told = {"day_obs": int(obs_id.split("_")[2]), "obs_id": obs_id, "physical_filter": physical_filter}
    parameters = exposure(int(obs_id[-6:]), kind, 0.0, **told)
    blank = np.zeros((height, width), np.int32)
    ours = rawfile.lsst(detector, [blank] * 16, parameters, {"INSTRUME": instrument})
    mine, theirs = cards(ours, 0), cards(real, 0)
    common = (mine.keys() & theirs.keys()) - UNLIKE
    assert len(common) > 20
    assert {k: mine[k].strip("' ") for k in common} == {k: theirs[k].strip("' ") for k in common}
    for hdu in range(1, 17):
        mine, theirs = cards(ours, hdu), cards(real, hdu)
        for key in ("EXTNAME", "CHANNEL", "CCDSUM", "DATASEC", "DETSEC", "DETSIZE"):
            assert mine[key].strip("' ") == theirs[key].strip("' "), key
        compression = {k: v for k, v in theirs.items() if k.startswith("Z") and k not in {"ZHECKSUM", "ZDATASUM"}}
        assert compression.items() - {(k, v) for k, v in mine.items()} <= {
            ("ZTENSION", "'IMAGE   '"), ("ZPCOUNT", "0"), ("ZGCOUNT", "1")
        }  # fmt: skip


def test_checksums_hold_and_notice_one_changed_bit(made: Path, tmp_path: Path) -> None:
    path = made / "2024120800003-0.fits"
    with fitsio.FITS(str(path)) as fits:
        for hdu in fits:
            hdu.verify_checksum()
    data = bytearray(path.read_bytes())
    data[-4000] ^= 1
    broken = tmp_path / "broken.fits"
    broken.write_bytes(data)
    with fitsio.FITS(str(broken)) as fits, pytest.raises(Exception, match="checksum"):
        for hdu in fits:
            hdu.verify_checksum()


@given(st.integers(0, 2**32 - 1))
def test_an_encoded_checksum_adds_up_to_its_complement(total: int) -> None:
    text = seal.encode(total)
    assert text.isalnum() and text.isascii()
    # verbatim, from the 12th byte of the card on; the zeros that it replaces were part of the sum
    letters, zeros = (np.frombuffer(b"\0\0\0" + t.encode() + b"\0", ">u4").astype(np.uint64) for t in (text, "0" * 16))
    value = (int(letters.sum()) - int(zeros.sum())) % (2**32 - 1)
    assert (value + total) % (2**32 - 1) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"cti": -1}, {"level": [3.0, 1.0]}, {"hot_columns": 10**9}, {"brighter_fatter_steps": 2.5}, {"cti": 1e999}],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=f"rates.{next(iter(wrong))}: .* does not fit"):
        Rates.from_plain(wrong)
