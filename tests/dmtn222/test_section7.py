"""DMTN-222's section 7 from raw frames to certified flats: as the technote's script, and as a plan with its gates.

Two detectors of LSSTComCam at scale 32, and two bands, in the ordinary suite; everything in the soak.
"""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fitsio
import numpy as np
import pytest
import yaml

from campaign.butler.repository import open_repository
from campaign.camera.model import load as load_camera
from campaign.campaigns.document import load, locate
from campaign.campaigns.processes import _asked_as, _settings
from campaign.campaigns.state import look
from campaign.home import Home
from campaign.journal.books import Books
from kernels.calibrations.defects import Defects
from kernels.camera import geometry
from kernels.camera.geometry import Box
from kernels.fits.product import BAD
from templates import ROOT as TEMPLATES
from tests import upstream
from tests.conftest import ROOT, apart, typed

pytestmark = pytest.mark.processes

HERE = Path(__file__).parent
BANDS = ("g", "r")
#: The script's, in the ordinary suite; the plan has two.
BAND = "r"
#: Of detector 5.
DEAD = {"R22_S12": "C05"}
#: Collection of the truth's calibrations.
TRUTH = "LSSTComCam/calib/simulated/all"
FIRST = "instrument='LSSTComCam' and exposure.day_obs=20241206 and exposure.seq_num=427"


