"""Sky frames of two sensor types against their truth, on any number of ranks; and frames without a sky."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from kernels.camera import geometry
from kernels.products.underlay import excess
from kernels.simulation import skytruth
from kernels.simulation.rates import Rates
from kernels.transfer.superpixels import Cells, measure, solve
from tests.kernels import skies
from tests.kernels.skies import Plain, events, execute, exposures, parameters, simulated

pytestmark = pytest.mark.processes

#: Dark skies and one with the moon, a hundred times brighter.
SKIES = exposures(10, [400.0], stars=2) + exposures(2, [40_000.0], first=11, stars=2)


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    return simulated(tmp_path_factory.mktemp("skies"), SKIES)


def made(folder: Path, raws: dict[int, list[str]], wanted: Sequence[Plain], ranks: int = 1, **config: Any) -> Path:
    """Run the three kernels; return the folder, with ``sky<detector>.fits``."""
    folder.mkdir()
    measured = {d: str(folder / f"measure{d}.json") for d in raws}
    tasks = [
        {"task": f"measure:{d}", "detector": d, "inputs": {"raw": paths}, "outputs": {"skyMeasure": measured[d]},
         "parameters": parameters(wanted)}
        for d, paths in raws.items()
    ]  # fmt: skip
    execute(folder, "sky_measure", tasks, skies.SKY, ranks)
    whole = str(folder / "scale.json")
    scale = {"task": "scale:", "inputs": {"skyMeasure": list(measured.values())}, "outputs": {"skyScale": whole}}
    execute(folder, "sky_scale", [scale], {"least": 0.1, "apart": True})
    tasks = [
        {"task": f"sky:{d}", "detector": d, "inputs": {"skyMeasure": [path], "skyScale": [whole]},
         "outputs": {"sky": str(folder / f"sky{d}.fits")}, "parameters": parameters(wanted)}
        for d, path in measured.items()
    ]  # fmt: skip
    execute(folder, "sky", tasks, {"type": "sky", **config}, ranks)
    return folder


def planes(path: Path) -> list[Any]:
    return [fitsio.read(path, ext=name) for name in ("IMAGE", "MASK", "VARIANCE")]


@pytest.fixture(scope="module")
def serial(raws: dict[int, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("serial") / "1", raws, SKIES)


def test_they_agree_with_the_truth_and_bright_skies_count_more(serial: Path) -> None:
    """An error by the scatter of 12 frames; the few bright ones have nearly all of the weight."""
    camera = geometry.camera(skies.camera())
    header = fitsio.read_header(serial / "sky0.fits")
    weights = [header[f"CPP_INPUT_WEIGHT_{n}"] for n in range(len(SKIES))]
    assert header["WEIGHTS"].strip() == "noise"
    assert 20 < weights[-1] / weights[0] < 200
    truth = skytruth.expected(skies.SEED, camera, SKIES, Rates.from_plain(skies.RATES), 40.96, 32, weights)
    variances, squares = 0.0, 0.0
    for d, expected in truth.items():
        image, mask, variance = planes(serial / f"sky{d}.fits")
        assert image.shape == expected.shape == (30, 30)
        good = mask == 0
        assert good.mean() > 0.99
        rest = (image - expected)[good]
        assert abs(rest.mean()) < 3e-4  # where stars hide the pattern, the background shifts
        assert rest.std() < 0.3 * expected.std()
        variances, squares = variances + variance[good].sum(), squares + (rest**2).sum()
    assert 0.75 < variances / squares < 1.25


def test_upstream_reads_the_box(serial: Path) -> None:
    header = fitsio.read_header(serial / "sky0.fits")
    assert [header[f"BOX.{name}"] for name in ("MINX", "MINY", "MAXX", "MAXY")] == [0, 0, 239, 239]
    assert header["ALGORITHM"].strip() == "NATURAL_SPLINE"


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_change_no_bit(raws: dict[int, list[str]], serial: Path, tmp_path: Path, ranks: int) -> None:
    again = made(tmp_path / "again", raws, SKIES, ranks)
    for name in [*(f"measure{d}.json" for d in raws), "scale.json"]:
        assert (again / name).read_bytes() == (serial / name).read_bytes()
    for d in raws:
        for one, other in zip(planes(again / f"sky{d}.fits"), planes(serial / f"sky{d}.fits"), strict=True):
            assert one.tobytes() == other.tobytes()


def test_frames_without_a_sky_are_left_out_and_named(tmp_path: Path) -> None:
    """A frame full of stars, a saturated one; a detector that gets no light; one that is left with too few frames."""
    wanted = exposures(4, [3000.0])
    wanted[0]["stars"], wanted[1]["sky"] = 1500, 4e5
    raws = simulated(tmp_path, wanted, (0, 1), {1: {"sky": 0.0, "lamp": 0.0, "stars": 0}})
    folder = made(tmp_path / "few", raws, wanted)
    told = events(folder)
    assert told["sky:0"]["event"] == told["sky:1"]["event"] == "failed"
    assert told["sky:0"]["detail"]["cause"] == "data"
    error = told["sky:0"]["detail"]["error"]
    assert "2 of 4 exposures can be used, a sky takes 3 at least: exposure 2024120800001: " in error
    assert "exposure 2024120800002: 100.0 % of the detector is not sky: 100.0 % of it is saturated or bad" in error
    assert "there is no sky: the level is" in told["sky:1"]["detail"]["error"]
    more = wanted + exposures(1, [3000.0], first=5)
    raws = {0: raws[0] + simulated(tmp_path, more[4:], (0,))[0]}
    folder = made(tmp_path / "enough", raws, more)
    detail = events(folder)["measure:0"]["detail"]
    assert len(detail["look_at"]) == 2
    image, mask, variance = planes(folder / "sky0.fits")
    header = fitsio.read_header(folder / "sky0.fits")
    assert (header["NINPUTS"], header["NLEFTOUT"]) == (3, 2)
    assert header["LEFTOUT0"].startswith("2024120800001: ")
    assert np.isfinite(image).all() and np.isfinite(variance).all() and mask.max() in (0, 257)


def test_a_gradient_leaves_nothing_wherever_superpixels_end() -> None:
    camera = geometry.camera(skies.camera())
    rows, backgrounds = [], {}
    for d in camera.detectors.values():
        y, x = np.mgrid[: d.size[1], : d.size[0]] * (d.pixel_um * 1e-3)
        turned = (-y, x) if d.yaw_deg else (x, y)
        at = [p + t - (t.max() + t.min()) / 2 for p, t in zip(d.position_mm, turned, strict=True)]
        backgrounds[d.id] = (1000 + 0.7 * at[0] - 0.4 * at[1], at)
        rows += measure(d, backgrounds[d.id][0].astype(np.float32), 40.96)
    found = solve(Cells.of(rows), 40.96, 0.1 * (40.96 / 0.17) ** 2)
    assert found is not None
    for level, at in backgrounds.values():
        np.testing.assert_allclose(found.at(*at), level, atol=0.2)


def test_a_bin_with_a_hot_pixel_does_not_hide_the_pattern() -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(0, 0.005, (30, 30)) + rng.normal(0, 0.002, (30, 30))
    variance = np.full(image.shape, 4e-6)
    image[3, 4], variance[3, 4], image[7, 7], variance[7, 7] = 0.5, 0.3, -0.4, 0.2
    found = excess(image.astype(np.float32), variance.astype(np.float32), np.zeros(image.shape, np.int32))
    assert found == pytest.approx(0.005, rel=0.06)
