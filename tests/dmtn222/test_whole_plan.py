"""The whole of section 7 as a plan, nine detectors at scale 16, every product compared with the truth."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from campaign.butler.repository import open_repository
from campaign.journal.plan import Plan, load
from campaign.simulation.demo import compare
from campaign.simulation.simulate import Places
from kernels.calibrations.defects import Defects
from kernels.camera import geometry
from kernels.camera.geometry import Box
from kernels.products.defectgrow import Growth
from tests.conftest import command
from tests.injected import grown, require_agreement

pytestmark = pytest.mark.soak
BANDS = "ugrizy"


@dataclass(frozen=True)
class Made:
    """Products of the plan."""

    places: Places
    plans: Mapping[str, Plan]

    def products(self, step: str) -> dict[int, str]:
        plan = self.plans[step]
        with open_repository(str(self.places.repository)) as repository:
            found = repository.datasets(plan.product, [plan.output_run])
        return {int(d.data_id["detector"]): d.path for d in found}

    def truth(self, step: str, detector: int, name: str) -> Any:
        ccd = geometry.camera(self.plans[step].camera).detectors[detector]
        return fitsio.read(str(self.places.truth / f"{ccd.name}.fits"), name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    places = Places(tmp_path_factory.mktemp("whole") / "repo")
    environment = {**os.environ, "REPO": str(places.repository), "SCRATCH": str(places.repository.parent / "scratch")}
    done = command("simulate", str(places.repository), "--plan", "dmtn-222", environment=environment)
    assert done.returncode == 0, done.stderr
    done = command("run", "dmtn-222", "--yes", environment=environment)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in (places.repository / "campaign" / "runs.jsonl").read_text().splitlines()]
    names = [r["template"].split(".")[0].removeprefix("bps_") for r in runs]
    return Made(places, {n: load(Path(r["submit_path"]) / "plan.json") for n, r in zip(names, runs, strict=True)})


@pytest.mark.parametrize("step", ["biasBootstrap", "darkBootstrap", "bias", "dark", *(f"flat_{b}" for b in BANDS)])
def test_pixels_agree_with_the_truth(made: Made, step: str) -> None:
    """The bootstrap flat does not: crosstalk and non-linearity stay in it."""
    of = "Bootstrap" if step.endswith("Bootstrap") else ""
    applied = {kind: made.plans[kind + of] for kind in ("bias", "dark")}
    numbers = compare(made.plans[step], applied, made.products(step), made.places, 2)
    assert 0.97 <= numbers["rms_z"] <= 1.03
    assert numbers["frac_gt3"] <= 6e-3
    assert numbers["frac_gt5"] <= 2e-5
    assert numbers["defects_showing"] == 0
    assert abs(numbers["variance_ratio"] - 1) < 0.05


@pytest.mark.parametrize("band", BANDS)
def test_amplifiers_of_a_flat_are_those_of_the_truth(made: Made, band: str) -> None:
    """But for one factor of all, within 0.01 % rms."""
    step, ratios = f"flat_{band}", []
    with open_repository(str(made.places.repository)) as repository:
        (name,) = {d.data_id["physical_filter"] for d in repository.datasets("flat", [made.plans[step].output_run])}
    for detector, path in made.products(step).items():
        good = (fitsio.read(path, "MASK") == 0) & (made.truth(step, detector, "DEFECTS") == 0)
        ratio = fitsio.read(path, "IMAGE") / made.truth(step, detector, f"RESPONSE_{name}")
        for amplifier in geometry.camera(made.plans[step].camera).detectors[detector].amplifiers:
            at = amplifier.target.slices
            ratios.append(ratio[at][good[at]].mean())
    assert len(ratios) == 9 * 16
    assert np.std(ratios) / np.mean(ratios) < 1e-4


def test_cti_is_that_of_the_truth(made: Made) -> None:
    off = np.concatenate([
        np.log10(
            np.maximum(fitsio.read(path, "CTI")["GLOBAL_CTI"], 1e-9)
            / made.truth("cti", detector, "AMPLIFIERS")["cti"]
        )
        for detector, path in made.products("cti").items()
    ])  # fmt: skip
    assert abs(np.median(off)) < 0.03
    assert (np.abs(off) < 0.1).mean() >= 0.95


def test_defects_are_those_of_the_truth(made: Made) -> None:
    """After the rules of growth; at scale 16 numbers of pixels are a sixteenth."""
    rules = Growth(column_bad=3, column_gap=2, edge_rows=1, edge_columns=1, ring=1)
    assert made.plans["defects"].groups[0].config["growth"] | {"column_whole": 0} == vars(rules)
    camera = geometry.camera(made.plans["defects"].camera)
    for number, path in made.products("defects").items():
        detector, kinds = camera.detectors[number], made.truth("defects", number, "DEFECTS")
        bad = Defects.open(path, camera, detector).mask(Box(0, 0, *detector.size))
        require_agreement(bad, grown(kinds, detector, rules))


def test_no_process_takes_a_gibibyte(made: Made) -> None:
    lines = (made.places.repository / "campaign" / "usage.jsonl").read_text().splitlines()
    assert max(json.loads(line)["rss_mib"] for line in lines) < 1024
