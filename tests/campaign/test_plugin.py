"""A distribution of its own adds a product kind: with a kernel, a pipeline and a template, and nothing changed here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fitsio
import numpy as np
import pytest

from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from tests.conftest import ROOT, typed

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "sky-median"
version = "1.0"

[project.entry-points."drp_campaign.kinds"]
skyMedian = "sky_median.kind:KIND"

[project.entry-points."drp_campaign.kernels"]
sky_median = "sky_median.kernel"

[tool.setuptools]
packages = ["sky_median"]

[tool.setuptools.package-data]
sky_median = ["**/*.yaml"]
"""
KIND = """
from campaign.kinds.draft import measured
from campaign.kinds.model import DatasetType, Frames, ProductKind
from campaign.kinds.task import Field, TaskClass

DIMENSIONS = ("instrument", "physical_filter", "detector")
SOLVE = TaskClass(
    "sky_median", "gang", DIMENSIONS, {"inputExps": "postISRCCD"}, {"outputSky": "skyMedian"},
    {"percentile": Field(50.0, kernel="percentile", least=0)}, raws=True,
)
KIND = ProductKind(
    "skyMedian",
    {"skyMedian": DatasetType(DIMENSIONS, "CalibImage", calibration=True)},
    maker="sky_median",
    output="outputSky",
    made_of=Frames("flat", least=3, one_filter=True),
    tasks={"sky_median.SkyMedianTask": SOLVE},
    groups=lambda planner: [measured(planner)],
    unit="relative",
    picture="image",
)
"""
KERNEL = '''
from functools import partial

import numpy as np

from kernels.fits import product
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.publish import publish

KERNEL = "sky_median"


class Sky(FrameKernel):
    """Relative sky: a percentile over frames, each divided by its median."""

    def weights(self, task):
        return [1.0]

    def compute(self, task, piece):
        frames = []
        for file, time in zip(self.raws(task), task.parameters["dark_times"]):
            image = np.zeros(self.detector(task).size[::-1], np.float32)
            for frame, _ in self.corrected(task, file, float(time)):
                image[frame.channel.amplifier.target.slices] = frame.pixels
            frames.append(image / np.nanmedian(image))
        return np.nanpercentile(frames, self.job.config["percentile"], axis=0).astype(np.float32)

    def finish(self, task, results):
        (image,), ((name, path),) = results, task.outputs.items()
        cards = [("OBSTYPE", name, ""), ("INSTRUME", self.camera.name, ""), ("DETECTOR", task.detector, "")]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        write = partial(product.write, cards=cards, image=image)
        return {name: publish(path, write, self.stamp, self.job.config["permissions"])}


def execute(job, comm):
    return gang.execute(job, comm, Sky(job))
'''
PIPELINE = """
description: Relative sky of each detector.
tasks:
  cpSkyMedianIsr:
    class: lsst.ip.isr.IsrTaskLSST
    config: {doBias: true}
  cpSkyMedian:
    class: sky_median.SkyMedianTask
"""
TEMPLATE = """
pipelineYaml: "${CP_PIPE_DIR}/pipelines/${INSTRUMENT}/cpSkyMedian.yaml"
submitPath: "${SCRATCH}/submit/{outputRun}"
payload:
  payloadName: "${INSTRUMENT}_${TICKET}_skyMedian"
  output: "${INSTRUMENT}/calib/${TICKET}/${TAG}/skyMedianGen.${RERUN}"
  butlerConfig: "${REPO}"
  inCollection: "${INSTRUMENT}/calib/${TICKET},${RAW_COLLECTION},${CALIB_COLLECTIONS}"
  dataQuery: "${SELECTION_FLAT_r}"
"""
FILES = {
    "pyproject.toml": PROJECT,
    "sky_median/__init__.py": "",
    "sky_median/kind.py": KIND,
    "sky_median/kernel.py": KERNEL,
    "sky_median/pipelines/any/cpSkyMedian.yaml": PIPELINE,
    "sky_median/bps/templates/bps_skyMedian.yaml": TEMPLATE,
}