@dataclass(frozen=True)
class Site:
    """A simulated repository, and the operator's variables."""

    folder: Path
    wanted: Mapping[str, list[int]]

    @property
    def repository(self) -> Path:
        return self.folder / "repo"

    def variables(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        scratch = str(self.folder / "scratch")
        return {**kept, "REPO": str(self.repository), "SCRATCH": scratch, **more}

    def books(self, ticket: str, plan: str = "two") -> Books:
        return Books(self.repository / "campaign" / "campaigns" / f"{plan}.{ticket}.DP1.20250207a")

    def plan(self, bands: tuple[str, ...] = BANDS, **variables: str) -> Path:
        """The packaged plan with fewer bands."""
        plain = yaml.safe_load(locate("dmtn-222").read_text())
        plain["steps"] = {
            name: step for name, step in plain["steps"].items() if name[:-1] != "flat_" or name[-1] in bands
        }
        plain["variables"] |= variables
        path = self.folder / "two.yaml"
        path.write_text(yaml.safe_dump(plain, sort_keys=False))
        return path

    def products(self, kind: str, collection: str) -> dict[tuple[Any, ...], str]:
        with open_repository(str(self.repository)) as repository:
            found = repository.datasets(kind, [collection])
        return {tuple(sorted((k, v) for k, v in d.data_id.items())): d.path for d in found}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("dp one")
    some = ("--scale", "32", "--detector", "5", "--detector", "8", "--ranks", "2")
    some += ("--rate", f"dead_amplifiers={json.dumps(DEAD)}")
    plan = yaml.safe_load(locate("dmtn-222").read_text())
    plan["simulation"]["calibrations"] = {TRUTH: ["crosstalk", "linearizer", "ptc"]}
    (folder / "exposures.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    done = typed(
        "simulate", str(folder / "repo"), "--plan", str(folder / "exposures.yaml"), *some, "--json", environment={}
    )
    assert done.returncode == 0, done.stderr
    site = Site(folder, json.loads(done.stdout)["wanted"])
    bring(site)
    return site


def bring(site: Site) -> None:
    """Bring the pre-existing crosstalk, linearity, ptc and bfk in, from files as upstream publishes them."""
    for kind, write in (("crosstalk", upstream.ecsv), ("linearizer", upstream.table), ("ptc", upstream.ecsv)):
        for path in site.products(kind, TRUTH).values():
            write(path, site.folder / "published")
    for number, name in ((5, "R22_S12"), (8, "R22_S22")):
        upstream.kernel("LSSTComCam", number, name, site.folder / "published")
    for ticket, tag, rerun, kinds in (
        ("DM-48650", "curated", "20250120a", ["crosstalk"]),
        ("DM-47447", "gainFixup", "20241107a", ["ptc"]),
        ("DM-46360", "isrTaskLSST", "20240926a", ["linearizer", "bfk", "ptc"]),
    ):
        files = [str(site.folder / "published" / kind) for kind in kinds]
        names = ("--ticket", ticket, "--tag", tag, "--cert-rerun", rerun, "--kernel-axes", "xy", "--ranks", "1")
        done = typed("import-calibs", *files, *names, environment=site.variables())
        assert done.returncode == 0, done.stderr


def test_each_selection_finds_just_its_block(site: Site) -> None:
    campaign = load("dmtn-222", None, site.variables())
    assert set(site.wanted) == {name for name in campaign.file.variables if name.startswith("SELECTION_")}
    with open_repository(str(site.repository)) as repository:
        for name, ids in site.wanted.items():
            found = repository.select(["LSSTComCam/raw/all"], campaign.environment[name])
            assert [e.id for e in found.exposures] == sorted(ids), name


def walked(site: Site, bands: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    tools = site.folder / "tools"
    tools.mkdir()
    for name in ("campaign", "butler"):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.join(apart(name))} "$@"\n')
        (tools / name).chmod(0o755)
    more = {"BANDS": " ".join(bands), "CP_PIPE_DIR": str(TEMPLATES / "cp_pipe")}
    more["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    line = ["sh", str(HERE / "walkthrough.sh")]
    return subprocess.run(line, cwd=site.folder, env=site.variables(**more), capture_output=True, text=True)


@pytest.fixture(scope="module")
def technote(site: Site) -> Site:
    done = walked(site, (BAND,))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return site


CALIB = "LSSTComCam/calib"
CERTIFIED = ["defects", "cti", "bias", "dark", f"flat-{BAND}"]


def test_the_technotes_script_runs_as_it_is(technote: Site) -> None:
    with open_repository(str(technote.repository)) as repository:
        chain = repository.chain(f"{CALIB}/DM-48520")
        assert chain == tuple(f"{CALIB}/DM-48520/DP1/{name}.20250207a" for name in reversed(CERTIFIED))
        for name in CERTIFIED:
            links = repository.associations(name.split("-")[0], [f"{CALIB}/DM-48520/DP1/{name}.20250207a"])
            assert sorted(int(link.data_id["detector"]) for link in links) == [5, 8]
            assert {(link.begin, link.end) for link in links} == {(None, None)}  # 1970 is the beginning of time
    images = sorted(path.name.split("_LSST")[0] for path in (technote.folder / "images").glob("*.fits"))
    assert images == [
        *["biasBootstrap"] * 2, "biasMosaic8", *["darkBootstrap"] * 2, "darkMosaic8", *["flat"] * 2
    ]  # fmt: skip


def test_nothing_local_travels(technote: Site) -> None:
    """Neither in the database, nor in a file, nor in an export; only of frames ingested in place it keeps the place."""
    export, root = technote.folder / "export", technote.repository
    line = ["export-calibs", str(root), str(export), f"{CALIB}/DM-48520", "-t", "copy"]
    done = subprocess.run(apart("butler", *line), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = [text.encode() for path in (technote.folder, ROOT) for text in {str(path), quote(str(path))}]
    raws, found = 0, list[str]()
    with closing(sqlite3.connect(root / "gen3.sqlite3")) as database:
        for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
            for row in database.execute(f'select * from "{table}"'):
                cells = [cell if isinstance(cell, bytes) else str(cell).encode() for cell in row]
                local = [cell for cell in cells if any(one in cell for one in here)]
                if table == "file_datastore_records" and b"RawFrame" in cells:
                    raws += len(local)
                else:
                    found += [f"{table}: {cell.decode()}" for cell in local]
    with open_repository(str(root)) as repository:
        assert raws == sum(repository.count_raws(["LSSTComCam/raw/all"], "instrument='LSSTComCam'").values())
    files = [path for folder in (root / "LSSTComCam", export) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 60 and export / "export.yaml" in files
    found += [str(path) for path in files if any(one in path.read_bytes() for one in here)]
    assert found == []


@contextmanager
def running(site: Site, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`campaign run` without a terminal; ended with the test."""
    line = [sys.executable, "-P", "-m", "campaign", "run", *arguments]
    variables = site.variables(**more)
    with (
        (site.folder / "driver.log").open("w") as log,
        subprocess.Popen(line, env=variables, stdout=log, stderr=log, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def wait_for(books: Books, event: str, step: str, number: int = 1) -> dict[str, Any]:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        found = [line for line in books.lines() if (line["event"], line["step"]) == (event, step)]
        if len(found) >= number:
            return found[number - 1]
        time.sleep(0.05)
    raise AssertionError(f"no {event} of {step}: {books.lines()}")


@pytest.fixture(scope="module")
def planned(site: Site) -> Site:
    """The plan, with a person at its gates: the second gate's product is refused once."""
    more, books = {"TICKET": "DM-2"}, site.books("DM-2")
    with running(site, str(site.plan()), **more) as process:
        wait_for(books, "gate", "biasBootstrap")
        log = (site.folder / "driver.log").read_text()
        done = typed("accept", "biasBootstrap", "--reason", "flat as a pancake", environment=site.variables())
        assert done.returncode == 0, done.stderr
        wait_for(books, "gate", "darkBootstrap")
        done = typed("reject", "darkBootstrap", "--reason", "too dark", environment=site.variables())
        assert done.returncode == 0, done.stderr
        assert "made next as RERUN 20250207b" in done.stderr
        wait_for(books, "gate", "darkBootstrap", 2)
        log = (site.folder / "driver.log").read_text()
        assert "campaign accept darkBootstrap --run" in log and "darkBootstrapMosaic8.png" in log
        process.kill()  # the operator's machine is switched off
    with running(site, str(site.plan()), "--yes", **more) as process:
        assert process.wait(timeout=900) == 0, (site.folder / "driver.log").read_text()
    return site


def test_a_plan_makes_what_the_technote_does(technote: Site, planned: Site) -> None:
    """Bit for bit, except the second dark bootstrap and products made from it, under the next RERUN."""
    with open_repository(str(planned.repository)) as repository:
        chain = repository.chain(f"{CALIB}/DM-2")
    wanted = [f"{CALIB}/DM-2/DP1/{name}.20250207a" for name in reversed([*CERTIFIED, "flat-g"])]
    assert set(chain) == set(wanted)
    assert list(chain[len(BANDS) :]) == wanted[len(BANDS) :]  # the flats, made side by side, in any order
    for kind, collection in (("bias", "bias"), ("dark", "dark"), ("flat", f"flat-{BAND}")):
        first = technote.products(kind, f"{CALIB}/DM-48520/DP1/{collection}.20250207a")
        other = planned.products(kind, f"{CALIB}/DM-2/DP1/{collection}.20250207a")
        assert len(first) == 2 and first.keys() == other.keys()
        for key, path in first.items():
            for extension in ("IMAGE", "MASK", "VARIANCE"):
                assert np.array_equal(fitsio.read(path, extension), fitsio.read(other[key], extension))


def test_what_was_rejected_is_made_again_with_all_that_needs_it(planned: Site) -> None:
    with open_repository(str(planned.repository)) as repository:
        runs = {e.rpartition("/DP1/")[2] for e in repository.collections(f"{CALIB}/DM-2/DP1/*Gen.*")}
    assert {"biasBootstrapGen.20250207a/run1", "darkBootstrapGen.20250207a/run1"} <= runs
    assert {"darkBootstrapGen.20250207b/run1", "flatBootstrapGen.20250207b/run1"} <= runs
    assert "biasBootstrapGen.20250207b/run1" not in runs
    decisions = [
        (x["event"], x["step"]) for x in planned.books("DM-2").lines() if x["event"] in ("accepted", "rejected")
    ]
    assert decisions[:3] == [
        ("accepted", "biasBootstrap"),
        ("rejected", "darkBootstrap"),
        ("accepted", "darkBootstrap"),
    ]
    began = [x["step"] for x in planned.books("DM-2").lines() if x["event"] == "begun"]
    assert {step: began.count(step) for step in began if began.count(step) > 1} == {"darkBootstrap": 2}


def test_a_finished_plan_has_nothing_to_do(planned: Site) -> None:
    before = len([x for x in planned.books("DM-2").lines() if x["event"] == "begun"])
    done = typed("run", str(planned.plan()), "--json", environment=planned.variables(TICKET="DM-2"))
    assert done.returncode == 0, done.stderr
    assert {step["state"] for step in json.loads(done.stdout)["steps"]} == {"done"}
    assert len([x for x in planned.books("DM-2").lines() if x["event"] == "begun"]) == before


def test_runs_are_known_for_what_the_plan_asks_for(planned: Site) -> None:
    """A restart thus resumes an unfinished run, also under a second RERUN, but not with another plan."""
    for more, changed in (({}, set()), ({"SELECTION_BIAS": f"{FIRST} or {FIRST}"}, {"biasBootstrap", "bias"})):
        campaign = load(str(planned.plan(**more)), None, planned.variables(TICKET="DM-2"))
        home, books = Home(planned.repository / "campaign"), planned.books("DM-2")
        states = look(campaign, home, books.lines())
        known = {
            name
            for name, state in states.items()
            if _asked_as(campaign.steps[name], state, _settings(campaign, state, states))
        }
        assert known == set(campaign.steps) - changed
    planned.plan()


def test_a_plan_that_was_changed_meanwhile(planned: Site) -> None:
    path = planned.plan(START_DATE="1980-01-01T00:00:00")
    done = typed("run", str(path), environment=planned.variables(TICKET="DM-2"))
    planned.plan()
    assert done.returncode == 4
    assert "the plan, $START_DATE have changed since the campaign was begun" in done.stderr


def test_it_is_drawn_with_its_state(planned: Site, tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    done = typed(
        "plan", str(planned.plan()), "--svg", str(picture), "--json", environment=planned.variables(TICKET="DM-2")
    )
    assert done.returncode == 0, done.stderr
    steps = {step["step"]: step for step in json.loads(done.stdout)["steps"]}
    assert all(step["state"] == "done" and step["stale"] == [] and step["cpu_seconds"] > 0 for step in steps.values())
    assert not any(step["ahead"] for step in steps.values())
    another = typed("plan", str(planned.plan()), "--json", environment=planned.variables(TICKET="DM-5"))
    ahead = {step["step"]: step for step in json.loads(another.stdout)["steps"]}
    assert all(step["ahead"] and step["problem"] == "" for step in ahead.values())
    took, will = (sum(step["cpu_seconds"] for step in some.values()) for some in (steps, ahead))
    assert 0.2 < will / took < 5  # by earlier runs of the same work, of which a busy machine makes more CPU time
    assert "done" in picture.read_text()


def test_another_ptc_makes_stale_what_was_made_with_the_first(planned: Site) -> None:
    """And nothing else: the bootstraps have no gains.  Of bias and dark it is for the first of two nights only."""
    variables = planned.variables(TICKET="DM-2", INSTRUMENT="LSSTComCam", CERT_RERUN="x", START_DATE="1970-01-01")
    source, target = (
        f"{CALIB}/DM-46360/isrTaskLSST/linearizerImport.20240926a/{upstream.FIRST}",
        f"{CALIB}/DM-2/DP1/linearizer.other",
    )
    with open_repository(str(planned.repository), writeable=True) as repository:
        (one, *_) = repository.datasets("linearizer", [source])
        run = f"{CALIB}/other/linearizer"
        repository.claim_run(run)
        (path,) = repository.predict_paths(run, [("linearizer", one.data_id)])
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(Path(one.path).read_bytes())
        repository.ingest_products(run, [("linearizer", one.data_id, path)])
        repository.register_calibration(target)
        repository.certify(target, repository.datasets("linearizer", [run]), None, "2024-12-08T00:00:00")
        repository.prepend_chain(f"{CALIB}/DM-2", [target])
    try:
        done = typed("plan", str(planned.plan()), "--json", environment=variables)
        steps = {step["step"]: step["stale"] for step in json.loads(done.stdout)["steps"]}
        stale = {name for name, reasons in steps.items() if reasons}
        assert stale == {"cti", "bias", "dark", "flat_g", "flat_r"}
        assert steps["bias"] == [f"linearizer was {source}, is {source} and {run} now (detector 5)"]
        assert steps["flat_r"] == [f"linearizer was {source}, is {run} now (detector 5)"]
        told = typed("status", "--stale", environment=variables)
        assert f"stale     {CALIB}/DM-2/DP1/ctiGen.20250207b/" in told.stdout
        assert f"current   {CALIB}/DM-2/DP1/defectGen.20250207b/" in told.stdout
        checked = typed("check", "bps_flat_r", environment=load(str(planned.plan()), None, variables).environment)
        assert "/biasGen.20250207b/" in checked.stdout and "linearizer was" in checked.stdout
    finally:
        with open_repository(str(planned.repository), writeable=True) as repository:
            chain = repository.chain(f"{CALIB}/DM-2")
            repository.define_chain(f"{CALIB}/DM-2", [name for name in chain if name != target])


def test_an_operator_names_another_bias(planned: Site) -> None:
    """Take the first ticket's, which is in no input; it is warned of, recorded, and not stale."""
    variables = load(str(planned.plan()), None, planned.variables(TICKET="DM-2", RERUN="named")).environment
    line = ("submit", "bps_dark", "--ranks", "2", "--calibration")
    wrong = typed(*line, "cti=nowhere", environment=variables)
    assert wrong.returncode == 3 and "nowhere" in wrong.stderr
    wrong = typed(*line, "flat=nowhere", environment=variables)
    assert wrong.returncode == 3 and "--calibration flat: the pipeline asks for no flat" in wrong.stderr
    done = typed(*line, f"bias={CALIB}/DM-48520/DP1/biasGen.20250207a", environment=variables)
    assert done.returncode == 0, done.stderr
    usual = f"{CALIB}/DM-2/DP1/biasGen.20250207b/"
    assert f"as --calibration says; find-first gives {usual}" in done.stderr
    for path in planned.products("dark", f"{CALIB}/DM-2/DP1/darkGen.named").values():
        header = fitsio.read_header(path)
        assert header["CALIB_BIAS_NAMED"].startswith(f"by the operator, find-first gives {usual}")
        assert header["CALIB_BIAS_RUN"].startswith(f"{CALIB}/DM-48520/DP1/biasGen.20250207a/")
    told = typed("status", "--stale", environment=variables)
    assert f"current   {CALIB}/DM-2/DP1/darkGen.named" in told.stdout


def test_an_older_dark_does_not_hide_a_newer_one(planned: Site) -> None:
    """The dark of the second RERUN is older than that with another bias: it goes in front for other dates only."""
    common = planned.variables(TICKET="DM-2", START_DATE="2025-01-01T00:00:00")
    plan = str(planned.plan())
    newer = load(plan, None, {**common, "RERUN": "named", "CERT_RERUN": "named"}).environment
    older = load(plan, None, {**common, "RERUN": "20250207b", "CERT_RERUN": "older"}).environment
    with open_repository(str(planned.repository)) as repository:
        before = repository.chain(f"{CALIB}/DM-2")
    assert typed("certify", "bps_dark", environment=newer).returncode == 0
    refused = typed("certify", "bps_dark", environment=older)
    assert refused.returncode == 4
    assert "darkGen.named/" in refused.stderr and "it would hide that" in refused.stderr
    dated = ("--begin-date", "1970-01-01", "--end-date", "2025-01-01T00:00:00")
    assert typed("certify", "bps_dark", *dated, environment=older).returncode == 0
    with open_repository(str(planned.repository), writeable=True) as repository:
        assert repository.chain(f"{CALIB}/DM-2")[:2] == tuple(f"{CALIB}/DM-2/DP1/dark.{n}" for n in ("older", "named"))
        repository.define_chain(f"{CALIB}/DM-2", before)


def test_a_dead_amplifier_is_a_defect_and_does_no_harm(technote: Site) -> None:
    camera = geometry.camera(
        load_camera(technote.repository / "campaign" / "cameras" / "LSSTComCam.yaml").plain([5, 8])
    )
    collections = {"defects": "defects", "cti": "cti", "flat": "flat-r"}
    made = {k: technote.products(k, f"{CALIB}/DM-48520/DP1/{name}.20250207a") for k, name in collections.items()}
    paths = {(kind, dict(key)["detector"]): path for kind, found in made.items() for key, path in found.items()}
    ratios = []
    for number in (5, 8):
        detector = camera.detectors[number]
        bad = Defects.open(paths["defects", number], camera, detector).mask(Box(0, 0, *detector.size))
        used = dict(
            zip(
                (a.name for a in detector.amplifiers),
                fitsio.read(paths["cti", number], "CTI")["EXPOSURES"],
                strict=True,
            )
        )
        truth = fitsio.read(str(technote.folder / "repo-truth" / f"{detector.name}.fits"), "RESPONSE_r_03")
        flat, mask = (fitsio.read(paths["flat", number], extension) for extension in ("IMAGE", "MASK"))
        for amplifier in detector.amplifiers:
            at = amplifier.target.slices
            dead = DEAD.get(detector.name) == amplifier.name
            assert bad[at].all() == dead
            assert (used[amplifier.name] == 0) == dead
            assert ((mask[at] & BAD) != 0).all() == dead
            if not dead:
                good = mask[at] == 0
                ratios.append((flat[at][good] / truth[at][good]).mean())
    assert np.std(ratios) / np.mean(ratios) < 3e-4  # photon noise is 5e-5, the truth's own crosstalk and linearity less


def test_a_detector_that_one_exposure_lacks(site: Site) -> None:
    """First refused; then, since the step allows missing exposures, made from those present."""
    lacking = "instrument='$INSTRUMENT' and exposure.observation_type='bias' and exposure.day_obs=20241206"
    plain = yaml.safe_load(site.plan().read_text())
    plain["variables"]["SELECTION_BIAS"] = f"{lacking} and not (exposure=2024120600430 and detector=8)"
    path = site.folder / "lacking.yaml"
    variables = site.variables(TICKET="DM-6")
    for allow in (False, True):
        plain["steps"] = {"biasBootstrap": {"template": "bps_biasBootstrap", "allow_missing": allow}}
        path.write_text(yaml.safe_dump(plain, sort_keys=False))
        done = typed("run", str(path), *["--changed"] * allow, environment=variables)
        assert done.returncode == (0 if allow else 1), done.stderr
        assert allow or "no raw of (exposure, detector) (2024120600430, 8); --allow-missing combines" in done.stderr
    headers = {
        dict(key)["detector"]: fitsio.read_header(path)
        for key, path in site.products("biasBootstrap", f"{CALIB}/DM-6/DP1/biasBootstrapGen.20250207a/run1").items()
    }
    assert headers[5]["NINPUTS"] - headers[8]["NINPUTS"] == 1
    assert str(headers[8]["MISSING"]).strip() == "2024120600430"


def test_a_plan_that_was_mended(technote: Site) -> None:
    """A frame cannot be read: the run is not resumed once the plan leaves that exposure out."""
    plain = yaml.safe_load(technote.plan().read_text())
    plain["steps"] = {"bias": {"template": "bps_bias", "certify": True}}
    plain["variables"]["CALIB_COLLECTIONS"] = f"{CALIB}/DM-48520, " + plain["variables"]["CALIB_COLLECTIONS"]
    path, variables = technote.folder / "mended.yaml", technote.variables(TICKET="DM-7")
    with open_repository(str(technote.repository)) as repository:
        (raw,) = repository.select(["LSSTComCam/raw/all"], f"{FIRST} and detector=8").raws
    bytes_of_raw = Path(raw.path).read_bytes()
    try:
        Path(raw.path).write_bytes(bytes_of_raw[: len(bytes_of_raw) // 2])
        for excluded, code in (((), 1), ((raw.exposure,), 0)):
            plain["steps"]["bias"]["exclude"] = list(excluded)
            path.write_text(yaml.safe_dump(plain, sort_keys=False))
            done = typed("run", str(path), "--changed", environment=variables)
            assert done.returncode == code, done.stderr
    finally:
        Path(raw.path).write_bytes(bytes_of_raw)
    for file in technote.products("bias", f"{CALIB}/DM-7/DP1/bias.20250207a").values():
        assert str(fitsio.read_header(file)["EXCLUDED"]).strip() == str(raw.exposure)


def test_a_band_without_exposures_and_the_others_go_on(technote: Site) -> None:
    """From the first ticket's calibrations: only the flats are made."""
    path = technote.plan(SELECTION_FLAT_g="instrument='$INSTRUMENT' and exposure.day_obs=20990101")
    plain = yaml.safe_load(path.read_text())
    plain["steps"] = {f"flat_{b}": {"template": f"bps_flat_{b}", "certify": True} for b in BANDS}
    plain["variables"]["CALIB_COLLECTIONS"] = f"{CALIB}/DM-48520, " + plain["variables"]["CALIB_COLLECTIONS"]
    path = technote.folder / "bands.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    foreseen = typed("plan", str(path), "--json", environment=technote.variables(TICKET="DM-3"))
    steps = {step["step"]: step for step in json.loads(foreseen.stdout)["steps"]}
    assert all(step["ahead"] for step in steps.values()) and steps["flat_r"]["cpu_seconds"] > 0
    assert "finds no raw frame" in steps["flat_g"]["problem"] and steps["flat_g"]["cpu_seconds"] is None
    done = typed("run", str(path), environment=technote.variables(TICKET="DM-3"))
    assert done.returncode == 1
    assert "1 of 2 steps are not done; the first: flat_g: " in done.stderr
    assert "the selection finds no raw frame" in done.stderr
    with open_repository(str(technote.repository)) as repository:
        assert repository.chain(f"{CALIB}/DM-3") == (f"{CALIB}/DM-3/DP1/flat-r.20250207a",)


@pytest.mark.soak
def test_the_whole_script(tmp_path: Path) -> None:
    done = typed(
        "simulate", str(tmp_path / "repo"), "--plan", "dmtn-222", "--scale", "32", "--ranks", "2", environment={}
    )
    assert done.returncode == 0, done.stderr
    whole = walked(Site(tmp_path, {}), tuple("ugrizy"))
    assert whole.returncode == 0, whole.stderr[-3000:]
    with open_repository(str(tmp_path / "repo")) as repository:
        assert len(repository.chain(f"{CALIB}/DM-48520")) == 10
