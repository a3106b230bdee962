"""Crosstalk by commands: spots are simulated, measured, certified, and the table corrects later frames."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import fitsio
import numpy as np
import pytest
import yaml

import campaign.cli
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places

pytestmark = pytest.mark.processes

DETECTOR, TICKET = "R22_S11", "DM-7"
SELECTION = "instrument='LSSTComCam' and exposure.observation_type="
MADE = {"TICKET": TICKET, "RERUN": "once", "CERT_RERUN": "once", "SELECTION_CROSSTALK": f"{SELECTION}'spot'"}


class Operator:
    """A repository with spots, biases and flats of one detector."""

    def __init__(self, folder: Path) -> None:
        self.places = Places(folder / "repo")
        plan = {
            "description": "Spots.", "variables": {}, "steps": {"crosstalk": {"template": "bps_crosstalk"}},
            "simulation": {
                "camera": "LSSTComCam", "scale": 16, "seed": 4, "detectors": [4],
                "rates": {"crosstalk": 2e-4, "cosmic_rays": 0.05, "nonlinearity": 0.005},
                "exposures": [
                    {"type": "spot", "day_obs": 20241207, "first": 1, "count": 32, "time": 1, "spots": 6},
                    {"type": "bias", "day_obs": 20241206, "first": 1, "count": 3},
                    {"type": "flat", "filter": "r_03", "day_obs": 20241208, "first": 1, "count": 1, "time": 10},
                ],
            },
        }  # fmt: skip
        (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
        self.run("simulate", "--plan", str(folder / "plan.yaml"), str(self.places.repository))

    def run(self, *arguments: str, code: int = 0, **more: str) -> str:
        out = StringIO()
        with pytest.MonkeyPatch.context() as changed, pytest.raises(SystemExit) as end:
            for name, value in {**variables(self.places), **MADE, **more}.items():
                changed.setenv(name, value)
            with redirect_stdout(out), redirect_stderr(out):
                campaign.cli.main(arguments)
        assert int(end.value.code or 0) == code, out.getvalue()
        return out.getvalue()

    def killed(self, *arguments: str, **more: str) -> None:
        environment = {**os.environ, **variables(self.places), **MADE, **more}
        command = [sys.executable, "-P", "-m", "campaign", *arguments]
        assert subprocess.run(command, env=environment, capture_output=True).returncode == -signal.SIGKILL

    def product(self, kind: str, rerun: str) -> Path:
        (path,) = [p for p in self.places.repository.rglob(f"{kind}_*_{DETECTOR}_*.fits") if f"_{rerun}_" in p.name]
        return path


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    made = Operator(tmp_path_factory.mktemp("crosstalk"))
    made.run("submit", "bps_crosstalk")
    yield made


def test_spots_give_the_truth(operator: Operator) -> None:
    row = fitsio.read(operator.product("crosstalk", "once"), 1)
    with fitsio.FITS(f"{operator.places.repository}-truth/{DETECTOR}.fits") as truth:
        gains, both = truth["AMPLIFIERS"].read()["gain"], truth["CROSSTALK"].read()
    ratio, off = gains[:, np.newaxis] / gains, ~np.eye(len(gains), dtype=bool)
    for name, true in (("", both[0] * ratio), ("_SQR", both[1] * ratio / gains)):
        found, error = (row[f"{column}{name}"].reshape(true.shape).T[off] for column in ("CT_COEFFS", "CT_ERRORS"))
        z = (found - true[off]) / error
        assert 0.9 < np.sqrt(np.mean(z**2)) < 1.1 and np.mean(np.abs(z) < 3) >= 0.99, name
    (pictures,) = (operator.places.repository.parent / "scratch").rglob("pictures")
    names = (f"crosstalk-{DETECTOR}.png", "crosstalk-strongest.png", "crosstalk-strongest.svg")
    assert {path.name for path in pictures.iterdir()} == {*names}


def test_a_killed_driver_and_kernel_change_no_bit(operator: Operator) -> None:
    operator.killed("submit", "bps_crosstalk", "--ranks", "3", RERUN="again", CAMPAIGN_KILL_AT="job-submitting")
    run = next(line.split()[0] for line in operator.run("status").splitlines() if "crosstalkGen.again" in line)
    operator.run("restart", run, RERUN="again", CAMPAIGN_KILL_AT="product-linked")
    once, again = (fitsio.read(operator.product("crosstalk", rerun), 1) for rerun in ("once", "again"))
    assert once.tobytes() == again.tobytes()


def test_flats_are_refused_and_a_bias_is_corrected(operator: Operator) -> None:
    said = operator.run("submit", "bps_crosstalk", RERUN="flats", SELECTION_CROSSTALK=f"{SELECTION}'flat'", code=4)
    assert "a crosstalk is made of science or spot frames, the selection has 1 flat" in said
    later = "extraQgraphOptions=-c cpCrosstalkIsr:doLinearize=true"
    said = operator.run("submit", "bps_crosstalk", "--set", later, RERUN="later", code=3)
    assert "crosstalk is measured, as it is corrected, before doLinearize" in said and "set doLinearize: false" in said
    operator.run("certify", "bps_crosstalk")
    operator.run("submit", "bps_bias", RERUN="bias")
    header = fitsio.read_header(operator.product("bias", "bias"))
    assert header["ISR_CROSSTALK"] and "crosstalkGen.once" in header["CALIB_CROSSTALK_RUN"]
