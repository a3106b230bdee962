"""Flat levels: measured as numpy measures them, split into the factors that they were made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.camera import geometry
from kernels.errors import DataError
from kernels.products.flat_measure import Measure
from kernels.products.flat_normalise import solve
from kernels.products.flatlevels import scales_of
from kernels.statistics import level as levels
from kernels.statistics import pool

EXPOSURES = [11, 12, 13, 14, 15]
Plain = dict[str, Any]


def factors(detectors: int, exposures: int, seed: int) -> tuple[Any, Any, Any]:
    """Levels of exposures, responses of detectors (of weighted mean 1), and counts."""
    rng = np.random.default_rng(seed)
    levels, responses = rng.uniform(1e3, 1e5, exposures), rng.uniform(0.3, 2, detectors)
    counts = np.repeat(rng.integers(1000, 10**6, (detectors, 1)), exposures, axis=1).astype(float)
    weights = counts.sum(axis=1)
    return levels, responses / (responses @ weights / weights.sum()), counts


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 999))
def test_exact_factors_are_found(detectors: int, exposures: int, seed: int) -> None:
    levels, responses, counts = factors(detectors, exposures, seed)
    found, relative = solve(np.outer(responses, levels), counts, 10)
    ratio = found / levels
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)
    np.testing.assert_allclose(relative, responses, rtol=1e-12)
    np.testing.assert_allclose(np.outer(relative, found / ratio[0]), np.outer(responses, levels), rtol=1e-12)


def test_the_scale_is_that_of_the_focal_plane() -> None:
    """Detectors of weighted geometric mean 1 leave the exposures' own levels."""
    levels = np.array([1000.0, 2000.0])
    found, relative = solve(np.outer([0.5, 2.0], levels), np.full((2, 2), 7.0), 10)
    np.testing.assert_allclose(relative, np.array([0.5, 2.0]) / 1.25)
    assert found[1] / found[0] == pytest.approx(2)


@settings(max_examples=30)
@given(st.integers(0, 999))
def test_gaps_do_not_bias_the_factors(seed: int) -> None:
    """A detector that missed an exposure has count 0 there; its mean is ignored."""
    levels, responses, counts = factors(8, 6, seed)
    mean, rng = np.outer(responses, levels), np.random.default_rng(seed)
    gaps = rng.random(mean.shape) < 0.2
    gaps[rng.integers(8), :] = gaps[:, rng.integers(6)] = False
    counts[gaps] = 0
    found, relative = solve(np.where(gaps, np.nan, mean), counts, 200)
    np.testing.assert_allclose(found / levels, (found / levels)[0], rtol=1e-6)
    np.testing.assert_allclose(relative / responses, (relative / responses)[0], rtol=1e-6)


def test_a_row_that_was_never_measured_changes_nothing() -> None:
    levels, responses, counts = factors(4, 3, 5)
    mean = np.outer(responses, levels)
    found, relative = solve(mean, counts, 10)
    dead = np.full((1, 3), np.nan)
    again, more = solve(np.concatenate([mean, dead]), np.concatenate([counts, np.zeros((1, 3))]), 10)
    np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(more, [*relative, 1.0])


def test_large_counts_outweigh_small_ones() -> None:
    mean, counts = np.array([[100.0, 200.0], [100.0, 800.0]]), np.array([[1e6, 1e6], [1.0, 1.0]])
    found, _ = solve(mean, counts, 10)
    assert found[1] / found[0] == pytest.approx(2, rel=1e-5)


# The kernels


class Flats:
    """Flats of known levels on detectors of known response."""

    def __init__(self, lab: Any, mean_electrons: float = 5000.0, detectors: tuple[int, ...] = (0, 1, 2)) -> None:
        self.lab, self.detectors = lab, detectors
        rng = np.random.default_rng(6)
        self.levels = mean_electrons * np.array([1.0, 1.2, 0.8, 1.1, 0.9])
        self.responses = np.array([0.9, 1.0, 1.1])
        self.raws = {
            d: [
                lab.expose(rng, rng.poisson(np.full(lab.size[::-1], level * self.responses[d])))
                for level in self.levels
            ]
            for d in detectors
        }

    def measure(self, **change: Any) -> Plain:
        lab, tasks = self.lab, []
        parameters = {"exposures": EXPOSURES, "dark_times": [0.0] * 5} | change
        for d in self.detectors:
            raws = [lab.write(f"{d}-{n}.fits", segments) for n, segments in enumerate(self.raws[d])]
            task = {"task": f"measure:{d}", "detector": d, "inputs": {"raw": raws}, "parameters": parameters}
            tasks.append(task | {"outputs": {"flatMeasure": str(lab.folder / f"measure{d}.json")}})
        plain: Plain = lab.job("flat_measure", tasks)
        return plain

    def normalise(self, level: str) -> Plain:
        measured = [str(self.lab.folder / f"measure{d}.json") for d in self.detectors]
        output = {"flatNormalization": str(self.lab.folder / f"scales-{level}.json")}
        task = {"task": "normalise:", "inputs": {"flatMeasure": measured}, "outputs": output}
        plain: Plain = self.lab.job("flat_normalise", [task], name=level, config={"level": level, "iterations": 10})
        return plain


