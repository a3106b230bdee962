"""Existing calibrations brought into a ticket: files in dated folders, and exports; each as a whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
from lsst.daf.butler import Butler

from campaign.butler.repository import open_repository
from campaign.camera.model import Camera, load
from campaign.certification.certify import Change, chain
from campaign.frames.ingest import prepare
from campaign.home import Home
from campaign.imports.export import without
from kernels.calibrations import bfk, crosstalk, defects, isrfiles, linearity
from kernels.camera import geometry
from kernels.fits import product
from kernels.fits.tables import identity
from tests import upstream
from tests.conftest import apart, typed

pytestmark = pytest.mark.processes

CAMERA = "LSSTComCam"
CALIB = f"{CAMERA}/calib"
TICKET = f"{CALIB}/DM-1"
DETECTORS = (0, 1)
#: Dates of the folders' files, UTC, and as the Butler has them.
DATES = {"19700101T000000": "1970-01-01T00:00:08.000082", "20240301T120000": "2024-03-01T12:00:37"}
MIDDLE = "2024-01-01T00:00:00"


def camera() -> Camera:
    return load(CAMERA).scaled(32)


def write(folder: Path, plain: Mapping[str, Any] | None = None) -> Path:
    """Write the crosstalk of two dates, and a bias, of each detector, in upstream's folders."""
    known = geometry.camera(plain or camera().plain(DETECTORS))
    for number in DETECTORS:
        detector = known.detectors[number]
        names = len(detector.amplifiers)
        place = folder / "crosstalk" / detector.name.lower()
        place.mkdir(parents=True)
        for n, date in enumerate(DATES, 1):
            c0 = 1e-4 * n * (1 - np.eye(names))
            crosstalk.write(str(place / f"{date}.fits"), known, detector, c0, np.zeros_like(c0))
        bias(folder / f"bias_{number}.fits", known, number)
    return folder


def bias(path: Path, known: geometry.Camera, number: int, level: float = 1.0) -> None:
    detector = known.detectors[number]
    cards = [*identity("bias", known, detector), ("BUNIT", known.unit, ""), ("CALUNIT", known.unit, "")]
    shape = detector.size[::-1]
    planes = np.full(shape, level, np.float32), np.zeros(shape, np.int32), np.ones(shape, np.float32)
    product.write(str(path), cards, *planes)


@dataclass(frozen=True)
class Site:
    """A repository with the camera and nothing else, and an operator."""

    root: Path
    files: Path

    def __call__(self, *arguments: object, ticket: str = "DM-1", **more: str) -> subprocess.CompletedProcess[str]:
        return typed(*self.line(*arguments, ticket=ticket), environment=more)

    def line(self, *arguments: object, ticket: str = "DM-1") -> list[str]:
        names = ("-r", str(self.root), "--ticket", ticket, "--tag", "old", "--cert-rerun", "a", "--ranks", "1")
        return ["import-calibs", *names, *map(str, arguments)]

    def state(self) -> dict[str, Any]:
        """All that an import makes: collections, datasets, links, files by content."""
        with Butler.from_config(str(self.root)) as butler:
            infos = butler.collections.query_info("*", include_chains=True)
            types = [one for one in butler.registry.queryDatasetTypes() if one.isCalibration()]
            links = [
                (str(link.ref.id), link.ref.run, link.collection, str(link.timespan))
                for one in types
                for link in butler.registry.queryDatasetAssociations(one, collections=[info.name for info in infos])
            ]
        chains = {info.name: info.children for info in infos}
        files = {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.glob(f"{CAMERA}/**/*") if p.is_file()}
        return {"chains": chains, "links": sorted(links), "files": files}

    def refuse(self, code: int, *arguments: object, **more: str) -> str:
        before = self.state()
        done = self(*arguments, **more)
        assert done.returncode == code, done.stdout + done.stderr
        assert self.state() == before
        return done.stderr


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("imports")
    with prepare(str(folder / "repo"), Home(folder / "repo" / "campaign"), camera()):
        pass
    return Site(folder / "repo", write(folder / "files"))


