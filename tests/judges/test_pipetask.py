"""`pipetask qgraph` finds the calibrations that `campaign` certified for just the exposures for which `campaign` does.

Two tickets, three ranges of dates, two detectors of LSSTComCam at scale 32; all of it made by commands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from campaign.butler.repository import ExposureRecord, open_repository
from tests.conftest import ROOT, typed
from tests.judges.needed import needs

needs("lsst-pipe-base", "lsst-ctrl-mpexec")
pytestmark = pytest.mark.processes

CALIB = "LSSTComCam/calib"
RAW = "LSSTComCam/raw/all"
DETECTORS = (5, 8)
NIGHTS = (20241206, 20241208, 20241210)
SECOND, THIRD = "2024-12-07T12:00:00", "2024-12-09T12:00:00"
KINDS = ("bias", "dark", "defects", "flat")
#: Tasks of each pipeline, without those of pictures.
TASKS = {
    "Bias": ("Isr", "Combine"),
    "Dark": ("Isr", "", "Combine"),
    "Flat": ("Isr", "Measure", "Normalize", "Combine"),
    "BiasBootstrap": ("Isr", "Combine"),
    "DarkBootstrap": ("Isr", "Combine"),
    "FlatBootstrap": ("Isr", "Measure", "Combine"),
    "Defects": ("Bias", "Dark", "Flat", ""),
}
#: The run that each night's exposures must find, the flats by filter.  Those of `c` are DM-2's, which stands before
#: DM-1 and hides its dark and its flat of r from the third night on.
WANTED = {
    "bias": ("a", "b", "c"),
    "dark": ("a", "a", "c"),
    "defects": ("a", "b", "a"),
    "r_03": ("", "a", "c"),
    "g_01": ("", "", ""),
}
PIPELINE = "description: judge\ntasks:\n  correct: {class: tests.judges.standins.CorrectTask}\n"
Found = Mapping[tuple[int, int, str], set[str]]


@dataclass(frozen=True)
class Site:
    """A repository and its operator."""

    folder: Path

    @property
    def repo(self) -> str:
        return str(self.folder / "repo")

    def run(self, *words: str, night: int = NIGHTS[1], **more: str) -> subprocess.CompletedProcess[str]:
        """Type a command of `campaign`; the exposures of a product need the same calibrations, so are of one night."""
        chosen = f"instrument='LSSTComCam' and exposure.day_obs={night} and exposure.observation_type="
        variables = {
            "INSTRUMENT": "LSSTComCam",
            "TICKET": "DM-1",
            "TAG": "x",
            "RERUN": "a",
            "CERT_RERUN": "a",
            "BOOTSTRAP_RUN_NUMBER": "1",
            "REPO": self.repo,
            "RAW_COLLECTION": RAW,
            "CALIB_COLLECTIONS": CALIB,
            "USER_CALIB_PREFIX": "",
            "SCRATCH": str(self.folder / "scratch"),
            "SELECTION_BIAS": f"{chosen}'bias'",
            "SELECTION_DARK": f"{chosen}'dark'",
            "SELECTION_FLAT_r": f"{chosen}'flat'",
            "SELECTION_FLAT_BOOTSTRAP": f"{chosen}'flat' and band='r'",
        }
        return typed(*words, environment={**variables, **more})

    def done(self, *words: str, **more: Any) -> None:
        answer = self.run(*words, **more)
        assert answer.returncode == 0, answer.stdout + answer.stderr

    def make(self, template: str, *words: str, **more: Any) -> None:
        name = template.removesuffix("_r")
        name = name[0].upper() + name[1:]
        labels = ",".join(f"cp{name}{part}" for part in TASKS[name])
        words = ("--set", f"pipelineYaml=${{CP_PIPE_DIR}}/pipelines/${{INSTRUMENT}}/cp{name}.yaml#{labels}", *words)
        self.done("submit", f"bps_{template}", "--ranks", "1", *words, **more)

    def certify(self, kind: str, source: str, target: str, begin: str = "1970-01-01T00:00:00", end: str = "") -> None:
        """Certify by names: ``DM-1/x/biasGen.a`` into ``DM-1/x/bias.a``, chained in the target's ticket."""
        words = ["--source", f"{CALIB}/{source}", "--target", f"{CALIB}/{target}", "--type", kind]
        words += ["--begin-date", begin, *(["--end-date", end] if end else [])]
        self.done("certify", "--repo", self.repo, *words, "--chain", f"{CALIB}/{target.split('/')[0]}", "--yes")

    def pipetask(self, collections: str, where: str, name: str) -> subprocess.CompletedProcess[str]:
        """Have `pipetask qgraph` look for prerequisites, in a process of its own."""
        (self.folder / "judge.yaml").write_text(PIPELINE)
        line = [sys.executable, "-P", "-c", "from lsst.ctrl.mpexec.cli.pipetask import main; main()", "qgraph"]
        line += ["-b", self.repo, "-i", f"{RAW},{collections}", "-o", f"u/judge/{name}"]
        line += ["-p", str(self.folder / "judge.yaml"), "-d", f"instrument='LSSTComCam' and {where}"]
        line += ["--save-qgraph", str(self.folder / f"{name}.qg")]
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(line, env=variables, cwd=self.folder, capture_output=True, text=True)

    def theirs(self, collections: str, where: str, name: str) -> Found:
        """Give the ids of the datasets that `pipetask` finds, by exposure, detector and kind."""
        from lsst.pipe.base.quantum_graph import PredictedQuantumGraph

        done = self.pipetask(collections, where, name)
        assert done.returncode == 0, done.stdout + done.stderr
        graph = PredictedQuantumGraph.read_execution_quanta(str(self.folder / f"{name}.qg"))
        return {
            (int(quantum.dataId["exposure"]), int(quantum.dataId["detector"]), kind): {
                str(ref.id) for ref in quantum.inputs.get(kind, ())
            }
            for quantum in graph.build_execution_quanta().values()
            for kind in KINDS
        }

    def ours(self, collections: str, exposures: tuple[ExposureRecord, ...]) -> tuple[Found, dict[str, str]]:
        """Give the ids of the datasets that `campaign` finds, likewise, and the RUN of each."""
        found: dict[tuple[int, int, str], set[str]] = {}
        runs = {}
        with open_repository(self.repo) as repository:
            for kind in KINDS:
                refs = repository.find_calibrations(kind, [collections], exposures, DETECTORS)
                runs |= {ref.dataset_id: ref.run for ref in refs.values()}
                found |= {
                    (exposure.id, detector, kind): {
                        ref.dataset_id for ref in [refs.get((exposure.id, detector))] if ref
                    }
                    for exposure in exposures
                    for detector in DETECTORS
                }
        return found, runs

    def exposures(self, where: str = "") -> tuple[ExposureRecord, ...]:
        with open_repository(self.repo) as repository:
            return repository.select([RAW], f"instrument='LSSTComCam'{where}").exposures


