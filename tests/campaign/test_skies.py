"""Skies and fringes from a plan's simulation to certified calibrations, and frames corrected by them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import fitsio
import pytest
import yaml
from pydantic import ValidationError

from campaign.butler.repository import open_repository
from campaign.simulation.blocks import Block
from tests.conftest import command, typed

PLAN = Path(__file__).parents[1] / "data" / "plan_skies.yaml"
SKY = {"type": "sky", "day_obs": 20241206, "first": 1, "count": 1, "filter": "y_04", "sky": 3000}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"sky": 0}, "type: sky needs a filter, and a level above 0"),
        ({"filter": None}, "type: sky needs a filter, and a level above 0"),
        ({"type": "flat"}, "sky and fringe are of type: sky, this block is type: flat"),
        ({"fringe": -0.1}, "time, electrons, sky and fringe cannot be below 0"),
    ],
)
def test_a_block_of_skies_that_is_refused(wrong: Mapping[str, object], why: str) -> None:
    Block.model_validate(SKY)
    with pytest.raises(ValidationError, match=why):
        Block.model_validate({**SKY, **wrong})


@pytest.mark.soak
@pytest.mark.processes
def test_from_simulation_to_corrected_frames(tmp_path: Path) -> None:
    text = PLAN.read_text().replace("$INSTRUMENT", "LSSTComCam")
    root, given = tmp_path / "repo", yaml.load(text, yaml.BaseLoader)["variables"]
    assert command("simulate", "--plan", str(PLAN), str(root)).returncode == 0
    given |= {"REPO": str(root), "SCRATCH": str(tmp_path / "scratch")}
    told = {}
    for step in ("bias", "dark", "flat_y", "fringe", "sky"):
        done = typed("submit", f"bps_{step}", "--ranks", "1", environment=given)
        assert done.returncode == 0, done.stderr
        told[step] = done.stdout
        assert typed("certify", f"bps_{step}", environment=given).returncode == 0
    assert "numbers     fringes " in told["fringe"] and "numbers     pattern " in told["sky"]
    assert "pictures/fringe-R22_S11.png" in told["fringe"] and "pictures/sky.png" in told["sky"]
    options = (
        "--config cpSkyIsr:doWrite=true --config cpSkyIsr:doFringe=true --config cpSkyIsr:fringe.filters='[\"y\"]'"
    )
    done = typed(
        *("submit", "bps_sky", "--ranks", "1", "--set", f"extraQgraphOptions={options}"),
        environment={**given, "RERUN": "b"},
    )
    assert done.returncode == 0, done.stderr
    with open_repository(str(root)) as repository:
        assert {d.data_id["physical_filter"] for d in repository.datasets("sky", ["LSSTComCam/calib/DM-1"])} == {"y_04"}
        frames = repository.datasets("postISRCCD", ["LSSTComCam/calib/DM-1/T/skyGen.b"])
        ratios = {}
        for frame in frames:
            header, image = fitsio.read_header(frame.path), fitsio.read(frame.path, "IMAGE")
            exposure = int(frame.data_id["exposure"])
            ratios.setdefault(exposure, []).append(header["FRAMPL"] / float(sorted(image.ravel())[image.size // 2]))
    others = [sum(some) / len(some) for exposure, some in ratios.items() if exposure >= 2024120600046]
    assert len(ratios) == 7 and others == pytest.approx([0.02 / 0.03] * 2, abs=0.06)
    bad = typed(
        "submit", "bps_sky", "--set", f"extraQgraphOptions={options.rpartition(' --config')[0]}", environment=given
    )
    assert bad.returncode == 3 and "doFringe is true, and fringe.filters names no filter" in bad.stderr
