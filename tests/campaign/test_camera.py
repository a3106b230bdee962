"""Cameras as data: contents of the packaged files, and errors about a wrong file."""

from __future__ import annotations

import copy
import json
import re
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from campaign.camera import model as cameras
from campaign.camera.section import Section
from campaign.errors import ConfigurationError
from kernels.camera import geometry

NAMES = ["EFOSC2", "LATISS", "LSSTCam", "LSSTComCam", "STL1001E"]


def small() -> dict[str, Any]:
    """A camera of one detector with two mirrored amplifiers."""
    boxes = {"raw": [30, 25], "data": "[3:22,1:20]", "serial_overscan": "[23:30,1:25]"}
    boxes["parallel_overscan"] = "[3:22,21:25]"
    return {
        "version": 1,
        "name": "Small",
        "unit": "electron",
        "filters": [{"name": "red", "band": "r"}, {"name": "unknown", "band": "unknown"}],
        "translation": {
            "accept": {"INSTRUME": ["Small"]},
            "clock": "utc",
            "exposure_ids": "timestamp",
            "keywords": {
                "observation_type": ["IMGTYPE"],
                "exposure_time": ["EXPTIME"],
                "begin": ["DATE-OBS"],
            },
            "types": [{"type": "bias", "when": {"observation_type": "bias"}}],
        },
        "types": {
            "T": {
                "size": [40, 20],
                "pixel_um": 10.0,
                "adc_max": 65535,
                "amplifiers": [
                    {"name": "A", "hdu": 1, **boxes, "target": "[1:20,1:20]"},
                    {"name": "B", "hdu": 2, **boxes, "target": "[40:21,20:1]"},
                ],
            }
        },
        "detectors": [{"id": 3, "name": "D3", "type": "T", "gains": [1.5, 1.6], "read_noises": [5.0, 6.0]}],
    }


@pytest.mark.parametrize("name", NAMES)
def test_packaged_cameras_survive_a_dump(name: str, tmp_path: Path) -> None:
    camera = cameras.load(name)
    camera.dump(tmp_path / "copy.yaml")
    assert cameras.load(tmp_path / "copy.yaml") == camera
    assert [p.name for p in tmp_path.iterdir()] == ["copy.yaml"]


def test_a_camera_file_is_read_once_while_it_stays(tmp_path: Path) -> None:
    path, camera = tmp_path / "small.yaml", small()
    path.write_text(yaml.safe_dump(camera))
    first = cameras.load(path)
    assert cameras.load(path) is first
    camera["detectors"][0]["gains"][0] = 1.7
    path.write_text(yaml.safe_dump(camera))
    assert cameras.load(path).detectors[0].gains[0] == 1.7 != first.detectors[0].gains[0]


def test_known_cameras_are_the_packaged_ones() -> None:
    assert cameras.known() == NAMES


@pytest.mark.parametrize(
    ("name", "counts"),
    [("LSSTCam", (189, 8, 8)), ("LSSTComCam", (9, 0, 0)), ("LATISS", (1, 0, 0)), ("EFOSC2", (1, 0, 0))],
)
def test_numbers_of_detectors(name: str, counts: tuple[int, int, int]) -> None:
    camera = cameras.load(name)
    ids = [camera.detector_ids(purpose) for purpose in ("SCIENCE", "GUIDER", "WAVEFRONT")]
    assert tuple(map(len, ids)) == counts
    assert sorted(sum(ids, ())) == list(range(len(camera.detectors)))


def test_wavefront_detectors_are_half_size_with_eight_amplifiers() -> None:
    camera = cameras.load("LSSTCam")
    types = {camera.by_id[d].type for d in camera.detector_ids("WAVEFRONT")}
    assert [camera.types[t].size for t in types] == [(4072, 2000)]
    assert [len(camera.types[t].amplifiers) for t in types] == [8]


@pytest.mark.parametrize(("type_", "gain", "noise"), [("E2V", 1.51, 5.40), ("ITL", 1.68, 6.21)])
def test_measured_figures_have_the_published_medians(type_: str, gain: float, noise: float) -> None:
    """SITCOMTN-148's medians over the amplifiers of a vendor, measured in another run."""
    detectors = [d for d in cameras.load("LSSTCam").detectors if d.type == type_]
    assert statistics.median(g for d in detectors for g in d.gains) == pytest.approx(gain, rel=0.03)
    assert statistics.median(n for d in detectors for n in d.read_noises) == pytest.approx(noise, rel=0.05)


