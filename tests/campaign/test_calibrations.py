"""Crosstalk, linearizer, defects and ptc of a site: brought in, certified, found, applied."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.cli.butler import cli as butler_cli
from lsst.daf.butler.cli.utils import LogCliRunner

import campaign.cli
from campaign.camera.model import load as load_camera
from campaign.formatter import CalibTable
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from kernels import run
from kernels.jobs import job

pytestmark = pytest.mark.processes

CALIB, SITE = "LSSTComCam/calib", "LSSTComCam/calib/site"
KINDS = ("crosstalk", "linearizer", "defects", "ptc")
SCALE, DETECTORS = 32, (0, 1)
RATES = {"crosstalk": 5e-4, "nonlinearity": 0.01}
#: A flat without bias, dark and pictures: the tests look at its levels.
FLAT = (
    "pipelineYaml=${CP_PIPE_DIR}/pipelines/${INSTRUMENT}/cpFlat.yaml#cpFlatIsr,cpFlatMeasure,cpFlatNormalize,cpFlatCombine",
    "extraQgraphOptions=-c cpFlatIsr:doBias=false -c cpFlatIsr:doDark=false -c cpFlatIsr:doDefect=true",
)


@dataclass(frozen=True)
class Answer:
    """Result of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Site:
    """A repository with three flats of two detectors, and its operator."""

    places: Places

    @property
    def repo(self) -> str:
        return str(self.places.repository)

    def run(self, *arguments: str, **more: str) -> Answer:
        """Run ``campaign``."""
        with pytest.MonkeyPatch.context() as changed, pytest.raises(SystemExit) as end:
            for name, value in {**variables(self.places), **more}.items():
                changed.setenv(name, value)
            with Captured() as said:
                campaign.cli.main(arguments)
        return Answer(int(end.value.code or 0), *said.texts)

    def flat(self, command: str, *arguments: str, **more: str) -> Answer:
        """Check or submit the flat."""
        settings = [word for text in FLAT for word in ("--set", text)]
        return self.run(command, "bps_flat_r", "--ranks", "1", *settings, *arguments, **more)

    def butler(self, *arguments: str) -> None:
        """Run the Butler's own command."""
        done = LogCliRunner().invoke(butler_cli, list(arguments))
        assert done.exit_code == 0, done.output

    def products(self, tag: str) -> list[Path]:
        return sorted((self.places.repository / CALIB / "DM-00000" / tag).rglob("flat_*.fits"))


class Captured:
    """Collect standard output and error within the context."""

    texts: tuple[str, str] = ("", "")

    def __enter__(self) -> Captured:
        from contextlib import ExitStack, redirect_stderr, redirect_stdout
        from io import StringIO

        self._out, self._err, self._stack = StringIO(), StringIO(), ExitStack()
        self._stack.enter_context(redirect_stdout(self._out))
        self._stack.enter_context(redirect_stderr(self._err))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.texts = (self._out.getvalue(), self._err.getvalue())


def write_truth(site: Site) -> Path:
    """Have the kernel write the truth's calibrations."""
    folder = site.places.repository.with_name("calibrations")
    camera = load_camera("LSSTComCam").scaled(SCALE).plain(DETECTORS)
    tasks = [
        {"task": f"truth:{d}", "detector": d, "outputs": {k: str(folder / f"{k}-{d}.fits") for k in KINDS}}
        for d in DETECTORS
    ]
    config = {"seed": json.loads((site.places.truth / "truth.json").read_text())["seed"], "rates": RATES}
    execute(
        {"version": 1, "kernel": "truth_products", "run": "truth", "attempt": 1, "site": "here", "token": 1, "ranks": 1,
         "journal": str(folder / "journal" / "truth"), "camera": camera, "config": config, "files": {}, "tasks": tasks}
    )  # fmt: skip
    return folder


def by_hand(site: Site, kind: str) -> None:
    """Ingest a table as docs/products.md describes, by the Butler's own commands."""
    folder = site.places.repository.with_name("calibrations")
    lines = [f"{folder / f'{kind}-{d}.fits'},{d}" for d in DETECTORS]
    (folder / "files.csv").write_text("\n".join(["filename,detector", *lines, ""]))
    made, target = f"{SITE}/{kind}Gen.a", f"{SITE}/{kind}.a"
    site.butler("register-dataset-type", site.repo, kind, "CalibTable", "instrument", "detector", "--is-calibration")
    options = ("--data-id", "instrument=LSSTComCam", "-t", "copy")
    site.butler("ingest-files", *options, site.repo, kind, made, str(folder / "files.csv"))
    site.butler("certify-calibrations", site.repo, made, target, kind, "--begin-date", "2024-01-01T00:00:00")
    site.butler("collection-chain", site.repo, SITE, target, "--mode", "extend")


