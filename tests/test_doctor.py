"""`campaign doctor` against this environment, and against environments with one thing wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numba
import numpy
import pytest

from campaign.cli import doctor
from campaign.cli.doctor import Finding, examine, show

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent


def found_with(path: Path, name: str) -> Finding:
    """Give one finding of a fresh interpreter that sees ``path`` before everything else."""
    code = (
        "import json\n"
        "from campaign.cli import doctor\n"
        f"found = [*doctor._distributions(), *doctor._plugins(), *doctor._folders()]\n"
        f"print(json.dumps([vars(f) for f in found if f.name == {name!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, cwd=path, capture_output=True, text=True, check=True
    )
    (found,) = json.loads(done.stdout)
    return Finding(**found)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path("/proc", str(pid), "stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def launcher(folder: Path, script: str) -> None:
    """Write a launcher that is not the environment's own."""
    file = folder / "mpiexec"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_plug_ins_are_listed_with_their_versions_and_tried(tmp_path: Path) -> None:
    about = tmp_path / "sky_median-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sky-median\nVersion: 1.0\n")
    parts = "[drp_campaign.kinds]\nsky = nowhere.kind:KIND\n[drp_campaign.kernels]\nmedian = nowhere.kernel\n"
    (about / "entry_points.txt").write_text(parts)
    assert found_with(tmp_path, "plug-in sky-median") == Finding(
        "plug-in sky-median", True, "1.0: kind sky, kernel median"
    )
    tried = found_with(tmp_path, "plug-ins")
    assert not tried.ok and "sky of sky-median 1.0 cannot be used" in tried.value and "pip uninstall" in tried.advice


def test_this_environment_is_healthy(tmp_path: Path) -> None:
    scratch = tmp_path / "with a blank"
    scratch.mkdir()
    findings = {finding.name: finding for finding in examine({"SCRATCH": str(scratch), "REPO": str(tmp_path)})}
    assert [finding for finding in findings.values() if not finding.ok or finding.advice] == []
    assert findings["numpy"].value == numpy.__version__
    assert findings["numba"].value == numba.__version__
    assert findings["kernels"].value == str(ROOT / "kernels")
    assert findings["MPI"].value.endswith("2 ranks see each other")
    assert findings["scratch"].value.startswith(f"{scratch}: ")
    assert findings["repository"].value.startswith(f"{tmp_path}: ")
    assert list(scratch.iterdir()) == []


def test_warming_fills_the_cache_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    finding = doctor._warm(os.environ)
    assert finding.ok and finding.value.startswith(f"{tmp_path}: warm after ")
    indices = {path.name.split(".")[0] for path in tmp_path.rglob("*.nbi")}
    assert {"clip", "cosmic"} <= indices


def test_a_folder_of_another_distribution_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").touch()
    info = tmp_path / "jupyter_kernels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jupyter-kernels\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("kernels\n")
    finding = found_with(tmp_path, "kernels")
    assert not finding.ok
    assert finding.value == f"{tmp_path / 'kernels'}, not {ROOT / 'kernels'}"
    assert finding.advice == "pip uninstall jupyter-kernels"


@pytest.mark.parametrize(
    ("name", "wanted", "value"),
    [("numpy", ">=99", f"{numpy.__version__}, not >=99"), ("no-such-library", ">=1", "not installed")],
)
def test_a_distribution_that_is_missing_or_old(tmp_path: Path, name: str, wanted: str, value: str) -> None:
    info = tmp_path / "drp_campaign-0.1.0.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: drp-campaign\nVersion: 0.1.0\nRequires-Dist: {name}{wanted}\n"
    (info / "METADATA").write_text(text)
    assert found_with(tmp_path, name) == Finding(name, False, value, f"pip install '{name}{wanted}'")


def test_no_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    finding = doctor._world()
    assert not finding.ok
    assert str(tmp_path / "mpiexec") in finding.value
    assert "drp-campaign[local]" in finding.advice


def test_ranks_that_do_not_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the launcher of another MPI does: every rank is a world of its own.
    launcher(tmp_path, 'shift 2; "$@"; "$@"')
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    finding = doctor._world()
    assert (finding.ok, finding.value) == (False, "2 ranks see a world of 1")


def test_a_launcher_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher(tmp_path, "echo no slots >&2; exit 1")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    finding = doctor._world()
    assert (finding.ok, finding.value) == (False, "no slots")
    assert finding.advice.startswith(f"run it by hand: {tmp_path / 'mpiexec'} -n 2 ")


def test_what_does_not_answer_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    begin = time.monotonic()
    ok, said = doctor._start(("sh", "-c", f"sleep 60 & echo $! > '{pid}'; wait"), 0.5)
    assert (ok, said) == (False, "no answer in 0.5 s")
    while alive(int(pid.read_text())):
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize(("place", "why"), [("nowhere", "No such file or directory"), ("file", "Not a directory")])
def test_a_scratch_that_cannot_be_written(tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "file").touch()
    finding = doctor._writable("scratch", str(tmp_path / place), "export SCRATCH")
    assert finding == Finding(
        "scratch", False, f"{tmp_path / place}: {why}", "export SCRATCH to a folder that you can write to"
    )


def test_the_document_and_the_table_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding("numpy", True, "2.4.6"), Finding("MPI", False, "no [bold]mpiexec", "install it")]
    show(findings, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "findings": [
            {"name": "numpy", "ok": True, "value": "2.4.6", "advice": ""},
            {"name": "MPI", "ok": False, "value": "no [bold]mpiexec", "advice": "install it"},
        ],
    }
    show(findings)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [["ok", "numpy", "2.4.6"], ["NO", "MPI", "no", "[bold]mpiexec"], ["->", "install", "it"]]


def test_the_command_ends_with_3_and_one_document(tmp_path: Path) -> None:
    environment = {**os.environ, "SCRATCH": str(tmp_path / "nowhere")}
    command = [sys.executable, "-P", "-m", "campaign", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert [finding["name"] for finding in json.loads(done.stdout)["findings"] if not finding["ok"]] == ["scratch"]
