"""The photon transfer curve as a job: raw flats in pairs to a table, compared with the simulator's truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from kernels.calibrations import ptc
from kernels.camera import geometry
from kernels.errors import JobError
from kernels.response.flatpairs import Settings
from kernels.response.unequal import left_out
from kernels.transfer.covariance import Pair
from kernels.transfer.matching import Matched, match
from tests.kernels.test_cti import DETECTOR, common, described, shots, simulated

DEAD = "C05"
RATES = {
    "brighter_fatter": 1.0, "brighter_fatter_steps": 4, "cosmic_rays": 0.05, "qe": 0.002,
    "vignetting_mm": [9e5, 1e6], "dead_amplifiers": {"R22_S11": DEAD}, "amplifier_step": 0.0, "stain": 0.0,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "matching": "TIME", "flux": "CCOBFLUX", "side": 6, "nsigma": 5.5, "passes": 3, "least_pixels": 600, "edge": 1,
    "model": "EXACT", "outlier_cut": 5.0, "outlier_rounds": 2, "outlier_signal": 50000.0, "outlier_gap": 9000.0,
    "outlier_scaled": True, "rolloff": False, "rolloff_share": 0.01, "least_mean": 0.0, "most_mean": 1e6,
}  # fmt: skip


RATIOS: dict[str, Any] = {
    "ratio_least": 1000.0, "ratio_most": 20_000.0, "ratio_flats": 50, "reference_noise": 12.0, "radial": True,
    "reference_percentile": 25.0, "bin": 1, "boundary": 1, "order": 1, "nodes": 20, "most": 0.05,
}  # fmt: skip


def flats() -> list[dict[str, Any]]:
    """12 pairs at equal ratios, 36 at equal distances, a flat without a partner, a pair far beyond saturation."""
    faint, bright = np.geomspace(100, 3000, 12), np.linspace(5000, 100_000, 36)
    electrons = [*np.repeat(np.concatenate([faint, bright]), 2), 20_000.0, 200_000.0, 200_000.0]
    base = shots()
    made = []
    for k, charge in enumerate(electrons):
        own = {"exposure": 2024080600001 + k, "seq_num": 1 + k, "obs_id": f"CC_O_20240806_{k:06d}"}
        times = {"exposure_time": charge / 1000, "dark_time": charge / 1000, "electrons": float(charge)}
        made.append({**base[0], **own, **times})
    return made


def solve(folder: Path, raws: list[str], exposures: list[dict[str, Any]], **settings: Any) -> int:
    parameters = {
        "exposures": [e["exposure"] for e in exposures],
        "exposure_times": [e["exposure_time"] for e in exposures],
    }
    task = {"task": "ptc:4", "detector": DETECTOR, "inputs": {"raw": raws}, "parameters": parameters,
            "outputs": {"ptc": str(folder / "ptc.fits")}, "provenance": {"TICKET": "DM-1"}}  # fmt: skip
    config = {"isr": {"saturation": True}, "permissions": {}, **SETTINGS, **settings}
    return common(folder, "ptc", [task], config=config, files={path: {"path": path} for path in raws})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[dict[str, Any]]]:
    folder, exposures = tmp_path_factory.mktemp("ptc"), flats()
    raws = simulated(folder, exposures, rates=RATES)
    assert solve(folder, raws, exposures) == 0
    return folder, raws, exposures


def test_gain_noise_and_a_are_the_truth(made: tuple[Path, list[str], Any]) -> None:
    folder = made[0]
    rows, header = fitsio.read(folder / "ptc.fits", 1), fitsio.read_header(folder / "ptc.fits")
    with fitsio.FITS(folder / "truth.fits") as fits:
        true, a = fits["AMPLIFIERS"].read(), fits["A"].read()
    good = rows["AMPLIFIER_NAME"].astype(str) != DEAD
    gain, error = rows["GAIN"][good], rows["GAIN_ERR"][good]
    pulls = (gain - true["gain"][good]) / error
    # 49 pairs of 3,843 pixels: 0.67 % an amplifier
    assert np.median(np.abs(gain / true["gain"][good] - 1)) < 0.008 and np.abs(pulls).max() < 4
    assert 0.6 < np.sqrt(np.mean(pulls**2)) < 1.5
    # medians of the overscans add 3 % (docs/products.md)
    noise = rows["NOISE"][good] / true["read_noise"][good]
    assert np.median(noise) == pytest.approx(1.02, abs=0.03)
    assert np.abs((noise - 1.02) * true["read_noise"][good] / rows["NOISE_ERR"][good]).max() < 4
    matrices = rows["A_MATRIX"][good].reshape(-1, 6, 6)
    assert np.mean(matrices[:, 0, 0]) == pytest.approx(a[0, 0], rel=0.06)
    assert np.mean(matrices[:, 0, 1]) == pytest.approx(a[1, 0], rel=0.15)  # axis 0 is x in the table, y in the truth
    assert np.mean(matrices[:, 1, 0]) == pytest.approx(a[0, 1], rel=0.4)
    assert header["FITMODEL"] == "EXACT" and header["NEXPOSUR"] == 98 and header["NSINGLE"] == 1


def test_what_cannot_be_measured_is_named(made: tuple[Path, list[str], Any]) -> None:
    folder, _, exposures = made
    rows, header = fitsio.read(folder / "ptc.fits", 1), fitsio.read_header(folder / "ptc.fits")
    names = rows["AMPLIFIER_NAME"].astype(str)
    assert header["NBADAMP"] == 1 and header["BADAMP1"].startswith(f"{DEAD}: ") and "no light" in header["BADAMP1"]
    assert np.isnan(rows["GAIN"][names == DEAD]).all() and rows["BAD_AMPS"].astype(str).tolist().count(DEAD) == 1
    assert np.isnan(rows["RAW_MEANS"][:, -1]).all()  # saturated
    assert exposures[96]["exposure"] not in rows["INPUT_EXP_ID_PAIRS"]


def test_a_bad_amplifier_keeps_the_cameras_numbers_and_is_flagged(made: tuple[Path, list[str], Any]) -> None:
    camera = geometry.camera(described(made[0], "ptc", [])["camera"])
    detector = camera.detectors[DETECTOR]
    applied = ptc.apply(str(made[0] / "ptc.fits"), camera, detector)
    k = [a.name for a in detector.amplifiers].index(DEAD)
    assert applied.amplifiers[k].gain == detector.amplifiers[k].gain
    assert ptc.bad(str(made[0] / "ptc.fits"), camera, detector) == [DEAD]
    assert applied.amplifiers[0].gain != detector.amplifiers[0].gain


@pytest.mark.parametrize(
    ("chosen", "settings"),
    [
        pytest.param(range(0, 6), {}, id="too few pairs"),
        pytest.param(range(0, 96, 2), {}, id="no pairs at all"),
        pytest.param(range(0, 96), {"least_pixels": 5000}, id="too few pixels"),
        pytest.param(range(97, 99), {}, id="saturated pairs alone"),
        pytest.param(range(0, 96), {"matching": "FLUX"}, id="no card of the flux"),
    ],
)
def test_flats_without_a_curve_are_refused(
    made: tuple[Path, list[str], Any], tmp_path: Path, chosen: range, settings: dict[str, Any]
) -> None:
    _, raws, exposures = made
    assert solve(tmp_path, [raws[k] for k in chosen], [exposures[k] for k in chosen], **settings) == 1
    (journal,) = (tmp_path / "journal").glob("ptc*.jsonl")
    text = journal.read_text()
    why = ("pairs of equal TIME", "no amplifier has a photon transfer curve", "CCOBFLUX is None in the primary header")
    assert any(one in text for one in why)
    assert not (tmp_path / "ptc.fits").exists()


def test_ratios_of_gains_are_those_of_the_flats(
    made: tuple[Path, list[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A curve gives a gain to 0.7 %; steps in the flats give its ratio to the others ten times better."""
    assert solve(tmp_path, made[1], made[2], **RATIOS) == 0
    rows, header = fitsio.read(tmp_path / "ptc.fits", 1), fitsio.read_header(tmp_path / "ptc.fits")
    before = fitsio.read(made[0] / "ptc.fits", 1)
    true = fitsio.read(made[0] / "truth.fits", "AMPLIFIERS")["gain"]
    good = rows["AMPLIFIER_NAME"].astype(str) != DEAD
    single, ratio = ((some[good] / true[good]) for some in (before["GAIN"], rows["GAIN"]))
    assert np.std(ratio / np.mean(ratio)) < 0.1 * np.std(single) and np.std(single) > 0.003
    pulls = (rows["GAIN"][good] - true[good]) / rows["GAIN_ERR"][good]
    assert np.abs(pulls).max() < 4 and rows["GAIN_ERR"][good].max() < 0.5 * before["GAIN_ERR"][good].min()
    assert rows["GAIN_UNADJUSTED"].tobytes() == before["GAIN"].tobytes() and np.isnan(rows["GAIN"][~good]).all()
    others = [name for name in rows.dtype.names if name not in ("GAIN", "GAIN_ERR")]
    assert all(rows[name].tobytes() == before[name].tobytes() for name in others)
    assert header["GAINADJ"] and header["GAINREF"] in rows["AMPLIFIER_NAME"].astype(str) and header["GAINFLAT"] > 8
    assert not header["GAINKEPT"].strip()


