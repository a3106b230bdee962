"""Job files as campaign writes them, against the schema and the kernels' own reader."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from campaign.camera import model as cameras
from campaign.jobs.death import KERNEL_CODES, Cause
from campaign.jobs.file import VERSION, JobFile, JobTask, write_text
from campaign.running import chunk
from campaign.running.chunk import clear
from kernels import errors
from kernels.camera import geometry
from kernels.errors import EXIT_CODES, DataError, JobError, KernelError
from kernels.jobs import job as kernel
from kernels.jobs.journal import JournalError
from kernels.jobs.publish import PublishError
from kernels.run import main
from slurm.states import CAUSES

SCHEMA = json.loads((files("kernels") / "job.schema.json").read_text())


def job_of(name: str) -> JobFile:
    camera = cameras.load(name)
    detectors = camera.detector_ids()[:2]
    tasks = [
        JobTask(f"bias:{d}", d, {"raw": (f"1:{d}",)}, {"bias": f"/out/{d}.fits"}, {"scales": [1.0]}, {"TICKET": "DM-1"})
        for d in detectors
    ]
    table = {f"1:{d}": {"path": f"/raw/{d}.fits", "bytes": 2880} for d in detectors}
    return JobFile("combine", "run", 2, "/journal/bias.1", camera.plain(detectors), {"passes": 3}, table, tasks)


CAMERAS = ["LSSTCam", "LSSTComCam", "LATISS", "STL1001E", "EFOSC2"]


@pytest.mark.parametrize("name", CAMERAS)
def test_a_job_file_is_valid_and_loads(name: str, tmp_path: Path) -> None:
    written = job_of(name)
    path = written.write(tmp_path / "jobs" / "bias.1.json")
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)
    loaded = kernel.load(str(path))
    assert {k: v.path for k, v in loaded.files.items()} == {k: v["path"] for k, v in written.files.items()}
    assert [(t.task, t.detector, t.inputs) for t in loaded.tasks] == [
        (t.task, t.detector, {"raw": list(t.inputs["raw"])}) for t in written.tasks
    ]
    assert (loaded.version, loaded.ranks, loaded.site, loaded.token) == (VERSION, 2, "local", 1)


@pytest.mark.parametrize("name", CAMERAS)
def test_the_camera_arrives_as_it_is(name: str) -> None:
    camera, plain = cameras.load(name), json.loads(json.dumps(job_of(name).plain()))
    arrived = geometry.camera(plain["camera"])
    assert (arrived.name, arrived.unit) == (camera.name, camera.unit)
    for number, detector in arrived.detectors.items():
        there = camera.by_id[number]
        boxes = [(a.data.box, a.target.box, a.target.flip_x) for a in camera.types[there.type].amplifiers]
        found = [(a.data, a.target, a.flip_x) for a in detector.amplifiers]
        assert [([*vars(d).values()], [*vars(t).values()], f) for d, t, f in found] == [
            (list(d), list(t), f) for d, t, f in boxes
        ]
        assert [a.gain for a in detector.amplifiers] == list(there.gains)


@pytest.mark.parametrize("change", [{"version": 2}, {"retries": 3}])
def test_another_version_or_an_unknown_key_is_refused_on_both_sides(change: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(job_of("LATISS").plain() | change))
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(plain)
    with pytest.raises(JobError, match="version 2" if "version" in change else "unknown key 'retries'"):
        kernel.from_plain(plain)


def test_both_sides_are_of_one_version() -> None:
    assert VERSION == kernel.VERSION == SCHEMA["properties"]["version"]["const"]


def test_both_sides_put_an_end_down_to_the_same_cause() -> None:
    """A gang's exit code, a quantum's error and a journal's line name the same cause, in words that never change."""
    words = "cancelled code configuration data disk failed infrastructure killed memory walltime"
    assert [*Cause] == words.split()
    assert {*errors.Cause} == {*EXIT_CODES} <= {*Cause}
    assert {*CAUSES.values()} <= {*Cause}
    assert {cause: code for code, cause in KERNEL_CODES.items()} == EXIT_CODES
    assert not set(KERNEL_CODES) & {0, 1, 126, 127, 130}
    causes = {JobError: "configuration", DataError: "data", PublishError: "disk", JournalError: "disk"}
    assert {kind: kind.cause for kind in causes} == causes
    assert {kind for kind in KernelError.__subclasses__() if not kind.__name__.startswith("_")} == set(causes)


def _unrecorded(job: dict[str, Any], folder: Path) -> None:
    (folder / "full").write_text("")  # a file where the journal's folder should be
    job["journal"] = str(folder / "full" / "journal" / "bias.1")


def _of_another_world(job: dict[str, Any], folder: Path) -> None:
    job["ranks"] = 7


@pytest.mark.parametrize(("spoil", "cause"), [(_unrecorded, "disk"), (_of_another_world, "configuration")])
def test_a_quantum_and_a_process_end_for_the_same_reason(spoil: Any, cause: str, tmp_path: Path) -> None:
    job = json.loads(json.dumps(job_of("LATISS").plain() | {"kernel": "mosaic", "ranks": 1}))
    spoil(job, tmp_path)
    path = tmp_path / "run" / "jobs" / "mosaic.1.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(job))
    assert chunk.run([str(path)], 0).cause == cause
    assert KERNEL_CODES[main([str(path)])] == cause


def test_a_job_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = job_of("LATISS").write(tmp_path / "job.json")
    before = path.read_text()
    with pytest.raises(TypeError):
        replace(job_of("LATISS"), config={"what": object()}).write(path)
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half\ud800")
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_nobody_knows_of_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Also files on their way from a site when the driver was killed."""
    ours = ["bias.fits", ".bias.fits.run.1.tmp", ".bias.fits.2.77.part", "..bias.fits.2.77.part.77.140.tmp"]
    others = ["bias2.fits", ".bias2.fits.run.1.tmp", ".hidden", "bias.fits.tmp", "..bias2.fits.2.77.part.77.140.tmp"]
    for name in ours + others:
        (tmp_path / name).touch()
    clear([str(tmp_path / "bias.fits"), str(tmp_path / "no" / "folder.fits")])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