@pytest.mark.parametrize("name", ["LSSTCam", "LSSTComCam"])
def test_detectors_of_a_focal_plane_lie_apart(name: str) -> None:
    """A 4 cm CCD, or half of one, never lies on its neighbour."""
    camera = cameras.load(name)

    def extent(d: cameras.Detector) -> tuple[float, float, float, float]:
        kind = camera.types[d.type]
        width, height = (v * kind.pixel_um / 2000 for v in kind.size[:: -1 if d.yaw_deg % 180 else 1])
        x, y = d.position_mm
        return x - width, x + width, y - height, y + height

    boxes = [extent(d) for d in camera.detectors]
    for k, (xa, xb, ya, yb) in enumerate(boxes):
        assert not any(xa < b and a < xb and ya < d and c < yb for a, b, c, d in boxes[:k])


#: Whether an amplifier of the upper (C1x) and the lower (C0x) half is mirrored in x and in y.
FLIPS = {"E2V": {"1": (True, True), "0": (False, False)}, "ITL": {"1": (True, True), "0": (True, False)}}


@pytest.mark.parametrize("type_", ["E2V", "ITL", "ITL_G", "ITL_WF"])
def test_amplifiers_are_oriented_as_lsst_data_management_does(type_: str) -> None:
    kind = cameras.load("LSSTCam").types[type_]
    for a in kind.amplifiers:
        assert (a.target.flip_x, a.target.flip_y) == FLIPS[type_[:3]][a.name[1]], a.name
        assert a.target.x0 == int(a.name[2]) * a.data.nx
        assert a.target.y1 == (kind.size[1] if a.name[1] == "1" else a.data.ny)


@pytest.mark.parametrize(
    ("sample", "name", "detector"),
    [
        ("3019032200002-R10-S22-det035.fits", "LSSTCam", 35),
        ("3019053000001-R22-S00-det000.fits", "LSSTComCam", 0),
        ("30211212000310-R22-S22-det098.fits", "LSSTCam", 98),
    ],
)
def test_boxes_are_those_of_real_headers(sample: str, name: str, detector: int, frames: Callable[[str], Path]) -> None:
    """DETSEC's y runs downwards: y of the camera file is NY + 1 - y."""
    import fitsio

    camera = cameras.load(name)
    kind = camera.types[camera.by_id[detector].type]
    with fitsio.FITS(str(frames("lsst_headers") / sample)) as file:
        for a in kind.amplifiers:
            header = file[a.hdu].read_header()
            assert tuple(file[a.hdu].get_dims()) == a.raw[::-1]
            assert header["DATASEC"] == str(a.data)
            there = Section.parse(header["DETSEC"])
            y0, flipped = kind.size[1] - there.y1, not there.flip_y
            assert a.target == Section(there.x0, y0, there.nx, there.ny, there.flip_x, flipped), a.name
            assert header["DETSIZE"] == f"[1:{kind.size[0]},1:{kind.size[1]}]"


@given(st.tuples(*[st.integers(1, 9999)] * 4))
def test_a_section_reads_back(corners: tuple[int, int, int, int]) -> None:
    text = "[{}:{},{}:{}]".format(*corners)
    section = Section.parse(text)
    xa, xb, ya, yb = corners
    assert str(section) == text
    assert (section.nx, section.ny) == (abs(xa - xb) + 1, abs(ya - yb) + 1)
    assert (section.flip_x, section.flip_y) == (xa > xb, ya > yb)


@pytest.mark.parametrize("text", ["[0:5,1:5]", "[1:5]", "1:5,1:5", "[1:5,-1:5]", "[a:b,1:2]", ""])
def test_what_is_no_section_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="not a FITS section"):
        Section.parse(text)