@pytest.fixture
def flats(lab: Any) -> Flats:
    return Flats(lab)


def test_levels_are_measured(flats: Flats) -> None:
    lab = flats.lab
    assert lab.serial(flats.measure()) == 0
    for d in flats.detectors:
        table = json.loads((lab.folder / f"measure{d}.json").read_text())
        assert (table["detector"], table["unit"], table["exposures"]) == (d, "electron", EXPOSURES)
        assert table["amplifiers"] == [a["name"] for a in lab.amplifiers]
        for n, level in enumerate(flats.levels * flats.responses[d]):
            offset = 4.5 * np.array(lab.gains)
            error = 5 * np.sqrt(level / 480)
            np.testing.assert_allclose(table["mean"][n], level + offset, atol=error + 1)
            assert table["detector_mean"][n] == pytest.approx(level + offset.mean(), abs=error + 1)
            assert all(470 <= c <= 480 for c in table["count"][n])
            assert 1900 <= table["detector_count"][n] <= 1920


def test_masked_and_saturated_pixels_are_not_measured(flats: Flats) -> None:
    lab, shape = flats.lab, flats.lab.size[::-1]
    mask = np.zeros(shape, np.int32)
    mask[0:5, 0:6] = 1
    for segments in flats.raws[0]:
        segments[3][7:9, 14:24] = 65535  # C00 lies at the origin, unmirrored, as the mask does
    plain = flats.measure()
    plain["config"]["isr"] = lab.isr | {"bias": True}
    for task in plain["tasks"]:
        path = lab.product(f"bias{task['detector']}.fits", np.zeros(shape), mask, detector=task["detector"])
        plain["files"][path], task["inputs"]["bias"] = {"path": path}, [path]
    assert lab.serial(plain) == 0
    table = json.loads((lab.folder / "measure0.json").read_text())
    assert all(count[3] <= 480 - 30 - 20 for count in table["count"])
    np.testing.assert_allclose(table["mean"][0][3], flats.levels[0] * 0.9, rtol=0.01)


