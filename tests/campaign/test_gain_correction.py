"""A gain that changed by 0.2 %: found from flats of a new date, certified from then on, applied to later flats."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import fitsio
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

import campaign.cli
from campaign.camera.model import load as load_camera
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places

pytestmark = pytest.mark.processes

STEP, DETECTOR, CHANGED, SCALE = 1.002, "R22_S11", "C03", 32
NIGHTS = {"reference": 20241208, "changed": 20241210, "later": 20241212}
PLAIN = "-c {isr}:doBias=false -c {isr}:doDark=false"
TASKS = "cpFlatIsr,cpFlatMeasure,cpFlatNormalize,cpFlatCombine"
FLAT = "pipelineYaml=${CP_PIPE_DIR}/pipelines/${INSTRUMENT}/cpFlat.yaml#" + TASKS


class Operator:
    """A repository with flats of three nights; one amplifier's gain changes before the second."""

    def __init__(self, folder: Path) -> None:
        self.places = Places(folder / "repo")
        plan = {
            "description": "Flats.", "variables": {}, "steps": {"flat": {"template": "bps_flat_r"}},
            "simulation": {
                "camera": "LSSTComCam", "scale": SCALE, "seed": 3, "detectors": [4],
                "rates": {"gain_steps": {f"{DETECTOR}_{CHANGED}": [NIGHTS["changed"], STEP]}},
                "exposures": [
                    {"type": "flat", "filter": "r_03", "day_obs": day, "first": 1, "count": 12, "time": 15,
                     "electrons": 60000} for day in NIGHTS.values()
                ],
            },
        }  # fmt: skip
        (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
        self.run("simulate", "--plan", str(folder / "plan.yaml"), str(self.places.repository))

    def run(self, *arguments: str, code: int = 0, **more: str) -> str:
        out = StringIO()
        with pytest.MonkeyPatch.context() as changed, pytest.raises(SystemExit) as end:
            for name, value in {**variables(self.places), **more}.items():
                changed.setenv(name, value)
            with redirect_stdout(out), redirect_stderr(out):
                campaign.cli.main(arguments)
        assert int(end.value.code or 0) == code, out.getvalue()
        return out.getvalue()

    def flat(self, rerun: str, night: str, isr: str = "", **more: str) -> NDArray[np.float32]:
        """Make a flat, without bias and dark; give its image."""
        query = f"instrument='LSSTComCam' and exposure.day_obs={NIGHTS[night]}"
        options = f"extraQgraphOptions={PLAIN.format(isr='cpFlatIsr')}{isr}"
        self.run("submit", "bps_flat_r", "--set", FLAT, "--set", options, RERUN=rerun, SELECTION_FLAT_r=query, **more)
        return np.asarray(fitsio.read(self.product("flat", rerun), "IMAGE"))

    def product(self, kind: str, rerun: str) -> Path:
        (path,) = [p for p in self.places.repository.rglob(f"{kind}_*_{DETECTOR}_*.fits") if f"_{rerun}_" in p.name]
        return path


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    made = Operator(tmp_path_factory.mktemp("gains"))
    made.flat("reference", "reference", TICKET="DM-1")
    made.run("certify", "bps_flat_r", RERUN="reference", TICKET="DM-1")
    yield made


def test_a_changed_gain_is_found_certified_and_flattened(operator: Operator) -> None:
    query = f"instrument='LSSTComCam' and exposure.day_obs={NIGHTS['changed']}"
    options = "extraQgraphOptions=" + PLAIN.format(isr="cpGainCorrectionFlatIsr")
    made = {"TICKET": "DM-2", "SELECTION_GAIN_CORRECTION_FLAT": query, "CALIB_COLLECTIONS": "LSSTComCam/calib/DM-1"}
    submit = ("submit", "bps_gain_correction", "--set", options)
    out = operator.run(*submit, RERUN="once", **made)
    assert "measured    16 of 16 amplifiers of 1 detector" in out and f"({DETECTOR} {CHANGED})" in out
    # the kernel dies between the link of its product and the journal, and is tried again
    out = operator.run(*submit, "--ranks", "2", "--json", RERUN="again", **made, CAMPAIGN_KILL_AT="product-linked")
    (numbers,) = [json.loads(line)["detail"] for line in out.splitlines() if '"event":"summary"' in line]
    assert numbers["measured"] == 16 and numbers["numbers"][0]["high_at"] == f"{DETECTOR} {CHANGED}"
    once, again = (fitsio.read(operator.product("gain_correction", rerun), 1) for rerun in ("once", "again"))
    assert once.tobytes() == again.tobytes()
    changed = once["AMP_NAME"].astype(str) == CHANGED
    assert abs(once["GAIN_ADJUSTMENT"][changed][0] * STEP - 1) < 2e-4  # it looks fainter: its gain is divided by it
    assert (np.abs(once["GAIN_ADJUSTMENT"] - 1)[~changed] < 4 * once["GAIN_ADJUSTMENT_ERR"][~changed]).all()
    header = fitsio.read_header(operator.product("gain_correction", "once"))
    assert (header["GAINSIGN"], header["GAINMOST"]) == ("divide", CHANGED) and "reference" in header["CALIB_FLAT_RUN"]
    folder = next(operator.places.repository.parent.joinpath("scratch").rglob("gain_correction-change.svg")).parent
    assert {"gain_correction.png", "gain_correction-change.png"} <= set(os.listdir(folder))
    begin = ("--begin-date", "2024-12-10T00:00:00")
    operator.run("certify", "bps_gain_correction", *begin, RERUN="once", **made)

    both = {"TICKET": "DM-3", "CALIB_COLLECTIONS": "LSSTComCam/calib/DM-2,LSSTComCam/calib/DM-1"}
    asked = " -c cpFlatIsr:doCorrectGains=true"
    ratio = operator.flat("even", "later", asked, **both) / fitsio.read(operator.product("flat", "reference"), "IMAGE")
    assert abs(_step(ratio)) < 2e-4
    assert "once" in fitsio.read_header(operator.product("flat", "even"))["CALIB_GAIN_CORRECTION_RUN"]
    # before the change there is none: nothing is guessed
    query = f"instrument='LSSTComCam' and exposure.day_obs={NIGHTS['reference']}"
    options = f"extraQgraphOptions={PLAIN.format(isr='cpFlatIsr')}{asked}"
    before = {**both, "RERUN": "no", "SELECTION_FLAT_r": query}
    said = operator.run("submit", "bps_flat_r", "--set", FLAT, "--set", options, code=4, **before)
    assert "no gain_correction is valid for detector 4" in said and "is valid from 2024-12-10T00:00:00 only" in said


def _step(ratio: NDArray[np.float32]) -> float:
    """Compare the changed amplifier with all others."""
    (kind,) = load_camera("LSSTComCam").scaled(SCALE).plain([4])["types"].values()
    level = {}
    for amplifier in kind["amplifiers"]:
        x, y, nx, ny = amplifier["target"]
        level[amplifier["name"]] = float(np.median(ratio[y : y + ny, x : x + nx]))
    return level.pop(CHANGED) / float(np.median(list(level.values()))) - 1
