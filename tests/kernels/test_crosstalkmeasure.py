"""The crosstalk as a job: raw frames with spots to a table, compared with the simulator's truth, and applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from campaign.quality.canvas import LOST
from campaign.quality.matrix import ABOVE, COLOURS, ITSELF, LEFT, TALL, WIDE, draw_matrix, effects, maps
from kernels import run
from kernels.calibrations.crosstalk import Crosstalk
from kernels.camera import geometry
from kernels.camera.geometry import Camera
from kernels.errors import DataError, JobError
from kernels.jobs import job
from kernels.response.crosstalkmeasure import Settings
from kernels.simulation import electronics
from kernels.simulation.rates import Rates
from tests.kernels.conftest import Lab
from tests.kernels.test_cti import DETECTOR, SEED, common, described

F64 = NDArray[np.float64]
NAME, DEAD, MANY = "R22_S11", "C05", 32
RATES: dict[str, Any] = {
    "crosstalk": 2e-4, "cosmic_rays": 0.05, "hot_rate": [6.5, 100.0], "vignetting_mm": [9e5, 1e6],
    "dead_amplifiers": {NAME: DEAD},
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "estimator": "JOINT", "bright": 30_000.0, "own": 300.0, "grow": 5, "box": 64, "least": 20, "nsigma": 0.0,
    "passes": 3, "order": 1, "significant": 3.0,
}  # fmt: skip


def shot(k: int, **light: Any) -> dict[str, Any]:
    return {
        "exposure": 2024080700001 + k, "day_obs": 20240807, "seq_num": 1 + k, "obs_id": f"CC_O_20240807_{k:06d}",
        "observation_type": "spot", "physical_filter": "r_03", "exposure_time": 1.0, "dark_time": 1.0,
        "begin": "2024-08-07T21:00:00.000", "mjd": 60529.9, "reason": "spot", "program": "BLOCK-T68", **light,
    }  # fmt: skip


def simulated(folder: Path, exposures: list[dict[str, Any]]) -> list[str]:
    raws = [str(folder / f"raw{p['exposure']}.fits") for p in exposures]
    tasks = [
        {"task": f"raw:{k}", "detector": DETECTOR, "outputs": {"raw": path}, "parameters": p}
        for k, (path, p) in enumerate(zip(raws, exposures, strict=True))
    ]
    config = {"seed": SEED, "rates": RATES, "header": {"INSTRUME": "COMCAM"}}
    assert common(folder, "simulate", tasks, config=config) == 0
    return raws


def solving(folder: Path, raws: list[str], **settings: Any) -> dict[str, Any]:
    parameters = {"exposures": [*range(len(raws))], "dark_times": [1.0] * len(raws)}
    task = {"task": "crosstalk:4", "detector": DETECTOR, "inputs": {"raw": raws}, "parameters": parameters,
            "outputs": {"crosstalk": str(folder / "crosstalk.fits")}, "provenance": {"TICKET": "DM-1"}}  # fmt: skip
    config = {"isr": {"parallel": True}, "permissions": {}, **SETTINGS, **settings}
    return {"kernel": "crosstalk", "tasks": [task], "config": config, "files": {path: {"path": path} for path in raws}}


def solve(folder: Path, raws: list[str], unit: str = "electron", **settings: Any) -> int:
    plain = described(folder, **solving(folder, raws, **settings))
    plain["camera"]["unit"] = unit
    return run._kernel("crosstalk")(job.from_plain(json.loads(json.dumps(plain))), None)


def camera() -> Camera:
    return geometry.camera(described(Path(), "crosstalk", [])["camera"])


def told(folder: Path) -> dict[str, Any]:
    (journal,) = (folder / "journal").glob("crosstalk*.jsonl")
    detail: dict[str, Any] = json.loads(journal.read_text().splitlines()[-1])["detail"]
    return detail


def matrices(folder: Path) -> dict[str, NDArray[Any]]:
    """The columns of the file as [target, source]."""
    row = fitsio.read(folder / "crosstalk.fits", 1)
    n = len(camera().detectors[DETECTOR].amplifiers)
    return {name: row[name].reshape(n, n).T for name in row.dtype.names if name != "CT_FIT_GAINS"}


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("crosstalk")
    raws = simulated(folder, [shot(k, spots=6, lit=k) for k in range(MANY)])
    assert solve(folder, raws) == 0
    return folder, raws


@pytest.fixture(scope="module")
def useless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Frames that tell nothing: a bright flat, a faint one, spots without light."""
    light = {"lamp": 1.0}
    frames = [shot(100, electrons=50_000, **light), shot(101, electrons=9_000, **light), shot(102)]
    raws = simulated(tmp_path_factory.mktemp("useless"), frames)
    return dict(zip(("flat", "faint", "dark"), raws, strict=True))