def test_exposures_measured_by_brackets(flats: Flats, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are those of assembled exposures: of any light, with lost pixels, and one too bright for brackets."""
    lab, pooled, found = flats.lab, Measure._pooled, []
    for raws in flats.raws.values():
        raws[1][2][4:9, 9:17] = 65535
        raws[4] = lab.expose(np.random.default_rng(4), 30000.0)

    def watched(*given: Any) -> Any:
        found.append(pooled(*given))
        return found[-1]

    monkeypatch.setattr(Measure, "_pooled", watched)
    assert lab.serial(flats.measure()) == 0
    assert not found  # so few pixels are sorted
    files = [lab.folder / f"measure{d}.json" for d in flats.detectors]
    usual = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    for name, value in {"LEAST": 100, "FEW": 400, "MANY": 480, "EVERY": 1, "ROOM": 0.9}.items():
        monkeypatch.setattr(levels, name, value)
    monkeypatch.setattr(pool, "MANY", 1920)
    assert lab.serial(flats.measure()) == 0
    assert [file.read_bytes() for file in files] == usual
    assert sum(seen is not None for seen in found) > 3 <= found.count(None)


@pytest.mark.parametrize("level", ["DETECTOR", "AMP"])
def test_scales_are_those_of_the_lamp(flats: Flats, level: str) -> None:
    lab = flats.lab
    assert lab.serial(flats.measure()) == 0
    assert lab.serial(flats.normalise(level)) == 0
    path = lab.folder / f"scales-{level}.json"
    table = json.loads(path.read_text())
    assert (table["level"], table["unit"], table["exposures"]) == (level, "electron", EXPOSURES)
    scale = np.array(table["exposure_scale"])
    np.testing.assert_allclose(scale / scale.mean(), flats.levels / flats.levels.mean(), rtol=3e-3)
    np.testing.assert_allclose(scale.mean(), flats.levels.mean(), rtol=0.02)
    names = [str(d) for d in flats.detectors]
    if level == "AMP":
        names = [f"{d}:{a['name']}" for d in flats.detectors for a in lab.amplifiers]
    assert list(table["detector_scale"]) == names
    by_detector = np.array(list(table["detector_scale"].values())).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(by_detector, flats.responses, rtol=5e-3)
    detector = geometry.camera(lab.camera()).detectors[1]
    picked = scales_of(str(path), detector, [14, 11])
    assert picked.shape == (2, 4)
    np.testing.assert_array_equal(picked, np.repeat(scale[[3, 0]][:, None], 4, axis=1))


@pytest.mark.parametrize("level", [900, 1001])
def test_a_dead_amplifier_does_not_spoil_the_scales(lab: Any, level: int) -> None:
    """Dark, slightly above dark, or wholly saturated: such an amplifier has no weight."""
    flats = Flats(lab)
    for n, segments in enumerate(flats.raws[1]):
        segments[0][:20, 4:28] = level + 3 * (n % 2)  # the overscan has 1000
        flats.raws[2][n][1][:] = 65535
    assert lab.serial(flats.measure()) == 0
    assert lab.serial(flats.normalise("AMP")) == 0
    table = json.loads((lab.folder / "scales-AMP.json").read_text())
    scale = np.array(table["exposure_scale"])
    np.testing.assert_allclose(scale / scale.mean(), flats.levels / flats.levels.mean(), rtol=3e-3)
    assert np.isfinite(list(table["detector_scale"].values())).all()


def test_an_exposure_without_light_is_named(lab: Any) -> None:
    flats, rng = Flats(lab, detectors=(0,)), np.random.default_rng(1)
    for segments in [flats.raws[0][3]]:
        for raw in segments:
            raw[:20, 4:28] = rng.normal(990, 3, (20, 24))
    plain = flats.measure()
    assert lab.serial(plain) == 1
    error = lab.journal(plain)[-1]["detail"]["error"]
    assert error.startswith(f"{lab.folder / '0-3.fits'}: its mean level is -") and error.endswith(
        "electron: not a flat"
    )
    assert not (lab.folder / "measure0.json").exists()


@pytest.mark.parametrize("level", ["DETECTOR", "AMP"])
def test_an_exposure_that_is_saturated_in_part_is_measured_where_all_are_good(lab: Any, level: str) -> None:
    """The brighter half of a vignetted field is saturated in one of three exposures; the rest of it is fainter."""
    flats = Flats(lab, detectors=(0,))
    flats.levels = np.array([9611.0, 9700.0, 9611 * 2.64])
    field = np.where(np.arange(lab.size[0]) % 24 < 18, 0.6, 1.4)[None, :] * np.ones((lab.size[1], 1))
    rng = np.random.default_rng(3)
    flats.raws[0] = [lab.expose(rng, rng.poisson(level * field)) for level in flats.levels]
    for raw in flats.raws[0][2]:
        raw[:20, 4:28][raw[:20, 4:28] > 1000 + 20000] = 65535
    full = sum(int((raw[:20, 4:28] == 65535).sum()) for raw in flats.raws[0][2])
    assert full > 0.19 * field.size
    plain = flats.measure(exposures=EXPOSURES[:3], dark_times=[0.0] * 3)
    assert lab.serial(plain) == 0
    assert lab.journal(plain)[-1]["detail"]["pixels_left_out"] == full
    assert lab.serial(flats.normalise(level)) == 0
    scale = np.array(json.loads((lab.folder / f"scales-{level}.json").read_text())["exposure_scale"])
    np.testing.assert_allclose(scale / scale[0], flats.levels / flats.levels[0], rtol=5e-3)


def test_exposures_without_a_common_good_pixel_are_refused(lab: Any) -> None:
    flats = Flats(lab, detectors=(0,))
    for raw in flats.raws[0][3]:
        raw[:20, 5:28] = 65535
    plain = flats.measure()
    assert lab.serial(plain) == 1
    error = lab.journal(plain)[-1]["detail"]["error"]
    assert error == (
        f"{lab.folder / '0-3.fits'}: exposure 14: 96 % of its pixels are saturated or blank, "
        "hardly any is good in all exposures; leave it out"
    )


def test_mixed_units_are_refused(flats: Flats) -> None:
    lab = flats.lab
    assert lab.serial(flats.measure()) == 0
    path = lab.folder / "measure1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unit": "adu"}))
    plain = flats.normalise("DETECTOR")
    assert lab.serial(plain) == 1
    assert "units are mixed: ['adu', 'electron']" in lab.journal(plain)[-1]["detail"]["error"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"exposures": [11], "exposure_scale": [2.0]}', "has no scale for exposure 12"),
        ('{"exposures": [11', "not readable as JSON"),
        (None, "No such file"),
    ],
)
def test_scales_that_are_not_there_are_named(lab: Any, tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "scales.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=f"scales.json: .*{message}"):
        scales_of(str(path), geometry.camera(lab.camera()).detectors[0], [11, 12])
