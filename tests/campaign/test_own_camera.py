"""A small observatory's camera without overscan: simulated from its camera file, measured, compared with the truth."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
import yaml

from campaign.camera.model import build, load
from campaign.camera.translation import translate
from campaign.errors import ConfigurationError
from campaign.simulation.cards import cards, example, require_writable
from campaign.simulation.shots import exposure_at
from kernels.calibrations.curves import spline
from tests.campaign.test_real_frames import campaign, done

pytestmark = pytest.mark.processes

RAMP = """\
variables:
  USER_CALIB_PREFIX: ""
  INSTRUMENT: STL1001E
  TICKET: CAL-2
  RAW_COLLECTION: STL1001E/raw/all
  CALIB_COLLECTIONS: STL1001E/calib
  TAG: ramp
  RERUN: 20180310a
  CERT_RERUN: 20180310a
  START_DATE: 2018-03-10T00:00:00
  SELECTION_BIAS: instrument='$INSTRUMENT' and exposure.observation_type='bias'
  SELECTION_PTC_LINEARIZER: instrument='$INSTRUMENT' and exposure.observation_type='flat'
  SELECTION_PTC: instrument='$INSTRUMENT' and exposure.observation_type='flat'
steps:
  bias: {template: bps_bias, certify: true}
  linearizer: {template: bps_linearizer, needs: [bias], certify: true}
  ptc: {template: bps_ptc, needs: [linearizer], certify: true}
simulation:
  camera: STL1001E
  scale: 8
  seed: 7
  rates: {nonlinearity: 0.005, diode_noise: 1.0e-4, level: [990, 1010], level_drift: 0.0, row_drift: 0.0, hot: 0.0}
  exposures:
    - {for: [SELECTION_BIAS], type: bias, day_obs: 20180310, first: 1, count: 10}
    - {for: [SELECTION_PTC_LINEARIZER, SELECTION_PTC], type: flat, filter: Visible, day_obs: 20180310, first: 101,
       count: 20, time: [0.1, 3], electrons: [100, 3000], spacing: log, pairs: true}
    - {for: [SELECTION_PTC_LINEARIZER, SELECTION_PTC], type: flat, filter: Visible, day_obs: 20180310, first: 201,
       count: 40, time: [4, 80], electrons: [4000, 80000], pairs: true}
"""


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bias, linearizer and photon transfer curve of a simulated ramp; beside them a file with their variables."""
    folder = tmp_path_factory.mktemp("ramp")
    (folder / "ramp.yaml").write_text(RAMP)
    values = {**yaml.safe_load(RAMP)["variables"], "REPO": folder / "repo", "SCRATCH": folder / "scratch"}
    (folder / "variables").write_text("".join(f'export {name}="{value}"\n' for name, value in values.items()))
    done("simulate", folder / "repo", "--plan", folder / "ramp.yaml")
    done("run", folder / "ramp.yaml", "--yes", "--env", folder / "variables")
    return folder


def changed(folder: Path, **values: str) -> Path:
    """Write the variables with other values."""
    lines = (folder / "variables").read_text() + "".join(f'export {name}="{value}"\n' for name, value in values.items())
    path = folder / f"variables-{'-'.join(values)}"
    path.write_text(lines)
    return path


def table(folder: Path, kind: str) -> np.ndarray:
    (path,) = folder.glob(f"repo/STL1001E/calib/CAL-2/**/{kind}*.fits")
    return fitsio.read(path, ext=1)


def test_gain_noise_and_linearity_agree_with_the_truth_though_the_level_is_in_the_bias(ramp: Path) -> None:
    camera = load("STL1001E").detectors[0]
    curve, linear = table(ramp, "ptc"), table(ramp, "linearizer")
    gain, noise, coefficients = float(curve["GAIN"][0]), float(curve["NOISE"][0]), linear["COEFFS"].ravel()
    nodes, values = coefficients.reshape(2, -1)
    with fitsio.FITS(ramp / "repo-truth" / "KAF1001E.fits") as truth:
        true_nodes, true_values = truth["LINEARITY"].read()[:, 0]
    signal = np.geomspace(100, 35000, 10)
    charge = gain * (signal - spline(nodes, values)(signal))
    true = camera.gains[0] * (signal - spline(true_nodes, true_values)(signal))
    assert abs(gain * np.mean(true / charge) - gain) < 4 * float(curve["GAIN_ERR"][0])
    assert np.ptp(charge / true) < 1e-3
    assert noise == pytest.approx(camera.read_noises[0], rel=0.03)
    header = fitsio.read_header(next(ramp.glob("repo/STL1001E/calib/CAL-2/**/ptc*.fits")))
    assert header["CALIB_BIAS_RUN"].startswith("STL1001E/calib/CAL-2/ramp/biasGen")


def test_a_step_without_a_bias_is_refused_where_the_bias_holds_the_level(ramp: Path) -> None:
    code, _, messages = campaign("check", "bps_ptc", "--env", changed(ramp, TICKET="CAL-9"))
    assert code == 4, messages
    assert "no bias is valid" in messages and "have no overscan" in messages


def test_the_bias_itself_is_not_straightened(ramp: Path) -> None:
    _, out, messages = campaign("check", "bps_bias", "--env", changed(ramp, RERUN="b", CERT_RERUN="b"))
    (note,) = [line for line in (out + messages).splitlines() if "raw levels" in line]
    assert "linearizer" in note and "doLinearize" in note


@pytest.mark.parametrize("name", ["STL1001E", "EFOSC2"])
@pytest.mark.parametrize(("kind", "seconds"), [("bias", 0.0), ("dark", 30.0), ("flat", 5.0)])
def test_the_camera_file_reads_a_simulated_header_as_it_was_meant(name: str, kind: str, seconds: float) -> None:
    camera = load(name)
    begin, light = datetime(2024, 12, 8, 20, 30), camera.filters[0].name if kind == "flat" else None
    shot = exposure_at(camera, 20241208, 1, begin, kind, seconds, physical_filter=light, reason=kind)
    hdus = [
        {"hdu": 0, "extname": "", "shape": a.raw, "datasec": None}
        for a in camera.types[camera.detectors[0].type].amplifiers
    ]
    read = translate(camera, "simulated.fits", cards(camera, camera.detectors[0], shot), hdus)
    assert (read.observation_type, read.exposure, read.exposure_time) == (kind, shot.exposure, seconds)
    assert read.physical_filter == (light or "unknown")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("bias frame", "bias frame"),
        ("flat field|flat frame", "flat field"),
        ("(sky,|dome,)?flat(,sky)?", "flat"),
        (r"0(\.0*)?", "0"),
        (r"\d+", None),
    ],
)
def test_a_value_is_made_up_for_a_rule(text: str, word: str | None) -> None:
    assert example(text) == word


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"exposure_ids": "numbered"}, "exposure_ids are numbered"),
        ({"headers": [1]}, "not read from HDU 0"),
        ({"keywords": {"physical_filter": ["{FILTER}-{SLIT}"]}}, "physical_filter is composed of keywords"),
    ],
)
def test_a_camera_file_that_leaves_the_header_open_is_refused(change: dict[str, Any], reason: str) -> None:
    plain = load("STL1001E").model_dump()
    keywords = {**plain["translation"]["keywords"], "seq_num": ["SEQ"], **change.pop("keywords", {})}
    plain["translation"] |= {**change, "keywords": keywords}
    with pytest.raises(ConfigurationError, match=reason):
        require_writable(build(plain, "a test"))