@pytest.mark.parametrize("name", NAMES)
def test_plain_data_make_the_kernels_camera(name: str) -> None:
    camera = cameras.load(name)
    plain = camera.plain(camera.by_id)
    kernel = geometry.camera(json.loads(json.dumps(plain, allow_nan=False)))
    assert (kernel.name, kernel.unit, kernel.scale) == (camera.name, camera.unit, 1)
    assert list(kernel.detectors) == sorted(camera.by_id)
    for d in camera.detectors:
        there, kind = kernel.detectors[d.id], camera.types[d.type]
        assert (there.name, there.type, there.size, there.position_mm) == (d.name, d.type, kind.size, d.position_mm)
        assert (there.yaw_deg, there.pixel_um, there.adc_max) == (d.yaw_deg, kind.pixel_um, kind.adc_max)
        for k, (a, b) in enumerate(zip(there.amplifiers, kind.amplifiers, strict=True)):
            assert (a.name, a.hdu, a.raw, a.gain, a.read_noise) == (
                b.name, b.hdu, b.raw, d.gains[k], d.read_noises[k],
            )  # fmt: skip
            assert a.saturation == (d.saturations[k] if d.saturations else kind.saturation or float("inf"))
            assert (a.flip_x, a.flip_y) == (b.target.flip_x, b.target.flip_y)
            for box, section in [
                (a.data, b.data),
                (a.target, b.target),
                (a.serial_overscan, b.serial_overscan),
                (a.parallel_overscan, b.parallel_overscan),
            ]:
                assert (box is None) == (section is None)
                if box is not None and section is not None:
                    assert [box.x0, box.y0, box.nx, box.ny] == section.box


def test_plain_data_hold_the_selected_detectors_and_their_types_only() -> None:
    plain = cameras.load("LSSTCam").plain([94, 0])
    assert [d["id"] for d in plain["detectors"]] == [0, 94]
    assert sorted(plain["types"]) == ["E2V", "ITL"]
    assert list(cameras.load("LSSTCam").plain([191])["types"]) == ["ITL_WF"]


def test_a_detector_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="LSSTComCam has no detector 9"):
        cameras.load("LSSTComCam").plain([3, 9])


def test_scale_divides_the_imaging_area_only() -> None:
    camera = cameras.load("LSSTComCam").scaled(16)
    amplifier = camera.types["ITL"].amplifiers[0]
    assert (camera.scale, camera.types["ITL"].size, camera.types["ITL"].pixel_um) == (16, (8 * 31, 2 * 125), 160.0)
    assert amplifier.raw == (3 + 31 + 64, 125 + 48)
    assert str(amplifier.data) == "[4:34,1:125]"
    assert str(amplifier.serial_overscan) == "[35:98,1:173]"
    assert str(amplifier.parallel_overscan) == "[4:34,126:173]"
    assert str(amplifier.target) == "[31:1,250:126]"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_a_scaled_camera_keeps_overscans_orientation_and_loads_back(name: str, n: int, tmp_path: Path) -> None:
    whole = cameras.load(name)
    camera = whole.scaled(n)
    camera.dump(tmp_path / "scaled.yaml")
    assert cameras.load(tmp_path / "scaled.yaml") == camera
    assert camera.detectors == whole.detectors
    for kind, before in zip(camera.types.values(), whole.types.values(), strict=True):
        for a, b in zip(kind.amplifiers, before.amplifiers, strict=True):
            assert (a.data.nx, a.data.ny) == (b.data.nx // n, b.data.ny // n)
            assert [r - d for r, d in zip(a.raw, a.data.box[2:], strict=True)] == [
                r - d for r, d in zip(b.raw, b.data.box[2:], strict=True)
            ]
            assert (a.target.flip_x, a.target.flip_y) == (b.target.flip_x, b.target.flip_y)


def test_scale_one_is_the_camera_itself() -> None:
    camera = cameras.load("LATISS")
    assert camera.scaled(1) == camera


def test_a_scale_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="scale 510 leaves nothing of an amplifier of 509x2000"):
        cameras.load("LSSTComCam").scaled(510)


def test_a_misspelt_name_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no camera 'LSSTComcam'\n.*did you mean LSSTComCam\?.*EFOSC2, LATISS"
    ):
        cameras.load("LSSTComcam")


def change(keys: list[Any], value: Any) -> Callable[[dict[str, Any]], None]:
    """Set, or with `None` remove, one thing in a camera's plain data."""

    def apply(plain: dict[str, Any]) -> None:
        for key in keys[:-1]:
            plain = plain[key]
        if value is None:
            del plain[keys[-1]]
        else:
            plain[keys[-1]] = value

    return apply