def certify(site: Site, kind: str, detectors: tuple[int, ...], name: str, begin: str = "2024-01-01T00:00:00") -> str:
    """The same, quicker: by the Butler's methods, and ``campaign certify``."""
    folder, target = site.places.repository.with_name("calibrations"), f"{SITE}/{kind}.{name}"
    with Butler.from_config(site.repo, writeable=True) as butler:
        dimensions = ("instrument", "detector")
        type_ = DatasetType(kind, dimensions, "CalibTable", universe=butler.dimensions, isCalibration=True)
        butler.registry.registerDatasetType(type_)
        butler.collections.register(f"{SITE}/{kind}Gen.{name}")
        files = []
        for d in detectors:
            data_id = DataCoordinate.standardize(instrument="LSSTComCam", detector=d, universe=butler.dimensions)
            ref = DatasetRef(type_, data_id, f"{SITE}/{kind}Gen.{name}")
            files.append(FileDataset(str(folder / f"{kind}-{d}.fits"), [ref]))
        butler.ingest(*files, transfer="copy")
    names = ("--source", f"{SITE}/{kind}Gen.{name}", "--target", target, "--type", kind)
    answer = site.run("certify", "--repo", site.repo, *names, "--begin-date", begin, "--no-chain")
    assert answer.code == 0, answer
    return target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Flats with crosstalk and bent amplifiers; the truth about them is certified for all dates."""
    made = Site(Places(tmp_path_factory.mktemp("calibrations") / "repo"))
    numbers = ("--bias", "0", "--dark", "0", "--flat", "3", "--scale", str(SCALE), "--ranks", "1")
    some = [word for d in DETECTORS for word in ("--detector", str(d))]
    rates = [word for name, value in RATES.items() for word in (f"--{name}", str(value))]
    answer = made.run("simulate", made.repo, *numbers, *some, *rates)
    assert answer.code == 0, answer
    write_truth(made)
    by_hand(made, "crosstalk")
    targets = [certify(made, kind, DETECTORS, "a") for kind in KINDS if kind != "crosstalk"]
    with Butler.from_config(made.repo, writeable=True) as butler:
        butler.collections.prepend_chain(SITE, targets)
    return made


def execute(plain: dict[str, Any]) -> None:
    frozen = job.from_plain(plain)
    assert run._kernel(frozen.kernel)(frozen, None) == 0


def perfect_flat(site: Site, folder: Path) -> list[Path]:
    """The flats of the same photons read by perfect electronics, made of the same jobs without calibrations."""

    def moved(text: str) -> Any:
        return json.loads(text.replace(str(site.places.repository.parent), str(folder)))

    simulation = moved((site.places.truth / "job" / "simulate.json").read_text())
    simulation["config"]["rates"] = {}
    execute(simulation)
    plan = moved(site.flat("submit", "--dry-run", "--json").out)
    files = {key: {"path": file["path"]} for key, file in plan["files"].items()}
    for group in plan["groups"]:
        assert not group["config"].get("isr", {}).get("crosstalk")
        execute(
            simulation | {"kernel": group["kernel"], "files": files, "config": group["config"],
                          "tasks": [task["job"] for task in group["tasks"]]}
        )  # fmt: skip
    return sorted((folder / "repo").rglob("flat_*.fits"))


def header(path: Path) -> dict[str, Any]:
    return {k: v.strip() if isinstance(v, str) else v for k, v in dict(fitsio.read_header(str(path))).items()}


def test_a_table_is_read_through_the_butler(site: Site) -> None:
    with Butler.from_config(site.repo, collections=f"{SITE}/crosstalkGen.a") as butler:
        table = butler.get("crosstalk", instrument="LSSTComCam", detector=1)
    assert isinstance(table, CalibTable)
    c0 = table.rows["CT_COEFFS"].reshape(16, 16)  # [source, target]
    assert 3e-4 < c0[4, 3] < 8e-4 and table.metadata["CROSSTALK_RATIOS_UNITS"] == "electron"
    assert (table.header["DETNAME"], table.metadata["AMPNAMES"].split()[::15]) == ("R22_S01", ["C10", "C00"])
    with Butler.from_config(site.repo, run="u/me") as butler:
        back = butler.get(butler.put(table, "crosstalk", instrument="LSSTComCam", detector=1))
    assert back.rows.tobytes() == table.rows.tobytes() and back.units == table.units
    assert back.header == table.header and back.metadata == table.metadata


def test_check_shows_what_is_applied(site: Site) -> None:
    found = json.loads(site.flat("check", "--json", CALIB_COLLECTIONS=SITE).out)
    assert [(c["type"], c["collection"], c["detectors"]) for c in found["calibrations"]] == [
        (kind, f"{SITE}/{kind}.a", [0, 1]) for kind in ("linearizer", "crosstalk", "defects", "ptc")
    ]
    assert [n for n in found["notes"] if "no raw" not in n] == ["no cti in the inputs: left out (doDeferredCharge)"]
    said = site.flat("check", CALIB_COLLECTIONS=SITE).out
    what = f"crosstalk of {SITE}/crosstalkGen.a for 2 detectors, in {SITE}/crosstalk.a"
    assert f"applied     {what}, valid 2024-01-01T00:00:00 to open TAI" in said


def test_without_any_they_are_left_out(site: Site) -> None:
    """And the jobs say so."""
    found = json.loads(site.flat("check", "--json").out)
    assert found["calibrations"] == [] and found["problems"] == []
    switches = "doLinearize, doCrosstalk, doDefect, doDeferredCharge"
    assert [note for note in found["notes"] if "no raw" not in note] == [
        "no linearizer, crosstalk, defects, cti, ptc in the inputs: "
        f"left out ({switches}); gains and read noises are the camera file's"
    ]
    plan = json.loads(site.flat("submit", "--dry-run", "--json").out)
    isr = plan["groups"][0]["config"]["isr"]
    off = ("ptc", "crosstalk", "linearity", "defects")
    assert {key: isr[key] for key in off} == dict.fromkeys(off, False) and isr["quadratic"] is True
    cards = plan["groups"][0]["tasks"][0]["job"]["provenance"]
    assert {cards[f"CALIB_{kind.upper()}"] for kind in KINDS} == {"none"} and cards["GAINS_FROM"] == "camera file"


def test_one_that_some_have_and_others_have_not(site: Site) -> None:
    target = certify(site, "crosstalk", (0,), "half")
    answer = site.flat("submit", CALIB_COLLECTIONS=target)
    assert answer.code == 4
    assert "no crosstalk is valid for detector 1 at exposure 2024120600001, 2024120600002, 2024120800001" in answer.err
    assert f"{target}, while others have one\n  those of the inputs are of detector 0\n" in answer.err
    assert "certify one, or go without: --set extraQgraphOptions='--config cpFlatIsr:doCrosstalk=false'" in answer.err
    late = certify(site, "ptc", DETECTORS, "late", "2024-12-08T00:00:00")
    answer = site.flat("submit", CALIB_COLLECTIONS=late)
    assert answer.code == 4
    assert "no ptc is valid for detector 0, 1 at exposure 2024120600001, 2024120600002 in " in answer.err
    assert "certify one, or take every ptc out of the inputs" in answer.err
    near = f" in {late}, is valid from 2024-12-08T00:00:00 only: exposure 20241206"
    assert near in answer.err and " began at 2024-12-06T21:00:" in answer.err and "1.12 days off" in answer.err


def test_one_that_is_for_other_dates(site: Site) -> None:
    target = certify(site, "linearizer", DETECTORS, "later", "2030-01-01T00:00:00")
    found = json.loads(site.flat("check", "--json", CALIB_COLLECTIONS=target).out)
    assert "no linearizer of the inputs is for these exposures and detectors: left out (doLinearize)" in found["notes"]
    assert found["problems"] == []


def test_they_are_applied_and_named(site: Site, tmp_path: Path) -> None:
    """The same photons with perfect electronics give the same flat."""
    answer = site.flat("submit", TAG="with", CALIB_COLLECTIONS=SITE)
    assert answer.code == 0, answer
    for path in site.products("with"):
        cards = header(path)
        assert cards["GAINS_FROM"] == "ptc"
        for kind in KINDS:
            assert cards[f"CALIB_{kind.upper()}_RUN"] == f"{SITE}/{kind}Gen.a"
            assert cards[f"CALIB_{kind.upper()}_BEGIN"] == "2024-01-01T00:00:00"
        for key in ("PTC", "CROSSTALK", "QUADRATIC", "LINEARITY", "DEFECTS"):
            assert cards[f"ISR_{key}"] is True
    for ours, theirs in zip(site.products("with"), perfect_flat(site, tmp_path), strict=True):
        image, wanted = (fitsio.read(str(path), ext="IMAGE") for path in (ours, theirs))
        masks = [fitsio.read(str(path), ext="MASK") for path in (ours, theirs)]
        truth = fitsio.read(str(site.places.truth / f"R22_S0{header(ours)['DETECTOR']}.fits"), ext="DEFECTS") > 0
        assert np.array_equal(masks[0] & 1, np.where(truth, 1, masks[1] & 1))
        good = masks[0] == 0
        difference = (image / wanted)[good] - 1
        # three frames of some 30000 ADU differ only by their rounding, and that of the overscan levels
        assert np.abs(np.median(difference)) < 2e-6 and difference.std() < 2e-5