def middle(exposure: ExposureRecord) -> str:
    begin, end = datetime.fromisoformat(exposure.begin), datetime.fromisoformat(exposure.end)
    return (begin + (end - begin) / 2).isoformat()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("judged"))
    words = [word for day in NIGHTS for word in ("--day-obs", str(day))]
    words += [word for number in DETECTORS for word in ("--detector", str(number))]
    words += ["--bias", "9", "--dark", "9", "--flat", "9", "--filter", "r_03", "--filter", "g_01"]
    site.done("simulate", site.repo, "--scale", "32", "--ranks", "1", *words)
    for kind in ("bias", "dark", "flat"):
        site.make(f"{kind}Bootstrap")
    for letter in "ab":
        site.make("defects", "--set", f"output={CALIB}/DM-1/x/defectGen.{letter}")
        site.make("bias", RERUN=letter)
    site.certify("defects", "DM-1/x/defectGen.a", "DM-1/x/defects.a", end=SECOND)
    site.certify("defects", "DM-1/x/defectGen.b", "DM-1/x/defects.a", SECOND)
    site.certify("bias", "DM-1/x/biasGen.a", "DM-1/x/bias.a", end=SECOND)
    site.certify("bias", "DM-1/x/biasGen.b", "DM-1/x/bias.b", SECOND)
    site.make("dark")
    site.certify("dark", "DM-1/x/darkGen.a", "DM-1/x/dark.a")
    site.make("flat_r")
    site.certify("flat", "DM-1/x/flatGen-r.a", "DM-1/x/flat-r.a", SECOND)
    second = {"TICKET": "DM-2", "RERUN": "c", "CALIB_COLLECTIONS": f"{CALIB}/DM-1", "night": NIGHTS[2]}
    for template, kind, filter in (("bias", "bias", ""), ("dark", "dark", ""), ("flat_r", "flat", "-r")):
        site.make(template, **second)
        site.certify(kind, f"DM-2/x/{kind}Gen{filter}.c", f"DM-2/x/{kind}{filter}.c", THIRD)
    site.certify("defects", "DM-1/x/defectGen.a", "DM-2/x/defects.c", THIRD)
    site.done("chain", site.repo, CALIB, f"{CALIB}/DM-2", f"{CALIB}/DM-1", "--deploy", "--yes")
    return site


