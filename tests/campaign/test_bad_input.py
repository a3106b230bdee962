"""An operator's mistakes, as they are typed: one clear error, the right exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
import pytest
import yaml

import campaign.cli
import templates
from campaign import console
from campaign.camera.model import load as load_camera
from campaign.cli.progress import Progress
from campaign.journal.claim import of
from campaign.journal.events import Event
from campaign.simulation import simulate as simulation
from campaign.simulation.demo import variables
from campaign.simulation.shots import Exposure
from campaign.simulation.simulate import Nights, Places
from tests.conftest import COMBINED, apart, soak
from tests.conftest import command as campaign_command

pytestmark = pytest.mark.processes

B1, B2, B3, B4 = 2024120600001, 2024120600002, 2024120800001, 2024120800002
BIAS = "instrument='LSSTComCam' and exposure.observation_type='bias'"
FLAT = "instrument='LSSTComCam' and exposure.observation_type='flat'"
FILTERS = ("--filter", "z_02", "--filter", "z_03")
CALIB = "LSSTComCam/calib"
NO_BIAS = "extraQgraphOptions=--config cpDarkIsr:doBias=false"


@dataclass(frozen=True)
class Answer:
    """Result of a command."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Site:
    """An operator before a repository: two detectors, four biases, three darks, two flats in each of two filters."""

    places: Places
    variables: dict[str, str]
    run: Callable[..., Answer]

    @property
    def repo(self) -> Path:
        return self.places.repository

    def raw(self, exposure: int, detector: int) -> Path:
        day, number = divmod(exposure, 100000)
        name = f"CC_O_{day}_{number:06d}"
        return self.places.raw / str(day) / name / f"{name}_R22_S0{detector}.fits"

    def collections(self) -> set[str]:
        with closing(sqlite3.connect(self.repo / "gen3.sqlite3")) as database:
            return {name for (name,) in database.execute("select name from collection")}

    def files(self) -> set[Path]:
        return {path for path in self.repo.parent.rglob("*") if path.is_file() and "sqlite3-" not in path.name}

    def refuse(self, code: int, *arguments: str, **more: str) -> str:
        """Run a command that must be refused without a trace; give its output."""
        before = self.collections(), self.files()
        answer = self.run(*arguments, **more)
        assert answer.code == code, answer
        assert (self.collections(), self.files()) == before
        text = answer.err + answer.out
        assert "Traceback" not in text
        return text

    def products(self, tag: str) -> list[Path]:
        return sorted((self.repo / CALIB / "DM-00000" / tag).rglob("*.fits"))

    def submit_folders(self, tag: str) -> list[Path]:
        return sorted((self.repo.parent / "scratch").glob(f"submit/{CALIB}/DM-00000/{tag}/*/*"))


def start(arguments: tuple[str, ...], environment: dict[str, str], **how: Any) -> subprocess.Popen[str]:
    """Start a command as a process of its own; a true one, where it matters how."""
    line = [sys.executable, "-P", "-m", "campaign", *arguments] if how else apart("campaign", *arguments)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | how
    return subprocess.Popen(line, env={**os.environ, **environment}, **pipes)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    made = Places(tmp_path_factory.mktemp("bad") / "repo")
    numbers = (
        "--bias",
        "4",
        "--dark",
        "3",
        "--flat",
        "2",
        *FILTERS,
        "--scale",
        "32",
        "--detector",
        "0",
        "--detector",
        "1",
    )
    done = start(("simulate", str(made.repository), *numbers, "--json"), {})
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert json.loads(out)["raws"] == 22
    return made


@pytest.fixture
def site(places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    environment = variables(places)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, **more: str | None) -> Answer:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as changed, pytest.raises(SystemExit) as end:
            for name, value in more.items():
                changed.delenv(name) if value is None else changed.setenv(name, value)
            campaign.cli.main(arguments)
        said = capsys.readouterr()
        return Answer(int(end.value.code or 0), said.out, said.err)

    return Site(places, environment, run)


@pytest.fixture
def made(site: Site) -> str:
    """Give the TAG of a bias that was made without a fault."""
    if not site.products("good"):
        answer = site.run("submit", "bps_bias", "--ranks", "1", "--json", TAG="good")
        assert answer.code == 0, answer.err
        assert {event["event"] for event in answer.documents} == {"submitted", "started", "published", "done"}
    return "good"


