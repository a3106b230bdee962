"""Bias, dark and flat before there are gains: in ADU, corrected by one another, agreeing with the truth."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest

from campaign.butler.repository import open_repository
from campaign.jobs.file import JobFile, JobTask
from campaign.jobs.launch import run_job
from campaign.journal.plan import Plan, load
from campaign.simulation.demo import compare, variables
from campaign.simulation.simulate import Places
from kernels.calibrations.defects import Defects
from kernels.camera import geometry
from kernels.camera.geometry import Box
from kernels.products.defectgrow import Growth
from tests.conftest import command, typed
from tests.injected import grown, require_agreement

pytestmark = pytest.mark.processes

TAG = "LSSTComCam/calib/DM-00000/demo"
MORE = {
    "BOOTSTRAP_RUN_NUMBER": "1",
    **{
        f"SELECTION_{kind.upper()}_BOOTSTRAP": f"instrument='LSSTComCam' and exposure.observation_type='{kind}'"
        for kind in ("bias", "dark", "flat")
    },
}

#: Every kind there is, at least 1.3 times as bad as its threshold; a column is 125 rows of an amplifier.
DEFECTS = {
    "hot_rate": [4.0, 200.0],
    "dead_response": 0.85,
    "hot_columns": 3,
    "dead_columns": 3,
    "column_fill": 0.8,
    "vampires": 6,
    "edge_depth": 0.5,
    "edge_px": 0.4,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    made = Places(tmp_path_factory.mktemp("bootstraps") / "repo")
    numbers = ("--bias", "10", "--dark", "7", "--flat", "7", "--scale", "16", "--detector", "0", "--detector", "4")
    model = [word for name, value in DEFECTS.items() for word in ("--rate", f"{name}={value}")]
    done = command("simulate", str(made.repository), *numbers, *model, "--json")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def plans(places: Places) -> Mapping[str, Plan]:
    found = {}
    for kind in ("bias", "dark", "flat"):
        done = typed("submit", f"bps_{kind}Bootstrap", "--ranks", "2", environment={**variables(places), **MORE})
        assert done.returncode == 0, done.stderr
        run = f"{TAG}/{kind}BootstrapGen.20241208a/run1"
        assert f"published   {4 if kind != 'flat' else 6} of" in done.stdout and run in done.stdout
        (folder,) = Path(variables(places)["SCRATCH"]).glob(f"**/{kind}BootstrapGen.*/run1")
        found[kind] = load(folder / "plan.json")
        assert sorted(path.name for path in (folder / "pictures").iterdir()) == [
            f"{kind}BootstrapMosaic64.png", f"{kind}BootstrapMosaic8.png"
        ]  # fmt: skip
    return found


def products(places: Places, plan: Plan) -> dict[int, str]:
    with open_repository(str(places.repository)) as repository:
        return {int(d.data_id["detector"]): d.path for d in repository.datasets(plan.product, [plan.output_run])}


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_they_agree_with_the_truth(places: Places, plans: Mapping[str, Plan], kind: str) -> None:
    """Each detector alone: here every flat is divided by its own detector's mean."""
    plan = plans[kind]
    assert (plan.product, plan.kind) == (f"{kind}Bootstrap", kind)
    for detector, path in products(places, plan).items():
        numbers = compare(plan, plans, {detector: path}, places, 1)
        assert numbers["problems"] == []
        assert 0.97 <= numbers["rms_z"] <= 1.03