def test_without_flats_in_the_range_gains_stay_and_it_is_said(
    made: tuple[Path, list[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    flats = list(range(30, 60))
    assert solve(tmp_path, *chosen(made, flats), **{**RATIOS, "ratio_least": 1e5, "ratio_most": 2e5}) == 0
    rows, header = fitsio.read(tmp_path / "ptc.fits", 1), fitsio.read_header(tmp_path / "ptc.fits")
    assert rows["GAIN"].tobytes() == rows["GAIN_UNADJUSTED"].tobytes()
    assert not header["GAINADJ"] and header["GAINADJW"] == "no flat is in the range of signals"
    assert said(tmp_path)["look_at"] == ["ratios of gains are not adjusted: no flat is in the range of signals"]
    with pytest.raises(JobError, match="settings of the gain ratios"):
        solve(tmp_path, made[1], made[2], ratio_flats=3)


def chosen(made: tuple[Path, list[str], list[dict[str, Any]]], order: list[int]) -> Any:
    return [made[1][k] for k in order], [made[2][k] for k in order]


def said(folder: Path) -> dict[str, Any]:
    """The last event of the job."""
    (path,) = (folder / "journal").glob("ptc*.jsonl")
    return dict(json.loads(path.read_text().splitlines()[-1])["detail"])


def test_pairs_of_unequal_light_are_left_out_and_named(
    made: tuple[Path, list[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    """A pair whose second flat has 53 % more light than its time says: 4 % of its variance."""
    raws, exposures = chosen(made, [*range(96), 50, 66])
    exposures = [dict(e) for e in exposures]
    exposures[96]["exposure_time"] = exposures[97]["exposure_time"] = 33.0
    exposures[96]["exposure"], exposures[97]["exposure"] = 7001, 7002
    assert solve(tmp_path, raws, exposures) == 0
    rows, rest = (fitsio.read(folder / "ptc.fits", 1) for folder in (tmp_path, made[0]))
    assert rows["GAIN"].tobytes() == rest["GAIN"].tobytes() and np.isnan(rows["RAW_DELTAS"][:, -1]).all()
    header, done = fitsio.read_header(tmp_path / "ptc.fits"), said(tmp_path)
    assert header["NUNEQUAL"] == 1 and header["UNEQUAL1"].startswith("7001 7002 +0.4")
    assert 0.02 <= header["MAXDELTA"] <= 0.1 and header["NEXPOSUR"] == 96
    assert done["pairs_left_out"] == [[7001, 7002]] and done["inputs_used"] == 96


def test_too_few_pairs_of_equal_light_are_refused_with_their_names(
    made: tuple[Path, list[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    raws, exposures = chosen(made, [40, 41, 42, 43, 44, 45, 30, 60, 34, 70, 36, 72])
    times = np.repeat(np.arange(6.0), 2)
    exposures = [
        {**e, "exposure_time": t, "exposure": 8000 + k} for k, (e, t) in enumerate(zip(exposures, times, strict=True))
    ]
    assert solve(tmp_path, raws, exposures) == 1
    error = said(tmp_path)["error"]
    assert "3 of 6 pairs have no light or unequal light, beyond" in error and "exposure 8006 and 8007 (+" in error
    assert "8010 and 8011" in error and "4 good pairs are needed" in error


def test_saturated_pairs_alone_are_refused_with_their_numbers(
    made: tuple[Path, list[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    assert solve(tmp_path, *chosen(made, [97, 98] * 4)) == 1
    error = said(tmp_path)["error"]
    assert (
        "no amplifier has a photon transfer curve; C10: 4 of 4 pairs: 38" in error and "pixels are saturated" in error
    )


def test_flats_in_falling_order_give_the_same_curve(
    made: tuple[Path, list[str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    assert solve(tmp_path, *chosen(made, list(range(95, -1, -1)))) == 0
    down, up = (fitsio.read(folder / "ptc.fits", 1) for folder in (tmp_path, made[0]))
    np.testing.assert_allclose(down["GAIN"], up["GAIN"], rtol=1e-5)
    np.testing.assert_allclose(down["PTC_TURNOFF"], up["PTC_TURNOFF"], rtol=1e-6)


def pair(first: float, second: float) -> Pair:
    one = np.ones((1, 1))
    return Pair((first, second), first, one, one, 0.0)


def test_a_lamp_that_varies_or_dies() -> None:
    """Five robust deviations of the pairs, at least 2 %, at most 10 %; a dead amplifier does not decide."""
    dead, many = "no light: clipped means of 0.1 and 0 ADU", list(range(8))
    ids = [(2 * n, 2 * n + 1) for n in many]
    steady: list[list[Pair | str]] = [[pair(1000.0, 1000.0 + n), dead, pair(2000.0, 2000.0 - n)] for n in many]
    found, rest = left_out(steady, ids)
    assert found.number == 0 and found.limit == 0.02 and rest == steady
    steady[2] = [pair(1000.0, 1030.0), dead, pair(2000.0, 2060.0)]
    steady[7] = [dead, dead, pair(5.0, 5.0)]
    found, rest = left_out(steady, ids)
    assert list(found.unequal) == [(4, 5)] and list(found.dark) == [(14, 15)]
    assert str(found) == "4 and 5 (+3.0% of light), 14 and 15 (no light)" and found.exposures == [[4, 5], [14, 15]]
    assert rest[2][1] == dead and rest[2][0] == "its light changed by +3.0%, more than 2.0%" and rest[3] == steady[3]
    rough: list[list[Pair | str]] = [[pair(1000.0, 1000.0 * (1 + 0.08 * (-1) ** n))] for n in many]
    assert left_out(rough, ids)[0].limit == 0.1 and left_out(rough, ids)[0].number == 0
    named = {name: value for name, value, _ in found.cards}
    assert named["UNEQUAL1"] == "4 5 +0.0296" and named["DARK1"] == "14 15"


def test_matching() -> None:
    assert match([1, 1, 1, 2, 3, 3, 3, 3], 0.005).pairs == ((0, 1), (4, 5), (6, 7))
    assert match([1, 1, 1, 2, 3, 3, 3, 3], 0.005).singles == (2, 3)
    assert match([3, 3, 2, 2, 1.002, 1], 0.005).pairs == ((0, 1), (2, 3), (4, 5))
    assert match([3, 3, 3, 3], 0.005, ["r", "i", "i", "g"]) == Matched(((1, 2),), (0, 3))


def test_settings_that_are_missing_are_named() -> None:
    with pytest.raises(JobError, match="model"):
        Settings.from_plain({name: value for name, value in SETTINGS.items() if name != "model"})
    with pytest.raises(JobError, match="EXACTLY"):
        Settings.from_plain({**SETTINGS, "model": "EXACTLY"})
