"""Long tests of the main job: other seeds than the demo's, and the whole focal plane of LSSTCam."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from campaign.simulation.demo import run
from tests.conftest import command

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("seed", range(2, 8))
def test_every_seed_agrees_with_its_truth(tmp_path: Path, seed: int) -> None:
    made = run(tmp_path / "demo", 2, lambda text: None, seed)
    assert made.problems == []
    assert [p["defects_showing"] for p in made.products] == [0, 0, 0]


def test_the_whole_focal_plane_goes_through(tmp_path: Path) -> None:
    """189 detectors of two makes: all published, one mosaic, all certified."""
    repo = tmp_path / "repo"
    simulated = command("simulate", str(repo), "--camera", "LSSTCam", "--scale", "64", "--dark", "0", "--flat", "0")
    assert simulated.returncode == 0, simulated.stderr
    variables = {
        **os.environ,
        "INSTRUMENT": "LSSTCam",
        "TICKET": "DM-1",
        "TAG": "soak",
        "RERUN": "20241208a",
        "CERT_RERUN": "20241208a",
        "START_DATE": "2024-12-01T00:00:00",
        "REPO": str(repo),
        "RAW_COLLECTION": "LSSTCam/raw/all",
        "CALIB_COLLECTIONS": "LSSTCam/calib",
        "USER_CALIB_PREFIX": "",
        "SCRATCH": str(tmp_path / "scratch"),
        "SELECTION_BIAS": "instrument='LSSTCam' and exposure.observation_type='bias'",
    }
    submitted = command("submit", "bps_bias", environment=variables)
    assert submitted.returncode == 0, submitted.stderr
    assert "published   191 of 191 tasks" in submitted.stdout
    certified = command("certify", "bps_bias", "--json", environment=variables)
    assert certified.returncode == 0, certified.stderr
    assert len(json.loads(certified.stdout)["certified"]["data_ids"]) == 189