def test_they_are_in_adu_and_the_gains_stay_in_the_flat(places: Places, plans: Mapping[str, Plan]) -> None:
    units = {"bias": "adu", "dark": "adu/s", "flat": "1"}
    for kind, plan in plans.items():
        header = fitsio.read_header(products(places, plan)[0])
        assert (header["BUNIT"].strip(), header["CALUNIT"].strip()) == (units[kind], "adu")
        assert header["GAINS_FROM"].strip() == "not applied"
    flat = plans["flat"]
    ((geometry, path),) = [
        (d, products(places, flat)[d["id"]]) for d in flat.camera["detectors"] if d["id"] == 4
    ]  # fmt: skip
    image, gains = fitsio.read(path, "IMAGE"), np.array(geometry["gains"])
    tops = np.array([np.median(part) for part in np.array_split(image[image.shape[0] // 2 + 20 :], 8, axis=1)])
    assert 0.01 < tops.std() < 0.1
    assert gains.std() > 0.01


def test_the_dark_was_corrected_by_the_bias_of_its_own_kind(plans: Mapping[str, Plan]) -> None:
    for kind, wanted in (("dark", ["bias"]), ("flat", ["bias", "dark"])):
        plan = plans[kind]
        assert [(c["type"], c["run"]) for c in plan.calibrations] == [
            (name, f"{TAG}/{name}BootstrapGen.20241208a/run1") for name in wanted
        ]


def test_without_the_bias_it_says_which_is_missing(places: Places) -> None:
    more = {**variables(places), **MORE, "TAG": "other"}
    done = typed("submit", "bps_darkBootstrap", "--ranks", "1", environment=more)
    assert done.returncode == 3
    assert "unknown collection LSSTComCam/calib/DM-00000/other/biasBootstrapGen.20241208a/run1" in done.stderr


def test_the_whole_focal_plane_is_normalised_for_lsstcam(tmp_path: Path) -> None:
    done = typed("render", "bps_flatBootstrap", "--json", environment={
        **variables(Places(tmp_path)), **MORE, "INSTRUMENT": "LSSTCam"
    })  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert plain["values"]["payload"]["outputRun"].endswith("flatBootstrapGen.20241208a/run1")


#: At scale 16 a column of an amplifier has 125 rows.
GROWTH = {"column_bad": 12, "column_gap": 6, "edge_rows": 1, "edge_columns": 1, "ring": 1}


def found_defects(
    places: Places, plans: Mapping[str, Plan], folder: Path, ranks: int = 2, **config: Any
) -> dict[int, Any]:
    """Run the kernel on the bootstraps of all detectors; pixels [y, x] by detector."""
    plan = plans["flat"]
    paths = {kind: products(places, one) for kind, one in plans.items()}
    files = {f"{kind}:{d}": {"path": path} for kind, found in paths.items() for d, path in found.items()}
    tasks = [
        JobTask(f"cpDefects:{d}", d, {kind: [f"{kind}:{d}"] for kind in paths}, {"defects": str(folder / f"{d}.fits")})
        for d in paths["flat"]
    ]
    settings = {"growth": GROWTH, **config}
    job = JobFile("defects", "r", ranks, str(folder / "journal" / "d"), plan.camera, settings, files, tasks)
    run_job(job.write(folder / "job.json"), ranks, folder / "log")
    camera = geometry.camera(plan.camera)
    return {
        d: Defects.open(str(folder / f"{d}.fits"), camera, camera.detectors[d]).mask(
            Box(0, 0, *camera.detectors[d].size)
        )
        for d in paths["flat"]
    }


def wanted_defects(places: Places, plan: Plan, detector: int) -> tuple[Any, Any]:
    """Give the injected pixels, and those that the rules mask with them."""
    camera = geometry.camera(plan.camera).detectors[detector]
    kinds = fitsio.read(str(places.truth / f"{camera.name}.fits"), "DEFECTS")
    injected = kinds > 0
    assert all((kinds & kind).any() for kind in (1, 2, 4, 8))
    return injected, grown(kinds, camera, Growth.from_plain(GROWTH))


def test_the_defects_are_those_that_were_injected(places: Places, plans: Mapping[str, Plan], tmp_path: Path) -> None:
    for detector, bad in found_defects(places, plans, tmp_path, thresholds={"dark": 3.0, "flat": 0.9}).items():
        injected, wanted = wanted_defects(places, plans["flat"], detector)
        assert injected.sum() > 5
        require_agreement(bad, wanted)


def test_the_number_of_ranks_makes_no_difference(places: Places, plans: Mapping[str, Plan], tmp_path: Path) -> None:
    """Three ranks share one of two detectors, and must send their results."""
    (tmp_path / "one").mkdir(), (tmp_path / "three").mkdir()
    one, three = (found_defects(places, plans, tmp_path / n, r) for n, r in (("one", 1), ("three", 3)))
    assert all(np.array_equal(one[detector], three[detector]) for detector in one)


def test_boxes_that_were_drawn_by_hand_are_added(places: Places, plans: Mapping[str, Plan], tmp_path: Path) -> None:
    name = geometry.camera(plans["flat"].camera).detectors[4].name
    (tmp_path / "plain").mkdir(), (tmp_path / "drawn").mkdir()
    plain = found_defects(places, plans, tmp_path / "plain")
    drawn = found_defects(places, plans, tmp_path / "drawn", manual={name: [[30, 40, 5, 9]]})
    assert np.array_equal(plain[0], drawn[0])
    assert drawn[4][40:49, 30:35].all()
    assert 0 < (drawn[4] & ~plain[4]).sum() <= 45


class TestTheStep:
    """`bps_defects`: from the bootstraps' RUNs to certified defects, which the next steps apply."""

    def submit(self, places: Places, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**variables(places), **MORE, "CERT_RERUN": "20241208a", "START_DATE": "2024-01-01T00:00:00"}
        return typed(*arguments, environment={**environment, **more})

    def test_it_makes_certified_defects(self, places: Places, plans: Mapping[str, Plan]) -> None:
        options = [
            "cpDefectsDark:darkCurrentThreshold=3.0",
            "cpDefectsFlat:fracThresholdFlat=0.9",
            *(f"cpDefects:{name}=16" for name in ("nPixBorderUpDown", "nPixBorderLeftRight", "radiusVampirePixels")),
            "cpDefects:badOnAndOffPixelColumnThreshold=192",
            "cpDefects:goodPixelColumnGapThreshold=96",
        ]
        setting = "extraQgraphOptions=" + " ".join(f"--config {option}" for option in options)
        done = self.submit(places, "submit", "bps_defects", "--ranks", "2", "--set", setting)
        assert done.returncode == 0, done.stderr
        assert "published   2 of 2 tasks" in done.stdout
        assert "levels" not in done.stdout
        certified = self.submit(places, "certify", "bps_defects")
        assert certified.returncode == 0, certified.stderr
        assert f"into        {TAG}/defects.20241208a" in certified.stdout
        with open_repository(str(places.repository)) as repository:
            found = repository.datasets("defects", [f"{TAG}/defectGen.20241208a"])
        camera = geometry.camera(plans["flat"].camera)
        for one in found:
            detector = int(one.data_id["detector"])
            header = fitsio.read_header(one.path)
            assert header["CALIB_FLATBOOTSTRAP_RUN"].strip() == f"{TAG}/flatBootstrapGen.20241208a/run1"
            size = camera.detectors[detector].size
            bad = Defects.open(one.path, camera, camera.detectors[detector]).mask(Box(0, 0, *size))
            _, wanted = wanted_defects(places, plans["flat"], detector)
            require_agreement(bad, wanted)

    def test_a_rerun_whose_bootstraps_were_not_made(self, places: Places) -> None:
        done = self.submit(places, "submit", "bps_defects", RERUN="20241208b")
        assert done.returncode == 3
        assert "unknown collection LSSTComCam/calib/DM-00000/demo/biasBootstrapGen.20241208b/run1" in done.stderr

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("R22_S99: [[1, 2, 3, 4]]", "'R22_S99': no such detector"),
            ("R22_S00: [[1, 2, 3]]", "'R22_S00': a detector and a list of boxes was expected"),
            ("- 1", "boxes.yaml'"),
            ("{", "the boxes drawn by hand cannot be read"),
        ],
    )
    def test_boxes_that_are_none(
        self, places: Places, plans: Mapping[str, Plan], tmp_path: Path, text: str, words: str
    ) -> None:
        (tmp_path / "boxes.yaml").write_text(text)
        setting = f"extraQgraphOptions=--config cpDefects:manualDefects={tmp_path / 'boxes.yaml'}"
        done = self.submit(places, "check", "bps_defects", "--set", setting)
        assert done.returncode == 3
        assert words in done.stdout + done.stderr
