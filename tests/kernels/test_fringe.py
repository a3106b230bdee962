"""Fringes: combined from simulated skies, on any number of ranks, and subtracted from frames with a known amplitude."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from kernels.camera import geometry
from kernels.simulation.rates import Rates
from kernels.simulation.skies import patterns
from kernels.statistics.surface import Surface
from kernels.transfer import fringefit
from tests.kernels import skies
from tests.kernels.skies import Plain, events, execute, exposures, parameters, simulated

pytestmark = pytest.mark.processes

AMPLITUDE, SKY = 0.04, 3000.0
SKIES = exposures(9, [SKY], fringe=AMPLITUDE, stars=3)
#: Frames that the fringes are not made of, with amplitudes of their own.
OTHERS = [e | {"fringe": 0.005 * k} for k, e in enumerate(exposures(12, [SKY, 8000.0], first=31, stars=3))]
#: At scale 16 places overlap many times, and apertures are of a few pixels.
FIT = {"fringe": True, "fringe_places": 10_000}


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    return simulated(tmp_path_factory.mktemp("fringes"), SKIES, (0, 1))


def made(folder: Path, raws: dict[int, list[str]], wanted: Sequence[Plain], ranks: int = 1) -> Path:
    """Run both kernels; return the folder, with ``fringe<detector>.fits``."""
    folder.mkdir()
    common = parameters(wanted) | {"scales": [1.0] * len(wanted)}
    first = [
        {"task": f"measure:{d}", "detector": d, "inputs": {"raw": paths}, "parameters": common,
         "outputs": {"fringeMeasure": str(folder / f"measure{d}.json")}}
        for d, paths in raws.items()
    ]  # fmt: skip
    execute(folder, "fringe_measure", first, skies.FRINGE, ranks)
    there = [t for t in first if Path(t["outputs"]["fringeMeasure"]).exists()]
    then = [
        {**t, "task": f"fringe:{t['detector']}", "outputs": {"fringe": str(folder / f"fringe{t['detector']}.fits")},
         "inputs": {**t["inputs"], "fringeMeasure": [t["outputs"]["fringeMeasure"]]}}
        for t in there
    ]  # fmt: skip
    execute(folder, "combine", then, {"type": "fringe", "product": "fringe", "piece_bytes": 300_000}, ranks)
    return folder


def planes(path: Path) -> list[Any]:
    return [fitsio.read(path, ext=name) for name in ("IMAGE", "MASK", "VARIANCE")]


@pytest.fixture(scope="module")
def serial(raws: dict[int, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("serial") / "1", raws, SKIES)


def test_they_agree_with_the_truth(serial: Path) -> None:
    rates = Rates.from_plain(skies.RATES)
    for d in (0, 1):
        image, mask, variance = planes(serial / f"fringe{d}.fits")
        sky = patterns(skies.SEED, geometry.camera(skies.camera()).detectors[d], skies.FILTER, rates)
        expected = (sky.pattern + np.float32(AMPLITUDE) * sky.fringes).astype(np.float32)
        surface, _ = Surface.of(expected, 32)
        surface.subtract(expected)
        good = mask == 0
        assert good.mean() > 0.995
        rest = (image - expected)[good]
        assert abs(rest.mean()) < 1e-4
        assert (image * expected)[good].sum() / (expected**2)[good].sum() == pytest.approx(1, abs=0.02)
        assert 0.95 < variance[good].mean() / (rest**2).mean() < 1.08
    detail = events(serial)["fringe:0"]["detail"]
    assert detail["pattern_rms"] == pytest.approx(AMPLITUDE / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_change_no_bit(raws: dict[int, list[str]], serial: Path, tmp_path: Path, ranks: int) -> None:
    again = made(tmp_path / "again", raws, SKIES, ranks)
    for d in raws:
        assert (again / f"measure{d}.json").read_bytes() == (serial / f"measure{d}.json").read_bytes()
        for one, other in zip(planes(again / f"fringe{d}.fits"), planes(serial / f"fringe{d}.fits"), strict=True):
            assert one.tobytes() == other.tobytes()


def test_frames_are_corrected_by_their_own_amplitude(serial: Path, tmp_path: Path) -> None:
    """Amplitudes from 0 on, each within its own error; and what is left of the fringes."""
    raws = simulated(tmp_path, OTHERS, (0,))[0]
    path = str(serial / "fringe0.fits")
    tasks = [
        {"task": f"isr:{p['exposure']}", "detector": 0, "inputs": {"raw": [raw], "fringe": [path]},
         "parameters": parameters([p]), "outputs": {"postISRCCD": str(tmp_path / f"{p['exposure']}.out")}}
        for p, raw in zip(OTHERS, raws, strict=True)
    ]  # fmt: skip
    assert execute(tmp_path, "correct", tasks, {"isr": {**skies.ISR, **FIT}}) == 0
    sky = patterns(
        skies.SEED, geometry.camera(skies.camera()).detectors[0], skies.FILTER, Rates.from_plain(skies.RATES)
    )
    found, left = [], []
    for p in OTHERS:
        image, mask, _ = planes(tmp_path / f"{p['exposure']}.out")
        header = fitsio.read_header(tmp_path / f"{p['exposure']}.out")
        level, good = np.median(image[mask == 0]), mask == 0
        true, unit = p["fringe"] / AMPLITUDE, 1 / level
        found.append((true, header["FRAMPL"] * unit, header["FRAMPERR"] * unit))
        waves = sky.fringes[good] - sky.fringes[good].mean()
        clean = np.abs(image[good] - level) < 5 * np.sqrt(level)
        left.append((image[good] - level)[clean] @ waves[clean] / (waves[clean] @ waves[clean]) / level)
    assert header["FRSEED"] == 1000 * OTHERS[-1]["exposure"] % 2**32
    assert header["FRPLACES"] == 10_000
    true, amplitude, error = np.array(found).T
    factor = (true / error**2) @ amplitude / ((true / error) @ (true / error))
    assert factor == pytest.approx(1, abs=0.01)  # the background of the fringe frame takes some of the fringes
    pulls = (amplitude - factor * true) / error
    assert np.abs(pulls).max() < 3.5
    assert 0.5 < np.sqrt(np.mean(pulls**2)) < 1.5
    assert np.abs(left).max() < 0.003


def test_a_fringe_frame_of_noise_is_not_subtracted() -> None:
    rng, shape = np.random.default_rng(4), (200, 200)
    image, noise = (rng.normal(0, 1, shape).astype(np.float32) for _ in range(2))
    ones, good = np.ones(shape, np.float32), np.ones(shape, np.bool_)
    rule = fringefit.Rule(places=2000, small=2, large=10)
    found = fringefit.fit(image, ones, good, noise, ones, rule)
    assert (found.amplitude, found.why) == (0.0, "the fringe frame holds noise alone")
    good[:, 12:] = False
    assert "of 2000 places have enough good pixels" in fringefit.fit(image, ones, good, noise, ones, rule).why


def test_too_few_skies_are_refused_with_their_reasons(tmp_path: Path) -> None:
    wanted = exposures(4, [SKY, 4e5])
    folder = made(tmp_path / "few", simulated(tmp_path, wanted, (0,)), wanted)
    error = events(folder)["measure:0"]["detail"]["error"]
    assert "2 of 4 exposures can be used, a fringe takes 3 at least: exposure 2024120800001: " in error