def test_spots_give_the_truth(spots: tuple[Path, list[str]]) -> None:
    """The bar: 99 % within 3 errors, rms of z 0.9 to 1.1."""
    folder, _ = spots
    detector, found = camera().detectors[DETECTOR], matrices(folder)
    dead = [a.name for a in detector.amplifiers].index(DEAD)
    true = electronics.in_unit(electronics.make(SEED, detector, Rates.from_plain(RATES)), camera(), detector)
    known = found["CT_COUNTS"] > 0
    assert known.sum() == 16 * 15 - 15 and not known[:, dead].any() and not known.diagonal().any()
    for name, truth in zip(("", "_SQR"), true, strict=True):
        z = ((found[f"CT_COEFFS{name}"] - truth) / np.where(known, found[f"CT_ERRORS{name}"], 1))[known]
        assert 0.9 < np.sqrt(np.mean(z**2)) < 1.1 and abs(z.mean()) < 0.2, name
        assert np.mean(np.abs(z) < 3) >= 0.99, name
    neighbours = np.abs(np.subtract.outer(np.arange(16), np.arange(16))) == 1
    assert found["CT_VALID"][neighbours & known].all()
    np.testing.assert_allclose(
        found["CT_AMP_GAIN_RATIOS"][0, 1], detector.amplifiers[0].gain / detector.amplifiers[1].gain
    )


def test_what_is_not_known_is_marked_and_counted(spots: tuple[Path, list[str]]) -> None:
    folder, _ = spots
    header, found = fitsio.read_header(folder / "crosstalk.fits"), matrices(folder)
    assert (header["CTMETHOD"], header["NEXPOSUR"], header["NNOSRC"], header["NBADAMP"]) == ("JOINT", MANY - 2, 1, 0)
    assert header["NOSRC1"] == f"{DEAD}: 0 bright pixels" and header["NSATURAT"] == told(folder)["saturated"] > 50
    assert header["NBRIGHT"] > 8000 and header["NREJECT"] < 100 and header["CTCHI2"] == pytest.approx(1, abs=0.1)
    assert header["NCOEFF"] == 225 and header["NVALID"] == found["CT_VALID"].sum()
    unknown = (found["CT_COUNTS"] == 0) & ~np.eye(16, dtype=bool)
    for name in ("CT_COEFFS", "CT_ERRORS", "CT_COEFFS_SQR", "CT_ERRORS_SQR"):
        np.testing.assert_array_equal(~np.isfinite(found[name]), unknown)
    assert not found["CT_VALID"][unknown].any() and (found["CT_COEFFS"].diagonal() == 0).all()
    assert told(folder)["look_at"] == [
        f"crosstalk from {DEAD} is not known: bright in 0 pixels at most",
        "2 of 32 exposures have no bright pixel, and are left out",
    ]


def test_it_is_applied(spots: tuple[Path, list[str]]) -> None:
    folder, _ = spots
    found, path, seen = matrices(folder), str(folder / "crosstalk.fits"), camera()
    applied = Crosstalk.open(path, seen, seen.detectors[DETECTOR], True)
    np.testing.assert_array_equal(applied.c0, np.where(found["CT_VALID"], found["CT_COEFFS"], 0).astype(np.float32))
    np.testing.assert_array_equal(applied.c1, np.where(found["CT_VALID"], found["CT_COEFFS_SQR"], 0).astype(np.float32))
    assert not applied.notes
    other = geometry.camera({**described(Path(), "x", [])["camera"], "unit": "adu"})
    with pytest.raises(DataError, match="is in electron .* are in adu"):
        Crosstalk.open(path, other, other.detectors[DETECTOR], True)
    plain = described(Path(), "x", [])["camera"]
    plain["detectors"][0] |= {"id": 5, "name": "R22_S12"}
    with pytest.raises(DataError, match="is of detector 4 R22_S11 .* the frames are of 5 R22_S12"):
        Crosstalk.open(path, geometry.camera(plain), geometry.camera(plain).detectors[5], True)