@dataclass(frozen=True)
class Observatory:
    """A repository of frames, and two operators: one with the distribution, one without."""

    home: Path
    variables: Mapping[str, str]

    @property
    def module(self) -> Path:
        """The installed kind."""
        (path,) = self.home.glob("lib/python3*/site-packages/sky_median/kind.py")
        return path

    def without(self, *words: str, **more: str) -> None:
        """Run a command here, and have it succeed."""
        done = typed(*words, environment={**self.variables, **more})
        assert done.returncode == 0, done.stderr

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command in the environment of the distribution; give its output."""
        line = [self.home / "bin" / "python", "-P", "-m", "campaign", *words]
        done = subprocess.run(line, env={**os.environ, **self.variables}, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr


def environment_with(folder: Path) -> Path:
    """Build the distribution, and install it into an environment of its own, beside this checkout and its libraries."""
    for name, text in FILES.items():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_text(text)
    home = folder / "environment"
    subprocess.run([sys.executable, "-P", "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python3*/site-packages")
    (site / "libraries.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-P", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_CONSTRAINT")}
    words = [*pip, "--target", site, folder / "source"]
    done = subprocess.run(words, env=kept, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home


pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def observatory(tmp_path_factory: pytest.TempPathFactory) -> Observatory:
    folder = tmp_path_factory.mktemp("observatory")
    places = Places(folder / "repo")
    made = Observatory(environment_with(folder), variables(places))
    numbers = ("--bias", "3", "--dark", "0", "--flat", "3", "--scale", "32", "--detector", "0", "--detector", "1")
    made.without("simulate", str(places.repository), *numbers, "--ranks", "1")
    made.without("submit", "bps_bias", "--ranks", "1")
    made.without("certify", "bps_bias")
    return made


def test_a_kind_of_another_distribution_runs_from_submit_to_staleness(observatory: Observatory) -> None:
    run = "LSSTComCam/calib/DM-00000/demo/skyMedianGen.20241208a"
    assert "published   2 of 2 tasks" in observatory.run("submit", "bps_skyMedian", "--ranks", "1")
    made = sorted(Path(observatory.variables["REPO"]).rglob("skyMedian_*.fits"))
    assert len(made) == 2
    for path in made:
        assert abs(np.nanmedian(fitsio.read(str(path), ext="IMAGE")) - 1) < 0.01
    header = fitsio.read_header(str(made[0]))
    assert header["CALIB_BIAS_RUN"].startswith("LSSTComCam/calib/DM-00000/demo/biasGen")
    assert header["VERSION_SKY-MEDIAN"] == "1.0"

    report = json.loads(observatory.run("certify", "bps_skyMedian", "--json"))["certified"]
    assert report["target"] == "LSSTComCam/calib/DM-00000/demo/skyMedian.20241208a"
    assert [one["detector"] for one in report["data_ids"]] == [0, 1]

    def stale() -> list[str]:
        known = json.loads(observatory.run("status", "--stale", "--json"))["stale"]
        return next(reasons for name, reasons in known.items() if name.startswith(run))

    assert stale() == []
    observatory.without("submit", "bps_bias", "--ranks", "1", RERUN="20241208b")
    observatory.without("certify", "bps_bias", RERUN="20241208b", CERT_RERUN="20241208b")
    (reason,) = stale()
    assert reason.startswith("bias was LSSTComCam/calib/DM-00000/demo/biasGen.20241208a/")
    assert "is LSSTComCam/calib/DM-00000/demo/biasGen.20241208b/" in reason

    known = json.loads(observatory.run("reads", "--json"))["reads"]
    assert known["skyMedian"] == ["bias", "ptc"]


def test_a_kind_that_cannot_be_used_is_told_by_name(observatory: Observatory) -> None:
    text = observatory.module.read_text()
    for wrong, why in (
        ("from campaign.kinds import nothing\n", "ImportError: cannot import name 'nothing'"),
        ("KIND = 1\n", "sky_median.kind:KIND is no ProductKind"),
        (text.replace('"skyMedian",\n', '"bias",\n', 1), "its kind is named bias"),
        (text.replace('{"skyMedian": ', '{"bias": '), "there is a dataset type bias"),
        (text.replace('"sky_median", "gang"', '"moon", "gang"'), "no distribution has its kernel moon"),
    ):
        observatory.module.write_text(wrong)
        said = observatory.run("reads", code=3)
        assert f"skyMedian of sky-median 1.0 cannot be used: {why}" in said
        assert "pip uninstall sky-median" in said and "Traceback" not in said
    observatory.module.write_text(text)