@contextmanager
def altered(path: Path) -> Iterator[Path]:
    """A file that may be damaged inside, and is itself again afterwards."""
    content = path.read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(content)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount small file systems."""
    mounted: list[Path] = []

    def mount(path: Path, *options: str) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        line = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
        if subprocess.run(line, capture_output=True).returncode:
            pytest.skip("a small or read-only disk takes the right to mount one")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


# Typed values: variables, keys, names, selections


@pytest.mark.parametrize("command", ["submit", "check"])
def test_all_unset_variables_are_named_with_what_to_export(site: Site, command: str) -> None:
    said = site.refuse(3, command, "bps_bias", SELECTION_BIAS=None, TICKET=None)
    assert "bps_bias.yaml:13: the variable SELECTION_BIAS is not set" in said
    assert "export TICKET=" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("TAG", value) for value in ("a/b", "..", "a b", "a'b", 'a"b', "a;b", "", "-a", "a\nb")),
        *((name, value) for name in ("TICKET", "RERUN", "CERT_RERUN") for value in ("../b", "a b")),
    ],
)
def test_names_that_would_lead_astray(site: Site, name: str, value: str) -> None:
    said = site.refuse(3, "check", "bps_bias", **{name: value})
    assert f"{name}={value!r}" in said
    assert "for example" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("requestMemroy=2", "did you mean requestMemory?"),
        ("nonsense=2", "unknown key nonsense"),
        ("requestMemory=much", "requestMemory: 'much' is not what is expected"),
    ],
)
def test_keys_of_the_command_line(site: Site, setting: str, said: str) -> None:
    assert said in site.refuse(3, "submit", "bps_bias", "--set", setting)


def test_a_setting_without_a_value(site: Site) -> None:
    assert "'foo' is not KEY=VALUE" in site.refuse(2, "submit", "bps_bias", "--set", "foo")


def test_an_unknown_key_of_a_template_and_a_missing_include(site: Site, tmp_path: Path) -> None:
    packaged = Path(yaml.__file__).parent  # any folder without templates
    template = tmp_path / "mine.yaml"
    text = yaml.safe_dump({"includeConfigs": [f"{packaged}/none.yaml"], "pipelineYml": "x"})
    template.write_text(text)
    said = site.refuse(3, "check", str(template))
    assert "mine.yaml:2" in said and "there is no" in said
    assert "did you mean pipelineYaml?" in said


@pytest.mark.parametrize(
    ("template", "said"),
    [("bps_bais", "did you mean bps_bias.yaml?"), ("nowhere/bps_bias.yaml", "nowhere/bps_bias.yaml: there is no")],
)
def test_an_unknown_template(site: Site, template: str, said: str) -> None:
    assert said in site.refuse(3, "submit", template)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("export A=1\n\nfoo bar\n", ":3: 'foo' is not NAME=value"),
        ("A='x \\\ny'\nB=$(date)\n", ":3: 'B=$(date)' is not NAME=value"),
        ("A=$NOWHERE/x\n", ":1: $NOWHERE is used before it is set"),
        ('A="x\n', ":1: a quote is not closed"),
    ],
)
def test_a_file_of_variables(site: Site, tmp_path: Path, lines: str, said: str) -> None:
    file = tmp_path / "my.env"
    file.write_text(lines)
    assert f"{file}{said}" in site.refuse(3, "submit", "bps_bias", "--env", str(file))


def test_no_file_of_variables(site: Site) -> None:
    assert "/nowhere.env: cannot be read: does not exist" in site.refuse(
        3, "check", "bps_bias", "--env", "/nowhere.env"
    )


@pytest.mark.parametrize("command", ["submit", "check"])
def test_a_doubled_and_is_pointed_at(site: Site, command: str) -> None:
    query = "instrument='LSSTComCam' and and exposure.observation_type='bias'"
    lines = site.refuse(3, command, "bps_bias", SELECTION_BIAS=query).splitlines()
    at = next(n for n, line in enumerate(lines) if "'and and'" in line)
    assert "bps_bias.yaml:13 (SELECTION_BIAS)" in lines[at]
    assert lines[at + 2].index("^") == lines[at + 1].rindex("and ")  # the second of them


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"SELECTION_BIAS": "instrument='LSSTComcam'"}, "bps_bias.yaml:13 (SELECTION_BIAS)"),
        ({"INSTRUMENT": "LSSTComcam"}, "INSTRUMENT"),
    ],
)
@pytest.mark.parametrize("command", ["submit", "check"])
def test_a_misspelt_instrument(site: Site, command: str, wrong: dict[str, str], where: str) -> None:
    said = site.refuse(3, command, "bps_bias", **wrong)
    assert f"{where}: {site.repo} has no instrument 'LSSTComcam', it has LSSTComCam" in said
    assert "did you mean LSSTComCam?" in said


def test_a_field_that_the_butler_does_not_have(site: Site) -> None:
    said = site.refuse(3, "submit", "bps_bias", SELECTION_BIAS="instrument='LSSTComCam' and exposure.obs_type='bias'")
    assert "'obs_type'" in said


@pytest.mark.parametrize("command", ["submit", "check"])
def test_a_selection_that_finds_nothing(site: Site, command: str) -> None:
    query = "instrument='LSSTComCam' and exposure.observation_type='bais'"
    said = site.refuse(3, command, "bps_bias", SELECTION_BIAS=query)
    assert "(SELECTION_BIAS): the selection finds no raw frame in LSSTComCam/raw/all" in said
    assert query in said and f"campaign ingest {site.repo} --camera LSSTComCam --summary" in said


@pytest.mark.parametrize("command", ["submit", "check"])
def test_frames_of_mixed_types(site: Site, command: str) -> None:
    said = site.refuse(4, command, "bps_bias", SELECTION_BIAS="instrument='LSSTComCam' and exposure.day_obs=20241206")
    assert "a bias is made of bias frames, the selection has 2 bias, 2 dark, 2 flat" in said
    assert "2024120600003" in said and "--exclude" in said


@pytest.mark.parametrize("command", ["submit", "check"])
def test_frames_of_mixed_filters(site: Site, command: str) -> None:
    said = site.refuse(4, command, "bps_flat_z", SELECTION_FLAT_z=FLAT)
    assert "(SELECTION_FLAT_z): frames of several filters: 2 in z_02, 2 in z_03; z_03 is exposure " in said
    assert "and band='r'" in site.refuse(3, command, "bps_flat_r", SELECTION_FLAT_r=FLAT)


@pytest.mark.parametrize("command", ["submit", "check"])
def test_too_few_frames(site: Site, command: str) -> None:
    said = site.refuse(4, command, "bps_bias", SELECTION_BIAS=f"{BIAS} and exposure.seq_num < 2")
    assert "a bias is made of 3 frames at least: detector 0 has 2, detector 1 has 2" in said


def test_an_exposure_to_be_left_out_that_is_not_there(site: Site) -> None:
    said = site.refuse(3, "submit", "bps_bias", "--exclude", "5")
    assert "--exclude: the selection has no exposure 5" in said
    assert f"its 4 exposures are {B1} to {B4}" in said


def test_unknown_places(site: Site) -> None:
    assert "no Butler repository at /nowhere" in site.refuse(3, "submit", "bps_bias", REPO="/nowhere")
    assert "no Butler repository at /nowhere" in site.refuse(3, "status", "--repo", "/nowhere")
    said = site.refuse(3, "submit", "bps_bias", RAW_COLLECTION="LSSTComCam/raw/al")
    assert "unknown collection LSSTComCam/raw/al: did you mean LSSTComCam/raw/all" in said


def test_a_dark_without_a_bias(site: Site) -> None:
    said = site.refuse(4, "submit", "bps_dark")
    assert "no bias is valid for detector 0, 1 at exposure 2024120600003" in said
    assert "make a bias and certify it" in said


def test_a_check_finds_everything_at_once(site: Site, tmp_path: Path) -> None:
    pipeline = tmp_path / "mine.yaml"
    pipeline.write_text("description: mine\ntasks:\n  mine: {class: my.own.Task}\n")
    wrong = {"CALIB_COLLECTIONS": "LSSTComCam/calibs", "SELECTION_BIAS": f"{BIAS} and exposure.day_obs=20241206"}
    lost = site.raw(B1, 1)
    with altered(lost):
        lost.unlink()
        answer = site.run("check", "bps_bias", "--json", "--set", f"pipelineYaml={pipeline}", **wrong)
    found = json.loads(answer.out)
    assert (answer.code, found["exit_code"]) == (3, 3)
    assert any("my.own.Task" in text for text in found["problems"])
    assert any("unknown collection LSSTComCam/calibs" in text for text in found["problems"])
    assert found["collections"]["LSSTComCam/calibs"] == "unknown"
    assert found["exposures"][0] | {"exposures": 2} == found["exposures"][0]
    assert found["unreachable"] == [str(lost)]


def test_a_check_that_finds_nothing_wrong(site: Site) -> None:
    answer = site.run("check", "bps_bias", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["problems"], found["raws"], found["missing"]) == (0, [], 8, [])
    assert [cost["label"] for cost in found["cost"]] == ["cpBiasCombine", "cpBiasMosaic8", "cpBiasMosaic64"]


# Files on disk: frames that are missing, damaged, or of another size or camera


@pytest.mark.parametrize("command", ["submit", "check"])
def test_frames_that_cannot_be_reached(site: Site, command: str) -> None:
    with altered(site.raw(B1, 0)) as lost:
        lost.unlink()
        answer = site.run(command, "bps_bias")
    assert answer.code == 4
    assert f"1 of 8 raw files cannot be reached: {lost}" in answer.err


def flipped(path: Path) -> None:
    """Change one bit in the compressed rows of one amplifier."""
    with fitsio.FITS(str(path)) as fits:
        place = fits["Segment03"].get_offsets()
    content = bytearray(path.read_bytes())
    content[(2 * place["data_start"] + place["data_end"]) // 3] ^= 1
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resized(path: Path) -> None:
    """Replace the pixels of every amplifier by fewer."""
    with fitsio.FITS(str(path)) as fits:
        parts = [(hdu.get_extname(), hdu.read()[:-8]) for hdu in fits[1:]]
    path.unlink()
    with fitsio.FITS(str(path), "rw") as fits:
        fits.write(None)
        for name, pixels in parts:
            fits.write(pixels, extname=name, compress="RICE")


def replaced(path: Path) -> None:
    fitsio.write(str(path), np.zeros((64, 64), np.uint16), clobber=True)


@pytest.mark.parametrize(
    ("damage", "hdu"),
    [(flipped, "(13|Segment03): corrupt"), (truncated, ""), (resized, "Segment10 is"), soak(replaced, "Segment10")],
)
def test_a_damaged_frame_stops_its_detector_alone(site: Site, damage: Callable[[Path], None], hdu: str) -> None:
    tag = damage.__name__
    with altered(site.raw(B1, 0)) as frame:
        damage(frame)
        answer = site.run("submit", "bps_bias", "--ranks", "1", *COMBINED, TAG=tag)
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert f"cpBiasCombine:0 failed: {frame}: " in answer.err
    assert re.search(f"{re.escape(str(frame))}: HDU {hdu}", answer.err), answer.err
    assert "[1/2] cpBiasCombine:1 published" in answer.err
    assert [path.name for path in site.products(tag) if "R22_S00" in path.name] == []
    assert len([path for path in site.products(tag) if path.name.startswith("bias_")]) == 1
    said = site.refuse(4, "certify", "bps_bias", TAG=tag)
    assert "bias is missing for detector 0, which the plan asked for" in said


def test_frames_that_do_not_go_in(site: Site, tmp_path: Path) -> None:
    whole = site.raw(B1, 0)
    for name, damage in {"truncated": truncated, "resized": resized}.items():
        damage(Path(shutil.copy(whole, tmp_path / f"{name}.fits")))
    (tmp_path / "text.fits").write_text("not a frame")
    shutil.copy(whole, tmp_path / "whole.fits")
    answer = site.run("ingest", str(site.repo), str(tmp_path), "--camera", "LSSTComCam", "--json")
    report = json.loads(answer.out)
    assert answer.code == 1
    assert {Path(path).stem for path in report["refused"]} == {"truncated", "resized", "text"}
    assert report["existing"] == [str(tmp_path / "whole.fits")] and report["new"] == []


def test_frames_of_another_camera(site: Site) -> None:
    said = site.refuse(1, "ingest", str(site.repo), str(site.raw(B1, 0)), "--camera", "LATISS")
    assert f"{site.raw(B1, 0)}: INSTRUME is 'COMCAM': a frame of another camera (LATISS accepts LATISS)" in said


def test_another_camera_of_the_same_name(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "camera.yaml"
    kept = load_camera(site.repo / "campaign" / "cameras" / "LSSTComCam.yaml")
    kept.model_copy(update={"unit": "adu"}).dump(other)
    said = site.refuse(3, "ingest", str(site.repo), str(site.raw(B1, 0)), "--camera", str(other))
    assert "the repository has another camera file for LSSTComCam" in said


def test_adu_and_electrons(site: Site) -> None:
    """A bias that is certified into the chain in another unit than the darks are corrected in."""
    assert site.run("submit", "bps_bias", "--ranks", "1", *COMBINED, TAG="adu").code == 0
    for path in site.products("adu"):
        with fitsio.FITS(str(path), "rw") as fits:
            fits[0].write_key("CALUNIT", "adu")
    chain = f"{CALIB}/DM-00000/adu"
    certified = site.run("certify", "bps_bias", "--chain", chain, "--json", TAG="adu")
    assert json.loads(certified.out)["chain"]["after"] == [f"{CALIB}/DM-00000/adu/bias.20241208a"]
    answer = site.run("submit", "bps_dark", "--ranks", "1", TAG="adudark", CALIB_COLLECTIONS=chain)
    assert answer.code == 1
    bias = next(path for path in site.products("adu") if path.name.startswith("bias_LSSTComCam_R22_S01"))
    assert f"{bias}: is in adu (CALUNIT), the frames it is to correct are in electron" in answer.err
    assert site.products("adudark") == []


# Detectors and exposures that are left out


def test_what_is_missing_or_left_out_is_recorded(site: Site) -> None:
    query = f"{BIAS} and not (exposure={B1} and detector=1)"
    said = site.refuse(4, "submit", "bps_bias", SELECTION_BIAS=query)
    assert f"no raw of (exposure, detector) ({B1}, 1); --allow-missing combines what there is" in said
    found = json.loads(site.run("check", "bps_bias", "--json", SELECTION_BIAS=query).out)
    assert found["missing"] == [[B1, 1]]

    more = {"SELECTION_BIAS": f"{BIAS} and not (exposure={B1} and detector=1)", "TAG": "some"}
    few = site.refuse(4, "submit", "bps_bias", "--allow-missing", "--exclude", str(B2), **more)
    assert "a bias is made of 3 frames at least: detector 1 has 2" in few
    answer = site.run("submit", "bps_bias", "--allow-missing", "--ranks", "1", *COMBINED, **more)
    assert answer.code == 0
    assert f"note: no raw of (exposure, detector) ({B1}, 1)" in answer.err
    headers = {h["DETECTOR"]: h for h in map(fitsio.read_header, map(str, site.products("some"))) if "NINPUTS" in h}
    assert [headers[d]["NINPUTS"] for d in (0, 1)] == [4, 3]
    assert str(headers[1]["MISSING"]).strip() == str(B1)

    assert site.run("submit", "bps_bias", "--exclude", str(B3), "--ranks", "1", *COMBINED, TAG="without").code == 0
    header = fitsio.read_header(str(next(p for p in site.products("without") if p.name.startswith("bias_"))))
    assert (header["NINPUTS"], str(header["EXCLUDED"]).strip()) == (3, str(B3))
    (folder,) = site.submit_folders("without")
    assert json.loads((folder / "plan.json").read_text())["excluded"] == [B3]
    assert f"- excluded: {B3}" in site.run("history", "DM-00000").out


# Where it goes: disks and runs


def test_a_read_only_disk_for_the_run(site: Site, disk: Callable[..., Path], tmp_path: Path) -> None:
    place = disk(tmp_path / "ro", "ro")
    for command in ("submit", "check"):
        said = site.refuse(4, command, "bps_bias", SCRATCH=str(place))
        assert f"{place}: cannot be written: Read-only file system (uid {os.geteuid()})" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("ro",), "cannot be written: Read-only file system"),
        (("size=128k",), "MiB will be written, this disk has 0.1 MiB"),
    ],
)
def test_a_disk_that_cannot_take_the_products(
    site: Site, disk: Callable[..., Path], options: tuple[str, ...], said: str
) -> None:
    place = disk(site.repo / CALIB / "DM-00000" / "unlucky", *options)
    for command in ("submit", "check"):
        assert f"{place}: " in (text := site.refuse(4, command, "bps_bias", TAG="unlucky")) and said in text


def test_a_disk_that_fills_up_in_the_middle(site: Site, disk: Callable[..., Path]) -> None:
    place = disk(site.repo / CALIB / "DM-00000" / "filling", "size=512k")
    (place / "others").write_bytes(bytes(100 << 10))
    answer = site.run("submit", "bps_bias", "--ranks", "1", TAG="filling")
    assert answer.code == 1
    assert "cannot be written: no space left on the disk of " in answer.err
    (folder,) = site.submit_folders("filling")
    events = [json.loads(line) for path in folder.glob("journal/cp*.jsonl") for line in path.read_text().splitlines()]
    assert "disk" in {event["detail"].get("cause") for event in events if event["event"] == "failed"}
    assert list(place.rglob("*.tmp")) == []
    published = {p["path"] for e in events for p in e["detail"].values() if isinstance(p, dict)}
    assert {str(path) for path in place.rglob("*.fits")} == published


def test_our_own_files_on_a_full_disk(site: Site, disk: Callable[..., Path], tmp_path: Path) -> None:
    home = disk(tmp_path / "home", "size=16k")
    said = site.refuse(4, "submit", "bps_bias", CAMPAIGN_HOME=str(home))
    assert f"{home}: 0.5 MiB will be written" in said
    (home / "filled").write_bytes(bytes(16 << 10))
    said = site.run("chain", str(site.repo), f"{CALIB}/DM-00000/spare", "LSSTComCam/raw/all", CAMPAIGN_HOME=str(home))
    assert said.code == 75
    assert f"{home}/history.jsonl: No space left on device" in said.err


def test_an_output_run_that_exists(site: Site, made: str) -> None:
    (run,) = {name for name in site.collections() if name.startswith(f"{CALIB}/DM-00000/{made}/biasGen.20241208a/")}
    said = site.refuse(4, "submit", "bps_bias", "--set", f"outputRun={run}", TAG=made)
    assert f"output run {run} exists already" in said
    assert "RERUN" in said


def test_two_submitters_of_one_run(site: Site, tmp_path: Path) -> None:
    """Both have planned before either claims; the second leaves the first's records alone, and none of its own."""
    from campaign.butler.repository import open_repository
    from campaign.errors import SubmissionRefused
    from campaign.planning.step import Options, load
    from campaign.runs.drive import submit
    from campaign.runs.submit import prepare

    def plan(repository: Any, scratch: str) -> Any:
        options = Options({"outputRun": f"{CALIB}/DM-00000/two/run"}, None, frozenset(), False, 1)
        step = load("bps_bias", {**site.variables, "SCRATCH": scratch, "TAG": "two"}, options)
        return step, *prepare(step, repository, options)

    with open_repository(str(site.repo), writeable=True) as repository:
        first, same, elsewhere = (plan(repository, str(tmp_path / name)) for name in ("a", "a", "b"))
        done = submit(first[0], repository, first[1], first[2], lambda event: None)
        assert done.outcome.done
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(SubmissionRefused, match="submit folder exists already"):
            submit(same[0], repository, same[1], same[2], lambda event: None)
        with pytest.raises(SubmissionRefused, match="claimed by another submission"):
            submit(elsewhere[0], repository, elsewhere[1], elsewhere[2], lambda event: None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    runs = json.loads(site.run("status", "--json").out)["runs"]
    assert [run["run"] for run in runs if run["output_run"].endswith("/two/run")] == [first[1].run]


def test_fewer_ranks_than_asked_for(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = tmp_path / "mpiexec"  # another MPI's: every rank is a world of its own
    launcher.write_text('#!/bin/sh\nshift 2; "$@" & "$@"; code=$?; wait; exit $code\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    answer = site.run("submit", "bps_bias", "--ranks", "2", TAG="ranks")
    assert answer.code == 1
    assert "2 ranks were asked for, the MPI world has 1: launcher and MPI library differ" in answer.err
    assert site.products("ranks") == []


def test_no_launcher(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    for command in ("submit", "check"):
        said = site.refuse(3, command, "bps_bias", "--ranks", "2")
        assert f"no mpiexec in this Python environment ({tmp_path}/mpiexec)" in said and "--ranks 1" in said


def running(text: str) -> list[str]:
    """Command lines of living processes that hold a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it ended meanwhile
            continue
    return [line for line in found if text in line]


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["alone", "as a terminal does"])
def test_an_interrupted_run_leaves_nothing_running(site: Site, send: Callable[[int, int], None]) -> None:
    tag = f"interrupted-{send.__name__}"
    process = start(("submit", "bps_bias", "--ranks", "2"), {**site.variables, "TAG": tag}, start_new_session=True)
    deadline = time.monotonic() + 30
    while not running(f"/{tag}/") and time.monotonic() < deadline:
        time.sleep(0.01)
    send(process.pid, signal.SIGINT)  # drains
    while not list(site.places.repository.parent.rglob(f"*/{tag}/**/drain")) and time.monotonic() < deadline:
        time.sleep(0.01)
    send(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted: nothing is left running")
    while running(f"/{tag}/") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running(f"/{tag}/") == []
    runs = json.loads(site.run("status", "--json").out)["runs"]
    assert [run["state"] for run in runs if f"/{tag}/" in run["output_run"]] == ["cancelled"]


def test_a_run_outlives_who_listens(site: Site) -> None:
    tag = "unheard"
    with start(("submit", "bps_bias", "--ranks", "1", "--json"), {**site.variables, "TAG": tag}) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 0
    runs = json.loads(site.run("status", "--json").out)["runs"]
    assert [(run["state"], run["published"]) for run in runs if f"/{tag}/" in run["output_run"]] == [("done", 4)]
    assert len(site.products(tag)) == 8


# Certification


@pytest.mark.parametrize(
    ("code", "arguments", "more", "said"),
    [
        (3, ["--begin-date", "tomorrow"], {}, "begin date 'tomorrow' is not an ISO-8601 date in TAI"),
        (3, ["--begin-date", "2024-12-01T00:00:00Z"], {}, "(no time zone)"),
        (3, ["--end-date", "2024-11-01"], {}, "the validity would end at 2024-11-01, before it begins"),
        (3, [], {"START_DATE": None}, "the variable START_DATE is not set"),
        (3, [], {"CERT_RERUN": None}, "the variable CERT_RERUN is not set"),
        (3, [], {"RERUN": "zzz"}, "good/biasGen.zzz\n  -> campaign submit bps_bias; submitted was RERUN 20241208a"),
        (
            3,
            ["--type", "bais"],
            {},
            "-> known: bfk, bfkPtc, bias, biasBootstrap, crosstalk, cti, dark, darkBootstrap, defects, ",
        ),
        (3, ["--target", "x y/../z"], {}, "'x y/../z' cannot be a collection's name"),
        (3, ["--target", "LSSTComCam/raw/all"], {}, "LSSTComCam/raw/all exists as RUN, it should be CALIBRATION"),
        (3, ["--chain", "a b"], {}, "'a b' cannot be a collection's name"),
        (4, ["--chain", "LSSTComCam/calib"], {}, "--deploy"),
        (2, ["--mode", "append"], {}, "'append' is not one of 'prepend', 'redefine'"),
    ],
)
def test_a_certification_that_is_refused(
    site: Site, made: str, code: int, arguments: list[str], more: dict[str, str], said: str
) -> None:
    assert said in site.refuse(code, "certify", "bps_bias", *arguments, **{"TAG": made, **more})


def test_certifying_twice(site: Site, made: str) -> None:
    chain = f"{CALIB}/DM-00000/twice"
    first = json.loads(site.run("certify", "bps_bias", "--chain", chain, "--json", TAG=made).out)
    assert len(first["certified"]["data_ids"]) == 2
    said = site.refuse(3, "certify", "bps_bias", "--chain", chain, TAG=made)
    assert "bias is certified already in an overlapping range: detectors 0, 1" in said
    said = site.refuse(
        4, "certify", "bps_bias", "--chain", chain, "--mode", "redefine", TAG=made, CERT_RERUN="20241208b"
    )
    assert f"before {CALIB}/DM-00000/good/bias.20241208a; after {CALIB}/DM-00000/good/bias.20241208b" in said
    assert "--yes" in said


@pytest.mark.parametrize("killed", ["before the chain", "before the history"])
def test_a_certification_that_was_killed_is_done_by_the_same_command(site: Site, made: str, killed: str) -> None:
    chain = f"{CALIB}/DM-00000/{killed.replace(' ', '-')}"
    words = ("certify", "bps_bias", "--target", f"{chain}/bias.a", "--chain", chain, "--json")
    site.run(*words, *(("--no-chain",) if "chain" in killed else ()), TAG=made)
    history = site.repo / "campaign" / "history.jsonl"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))
    again = site.run(*words, TAG=made)
    assert again.code == 0, again
    from campaign.butler.repository import open_repository

    with open_repository(str(site.repo)) as repository:
        assert repository.chain(chain) == (f"{chain}/bias.a",)
    last = json.loads(history.read_text().splitlines()[-1])
    assert (last["command"], last["detail"]["into"], last["detail"]["count"]) == ("certify", f"{chain}/bias.a", 2)
    site.refuse(3, *words, TAG=made)
    site.refuse(3, *words, "--begin-date", "2024-12-02", TAG=made)


@pytest.mark.parametrize(
    ("parent", "child", "code", "said"),
    [
        ("LSSTComCam/calib", "LSSTComCam/raw/all", 4, "--deploy"),
        ("LSSTComCam/mine", "LSSTComCam/raw/al", 3, "did you mean LSSTComCam/raw/all"),
        ("LSSTComCam/../x", "LSSTComCam/raw/all", 3, "cannot be a collection's name"),
        ("LSSTComCam/defaults", "LSSTComCam/defaults", 3, "holds LSSTComCam/defaults itself"),
    ],
)
def test_a_chain_that_is_refused(site: Site, parent: str, child: str, code: int, said: str) -> None:
    assert said in site.refuse(code, "chain", str(site.repo), parent, child)


# The commands themselves


def test_a_simulation_that_is_refused(site: Site, tmp_path: Path) -> None:
    new = str(tmp_path / "new")
    assert "LSSTComCam has no detector 99" in site.refuse(3, "simulate", new, "--detector", "99")
    assert "day_obs 20241399 is no date" in site.refuse(3, "simulate", new, "--day-obs", "20241399")
    assert "LSSTComCam has no filter v_01" in site.refuse(3, "simulate", new, "--filter", "v_01")
    assert "did you mean LSSTComCam?" in site.refuse(3, "simulate", new, "--camera", "LSSTComCan")
    assert "exists already" in site.refuse(2, "simulate", str(site.repo))
    assert list(tmp_path.iterdir()) == []


SMALL = (
    "--scale",
    "64",
    "--bias",
    "2",
    "--dark",
    "0",
    "--flat",
    "0",
    "--detector",
    "0",
    "--ranks",
    "1",
    "--day-obs",
    "20241208",
)


def test_what_a_killed_simulation_left_is_made_anew(site: Site, tmp_path: Path) -> None:
    """Killed once frames exist; a living simulation excludes others, and a repository used since is kept."""
    repo = tmp_path / "sim"
    line = [sys.executable, "-P", "-m", "campaign", "simulate", str(repo), "--bias", "400", *SMALL[:2], *SMALL[4:]]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        until = time.monotonic() + 60
        while not list(repo.with_name("sim-raw").rglob("*.fits")):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        alive = site.run("simulate", str(repo), *SMALL)
        process.kill()
    assert alive.code == 2 and f"(process {process.pid})" in alive.err
    again = site.run("simulate", str(repo), *SMALL)
    assert again.code == 0, again.err
    assert "was left half made by" in again.err and "2 raws of 1 detector" in again.err
    assert len(list(repo.with_name("sim-raw").rglob("*.fits"))) == 2
    assert {path.name for path in repo.with_name("sim-truth").iterdir()} == {"job", "truth.json", "R22_S00.fits"}
    whole = site.run("simulate", str(repo), *SMALL)
    assert whole.code == 2 and "exists already" in whole.err
    (repo.with_name("sim-truth") / "claim.json").write_text(json.dumps({**vars(of(process.pid)), "started": "1"}))
    used = site.run("simulate", str(repo), *SMALL)
    assert used.code == 2 and "was used since" in used.err
    assert (repo / "butler.yaml").exists()


@pytest.mark.parametrize("point", ["repository-database", soak("repository-named"), soak("raws-sorted")])
def test_a_simulation_that_was_killed_with_its_repository_is_made_anew(site: Site, tmp_path: Path, point: str) -> None:
    killed = campaign_command(
        "simulate", str(tmp_path / "sim"), *SMALL, environment={**os.environ, "CAMPAIGN_KILL_AT": point}
    )
    assert killed.returncode == -signal.SIGKILL
    again = site.run("simulate", str(tmp_path / "sim"), *SMALL)
    assert again.code == 0 and "was left half made by" in again.err, again.err


def test_a_long_command_gives_signs_of_life(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "EVERY_S", 0.05)
    with console.patience(lambda: "3 of 9 are done"):
        time.sleep(0.3)
    with Progress(2) as progress:
        for task in ("a:1", "a:2"):
            progress(Event(1, "", "r", task, 1, "local", 1, "started", {}))
        time.sleep(0.3)
    err = capfd.readouterr().err
    assert "3 of 9 are done (0 s)" in err and "[0/2] a:1 and 1 more in hand (0 s)" in err
    with console.patience(lambda: "never", quiet=True):
        time.sleep(0.1)
    assert "never" not in capfd.readouterr().err


def test_a_simulation_on_a_full_disk(site: Site, disk: Callable[..., Path], tmp_path: Path) -> None:
    place = disk(tmp_path / "small", "size=512k")
    numbers = ("--bias", "4", "--dark", "0", "--flat", "0", "--scale", "32", "--detector", "0", "--ranks", "1")
    said = site.refuse(1, "simulate", str(place / "repo"), *numbers)
    assert "frames could not be written: " in said and f"no space left on the disk of {place}" in said
    assert list(place.iterdir()) == []


def test_what_the_command_line_does_not_know(site: Site) -> None:
    for arguments in (["submti"], ["submit"], ["submit", "bps_bias", "--rank", "2"], ["submit", "x", "--ranks", "0"]):
        assert "Usage:" in site.refuse(2, *arguments)


def test_an_error_that_nobody_foresaw(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("campaign.journal.history.history", lambda home, ticket: {}[ticket])
    said = site.refuse(70, "history", "DM-00000")
    (log,) = tmp_path.iterdir()
    assert said.startswith("error: a defect of campaign itself: KeyError: 'DM-00000'\n") and str(log) in said
    assert "Traceback" in log.read_text()


# Frames with wrong names


@dataclass(frozen=True)
class Lit(Exposure):
    """An exposure with a lamp that is not as usual; the parameters are those of the simulator."""

    lamp: float = 0.0


def odd(**lamps: float) -> Callable[..., list[Exposure]]:
    """Make the usual exposures, some of them with another lamp: ``{type}{number}`` -> times as bright."""
    usual = simulation.exposures

    def exposures(*arguments: Any) -> list[Exposure]:
        numbers: dict[str, int] = {}
        found = []
        for shot in usual(*arguments):
            number = numbers[shot.observation_type] = numbers.get(shot.observation_type, -1) + 1
            lamp = lamps.get(f"{shot.observation_type}{number}")
            lit = {**asdict(shot), "physical_filter": shot.physical_filter or "r_03"}
            found.append(shot if lamp is None else Lit(**lit, lamp=lamp))
        return found

    return exposures


def test_frames_that_are_not_what_they_are_called(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dark that saw light, and flats in the dark, into saturation, and a tenth too bright: these and no others."""
    plain = yaml.safe_load((templates.ROOT / "cameras" / "LSSTComCam.yaml").read_text())
    plain["detectors"] = [d | {"saturations": [1e5] * 16} for d in plain["detectors"]]
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(plain))
    lamps = {"dark2": 0.05, "flat1": 0.0, "flat3": 30.0, "flat5": 1.1}
    monkeypatch.setattr(simulation, "exposures", odd(**lamps))
    camera = load_camera("LSSTComCam").scaled(32)
    shots = simulation.exposures(camera, Nights(0, 6, 8, filters=("r_03",)))
    repo = tmp_path / "repo"
    numbers = ("--bias", "0", "--dark", "6", "--flat", "8", "--scale", "32", "--detector", "0", "--ranks", "1")
    answer = site.run("simulate", str(repo), *numbers, "--camera", str(tmp_path / "camera.yaml"))
    assert answer.code == 0, answer.err

    wanted = {shot.exposure: shot.observation_type for shot in shots if isinstance(shot, Lit)}
    assert len(wanted) == len(lamps)
    for kind, template in (("dark", "bps_dark"), ("flat", "bps_flat_r")):
        found = json.loads(site.run("check", template, "--levels", "--json", "--ranks", "1", REPO=str(repo)).out)
        whys = {finding["exposure"]: finding["why"] for finding in found["levels"]}
        assert set(whys) == {exposure for exposure, its in wanted.items() if its == kind}, whys
    dark, saturated, bright = (whys[exposure] for exposure in sorted(whys))
    assert dark.startswith("a dark flat: ")
    assert "% of amplifier C" in saturated and saturated.endswith(" saturated")
    assert bright.startswith("level +") and bright.endswith(" sigma from its peers")

    answer = site.run("submit", "bps_dark", "--set", NO_BIAS, "--ranks", "1", REPO=str(repo), SCRATCH=str(tmp_path))
    assert answer.code == 0, answer.err
    assert "no bias is subtracted from these darks: what a bias holds is in the dark" in answer.out + answer.err
    lit = next(exposure for exposure, kind in wanted.items() if kind == "dark")
    assert [line for line in answer.out.splitlines() if "look at" in line] == [
        line for line in answer.out.splitlines() if f"exposure {lit}: a lit dark" in line
    ]
    assert f"--exclude {lit} leaves it out" in answer.out


def test_frames_that_are_what_they_are_called(site: Site) -> None:
    assert "levels      no exposure stands out" in site.run("check", "bps_bias", "--levels", "--ranks", "1").out


def test_the_first_sign_of_life_comes_sooner_where_it_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    said = iter(["", "somebody holds it", *[""] * 1000])
    with console.patience(lambda: next(said), first=0.01, again=30.0):
        time.sleep(0.5)
    assert next(said) == "" and capfd.readouterr().err == "somebody holds it (0 s)\n"
    with console.patience(lambda: "never", first=30.0):
        pass
    assert capfd.readouterr().err == ""
