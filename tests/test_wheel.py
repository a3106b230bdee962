"""The wheel, installed without a checkout, is complete."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("campaign", "kernels", "slurm", "templates")
SOURCES = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
BOOTSTRAPS = ("bps_defects", *(f"bps_{kind}Bootstrap" for kind in ("bias", "dark", "flat")))
NAMES = (
    "bps_bias",
    "bps_dark",
    "bps_cti",
    "bps_linearizer",
    "bps_ptc",
    "bps_bfk",
    "bps_crosstalk",
    "bps_sky",
    "bps_fringe",
    "bps_verify_science",
    "bps_verify_bias",
    "bps_verify_dark",
    *(f"bps_verify_flat_{band}" for band in "ugrizy"),
    "bps_gain_correction",
    *(f"bps_flat_{band}" for band in "ugrizy"),
    *BOOTSTRAPS,
)
VARIABLES = {
    "INSTRUMENT": "LSSTComCam",
    "TICKET": "DM-1",
    "TAG": "wheel",
    "RERUN": "20261120a",
    "REPO": "/repo",
    "RAW_COLLECTION": "LSSTComCam/raw/all",
    "CALIB_COLLECTIONS": "LSSTComCam/calib",
    "USER_CALIB_PREFIX": "",
    "SCRATCH": "/scratch",
    "VERIFY_RERUN": "20261121a",
    "SELECTION_SCIENCE_V": "exposure.observation_type='science'",
    "SELECTION_BIAS_V": "exposure.observation_type='bias'",
    "SELECTION_DARK_V": "exposure.observation_type='dark'",
    "SELECTION_BIAS": "exposure.observation_type='bias'",
    "SELECTION_DARK": "exposure.observation_type='dark'",
    "SELECTION_FLAT_BOOTSTRAP": "exposure.observation_type='flat'",
    "SELECTION_PTC_CTI": "exposure.observation_type='flat'",
    "SELECTION_PTC_LINEARIZER": "exposure.observation_type='flat'",
    "SELECTION_PTC": "exposure.observation_type='flat'",
    "SELECTION_PTC_BFK": "exposure.observation_type='flat'",
    "SELECTION_CROSSTALK": "exposure.observation_type='science'",
    "SELECTION_SKY": "exposure.observation_type='science'",
    "SELECTION_FRINGE": "exposure.observation_type='science'",
    "SELECTION_GAIN_CORRECTION_FLAT": "exposure.observation_type='flat'",
    "BOOTSTRAP_RUN_NUMBER": "1",
    **{f"SELECTION_FLAT_{band}": "exposure.observation_type='flat'" for band in "ugrizy"},
    **{f"SELECTION_FLAT_{band}_V": "exposure.observation_type='flat'" for band in "ugrizy"},
}
RENDER = """
import json, os, sys
import campaign, templates
from campaign.template.resolve import resolve
for name in sys.argv[1:]:
    resolve(name, os.environ)
print(json.dumps([campaign.__file__, templates.__file__]))
"""


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command and give its standard output; its complaint is the failure's message.

    The Makefile's constraints are named relative to the checkout, and nothing is resolved here.
    """
    env = env or {name: value for name, value in os.environ.items() if not name.endswith("_CONSTRAINT")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: setuptools leaves a build folder behind, and reuses an older one."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        else:
            shutil.copy(ROOT / name, source / name)
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist")
    run(sys.executable, "-P", *build, cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with the wheel, and with this environment's libraries but not its drp-campaign.

    The libraries come by a path file. Path files in there, such as an editable install's, are not followed by the
    interpreter; and what the wheel installs comes before.
    """
    home = tmp_path_factory.mktemp("an environment")
    run(sys.executable, "-P", "-m", "venv", "--without-pip", home, cwd=home)
    (site,) = home.glob("lib/python3*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = ("-m", "pip", "--python", home / "bin" / "python", "install", "--no-deps", "--no-index")
    run(sys.executable, "-P", *pip, wheel, cwd=home)
    return home


def environment(**variables: str) -> dict[str, str]:
    """Give this process's variables without those that lead back to the checkout."""
    dropped = {"PYTHONPATH", "CP_PIPE_DIR", "CP_VERIFY_DIR"}
    return {name: value for name, value in os.environ.items() if name not in dropped} | variables


def test_the_wheel_holds_the_whole_tree_and_nothing_else(wheel: Path) -> None:
    tree = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == tree


def test_every_template_renders_from_the_wheel(elsewhere: Path) -> None:
    others = {path.name.split(".")[0] for path in (ROOT / "templates").glob("*/bps/templates/bps_[!_]*.yaml")}
    names = sorted({*NAMES, *others})
    said = run(elsewhere / "bin" / "python", "-P", "-c", RENDER, *names, cwd=elsewhere, env=environment(**VARIABLES))
    assert all(Path(file).is_relative_to(elsewhere) for file in json.loads(said.splitlines()[-1]))


def test_the_console_script_works(elsewhere: Path) -> None:
    assert "doctor" in run(elsewhere / "bin" / "campaign", "--help", cwd=elsewhere, env=environment())


def test_doctor_finds_one_place(elsewhere: Path) -> None:
    code = "from campaign.cli.doctor import _folders as f; print(all(x.ok for x in f()), len(list(f())))"
    assert run(elsewhere / "bin" / "python", "-P", "-c", code, cwd=elsewhere, env=environment()) == "True 4\n"
