"""The linearity as a job: raw flats and a photodiode's readings to a table, compared with the simulator's truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from campaign.camera import model as cameras
from campaign.quality.canvas import POINTS
from campaign.quality.linear import draw_linearity
from kernels.calibrations import linearity
from kernels.calibrations.photodiode import charge, path_of
from kernels.camera import geometry
from kernels.errors import DataError, JobError
from kernels.response.linearize import Settings
from kernels.simulation import electronics
from kernels.simulation.rates import Rates
from tests.kernels.test_cti import DETECTOR, SEED, common, described, shots

F64 = NDArray[np.float64]
NAME, DEAD = "R22_S11", "C05"
#: Detectors that are simulated, by number.
ONE = {DETECTOR: NAME}
RATES: dict[str, Any] = {
    "nonlinearity": 0.005, "diode_noise": 1e-4, "cosmic_rays": 0.05, "qe": 0.005, "vignetting_mm": [9e5, 1e6],
    "dead_amplifiers": {NAME: DEAD},
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "type": "Spline", "diode": True, "least_charge": 0.0, "integration": "TRIMMED_SUM", "diode_scale": -1.0,
    "grouping": False, "by_time": True, "threshold": 0.1, "share": 0.9, "edge": 1, "nsigma": 5.5, "passes": 3,
    "knots": 20, "size": 3000.0, "deviation": 0.01, "reference_noise": 12.0, "offset": True, "outlier_cut": 5.0,
    "outliers": 5, "rounds": 40,
}  # fmt: skip


def flats() -> list[dict[str, Any]]:
    """30 at equal ratios, 76 at equal distances, 4 beyond saturation."""
    electrons = np.concatenate([np.geomspace(200, 3500, 30), np.linspace(4000, 125_000, 76), [4e5] * 4])
    base, made = shots()[0], []
    for k, light in enumerate(electrons.tolist()):
        own = {"exposure": 2024080600001 + k, "seq_num": 1 + k, "obs_id": f"CC_O_20240806_{k:06d}"}
        made.append({**base, **own, "exposure_time": light / 1000, "dark_time": light / 1000, "electrons": light})
    return made


def simulated(folder: Path, exposures: list[dict[str, Any]], names: Mapping[int, str] = ONE, **more: Any) -> list[str]:
    """Simulate flats and the diode's readings; give the paths of the frames of the first detector."""
    tasks = []
    for p in exposures:
        diode = {"diode": str(folder / f"{p['obs_id']}_photodiode.ecsv")}
        tasks.append({"task": f"diode:{p['exposure']}", "detector": next(iter(names)), "outputs": diode,
                      "parameters": p})  # fmt: skip
        for number, name in names.items():
            raw = {"raw": str(folder / f"{p['obs_id']}_{name}.fits")}
            own = {**p, "header": {**p.get("header", {}), "RAFTBAY": name[:3], "CCDSLOT": name[4:]}}
            tasks.append({"task": f"raw:{p['exposure']},{number}", "detector": number, "outputs": raw,
                          "parameters": own})  # fmt: skip
    config = {"seed": SEED, "rates": RATES, "header": {"INSTRUME": "COMCAM"}}
    assert common(folder, "simulate", tasks, config=config, **more) == 0
    return [str(folder / f"{p['obs_id']}_{next(iter(names.values()))}.fits") for p in exposures]


def solve(
    folder: Path, raws: list[str], exposures: list[dict[str, Any]], outputs: Any = None, inputs: Any = None,
    files: Any = None, more: Mapping[str, Any] = MappingProxyType({}), **settings: Any,
) -> int:  # fmt: skip
    """Run the kernel; ``more``: camera and detector, if they are others."""
    folder.mkdir(exist_ok=True)
    parameters = {
        "exposures": [e["exposure"] for e in exposures],
        "exposure_times": [e["exposure_time"] for e in exposures],
    }
    outputs = outputs or {"linearizer": str(folder / "linearizer.fits")}
    rest = dict(more)
    number = rest.pop("detector", DETECTOR)
    task = {"task": f"{next(iter(outputs))}:{number}", "detector": number, "inputs": inputs or {"raw": raws},
            "parameters": parameters, "outputs": outputs, "provenance": {"TICKET": "DM-1"}}  # fmt: skip
    config = {"isr": {"saturation": True}, "permissions": {}, **SETTINGS, **settings}
    return common(
        folder, "linearizer", [task], config=config, files=files or {path: {"path": path} for path in raws}, **rest
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[dict[str, Any]]]:
    folder, exposures = tmp_path_factory.mktemp("linearizer"), flats()
    raws = simulated(folder, exposures)
    assert solve(folder, raws, exposures) == 0
    return folder, raws, exposures


