"""Settings that the frames of a step must share."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np
import pytest

from campaign.butler.records import Raw, Selection
from campaign.camera import model as camera
from campaign.camera.headertable import Setting
from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.planning import agreement

STL = camera.load("STL1001E")
AGREE = {
    "temperature": Setting(keywords=("CCD-TEMP", "SET-TEMP"), within=1.0),
    "gain": Setting(keywords=("GAIN",)),
    "binning": Setting(keywords=("{XBIN}x{YBIN}",)),
}
CAMERA = STL.model_copy(update={"translation": STL.translation.model_copy(update={"agree": AGREE})})


def frames(folder: Path, *headers: dict[str, object]) -> Selection:
    raws = []
    for n, cards in enumerate(headers, start=1):
        path = folder / f"{n}.fits"
        fitsio.write(str(path), np.zeros((4, 4), np.int16), header=[{"name": k, "value": v} for k, v in cards.items()])
        raws.append(Raw(n, 0, str(path), "", path.stat().st_size))
    return Selection((), tuple(raws))


COLD = {"CCD-TEMP": -20.1, "GAIN": 0, "XBIN": 1, "YBIN": 1}


@pytest.mark.processes
@pytest.mark.parametrize(
    ("headers", "problem", "note"),
    [
        ([COLD, COLD | {"CCD-TEMP": -19.6}, {"SET-TEMP": -20.0, "GAIN": 0.0, "XBIN": 1, "YBIN": 1}], None, None),
        ([COLD, COLD, COLD | {"CCD-TEMP": -5.0}, COLD | {"CCD-TEMP": -5.2}],
         "temperature (CCD-TEMP or SET-TEMP) differs by more than 1: -20.1 in 2: exposure 1, 2; "
         "-5.2 to -5 in 2: exposure 3, 4", None),
        ([COLD | {"GAIN": 200}, COLD], "gain (GAIN) differs: 0 in 1: exposure 2; 200 in 1: exposure 1", None),
        ([COLD | {"GAIN": "low"}, COLD | {"GAIN": "high"}], "gain (GAIN) differs: low in 1: exposure 1; high", None),
        ([COLD, COLD | {"YBIN": 2}], "binning ({XBIN}x{YBIN}) differs: 1x1 in 1: exposure 1; 1x2 in 1", None),
        ([COLD, {k: v for k, v in COLD.items() if k != "GAIN"}], None,
         "1 of 2 exposures do not say their gain (GAIN): 2"),
        ([{"CCD-TEMP": -20.0}] * 2, None, "gain (GAIN) is not compared: no frame has such a keyword"),
    ],
)  # fmt: skip
def test_frames_that_disagree_are_refused_by_group(
    tmp_path: Path, headers: list[dict[str, object]], problem: str | None, note: str | None
) -> None:
    found = agreement.read(CAMERA, frames(tmp_path, *headers))
    assert len(found.problems) == (problem is not None)
    assert problem is None or found.problems[0].startswith(problem)
    assert (note in found.notes) if note else not found.notes
    if problem:
        with pytest.raises(SubmissionRefused, match="--exclude"):
            agreement.require(found, "SELECTION_DARK")
    else:
        agreement.require(found, "SELECTION_DARK")
        assert found.cards["SETTING_TEMPERATURE"] == pytest.approx(-20, abs=0.2)


def test_a_camera_that_asks_for_nothing_has_no_file_read() -> None:
    none = STL.model_copy(update={"translation": STL.translation.model_copy(update={"agree": {}})})
    assert agreement.read(none, Selection((), (Raw(1, 0, "/nowhere", "", 1),))) == agreement.Settings()


@pytest.mark.parametrize("wrong", [{"keywords": []}, {"keywords": ["A"], "within": -1}, {"keyword": ["A"]}])
def test_a_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    plain = STL.model_dump(mode="json")
    plain["translation"]["agree"] = {"gain": wrong}
    with pytest.raises(ConfigurationError, match="agree"):
        camera.build(plain, "wrong.yaml")