A, D = ["types", "T", "amplifiers", 0], ["detectors", 0]
WRONG = [
    (change([*A, "data"], "[3:32,1:20]"), ["type T, amplifier A", "data [3:32,1:20] is outside the frame of 30x25"]),
    (change([*A, "serial_overscan"], "[22:30,1:25]"), ["amplifier A", "data [3:22,1:20] and serial_overscan [22:30"]),
    (change([*A, "parallel_overscan"], "[3:25,21:25]"), ["serial_overscan [23:30,1:25] and parallel_overscan"]),
    (change([*A, "parallel_overscan"], "[3:22,21:26]"), ["parallel_overscan [3:22,21:26] is outside the frame"]),
    (change([*A, "target"], "[1:19,1:20]"), ["data [3:22,1:20] is 20x20", "[1:19,1:20] is 19x20"]),
    (change([*A, "target"], "[1:20,2:21]"), ["target [1:20,2:21] is outside the detector of 40x20"]),
    (change([*A, "target"], "[2:21,1:20]"), ["targets of A [2:21,1:20] and B [40:21,20:1] overlap"]),
    (change(["types", "T", "size"], [41, 20]), ["type T: the targets cover 800 of the 820 pixels of 41x20"]),
    (change([*A, "name"], "B"), ["type T: two amplifiers are called B"]),
    (change([*A, "data"], "3:22,1:20"), ["types T amplifiers A data", "'3:22,1:20' is not a FITS section"]),
    (change([*A, "raw"], [30, 0]), ["types T amplifiers A raw 1", "greater than 0", "found 0"]),
    (change([*A, "colour"], "red"), ["unknown key types T amplifiers A colour"]),
    (change([*D, "gains"], [1.5]), ["detector 3 D3: 1 gains for the 2 amplifiers of type T"]),
    (change([*D, "saturations"], [1.0, 2.0, 3.0]), ["detector 3 D3: 3 saturations for the 2 amplifiers"]),
    (change([*D, "gains"], [1.5, -1.0]), ["detectors D3 gains 1", "greater than 0", "found -1.0"]),
    (change([*D, "gains"], [1.5, float("nan")]), ["detectors D3 gains 1", "found nan"]),
    (change([*D, "type"], "U"), ["detector 3 D3: type 'U' is not one of T"]),
    (change([*D, "read_noises"], None), ["detectors D3 read_noises is missing"]),
    (change(["filters", 0, "name"], "unknown"), ["two filters are called unknown"]),
    (change(["translation", "filters"], {"R": "blue"}), ["translation: 'blue' is not among the filters"]),
    (change(["translation", "types", 0, "when"], {"observation_type": "("}), ["'(' is not a regular expression"]),
    (change(["translation", "keywords", "begin"], None), ["translation: keywords are missing for begin"]),
    (change(["translation", "exposure_ids"], "lsst"), ["keywords are missing for day_obs, seq_num, controller"]),
    (change(["translation", "clock"], "local"), ["translation clock", "'tai' or 'utc'", "found 'local'"]),
    (change(["unit"], "volt"), ["unit", "'electron' or 'adu'"]),
    (change(["version"], 2), ["version", "found 2"]),
    (change(["filters", 0, "name"], "f" * 33), ["name: must have at most 32 characters"]),
    (change(["filters", 0, "band"], ""), ["band: must not be empty"]),
    (change(["detectors", 0, "name"], "D" * 33), ["name: must have at most 32 characters"]),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "words"), WRONG)