def test_a_page_shows_it(spots: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Cells of a source that was never bright are red, its own is grey; the strongest is named for each target."""
    rows, header = fitsio.read(spots[0] / "crosstalk.fits", 1, header=True)
    names = [a.name for a in camera().detectors[DETECTOR].amplifiers]
    draw_matrix(rows, header, tmp_path / "page.png", "crosstalk")
    with Image.open(tmp_path / "page.png") as page:
        pixels = np.asarray(page.convert("RGB"))
    dead = pixels[ABOVE + names.index(DEAD) * TALL : ABOVE + (names.index(DEAD) + 1) * TALL, LEFT : LEFT + 16 * WIDE]
    red = (dead == ImageColor.getrgb(LOST)).all(axis=2)
    assert 0.7 * 15 * WIDE * TALL < red.sum() < 15 * WIDE * TALL
    assert not (np.delete(pixels, range(ABOVE, ABOVE + 16 * TALL), 0) == ImageColor.getrgb(LOST)).all(axis=2).any()
    for s, t, colour in ((0, 1, COLOURS[2]), (2, 2, ITSELF)):
        corner = pixels[ABOVE + s * TALL + 2, LEFT + t * WIDE + 2].astype(int)
        assert np.abs(corner - ImageColor.getrgb(colour)).max() < 90
    (effect, valid), strongest = effects(rows[0]), maps({DETECTOR: rows}, "crosstalk")["strongest"].values[DETECTOR]
    np.testing.assert_allclose(strongest, 1e6 * np.where(valid, np.abs(effect), 0).max(axis=0), rtol=1e-6)
    assert np.isnan(effect[names.index(DEAD)]).all() and (strongest > 100).all()


@pytest.mark.processes
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.soak), 3])
def test_ranks_give_the_same(spots: tuple[Path, list[str]], tmp_path: Path, ranks: int) -> None:
    """Pieces of other ranks are valid until the next piece, and must not be kept."""
    folder, raws = spots
    plain = {**described(tmp_path, **solving(tmp_path, raws)), "journal": str(tmp_path / "journal" / "crosstalk")}
    done = Lab(tmp_path).mpi(plain, ranks)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "crosstalk.fits").read_bytes() == (folder / "crosstalk.fits").read_bytes()


def test_frames_that_tell_nothing_are_left_out_and_counted(
    spots: tuple[Path, list[str]], useless: dict[str, str], tmp_path: Path
) -> None:
    folder, raws = spots
    assert solve(tmp_path, [*raws, *useless.values()]) == 0
    header = fitsio.read_header(tmp_path / "crosstalk.fits")
    assert (header["NEXPOSUR"], header["NEVENLY"], header["NDARKEXP"]) == (MANY - 2, 1, 4)
    assert told(tmp_path)["look_at"][1:] == [
        "1 of 35 exposures are lit evenly, like flats, and are left out",
        "4 of 35 exposures have no bright pixel, and are left out",
    ]
    for name, values in matrices(folder).items():
        np.testing.assert_array_equal(values, matrices(tmp_path)[name])


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["flat"], "1 of 1 exposures are lit evenly, like flats: where one amplifier is bright, 9. % of all are"),
        (["faint", "dark"], r"0 pixels of 2 exposures are above 30000 electron .*\(the brightest has 9\d\d\d, 0 are"),
    ],
)
def test_frames_without_spots_are_refused(useless: dict[str, str], tmp_path: Path, names: list[str], why: str) -> None:
    assert solve(tmp_path, [useless[name] for name in names]) == 1
    error = told(tmp_path)
    assert error["kind"] == "DataError" and not (tmp_path / "crosstalk.fits").exists()
    with pytest.raises(DataError, match=why):
        raise DataError("", error["error"])


def test_too_few_pixels_are_refused(spots: tuple[Path, list[str]], tmp_path: Path) -> None:
    assert solve(tmp_path, spots[1][:2], least=100_000) == 1
    assert "no amplifier has crosstalk coefficients, of" in told(tmp_path)["error"]
    assert "pixels beside bright ones, at most" in told(tmp_path)["error"]


def test_upstreams_estimator_is_named(spots: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, raws = spots
    assert solve(tmp_path, raws, estimator="RATIOS") == 0
    header, ours, theirs = fitsio.read_header(tmp_path / "crosstalk.fits"), matrices(folder), matrices(tmp_path)
    assert header["CTMETHOD"] == "RATIOS" and header["NREJECT"] > 1000
    known = ours["CT_VALID"] & theirs["CT_VALID"]
    assert np.median(theirs["CT_ERRORS"][known] / ours["CT_ERRORS"][known]) > 3, "scatter of single ratios"
    assert known.sum() > 25 and np.abs(theirs["CT_COEFFS"][known] / ours["CT_COEFFS"][known] - 1).mean() < 0.3


def test_a_camera_in_adu_gets_coefficients_for_adu(spots: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, raws = spots
    assert solve(tmp_path, raws, unit="adu") == 0
    gains = np.array([a.gain for a in camera().detectors[DETECTOR].amplifiers])
    ratio, valid = gains / gains[:, np.newaxis], matrices(folder)["CT_VALID"]
    for name, factor in (("CT_COEFFS", ratio), ("CT_ERRORS", ratio), ("CT_COEFFS_SQR", ratio * gains)):
        want, got = matrices(folder)[name] * factor, matrices(tmp_path)[name]
        np.testing.assert_allclose(got[valid], want[valid], rtol=1e-3, atol=1e-3 * np.abs(want[valid]).max())
    assert fitsio.read_header(tmp_path / "crosstalk.fits", 1)["CROSSTALK_RATIOS_UNITS"] == "adu"


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="least"):
        Settings.from_plain({name: value for name, value in SETTINGS.items() if name != "least"})
    with pytest.raises(JobError, match="MEDIAN"):
        Settings.from_plain({**SETTINGS, "estimator": "MEDIAN"})
    with pytest.raises(JobError, match="set doCrosstalk, doLinearize and doDeferredCharge to false"):
        solve(tmp_path, [], isr={"linearity": True})
