"""The inputs table of simulated frames against the settings of the simulation."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.camera import geometry
from kernels.camera.geometry import Amplifier, Box, Detector
from kernels.fits.raw import Frames
from kernels.isr.channel import Canvas, Channel, Exposures
from kernels.isr.reader import Reader
from kernels.jobs.job import File
from kernels.jobs.scratch import Scratch
from kernels.products import levels
from kernels.products.levels import Found, Light
from kernels.simulation import simulate, truth
from kernels.simulation.rates import Rates

SEED, N = 5, 8
QUIET = Rates(level=(1000.0, 1000.0), structure=0.0, hot=0.0, dead=0.0, cosmic_rays=0.0, lamp=2000.0, lamp_jitter=0.0)


def exposure(n: int, **more: Any) -> dict[str, Any]:
    return {"exposure": 100 + n, "observation_type": "flat", "exposure_time": 5.0, "dark_time": 5.0,
            "physical_filter": "r_03"} | more  # fmt: skip


@pytest.fixture
def model(lab: Any) -> truth.Truth:
    return truth.make(SEED, geometry.camera(lab.camera()).detectors[1], ["r_03"], QUIET)


def table_of(lab: Any, raws: list[str], exposures: list[int]) -> list[dict[str, str]]:
    task = {"task": "levels:1", "detector": 1, "inputs": {"raw": raws}, "parameters": {"exposures": exposures}}
    plain = lab.job("levels", [task])
    assert lab.serial(plain) == 0
    assert lab.journal(plain)[-1]["event"] == "published"
    with (Path(plain["config"]["inputs_table"]) / "levels_1.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def by_amplifier(lab: Any, rows: list[dict[str, str]], column: str) -> dict[int, Any]:
    names = [a["name"] for a in lab.amplifiers]
    return {k: np.array([float(r[column]) for r in rows if r["amplifier"] == name]) for k, name in enumerate(names)}


@pytest.mark.parametrize("lamp", [0.0, 0.3, 1.0])
def test_level_and_noise_are_those_of_the_truth(lab: Any, model: truth.Truth, lamp: float) -> None:
    exposures = [exposure(n, lamp=lamp) for n in range(N)]
    frames = [simulate.frame(SEED, model, 1, e, QUIET) for e in exposures]
    raws = [lab.write(f"raw{n}.fits", segments) for n, segments in enumerate(frames)]
    rows = table_of(lab, raws, [e["exposure"] for e in exposures])
    assert len(rows) == 4 * N
    assert [int(r["exposure"]) for r in rows[::4]] == [e["exposure"] for e in exposures]
    levels, noises = by_amplifier(lab, rows, "level"), by_amplifier(lab, rows, "noise")
    light = simulate.light(SEED, exposures[0], QUIET)
    for k, amplifier in enumerate(model.detector.amplifiers):
        at = amplifier.target.slices
        electrons = np.median(model.response["r_03"][at] * light + 5.0 * model.dark[at])
        noise = amplifier.read_noise / amplifier.gain
        spread = np.hypot(noise, np.sqrt(electrons) / amplifier.gain)
        np.testing.assert_allclose(levels[k].mean(), electrons / amplifier.gain, atol=0.3 * spread, rtol=0.003)
        np.testing.assert_allclose(noises[k].mean(), np.hypot(noise, 0.29), rtol=0.06)


def test_the_saturated_fraction_is_counted(lab: Any) -> None:
    """C11 is full at 60000 electrons, C00 at 70000 (the camera file's); the others at the converter's end."""
    rng, half = np.random.default_rng(1), np.full(lab.size[::-1], 64000.0)
    half[:, ::2] = 2000
    raws = [lab.write(f"{n}.fits", lab.expose(rng, e)) for n, e in enumerate((2000, 64000, half, 2e5))]
    rows = table_of(lab, raws, [0, 1, 2, 3])
    for row in rows:
        expected = {"0": {}, "1": {"C11": 1.0}, "2": {"C11": 0.5}}.get(row["exposure"], {})
        assert float(row["saturated"]) == (1.0 if row["exposure"] == "3" else expected.get(row["amplifier"], 0))


def test_row_blocks_change_nothing(lab: Any, model: truth.Truth) -> None:
    segments = simulate.frame(SEED, model, 1, exposure(0), QUIET)
    file = File(lab.write("raw.fits", segments))
    exposures = Exposures.plain([file], [0.0], len(model.detector.amplifiers))
    for k in range(len(model.detector.amplifiers)):
        reader = Reader(Frames(), Scratch(), [k], IsrConfig(), "electron", Calibrations(model.detector))

        def table(pieces: int, step: int, halo: int, k: int = k, reader: Reader = reader) -> list[list[object]]:
            found, edges = Found(model.detector), [20 * n // pieces for n in range(pieces + 1)]
            for first, last in pairwise(edges):
                rows = reader.rows(exposures, first, last, halo)
                assert sum(1 for _ in rows.blocks(first, last, step)) == -(-(last - first) // step)
                found.add(k, rows.samples(0), rows.saturated[0], rows.blank[0])
            return found.rows([1], Light("flat", [5.0]))

        whole = table(1, 20, 0)
        assert len(whole) == 1
        for pieces, step, halo in [(20, 1, 0), (1, 1, 0), (3, 4, 0), (2, 7, 3), (1, 19, 2)]:
            assert table(pieces, step, halo) == whole


@pytest.mark.parametrize("step", [7, 1000])
def test_a_canvas_takes_the_pixels_of_all_amplifiers(lab: Any, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amplifiers of all four read-out corners, saturated and flagged pixels, blocks of a few rows."""
    rng = np.random.default_rng(3)
    electrons = np.where(rng.random(lab.size[::-1]) < 0.02, 2e5, rng.normal(5000, 80, lab.size[::-1]))
    file, detector = File(lab.write("raw.fits", lab.expose(rng, electrons))), geometry.camera(lab.camera()).detectors[1]
    monkeypatch.setattr("kernels.isr.reader.CACHE_BYTES", step * 4 * lab.amplifiers[0]["raw"][0])
    flags = rng.random(lab.size[::-1]) < 0.1
    whole, corners = np.zeros(lab.size[::-1], np.float32), set()
    for k, amplifier in enumerate(detector.amplifiers):
        reader = Reader(Frames(), Scratch(), [k], IsrConfig(saturation=True), "electron", Calibrations(detector))
        at = amplifier.target.slices
        (frame,) = reader.frame(file, 0.0)
        pixels, lacking = frame.pixels.copy(), np.isnan(frame.pixels)
        assert frame.lacking == lacking.sum() > 0
        (placed,) = reader.frame(file, 0.0, canvas=Canvas(whole, flags))
        assert placed.lacking == (lacking & ~flags[at]).sum()
        assert np.shares_memory(placed.pixels, whole)
        pixels[flags[at]] = np.nan
        np.testing.assert_array_equal(placed.pixels, pixels)
        np.testing.assert_array_equal(whole[at], pixels)
        corners.add((amplifier.flip_x, amplifier.flip_y))
    assert len(corners) == 4


def test_many_rows_are_sampled_wherever_blocks_begin() -> None:
    """In a tall amplifier every n-th row is sampled; the choice must not depend on the blocks."""
    box, overscan = Box(0, 0, 4, 1000), Box(4, 0, 6, 1000)
    amplifier = Amplifier("A", 0, (10, 1000), box, overscan, None, box, False, True, 1.0, 1.0, np.inf)
    detector = Detector(0, "A", "T", (4, 1000), (0, 0), 0, 10, 65535, (amplifier,))
    channel = Channel(0, IsrConfig(), "adu", Calibrations(detector))
    rows = np.random.default_rng(1).integers(0, 100, (2, 1000, 10)).astype(np.int32)
    zero = np.zeros((2, 1000), np.float32)
    whole = channel.samples(rows, zero, zero, 0, slice(0, 1000))
    assert 64 <= whole.shape[1] <= 67
    data = rows[:, 7::15]
    np.testing.assert_array_equal(whole[:, :, 0], np.median(data[:, :, :4], axis=2))
    np.testing.assert_allclose(whole[:, :, 1], data[:, :, 7:].var(axis=2, ddof=1))
    for size in (1, 10, 333):
        parts = [
            channel.samples(
                rows[:, n : n + size], zero[:, n : n + size], zero[:, n : n + size], n, slice(0, min(size, 1000 - n))
            )
            for n in range(0, 1000, size)
        ]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_a_corrupt_frame_is_named(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.fits").write_text("nothing")
    task = {"task": "levels:1", "detector": 1, "inputs": {"raw": [str(tmp_path / "bad.fits")]}}
    plain = lab.job("levels", [task | {"parameters": {"exposures": [7]}}])
    assert lab.serial(plain) == 1
    assert lab.journal(plain)[-1]["detail"]["error"].startswith(f"{tmp_path / 'bad.fits'}: ")


def test_a_level_does_not_hang_on_rows_that_differ() -> None:
    """Rows of two kinds, few between: a median of the rows scatters by several of its errors."""
    rng = np.random.default_rng(5)
    usual = 84 + 25 * np.sin(np.arange(64) / 2)
    signal = usual + rng.normal(0, 1.4, (8, 64)) + np.array([0, 0, 0, 0, 0, 0, 3, 0])[:, None]
    signal[1, 3], signal[:, 5] = np.nan, np.nan
    found = levels._level(signal)
    np.testing.assert_allclose(found - np.median(found), [0, 0, 0, 0, 0, 0, 3, 0], atol=4 * 1.25 * 1.4 / 8)
    assert found[0] == pytest.approx(84, abs=8)
    signal[2] = np.nan
    assert levels._level(signal)[2] == 0