def errors(folder: Path, path: Path | None = None, camera: Any = None, number: int = DETECTOR) -> tuple[F64, F64, F64]:
    """Corrected signals over true ones, less their median [amplifier, signal]; of their slopes; true signals, ADU."""
    camera = geometry.camera(camera or described(folder, "linearizer", [])["camera"])
    detector = camera.detectors[number]
    true = electronics.make(SEED, detector, Rates.from_plain(RATES))
    found = linearity.Linearizer.open(str(path or folder / "linearizer.fits"), camera, detector)
    rows = fitsio.read(path or folder / "linearizer.fits", 1)
    off, slopes, signals = [], [], []
    for k, amplifier in enumerate(detector.amplifiers):
        if amplifier.name == DEAD and detector.name == NAME:
            continue
        ideal = np.linspace(500 / amplifier.gain, 0.9 * rows["LINEARITY_TURNOFF"][k], 2000)
        measured = electronics.bend(ideal.astype(np.float32), true.nodes[k], true.values[k]).astype(np.float64)
        corrected = measured - found.curves[k](measured)
        off.append(corrected / ideal / np.median(corrected / ideal) - 1)
        slope = np.gradient(corrected, ideal)
        slopes.append(slope / slope.mean() - 1)
        signals.append(ideal)
    return np.array(off), np.array(slopes), np.array(signals)


def said(folder: Path, kernel: str = "linearizer") -> str:
    return "".join(journal.read_text() for journal in (folder / "journal").glob(f"{kernel}*.jsonl"))


def elsewhere(folder: Path, raws: list[str], readings: int) -> list[str]:
    """Link frames into a folder, with the readings of the first ones."""
    linked = []
    for k, raw in enumerate(raws):
        linked.append(str(folder / Path(raw).name))
        Path(linked[-1]).symlink_to(raw)
        if k < readings:
            path = path_of(raw, NAME)
            (folder / path.name).symlink_to(path)
    return linked


def test_a_good_diode_gives_the_truth(made: tuple[Path, list[str], Any]) -> None:
    off, slopes, signals = errors(made[0])
    # a mean of 3,843 pixels is good to 7e-4 at 500 electrons and to 1e-4 at 25,000
    assert np.mean(np.abs(off) < 2e-4) > 0.98 and np.abs(off).max() < 5e-4
    assert np.abs(np.median(off, axis=0)).max() < 2e-4 and off.std() < 1e-4
    assert slopes.std() < 1.7e-3 and signals.max() > 70_000
    rows, header = fitsio.read(made[0] / "linearizer.fits", 1), fitsio.read_header(made[0] / "linearizer.fits")
    assert header["MONNOISE"] == pytest.approx(1e-4, rel=0.4) and header["LINERR"] < 6e-5 and header["NODIODE"] == 0
    assert header["NBADAMP"] == 1 and header["BADAMP1"].startswith(f"{DEAD}: ")
    good = rows["AMPLIFIER_NAME"].astype(str) != DEAD
    assert (rows["TYPE"].astype(str) == np.where(good, "Spline", "None")).all()
    assert not rows["INP_MASK"][:, -1].any() and np.isnan(rows["INP_ORDINATE"][good, -1]).all()  # saturated
    ratios = rows["FIT_RES"][good] / rows["FIT_RES_MODEL"][good]
    assert np.nanstd(ratios[:, -60:]) < 3e-4 and (rows["LINEARITY_TURNOFF"][good] > 80_000).all()