def test_pipetask_finds_what_campaign_finds(site: Site) -> None:
    exposures = site.exposures()
    assert len(exposures) == 3 * (3 + 3 + 2 * 3)
    theirs = site.theirs(CALIB, "exposure > 0", "all")
    ours, runs = site.ours(CALIB, exposures)
    assert ours == theirs
    for exposure in exposures:
        night = NIGHTS.index(exposure.day_obs)
        for kind in KINDS:
            of = WANTED.get(str(exposure.physical_filter) if kind == "flat" else kind, ("", "", ""))
            for detector in DETECTORS:
                made = [runs[one].rpartition("/")[0].rpartition(".")[2] for one in ours[exposure.id, detector, kind]]
                assert "".join(made) == of[night], (exposure, detector, kind)


def test_an_exposure_that_straddles_a_boundary(site: Site) -> None:
    """Two calibrations of one collection are refused by both; one that begins or ends meanwhile is found by both."""
    torn, whole, _ = site.exposures(f" and exposure.day_obs={NIGHTS[2]} and band='r'")
    cut = middle(torn)
    site.certify("bias", "DM-1/x/biasGen.a", "DM-3/x/bias.cut", end=cut)
    site.certify("dark", "DM-1/x/darkGen.a", "DM-3/x/dark.cut", cut)
    chain = f"{CALIB}/DM-3"
    theirs = site.theirs(chain, f"exposure in ({torn.id}, {whole.id})", "half")
    assert theirs == site.ours(chain, (torn, whole))[0]
    for exposure, wanted in ((torn, {"bias", "dark"}), (whole, {"dark"})):
        assert {kind for (one, _, kind), ids in theirs.items() if ids and one == exposure.id} == wanted

    site.certify("bias", "DM-1/x/biasGen.b", "DM-3/x/bias.cut", cut)
    refused = site.pipetask(chain, f"exposure={torn.id}", "torn")
    assert refused.returncode != 0
    assert "CalibrationLookupError" in refused.stderr, refused.stderr
    answer = site.run("submit", "bps_flat_r", "--ranks", "1", night=NIGHTS[2], TICKET="DM-3", RERUN="d")
    assert answer.returncode != 0
    assert f"bias of exposure {torn.id}" in answer.stderr
    assert "two calibrations of LSSTComCam/calib/DM-3/x/bias.cut are valid" in answer.stderr
