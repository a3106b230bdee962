"""One detector of LSSTCam at full size: rules that a small one cannot show."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np
import pytest

from campaign.butler.repository import open_repository
from campaign.journal.plan import load
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from kernels.calibrations.defects import Defects
from kernels.camera import geometry
from kernels.camera.geometry import Box
from kernels.products.defectgrow import Growth
from tests.conftest import command
from tests.injected import grown, require_agreement

pytestmark = pytest.mark.soak
#: At least 1.3 times as bad as LSSTCam's thresholds; a column that is spoilt has 360 to 1200 bad pixels of 2000.
MODEL = {
    "hot_rate": [4.0, 200.0],
    "dead_response": 0.85,
    "hot_columns": 10,
    "dead_columns": 10,
    "column_fill": 0.6,
    "vampires": 8,
    "edge_depth": 0.5,
    "edge_px": 2.0,
}
RULES = Growth(column_bad=50, column_gap=30, column_whole=1000, edge_rows=7, edge_columns=8, ring=8)


def test_defects_of_a_whole_detector(tmp_path: Path) -> None:
    places = Places(tmp_path / "repo")
    model = [word for name, value in MODEL.items() for word in ("--rate", f"{name}={value}")]
    numbers = ("--bias", "3", "--dark", "5", "--flat", "3", "--scale", "1", "--detector", "94")
    done = command("simulate", str(places.repository), "--camera", "LSSTCam", *numbers, *model)
    assert done.returncode == 0, done.stderr
    selections = {
        f"SELECTION_{kind.upper()}_BOOTSTRAP": f"instrument='LSSTCam' and exposure.observation_type='{kind}'"
        for kind in ("bias", "dark", "flat")
    }
    more = {"INSTRUMENT": "LSSTCam", "RAW_COLLECTION": "LSSTCam/raw/all", "CALIB_COLLECTIONS": "LSSTCam/calib"}
    environment = {**variables(places), **more, **selections, "BOOTSTRAP_RUN_NUMBER": "1"}
    for step in ("biasBootstrap", "darkBootstrap", "flatBootstrap", "defects"):
        done = command("submit", f"bps_{step}", environment=environment)
        assert done.returncode == 0, done.stderr
    (folder,) = Path(environment["SCRATCH"]).glob("**/defectGen.*/*/plan.json")
    plan = load(folder)
    assert plan.groups[0].config["growth"] == vars(RULES)
    with open_repository(str(places.repository)) as repository:
        (product,) = repository.datasets("defects", [plan.output_run])
    camera = geometry.camera(plan.camera)
    detector = camera.detectors[94]
    kinds = fitsio.read(str(places.truth / f"{detector.name}.fits"), "DEFECTS")
    spoilt = np.concatenate([np.count_nonzero(kinds[a.target.slices] > 0, axis=0) for a in detector.amplifiers])
    assert (spoilt >= 1000).any() and ((spoilt >= 50) & (spoilt < 1000)).any()  # both rules have work
    bad = Defects.open(product.path, camera, detector).mask(Box(0, 0, *detector.size))
    require_agreement(bad, grown(kinds, detector, RULES))