def test_a_page_shows_it(made: tuple[Path, list[str], Any], tmp_path: Path) -> None:
    rows = fitsio.read(made[0] / "linearizer.fits", 1)
    pages = []
    for name, some in (("all", rows), ("dead", rows[rows["AMPLIFIER_NAME"].astype(str) == DEAD])):
        draw_linearity(some, tmp_path / f"{name}.png", "linearity")
        with Image.open(tmp_path / f"{name}.png") as page:
            pages.append(np.asarray(page.convert("RGB")))
    points = [int((page == ImageColor.getrgb(POINTS)).all(axis=2).sum()) for page in pages]
    assert points[0] > 15 * 60 * 9 and points[1] == 0
    assert pages[0].shape[1] > 4 * pages[1].shape[1] / 2


@pytest.mark.soak
def test_the_bars_of_larger_amplifiers(tmp_path: Path) -> None:
    """62,000 pixels an amplifier: 2e-4 from 500 electrons to 90 % of the turnoff, and 0.15 % of the slope."""
    exposures = flats()
    camera = cameras.load("LSSTComCam").scaled(4).plain([DETECTOR])
    raws = simulated(tmp_path, exposures, camera=camera)
    assert solve(tmp_path, raws, exposures, more={"camera": camera}, edge=5) == 0
    off, slopes, _ = errors(tmp_path, camera=camera)
    assert np.mean(np.abs(off) < 2e-4) > 0.998 and off.std() < 8e-5 and slopes.std() < 1.5e-3


@pytest.mark.soak
def test_detectors_agree_by_the_light_of_the_focal_plane(tmp_path: Path) -> None:
    """Three detectors, a lamp of 1 % and no diode."""
    names, exposures = {3: "R22_S10", 4: "R22_S11", 5: "R22_S12"}, flats()
    camera = cameras.load("LSSTComCam").scaled(16).plain(list(names))
    simulated(tmp_path, exposures, names, camera=camera)
    files: dict[str, dict[str, str]] = {"light": {"path": str(tmp_path / "light.json")}}
    for number, name in names.items():
        raws = [str(tmp_path / f"{e['obs_id']}_{name}.fits") for e in exposures]
        files[f"first:{number}"] = {"path": str(tmp_path / f"first-{number}.fits")}
        outputs = {"linearizerUnnormalized": files[f"first:{number}"]["path"]}
        more = {"camera": camera, "detector": number}
        assert solve(tmp_path / f"{number}", raws, exposures, outputs, more=more, diode=False) == 0
    ids = {str(d): [e["exposure"] for e in exposures] for d in names}
    task = {"task": "light:", "inputs": {"linearizerUnnormalized": [f"first:{d}" for d in names]},
            "outputs": {"linearizerNormalization": files["light"]["path"]},
            "parameters": {"exposures_of": ids}}  # fmt: skip
    config = {"isr": {"saturation": True}, "permissions": {}, **SETTINGS, "diode": False}
    assert common(tmp_path, "linear_light", [task], config=config, files=files, camera=camera) == 0
    alone, together = list[F64](), list[F64]()
    for number in names:
        inputs = {"linearizerUnnormalized": [f"first:{number}"], "linearizerNormalization": ["light"]}
        outputs, more = {"linearizer": str(tmp_path / f"{number}.fits")}, {"camera": camera, "detector": number}
        again = tmp_path / f"{number}-again"
        assert solve(again, [], exposures, outputs, inputs, files, more, diode=False) == 0
        for path, kept in ((tmp_path / f"first-{number}.fits", alone), (tmp_path / f"{number}.fits", together)):
            kept += list(errors(tmp_path, path, camera, number)[0])
    before, off = np.array(alone), np.array(together)
    assert (off - np.median(off, axis=0)).std() < 3e-4 and off.std() < 0.8 * before.std()
    assert (before - np.median(before, axis=0)).std() > 2 * (off - np.median(off, axis=0)).std()


@pytest.mark.soak
def test_a_double_spline_gives_the_truth(made: tuple[Path, list[str], Any], tmp_path: Path) -> None:
    _, raws, exposures = made
    assert solve(tmp_path, elsewhere(tmp_path, raws, len(raws)), exposures, type="DoubleSpline") == 0
    off = errors(tmp_path)[0]
    assert np.mean(np.abs(off) < 3e-4) > 0.98 and off.std() < 1.5e-4


