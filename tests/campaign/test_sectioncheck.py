"""`campaign camera check`: files that fit their frames, and files that are a few pixels off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
import yaml

from campaign.camera.model import load
from tests.conftest import typed

pytestmark = pytest.mark.processes

#: 64 x 48 pixels of data, then 16 columns of overscan.
CAMERA = """\
version: 1
name: Small
unit: adu
filters: [{name: unknown, band: r}]
translation:
  accept: {INSTRUME: [small]}
  clock: utc
  exposure_ids: timestamp
  keywords: {observation_type: [IMAGETYP], exposure_time: [EXPTIME], begin: [DATE-OBS]}
  types:
    - {type: bias, when: {observation_type: bias}}
    - {type: flat, when: {observation_type: flat}}
types:
  ccd:
    size: [64, 48]
    pixel_um: 10
    adc_max: 65535
    amplifiers:
      - {name: A, hdu: 0, raw: [80, 48], data: '[1:64,1:48]', serial_overscan: '[65:80,1:48]', target: '[1:64,1:48]'}
detectors:
  - {id: 0, name: ccd, type: ccd, gains: [2.0], read_noises: [10.0]}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two biases of 5 ADU of noise, and two flats."""
    rng = np.random.default_rng(4)
    for n, kind in enumerate(["bias", "bias", "flat", "flat"]):
        pixels = rng.normal(1000, 5, (48, 80))
        pixels[:, :64] += 0 if kind == "bias" else rng.poisson(4000, (48, 64))
        header = {"INSTRUME": "small", "IMAGETYP": kind, "EXPTIME": 1.0 * (kind == "flat")}
        header["DATE-OBS"] = f"2024-12-08T21:00:0{n}.000"
        fitsio.write(str(tmp_path / f"{kind}{n}.fits"), np.rint(pixels).astype(np.uint16), header=header)
    (tmp_path / "small.yaml").write_text(CAMERA)
    return tmp_path


def check(folder: Path, *frames: str, file: str = "small.yaml") -> tuple[int, dict[str, Any], str]:
    some = [str(folder / name) for name in frames or ("bias0.fits", "bias1.fits", "flat2.fits", "flat3.fits")]
    answer = typed(
        "camera", "check", str(folder / file), *some, "--pictures", str(folder / "pictures"), "--json", environment={}
    )
    return answer.returncode, json.loads(answer.stdout or "{}"), answer.stderr


def test_a_file_that_fits(small: Path) -> None:
    code, found, err = check(small)
    assert (code, found["fits"], found["judged"], found["proposed"]) == (0, True, True, {}), err
    (row,) = found["detectors"][0]["amplifiers"]
    assert row["noise_adu"] == pytest.approx(5.0, rel=0.1)
    (picture,) = map(Path, found["pictures"])
    assert picture.name == "sections-Small-ccd.png" and picture.read_bytes().startswith(b"\x89PNG")


def test_a_file_that_is_off_is_refused_and_what_it_proposes_fits(small: Path) -> None:
    """Eight columns too wide: a flat made with it has eight dark columns."""
    off = (
        CAMERA.replace("size: [64, 48]", "size: [72, 48]").replace("[1:64,1:48]", "[1:72,1:48]").replace("[65:", "[73:")
    )
    (small / "off.yaml").write_text(off.replace("[10.0]", "[3.3]"))
    code, found, err = check(small, file="off.yaml")
    assert code == 5 and "does not fit the frames: 2 misfits" in err
    (row,) = found["detectors"][0]["amplifiers"]
    assert row["misfits"][0] == "data has 8 columns without light at its right (columns 65 to 72)"
    assert row["misfits"][1].startswith("read noise ") and row["misfits"][1].endswith("the file says 3.3")
    answer = typed(
        "camera", "check", str(small / "off.yaml"), str(small / "flat2.fits"), "--pictures", str(small), environment={}
    )
    pasted = answer.stdout.partition("for the camera file:\n")[2].partition("picture ")[0]
    plain = yaml.safe_load(off)
    for name, kind in yaml.safe_load(pasted)["types"].items():
        plain["types"][name].update(kind)
    (small / "put right.yaml").write_text(yaml.safe_dump(plain))
    assert load(small / "put right.yaml") == load(small / "small.yaml")


def test_biases_alone_judge_nothing_and_say_so(small: Path) -> None:
    words = typed(
        "camera",
        "check",
        str(small / "small.yaml"),
        str(small / "bias0.fits"),
        "--pictures",
        str(small),
        environment={},
    )
    assert words.returncode == 0
    assert "no frame with light (a flat): the sections are drawn, and cannot be judged" in words.stdout


def test_a_frame_that_the_file_does_not_read_is_a_misfit(small: Path) -> None:
    fitsio.write(
        str(small / "other.fits"), np.zeros((48, 90), np.uint16), header={"INSTRUME": "small", "IMAGETYP": "flat"}
    )
    code, found, _ = check(small, "flat2.fits", "other.fits")
    assert code == 5 and list(found["refused"]) == [str(small / "other.fits")]
    code, found, err = check(small, "other.fits")
    assert code == 3 and "none of 1 frames can be read by this camera file" in err


@pytest.mark.parametrize(
    ("camera", "pattern", "judged"),
    [
        ("EFOSC2", "*.fits.gz", True),
        pytest.param("STL1001E", "[bf]*0000000[0-2]*.gz", True, marks=pytest.mark.soak),
    ],
)
def test_the_packaged_files_fit_real_frames(
    frames: Any, camera: str, pattern: str, judged: bool, tmp_path: Path
) -> None:
    folder = frames(camera.lower())
    some = sorted(str(path) for path in folder.glob(pattern))
    answer = typed("camera", "check", camera, *some, "--pictures", str(tmp_path), "--json", environment={})
    found = json.loads(answer.stdout)
    assert (answer.returncode, found["judged"]) == (0, judged), answer.stderr
    (row,) = found["detectors"][0]["amplifiers"]
    assert row["noise_adu"] * load(camera).detectors[0].gains[0] == pytest.approx(row["read_noise"], rel=0.05)
