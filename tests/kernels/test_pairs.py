"""Gain and read noise from pairs of simulated frames, against those of the simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campaign.frames.summary import gain_of
from kernels.camera import geometry
from kernels.products.pairs import matched
from kernels.simulation import simulate, truth
from kernels.simulation.rates import Rates

SEED, PAIRS = 7, 24
RATES = Rates(cosmic_rays=0.0, lamp=2000.0, lamp_jitter=0.03)
Rows = list[dict[str, Any]]


def exposure(n: int, kind: str) -> dict[str, Any]:
    seconds = 5.0 if kind == "flat" else 0.0
    return {"exposure": n, "observation_type": kind, "exposure_time": seconds, "dark_time": seconds,
            "physical_filter": "r_03" if kind == "flat" else None}  # fmt: skip


def job_of(lab: Any, kind: str, raws: list[str]) -> dict[str, Any]:
    group = [kind, "r_03" if kind == "flat" else None]
    tasks = [{"task": "pairs:1", "detector": 1, "inputs": {"raw": raws}, "parameters": {"group": group}}]
    plain: dict[str, Any] = lab.job("pairs", tasks, config={"result": str(lab.folder / "rows.json")})
    return plain


def rows_of(plain: dict[str, Any]) -> Rows:
    rows: Rows = json.loads(Path(plain["config"]["result"]).read_text())
    return rows


@pytest.fixture
def model(lab: Any) -> truth.Truth:
    return truth.make(SEED, geometry.camera(lab.camera()).detectors[1], ["r_03"], RATES)


def raws_of(lab: Any, model: truth.Truth, kind: str) -> list[str]:
    frames = [simulate.frame(SEED, model, 1, exposure(n, kind), RATES) for n in range(2 * PAIRS)]
    return [lab.write(f"{kind}{n}.fits", segments) for n, segments in enumerate(frames)]


def averaged(rows: Rows, amplifier: str) -> tuple[float, float]:
    some = [r for r in rows if r["amplifier"] == amplifier]
    assert len(some) == PAIRS
    return float(np.mean([r["means"] for r in some])), float(np.mean([r["variance"] for r in some]))


def test_biases_give_the_read_noise(lab: Any, model: truth.Truth) -> None:
    """Structure and level are common to a pair; rounding and the overscan's median add their known share."""
    plain = job_of(lab, "bias", raws_of(lab, model, "bias"))
    assert lab.serial(plain) == 0
    rows = rows_of(plain)
    assert {r["type"] for r in rows} == {"bias"} and {r["detector"] for r in rows} == {1}
    for amplifier in model.detector.amplifiers:
        _, variance = averaged(rows, amplifier.name)
        noise = (amplifier.read_noise / amplifier.gain) ** 2 + 1 / 12
        assert variance == pytest.approx(noise * (1 + 1.57 / 9), rel=0.05)
        measured = [r["noise"] for r in rows if r["amplifier"] == amplifier.name]
        assert np.mean(measured) == pytest.approx(noise**0.5, rel=0.025)


def test_flats_give_the_gain_although_the_lamp_changes(lab: Any, model: truth.Truth) -> None:
    plain = job_of(lab, "flat", raws_of(lab, model, "flat"))
    assert lab.serial(plain) == 0
    for amplifier in model.detector.amplifiers:
        mean, variance = averaged(rows_of(plain), amplifier.name)
        noise = (amplifier.read_noise / amplifier.gain) ** 2 * (1 + 1.57 / 9) + 1 / 12
        expected = np.median(model.response["r_03"][amplifier.target.slices]) * RATES.lamp * 5.0 / amplifier.gain
        assert mean == pytest.approx(expected, rel=0.25)  # a filter's lamp has 0.8 to 1.2 of it
        assert mean / (variance - noise) == pytest.approx(amplifier.gain, rel=0.05)


def test_a_frame_that_cannot_be_read_is_left_out(lab: Any, model: truth.Truth) -> None:
    raws = raws_of(lab, model, "bias")[:10]
    plain = job_of(lab, "bias", raws)
    assert lab.serial(plain) == 0
    assert len(rows_of(plain)) == 5 * 4
    Path(raws[3]).write_text("nothing")
    assert lab.serial(plain) == 0
    assert len(rows_of(plain)) == 4 * 4


@pytest.mark.parametrize(
    ("levels", "light", "pairs"),
    [
        ([100, 100.1, 100.3, 100.2], False, [(0, 1), (3, 2)]),
        ([5000, 100, 100.1, 100.3, 100.2], False, [(1, 2), (4, 3)]),  # an odd first frame
        ([100, 100.1, 5000, 100.3, 100.2], False, [(0, 1), (4, 3)]),
        ([1000, 2000, 3000, 4000], True, [(0, 1), (2, 3)]),  # rising times
        ([1000, 4000, 5000], True, [(1, 2)]),
        ([1000, 4000], True, []),
        ([500, 3000, 3030, 9000, 9100, 21000], True, [(1, 2), (3, 4)]),  # alone at both ends
        ([np.nan, -3.0, 900, 1000], True, [(2, 3)]),
        ([7.0], False, []),
    ],
)
def test_frames_of_like_level_are_paired(levels: list[float], light: bool, pairs: list[tuple[int, int]]) -> None:
    assert matched(levels, light) == pairs


def test_flats_of_rising_times_give_the_gain(lab: Any) -> None:
    """Without an overscan a frame holds its bias: taken off first, or a frame could not be scaled to another."""
    rng, gain, bias, noise = np.random.default_rng(1), 1.6, 1000.0, 5.0
    for a in lab.amplifiers:
        a["serial_overscan"] = None
    pattern = 1 + 0.02 * rng.normal(size=(26, 40))

    def segment(n: int) -> Any:
        light = rng.poisson(900.0 * (n + 4) * pattern * gain) / gain
        return np.rint(bias + rng.normal(0, noise, (26, 40)) + light).astype(np.int32)

    raws = [lab.write(f"{n}.fits", [segment(n) for _ in lab.amplifiers]) for n in range(24)]
    plain = job_of(lab, "flat", raws)
    plain["tasks"][0]["parameters"]["offsets"] = {a["name"]: bias for a in lab.amplifiers}
    assert lab.serial(plain) == 0
    gains = [gain_of(r["means"], r["variance"], noise**2 + 1 / 12) for r in rows_of(plain)]
    assert len(gains) == 12 * 4
    assert np.mean([g for g in gains if g]) == pytest.approx(gain, rel=0.03)