def test_flats_without_a_reading_are_left_out_and_counted(made: tuple[Path, list[str], Any], tmp_path: Path) -> None:
    _, raws, exposures = made
    every = list(zip(raws, exposures, strict=True))[::-1]  # falling, too
    linked = elsewhere(tmp_path, [raw for raw, _ in every], 0)  # the readings are in the table of files
    readings = {f"photodiode:{e['exposure']}": {"path": str(path_of(raw, NAME))} for raw, e in every[:-5]}
    first = readings[f"photodiode:{every[10][1]['exposure']}"]
    lines = Path(first["path"]).read_text().splitlines()
    first["path"] = str(tmp_path / "damaged.ecsv")
    damaged = [*lines[:-3], *(f"{line.split()[0]} nan" for line in lines[-3:]), ""]
    Path(first["path"]).write_text("\n".join(damaged))
    files = {path: {"path": path} for path in linked} | readings
    inputs = {"raw": linked, "photodiode": list(readings)}
    assert solve(tmp_path, linked, [exposure for _, exposure in every], inputs=inputs, files=files) == 0
    header = fitsio.read_header(tmp_path / "linearizer.fits")
    assert header["NODIODE"] == 6 and header["NEXPOSUR"] == len(every) - 6
    assert "6 of 110 flats have no reading of the photodiode, and are left out (1 cannot be used, " in said(tmp_path)
    assert "damaged.ecsv: holds no trace: 3 of 250 samples are no numbers" in said(tmp_path)
    off = errors(tmp_path)[0]
    assert np.mean(np.abs(off) < 2e-4) > 0.97
    timed = {"linearizer": str(tmp_path / "timed.fits")}
    chosen = [exposure for _, exposure in every]
    assert solve(tmp_path / "timed", linked, chosen, timed, inputs, files, missing="TIME") == 0
    header, rows = fitsio.read_header(tmp_path / "timed.fits"), fitsio.read(tmp_path / "timed.fits", 1)
    assert (header["NODIODE"], header["NTIMED"], header["NEXPOSUR"]) == (0, 6, len(every))
    ratio = rows["INP_ABSCISSA"][0] / np.array([exposure["exposure_time"] for exposure in chosen])
    ratio /= np.median(ratio)
    assert np.ptp(ratio[[10, *range(105, 110)]]) < 1e-9 < 0.01 < np.ptp(ratio)  # the lamp's jitter is in the others


def test_a_lamp_that_nobody_watches_makes_it_uncertain(made: tuple[Path, list[str], Any], tmp_path: Path) -> None:
    _, raws, exposures = made
    first = tmp_path / "linearizerUnnormalized.fits"
    linked = elsewhere(tmp_path, raws, 0)
    assert solve(tmp_path, linked, exposures, outputs={"linearizerUnnormalized": str(first)}, diode=False) == 0
    header = fitsio.read_header(first)
    assert header["LIGHT"] == "exposure time" and header["MONNOISE"] == pytest.approx(0.01, rel=0.5)
    assert header["LINERR"] > 1e-3 and errors(tmp_path, first)[0].std() < 3 * header["LINERR"]
    assert "the lamp over exposure time scatters by" in said(tmp_path)
    # what one detector saw of the lamp
    light, ids = tmp_path / "light.json", [e["exposure"] for e in exposures]
    task: dict[str, Any] = {"task": "light:", "inputs": {"linearizerUnnormalized": ["first"]}}
    task |= {"outputs": {"linearizerNormalization": str(light)}, "parameters": {"exposures_of": {str(DETECTOR): ids}}}
    config = {"isr": {"saturation": True}, "permissions": {}, **SETTINGS, "diode": False}
    files = {"first": {"path": str(first)}, "light": {"path": str(light)}}
    assert common(tmp_path, "linear_light", [task], config=config, files=files) == 0
    found = json.loads(light.read_text())
    assert found["exposures"] == ids and found["monitor"] == pytest.approx(0.01, rel=0.5)
    assert found["unseen"] == ids[-4:] and not found["off"]  # saturated
    again = {"linearizerUnnormalized": ["first"], "linearizerNormalization": ["light"]}
    assert solve(tmp_path, [], exposures, inputs=again, files=files, diode=False) == 0
    rows, header = fitsio.read(tmp_path / "linearizer.fits", 1), fitsio.read_header(tmp_path / "linearizer.fits")
    assert header["MONNOISE"] < 2e-4 and header["LAMPNOIS"] == pytest.approx(found["monitor"])
    assert 5e-4 < header["LINERR"] < fitsio.read_header(first)["LINERR"]
    off = errors(tmp_path)[0]
    assert (off - np.median(off, axis=0)).std() < 3e-4 < off.std() < 4e-3
    assert (rows["INP_NORMALIZATION"] == np.array(found["factor"])).all() and header["NBADAMP"] == 1
    task["parameters"] = {"exposures_of": {str(DETECTOR): ids[1:]}}
    assert common(tmp_path, "linear_light", [task], config=config, files=files) == 1
    assert "holds 110 flats, the step has 109" in said(tmp_path, "linear_light")