@pytest.fixture
def site(empty: Site, tmp_path: Path) -> Site:
    root = Path(shutil.copytree(empty.root, tmp_path / "repo"))
    return Site(root, Path(shutil.copytree(empty.files, tmp_path / "files")))


@pytest.fixture(scope="module")
def export(empty: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a chain: a bias in front for 2023 and 2024, one behind it for ever, and one hidden by both."""
    folder = tmp_path_factory.mktemp("export")
    root = Path(shutil.copytree(empty.root, folder / "repo"))
    known = geometry.camera(camera().plain(DETECTORS))
    with open_repository(str(root), writeable=True) as repository:
        for n, dates in enumerate([("2024-02-01", "2024-03-01"), (None, None), ("2023-01-01", "2025-01-01")]):
            run, target = f"{CALIB}/DM-0/old/biasGen.{n}/run", f"{CALIB}/DM-0/old/bias.{n}"
            items = [("bias", {"instrument": CAMERA, "detector": number}) for number in DETECTORS]
            paths = repository.predict_paths(run, items)
            for number, path in zip(DETECTORS, paths, strict=True):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                bias(Path(path), known, number, n)
            repository.ingest_products(run, [(*item, path) for item, path in zip(items, paths, strict=True)])
            repository.certify(target, repository.datasets("bias", [run]), *dates)
            chain(repository, f"{CALIB}/DM-0", [target], Change())
    line = ["export-calibs", str(root), str(folder / "export"), f"{CALIB}/DM-0", "-t", "copy"]
    done = subprocess.run(apart("butler", *line), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "export"


def ranges(site: Site, kind: str, collection: str) -> dict[str, set[tuple[str | None, str | None]]]:
    """The validity of each RUN's datasets in a collection; both detectors have the same."""
    with open_repository(str(site.root)) as repository:
        links = repository.associations(kind, [collection])
    found: dict[str, set[tuple[str | None, str | None]]] = {}
    for link in links:
        found.setdefault(link.run, set()).add((link.begin, link.end))
    assert len(links) == len(DETECTORS) * sum(map(len, found.values()))
    return found


# Files


def test_files_are_valid_from_their_date_to_the_next_ones(site: Site) -> None:
    done = site(site.files / "crosstalk", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["new"], made["existing"], made["certified"], made["notes"]) == (4, 0, 4, [])
    first, second = DATES.values()
    old, new = (f"{TICKET}/old/crosstalkImport.a/{date}" for date in DATES)
    assert ranges(site, "crosstalk", f"{TICKET}/old/crosstalk.a") == {old: {(first, second)}, new: {(second, None)}}
    with open_repository(str(site.root)) as repository:
        for time, run in ((MIDDLE, old), ("2024-03-01T12:00:36", old), ("2024-03-01T12:00:38", new)):
            data_id = {"instrument": CAMERA, "detector": 1}
            one = repository.find_dataset("crosstalk", data_id, [TICKET], time, time)
            assert one is not None and one.run == run
            source = site.files / "crosstalk" / "r22_s01" / f"{run.rpartition('/')[2]}.fits"
            assert Path(one.path).read_bytes() == source.read_bytes()
    (line,) = Home(site.root / "campaign").history()
    assert (line["command"], line["ticket"], line["detail"]["count"]) == ("import-calibs", "DM-1", 4)


def test_other_files_are_valid_for_the_operators_dates_and_the_same_again_changes_nothing(site: Site) -> None:
    dates = ("--begin-date", "2024-01-01T00:00:00", "--end-date", "2025-01-01T00:00:00")
    looked = site.state()
    assert site(site.files, *dates, "--dry-run").returncode == 0
    assert site.state() == looked
    assert "$START_DATE" not in site.refuse(3, site.files)
    assert site(site.files, *dates).returncode == 0
    run = f"{TICKET}/old/biasImport.a/20240101T000000"
    assert ranges(site, "bias", f"{TICKET}/old/bias.a") == {run: {("2024-01-01T00:00:00", "2025-01-01T00:00:00")}}
    before = site.state()
    assert set(before["chains"][TICKET]) == {f"{TICKET}/old/{name}.a" for name in ("bias", "crosstalk")}
    again = site(site.files, *dates)
    assert again.returncode == 0 and "nothing to do: 6 calibrations" in again.stdout
    assert site.state() == before
    home = Home(site.root / "campaign")
    assert len(home.history()) == 1
    home.history_file.unlink()  # as if the first command had been killed before its last step
    assert site(site.files, *dates).returncode == 0 and len(home.history()) == 1


def test_what_would_be_overwritten_or_hidden_is_refused(site: Site) -> None:
    dates = ("--begin-date", "2024-01-01T00:00:00")
    files = [site.files / f"bias_{number}.fits" for number in DETECTORS]
    assert site(*files, *dates).returncode == 0
    refused = site.refuse(4, *files, "--begin-date", "2024-02-01T00:00:00", "--cert-rerun", "b")
    assert f"would hide bias detector 0 of {TICKET}/old/bias.a" in refused
    overlapping = site.refuse(3, *files, "--begin-date", "2024-02-01T00:00:00")
    assert "certified already from 2024-01-01T00:00:00 to open" in overlapping
    known = geometry.camera(camera().plain(DETECTORS))
    files[0].unlink()
    bias(files[0], known, 0, 2.0)
    assert "another file is there under its name" in site.refuse(3, *files, *dates)
    assert site(*files, "--begin-date", "2024-02-01T00:00:00", "--cert-rerun", "b", "--yes").returncode == 0
    assert site.state()["chains"][TICKET] == (f"{TICKET}/old/bias.b", f"{TICKET}/old/bias.a")


def test_files_of_text_become_fits_of_the_same_content(site: Site) -> None:
    """Also where another camera's name is an alias, and upstream's FITS tables name themselves nowhere else."""
    folder = site.files / "published"
    sources = sorted((site.files / "crosstalk").rglob(f"{next(iter(DATES))}.fits"))
    texts = [upstream.ecsv(path, folder) for path in sources]
    for path in texts:
        path.write_text(path.read_text().replace(f"INSTRUME: {CAMERA}", "INSTRUME: ComCam"))
    known = geometry.camera(camera().plain(DETECTORS))
    linear = [str(site.files / f"linearizer_{number}.fits") for number in DETECTORS]
    for number, name in zip(DETECTORS, linear, strict=True):
        nodes = np.tile([0.0, 1e3, 1e5], (len(known.detectors[number].amplifiers), 1))
        linearity.write(name, known, known.detectors[number], nodes, nodes * 1e-3)
        upstream.table(name, folder)
        upstream.kernel(CAMERA, number, known.detectors[number].name, folder)
    refused = site.refuse(3, folder)
    assert refused.count("does not say the order of its axes (KERNEL_AXES)") == len(DETECTORS)
    done = site(folder, "--kernel-axes", "xy", "--json")
    assert done.returncode == 0, done.stderr
    notes = str(json.loads(done.stdout)["notes"])
    assert "2 files without checksums" in notes and "bfk" not in notes
    with open_repository(str(site.root)) as repository:
        for kind, read in (("crosstalk", sources), ("linearizer", linear)):
            for source, one in zip(read, repository.datasets(kind, [TICKET]), strict=True):
                was, kept = isrfiles.read(str(source)), isrfiles.read(one.path)
                assert kept.instrument == ("ComCam" if kind == "crosstalk" else CAMERA)
                for name, values in was.tables[0].columns.items():
                    assert np.array_equal(values, kept.tables[0].columns[name], equal_nan=values.dtype.kind == "f")
                assert len(repository.get(one).rows) == len(was.tables[0].columns[name])
        for one, number in zip(repository.datasets("bfk", [TICKET]), DETECTORS, strict=True):
            (text,) = (folder / "bfk" / known.detectors[number].name.lower()).iterdir()
            was, kept = (bfk.Kernels.open(str(p), known, known.detectors[number], "xy") for p in (text, one.path))
            assert was.detector is not None and np.array_equal(was.detector, kept.detector)
            assert isrfiles.read(one.path).axes == "xy"
    before = site.state()
    assert site(folder, "--kernel-axes", "xy").returncode == 0 and site.state() == before


def test_all_that_rubin_publishes_for_comcam_is_imported(empty: Site, curated: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "repo"
    with prepare(str(root), Home(root / "campaign"), load(CAMERA)):
        pass
    files = [path for path in curated if "comCam" in path.parts]
    done = Site(root, tmp_path)(*sorted({path.parents[1] for path in files}), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new"] == len(files) == 18


def test_a_file_that_was_lost_is_put_back(site: Site) -> None:
    assert site(site.files / "crosstalk").returncode == 0
    before = site.state()
    with open_repository(str(site.root)) as repository:
        Path(repository.datasets("crosstalk", [f"{TICKET}/old/crosstalkImport.a/{min(DATES)}"])[0].path).unlink()
    assert site.state() != before
    assert site(site.files / "crosstalk").returncode == 0
    assert site.state() == before


def test_a_repository_of_rubins_flavour_takes_them_under_its_types(empty: Site, export: Path, tmp_path: Path) -> None:
    root = tmp_path / "repo"
    with prepare(str(root), Home(root / "campaign"), camera(), "rubin"):
        pass
    site = Site(root, empty.files)
    assert site(empty.files / "crosstalk").returncode == 0
    assert site(export).returncode == 0  # of a plain one
    with Butler.from_config(str(root)) as butler:
        types = {name: butler.get_dataset_type(name).storageClass_name for name in ("bias", "crosstalk")}
    assert types == {"bias": "ExposureF", "crosstalk": "CrosstalkCalib"}
    with open_repository(str(root)) as repository:
        one = repository.find_dataset("bias", {"instrument": CAMERA, "detector": 1}, [TICKET], MIDDLE, MIDDLE)
        assert one is not None and repository.get(one).image.min() == 2


def test_boxes_of_a_reduced_camera_are_pointed_out(site: Site) -> None:
    known = geometry.camera(camera().plain(DETECTORS))
    files = [site.files / f"defects_{number}.fits" for number in DETECTORS]
    for file, number, boxes in zip(files, DETECTORS, ([[0, 0, 3, 1]], np.zeros((0, 4))), strict=True):
        defects.write(str(file), known, known.detectors[number], np.array(boxes, int))
    for file, said in zip(
        files, (["defects: boxes are taken as pixels of a camera that its scale of 32 reduces"], []), strict=True
    ):
        done = site(file, "--begin-date", "2024-01-01T00:00:00", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["notes"] == said


def other_camera(site: Site) -> None:
    plain = {**camera().plain(DETECTORS), "name": "OtherCam"}
    bias(site.files / "odd.fits", geometry.camera(plain), 0)


def other_unit(site: Site) -> None:
    known = geometry.camera({**camera().plain(DETECTORS), "unit": "adu"})
    detector = known.detectors[0]
    c0 = np.zeros((len(detector.amplifiers),) * 2)
    crosstalk.write(str(site.files / "odd.fits"), known, detector, c0, c0)


def other_size(site: Site) -> None:
    bias(site.files / "odd.fits", geometry.camera(load(CAMERA).scaled(64).plain(DETECTORS)), 0)


def other_detector(site: Site) -> None:
    folder = site.files / "crosstalk"
    (folder / "r22_s00").rename(folder / "r22_s02")


def other_kind(site: Site) -> None:
    (site.files / "crosstalk").rename(site.files / "ptc")


def beyond_the_camera(site: Site) -> None:
    known = geometry.camera(camera().plain(DETECTORS))
    boxes = np.array([[0, 0, 10000, 1]])
    defects.write(str(site.files / "odd.fits"), known, known.detectors[0], boxes)


def no_calibration(site: Site) -> None:
    fitsio.write(str(site.files / "odd.fits"), np.zeros((4, 4)))


def no_file_of_any_layout(site: Site) -> None:
    (site.files / "README.txt").write_text("calibrations")


def cut(site: Site) -> None:
    path = site.files / "bias_0.fits"
    path.write_bytes(path.read_bytes()[:-2880])


def twice(site: Site) -> None:
    shutil.copy(site.files / "bias_0.fits", site.files / "again.fits")


def linked(site: Site) -> None:
    folder = site.files / "crosstalk" / "r22_s00"
    folder.rename(site.root / "r22_s00")
    folder.symlink_to(site.root / "r22_s00")


def dangling(site: Site) -> None:
    (site.files / "odd.fits").symlink_to("nowhere")


def pipe(site: Site) -> None:
    os.mkfifo(site.files / "odd.fits")


def beyond_the_butlers_time(site: Site) -> None:
    path = next((site.files / "crosstalk").rglob("2024*"))
    path.rename(path.with_name("21000101T000000.fits"))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (linked, "is a link to a folder"),
        (dangling, "is no file"),
        (pipe, "is no file"),
        (beyond_the_butlers_time, "it is not between 1970 and 2100"),
        (other_camera, "is of OtherCam (INSTRUME), the frames are of LSSTComCam"),
        (other_unit, "is in adu (CROSSTALK_RATIOS_UNITS), the frames it is to correct are in electron"),
        (other_size, "of another detector type"),
        (other_detector, "is of detector R22_S00, its folder is r22_s02"),
        (other_kind, "is CROSSTALK (OBSTYPE), its folder is ptc"),
        (beyond_the_camera, "which the camera's scale of 32 reduces"),
        (no_calibration, "holds no table"),
        (no_file_of_any_layout, "is no calibration file"),
        (cut, "truncated"),
        (twice, "is valid at the same time as"),
    ],
)
def test_one_file_that_does_not_fit_keeps_all_out(site: Site, how: Any, why: str) -> None:
    how(site)
    assert why in site.refuse(3, site.files, "--begin-date", "2024-01-01")


# Exports


def found(site: Site, time: str) -> str:
    with open_repository(str(site.root)) as repository:
        one = repository.find_dataset("bias", {"instrument": CAMERA, "detector": 1}, [TICKET], time, time)
        return one.run.split(".")[1] if one else ""


def test_an_export_is_found_as_it_was_with_its_ids_and_runs(site: Site, export: Path) -> None:
    done = site(export)
    assert done.returncode == 0, done.stderr
    assert "2 datasets of the export found for no date, another being in front: left out" in done.stderr
    assert "2 datasets of the export valid for a part of the range" in done.stderr
    behind, front = (f"{CALIB}/DM-0/old/biasGen.{n}/run" for n in (1, 2))
    begin, end = "2023-01-01T00:00:00", "2025-01-01T00:00:00"
    wanted = {behind: {(None, begin), (end, None)}, front: {(begin, end)}}
    assert ranges(site, "bias", f"{TICKET}/old/bias.a") == wanted
    times = {"2022-06-01T00:00:00": "1/run", "2024-02-10T00:00:00": "2/run", "2026-01-01T00:00:00": "1/run"}
    assert {time: found(site, time) for time in times} == times
    with Butler.from_config(str(export.parent / "repo")) as theirs, Butler.from_config(str(site.root)) as ours:
        for run in (behind, front):
            ids = [{ref.id for ref in one.query_datasets("bias", run)} for one in (theirs, ours)]
            assert ids[0] == ids[1]
    before = site.state()
    assert site(export).returncode == 0 and site.state() == before
    assert site(export, ticket="DM-2").returncode == 0  # into another ticket: the same datasets
    assert site.state()["files"] == before["files"]


@pytest.mark.parametrize("place", [0.1, 0.5, 1.0])
def test_flipped_bytes_of_an_export_are_refused(site: Site, export: Path, tmp_path: Path, place: float) -> None:
    """`butler import` takes them."""
    copy = Path(shutil.copytree(export, tmp_path / "export"))
    path = sorted(copy.rglob("bias_*.fits"))[2]
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)
    refused = site.refuse(3, copy)
    assert path.name in refused and ("corrupt" in refused or "cannot be read" in refused)


def test_an_export_of_others(site: Site, export: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(export, tmp_path / "export"))
    text = (copy / "export.yaml").read_text()
    name = next(copy.rglob("bias_*.fits")).name
    one, other = re.findall(r"- !uuid '(\S+)'", text)[:2]
    for old, new, why in (
        ("full_name: R22_S01", "full_name: R22_S99", "detector 1 is R22_S99 in the export, R22_S01 here"),
        (f"instrument: {CAMERA}\n    id", "instrument: OtherCam\n    id", "the export is of OtherCam"),
        ("version: 1.0.2", "version: 2.0.0", "version 2.0.0 is not understood"),
        ("dataset_type: bias", "dataset_type: dark", "is bias (OBSTYPE), the export has it as dark"),
        ("path: LSST", "path: ../LSST", "lies outside the export"),
        ("detector: 1\n", "detector: 0\n", "is of detector 1, the export has it as 0"),
        ("type: dataset_type", "type: nothing", "data"),
        ("    id: 1\n", "    id: null\n", "id: "),
        (f"run: {CALIB}/DM-0/old/biasGen.2/run", "run: ../../../elsewhere", "is no name of a collection"),
        (f"run: {CALIB}/DM-0/old/biasGen.2/run", "run: /elsewhere", "is no name of a collection"),
        (f"run: {CALIB}/DM-0/old/biasGen.2/run", f"run: {TICKET}", f"{TICKET} holds calibrations to be imported"),
        ("2025-01-01 00:00:00.000000000", "2022-01-01 00:00:00", "is empty"),
        (one, "an-id", "dataset_id"),
        ("  children:\n", f"  children:\n  - {CALIB}/DM-0\n", "is within itself"),
        ("dataset_type: bias", "dataset_type: cpBias", "no dataset is of a type that is known here: cpBias"),
        (one, other, "has the id of another file"),
    ):
        (copy / "export.yaml").write_text(text.replace(old, new))
        assert why in site.refuse(3, copy), why
    (copy / "export.yaml").write_text(text)
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in copy.rglob("*.fits")}
    lines = [f"{digest}  {path.relative_to(copy)}\n" for path, digest in digests.items()]
    (copy / "SHA256SUMS").write_text("".join(lines))
    assert site(copy, "--dry-run").returncode == 0
    (copy / "SHA256SUMS").write_text("".join(lines).replace(digests[next(copy.rglob(name))], "0" * 64))
    assert "its bytes are not those of its SHA-256" in site.refuse(3, copy)
    next(copy.rglob(name)).unlink()
    assert name in site.refuse(3, copy)