def test_a_wrong_file_is_told_what_and_where(
    wrong: Callable[[dict[str, Any]], None], words: list[str], tmp_path: Path
) -> None:
    path, plain = tmp_path / "small.yaml", small()
    path.write_text(yaml.safe_dump(plain))
    cameras.load(path)
    wrong(plain)
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(ConfigurationError) as caught:
        cameras.load(path)
    assert str(caught.value).startswith(f"{path}: problems in the camera file: ")
    assert [w for w in words if w not in str(caught.value)] == [], str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    plain = small()
    plain["detectors"].append({**copy.deepcopy(plain["detectors"][0]), "gains": [1.0]})
    plain["types"]["T"]["amplifiers"][1]["data"] = "[11:30,1:20]"
    with pytest.raises(ConfigurationError) as caught:
        cameras.build(plain, "small")
    text = str(caught.value)
    expected = ["two detectors have the id 3", "two detectors are called D3", "1 gains for the 2 amplifiers"]
    expected += ["amplifier B: data [11:30,1:20] and serial_overscan", "2 detectors, and no keyword tells which one"]
    assert [w for w in expected if w not in text] == [], text


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [1", "a: !!python/object:os.system x", "\x00"])
def test_what_is_no_camera_file_is_said(text: str, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="camera file") as caught:
        cameras.load(path)
    assert caught.value.where == str(path)


SLIPS = [
    ("unit: adu", "unit: ADU", "unit: must be 'electron' or 'adu' (found 'ADU')"),
    ("INSTRUME: [SBIG STL-1001 3 CCD Camera]", "INSTRUME: SBIG", "translation accept INSTRUME: must be a list"),
    ("observation_type: [IMAGETYP]", "obs_type: [IMAGETYP]", "unknown key translation keywords obs_type: known:"),
    ("observation_type: bias frame", "observationtype: x", "observationtype: did you mean observation_type?"),
    ("{type: bias,", "{type: bais,", "did you mean bias? (found 'bais')"),
    ("{type: flat,", "{type: Flats,", "did you mean flat? (found 'Flats')"),
    ("pixel_um: 24.0", "pixel_um: wide", "types KAF1001E pixel_um: must be a number (found 'wide')"),
    ("size: [1024, 1024]", "size: [1024, 1024.5]", "types KAF1001E size 1: must be a whole number (found 1024.5)"),
    ("data: '[1:", "serial_overscn: '[1:9,1:9]', data: '[1:", "serial_overscn: did you mean serial_overscan?"),
    ("data: '[1:1024,", "data: '[1:1023,", "type KAF1001E, amplifier A: data [1:1023,1:1024] is 1023x1024"),
    ("gains: [1.943]", "gains: [1.943, 2]", "detector 0 KAF1001E: 2 gains for the 1 amplifiers"),
    ("name: STL1001E", "name: my camera", "name: must be letters, digits and _ . + -"),
    ("clock: utc", "clock: utc\n  clock: tai", "clock: given twice"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "words"), SLIPS)
def test_a_slip_is_told_in_the_files_own_words_with_its_line(
    right: str, wrong: str, words: str, tmp_path: Path
) -> None:
    text = (cameras.FOLDER / "STL1001E.yaml").read_text()
    assert text.count(right) == 1
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(right, wrong))
    line = 1 + text[: text.index(right)].count("\n") + wrong.count("\n")
    with pytest.raises(ConfigurationError) as caught:
        cameras.load(path)
    assert re.search(rf"{re.escape(str(path))}:{line}: .*{re.escape(words)}", str(caught.value)), str(caught.value)


@pytest.mark.parametrize("name", ["bias", "sflat", "skyflat", "science", "fe55", "focus", "darkflat"])
def test_a_type_of_ones_own_is_taken(name: str, tmp_path: Path) -> None:
    text = (cameras.FOLDER / "STL1001E.yaml").read_text().replace("type: science", f"type: {name}")
    (tmp_path / "mine.yaml").write_text(text)
    assert cameras.load(tmp_path / "mine.yaml").translation.types[-1].type == name


def test_a_bottomless_file_ends_nothing_but_itself(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 50000)
    with pytest.raises(ConfigurationError, match="nested deeper than"):
        cameras.load(tmp_path / "deep.yaml")


def test_many_write_one_file_at_once(tmp_path: Path) -> None:
    made, path = cameras.build(small(), "small"), tmp_path / "small.yaml"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: made.dump(path), range(60)))
    assert cameras.load(path) == made
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize("value", ["1_0", "nan", "inf", "\u0661", "0x10", True])
def test_numbers_are_not_pythons(value: Any) -> None:
    plain = small()
    plain["detectors"][0]["gains"][1] = value
    with pytest.raises(ConfigurationError, match="gains"):
        cameras.build(plain, "small")


def test_keywords_are_known_as_headers_have_them() -> None:
    plain = small()
    plain["translation"]["accept"] = {"hierarch eso ins name": ["Small"]}
    plain["translation"]["keywords"]["obs_id"] = ["{HIERARCH ESO DET ID}-{frame}", "Origname"]
    table = cameras.build(plain, "small").translation
    assert table.wanted()[:1] == ["ESO INS NAME"]
    assert table.wanted()[-3:] == ["ESO DET ID", "FRAME", "ORIGNAME"]
    assert table.keywords["obs_id"][0] == "{ESO DET ID}-{FRAME}"