def test_flats_that_determine_nothing_are_refused(made: tuple[Path, list[str], Any], tmp_path: Path) -> None:
    _, raws, exposures = made
    for name, chosen, readings, why in (
        ("none", range(40), 0, "with usePhotodiode: false the exposure times are the light"),
        ("few", range(30, 40), 40, "12 are needed"),
        ("saturated", range(106, 110), 40, "pixels are saturated"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        linked = elsewhere(folder, [raws[k] for k in chosen], readings)
        assert solve(folder, linked, [exposures[k] for k in chosen]) == 1
        assert why in said(folder) and not (folder / "linearizer.fits").exists()


def test_readings_that_cannot_be_are_told(tmp_path: Path) -> None:
    assert path_of("/raw/CC_O_20240806_000001_R22_S11.fits.fz", NAME).name == "CC_O_20240806_000001_photodiode.ecsv"
    path, head = tmp_path / "x.ecsv", "# %ECSV 1.0\n# ---\n# datatype:\n"
    with pytest.raises(DataError, match="is not there"):
        charge(path)
    types = [f"# - {{name: {name}, datatype: float64}}\n" for name in ("TIME", "CURRENT")]
    path.write_text(head + types[0] + "TIME\n1.0\n")
    with pytest.raises(DataError, match="has no column CURRENT"):
        charge(path)
    for text, why in (
        ("1.0 nan\n2.0 1.0\n", "holds no trace: 1 of 2 samples are no numbers"),
        ("1.0 1.0\n1.0 1.0\n2.0 1.0\n", "TIME does not ascend at 1 of 3 samples"),
        ("0 1e308\n1e300 0\n", "holds no trace: its charge is inf C"),
    ):
        path.write_text(head + "".join(types) + "TIME CURRENT\n" + text)
        with pytest.raises(DataError, match=why):
            charge(path)
    (tmp_path / "other.ecsv").write_text(head + "".join(types) + "TIME CURRENT\n1 1\n2 1\n")
    for text in ("", str(tmp_path / "other.ecsv")):  # a file of one line is no name of another
        path.write_text(text)
        with pytest.raises(DataError, match="x.ecsv: is no ECSV table"):
            charge(path)
    samples = "".join(f"{k}.0 {-2.0 if 3 <= k < 7 else -0.5}\n" for k in range(10))
    path.write_text(head + "".join(types) + "TIME CURRENT\n" + samples)
    assert charge(path) == pytest.approx(6.0) and charge(path, "DIRECT_SUM", 1.0) == pytest.approx(-10.5)
    for unit, wanted in (("uA", 6e-6), ("A", 6.0), ("V", None)):  # exposures may differ in their units
        named = [types[0], types[1].replace("{name", f"{{unit: {unit}, name")]
        path.write_text(head + "".join(named) + "TIME CURRENT\n" + samples)
        if wanted is None:
            with pytest.raises(DataError, match="column CURRENT is in V, A is wanted"):
                charge(path)
        else:
            assert charge(path) == pytest.approx(wanted)


def test_settings_that_are_missing_are_named() -> None:
    with pytest.raises(JobError, match="knots"):
        Settings.from_plain({name: value for name, value in SETTINGS.items() if name != "knots"})
    with pytest.raises(JobError, match="Cubic"):
        Settings.from_plain({**SETTINGS, "type": "Cubic"})