def test_the_runs_of_others_are_theirs(site: Site, export: Path) -> None:
    with open_repository(str(site.root), writeable=True) as repository:
        repository.claim_run(f"{CALIB}/DM-0/old/biasGen.1/run", "20260101T000000Z-abcd of her on there")
    assert "is the output of run 20260101T000000Z-abcd here" in site.refuse(3, export)


@pytest.mark.parametrize(
    ("spans", "left"),
    [
        ([], [(0, 9)]),
        ([(0, 9)], []),
        ([(2, 4), (3, 5)], [(0, 2), (5, 9)]),
        ([(-5, 1), (8, 20)], [(1, 8)]),
        ([(9, 12)], [(0, 9)]),
    ],
)
def test_what_others_leave_of_a_range(spans: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    assert without((0, 9), spans) == left


# Kills


@pytest.mark.parametrize(
    "point", ["import-decided", "product-linked:2", "import-placed", "import-recorded", "import-certified"]
)
def test_an_import_that_was_killed_is_finished_by_the_same_command(site: Site, empty: Site, point: str) -> None:
    line = site.line(site.files, "--begin-date", "2024-01-01")
    done = subprocess.run(apart("campaign", *line), env={**os.environ, "CAMPAIGN_KILL_AT": point}, capture_output=True)
    assert done.returncode == (4 if point.startswith("product") else -signal.SIGKILL)
    certified = [link for link in site.state()["links"] if link[2].endswith(".a")]
    assert len(certified) == (6 if point == "import-certified" else 0)
    assert site(site.files, "--begin-date", "2024-01-01").returncode == 0
    assert len(Home(site.root / "campaign").history()) == 1
    other = Site(Path(shutil.copytree(empty.root, site.root.with_name("other"))), site.files)
    assert other(site.files, "--begin-date", "2024-01-01").returncode == 0
    assert site.state() == other.state()
