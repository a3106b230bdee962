"""The job file: the reader accepts exactly what the committed schema accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kernels.errors import JobError
from kernels.jobs import job
from kernels.jobs.settings import build

SCHEMA = json.loads((files("kernels") / "job.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
Plain = dict[str, Any]


@pytest.fixture
def good(lab: Any) -> Plain:
    task = {
        "task": "bias:0", "detector": 0, "inputs": {"raw": ["/raw/1.fits"]}, "outputs": {"bias": "/out/b.fits"},
        "parameters": lab.parameters(1), "provenance": {"TICKET": "DM-1", "N": 3, "X": 0.5, "B": True},
    }  # fmt: skip
    plain: Plain = lab.job("combine", [task])
    return plain


def _accepted(plain: Any) -> bool:
    try:
        job.from_plain(plain)
    except JobError:
        return False
    return True


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


GOOD: dict[str, Callable[[Plain], object]] = {
    "as it is": lambda j: None,
    "no camera": lambda j: j.update(camera={}),
    "no tasks": lambda j: j.update(tasks=[]),
    "a task with its name alone": lambda j: j.update(tasks=[{"task": "t:"}]),
    "size known": lambda j: j["files"]["/raw/1.fits"].update(bytes=5),
    "size unknown": lambda j: j["files"]["/raw/1.fits"].update(bytes=None),
    "no detector": lambda j: j["tasks"][0].update(detector=None),
    "an HDU by number": lambda j: j["camera"]["types"]["Tiny"]["amplifiers"][0].update(hdu=0),
    "no overscan": lambda j: j["camera"]["types"]["Tiny"]["amplifiers"][0].update(serial_overscan=None),
    "a file that no task uses": lambda j: j["files"].update(other={"path": "/x"}),
    "anything in config": lambda j: j["config"].update(what={"ever": [1, None]}),
}
BAD: dict[str, Callable[[Plain], object]] = {
    "another version": lambda j: j.update(version=2),
    "the version as text": lambda j: j.update(version="1"),
    "no version": lambda j: j.pop("version"),
    "an unknown key": lambda j: j.update(rank=4),
    **{f"no {key}": lambda j, key=key: j.pop(key) for key in SCHEMA["required"]},  # type: ignore[misc]
    "ranks as text": lambda j: j.update(ranks="4"),
    "ranks yes": lambda j: j.update(ranks=True),
    "half a rank": lambda j: j.update(ranks=1.5),
    "a path that is none": lambda j: j.update(journal=None),
    "tasks as an object": lambda j: j.update(tasks={}),
    "a task that is text": lambda j: j.update(tasks=["bias:0"]),
    "a task without a name": lambda j: j["tasks"][0].pop("task"),
    "an unknown key of a task": lambda j: j["tasks"][0].update(input={}),
    "a detector's name": lambda j: j["tasks"][0].update(detector="R22_S00"),
    "inputs that are no list": lambda j: j["tasks"][0]["inputs"].update(raw="/raw/1.fits"),
    "an output that is a list": lambda j: j["tasks"][0]["outputs"].update(bias=["/out/b.fits"]),
    "nested provenance": lambda j: j["tasks"][0]["provenance"].update(A={"B": 1}),
    "provenance without a value": lambda j: j["tasks"][0]["provenance"].update(A=None),
    "a file that is a path": lambda j: j["files"].update(b="/raw/2.fits"),
    "a file without a path": lambda j: j["files"].update(b={"bytes": 3}),
    "an unknown key of a file": lambda j: j["files"]["/raw/1.fits"].update(sha1="0"),
    "a size as text": lambda j: j["files"]["/raw/1.fits"].update(bytes="5"),
    "config as a list": lambda j: j.update(config=[]),
    "half a camera": lambda j: j["camera"].pop("detectors"),
    "an unknown unit": lambda j: j["camera"].update(unit="photon"),
    "a box of three": lambda j: j["camera"]["types"]["Tiny"]["amplifiers"][0].update(data=[0, 0, 5]),
    "an amplifier without a target": lambda j: j["camera"]["types"]["Tiny"]["amplifiers"][0].pop("target"),
    "a gain that is text": lambda j: j["camera"]["detectors"][0].update(gains=["high"] * 4),
    "a detector without a place": lambda j: j["camera"]["detectors"][0].pop("position_mm"),
}


@pytest.mark.parametrize("change", GOOD)
def test_a_good_job_is_accepted_by_both(good: Plain, change: str) -> None:
    GOOD[change](good)
    assert VALIDATOR.is_valid(good)
    assert _accepted(good)


@pytest.mark.parametrize("change", BAD)
def test_a_bad_job_is_refused_by_both(good: Plain, change: str) -> None:
    BAD[change](good)
    assert not VALIDATOR.is_valid(good)
    assert not _accepted(good)


@pytest.mark.parametrize("plain", [[], "job", None, 1, {}])
def test_what_is_no_object_is_refused_by_both(plain: Any) -> None:
    assert not VALIDATOR.is_valid(plain)
    assert not _accepted(plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("another version", "job version 2, this is a kernel for version 1"),
        ("an unknown key", "job: unknown key 'rank'; known are attempt, camera, "),
        ("ranks as text", "job.ranks is '4', must be int"),
        ("a file without a path", "job.files.b: 'path' is missing"),
        ("an unknown key of a task", r"job.tasks\[0\]: unknown key 'input'; known are detector, "),
        ("inputs that are no list", r"job.tasks\[0\].inputs.raw is '/raw/1.fits', must be list"),
        ("half a camera", "camera section is incomplete: KeyError\\('detectors'\\)"),
    ],
)
def test_the_refusal_names_place_and_value(good: Plain, change: str, message: str) -> None:
    BAD[change](good)
    with pytest.raises(JobError, match=message):
        job.from_plain(good)


def test_an_input_must_be_in_the_file_table(good: Plain) -> None:
    good["tasks"][0]["inputs"]["bias"] = ["nowhere"]
    with pytest.raises(JobError, match="bias:0: input bias names 'nowhere', which is not in the file table"):
        job.from_plain(good)


def test_a_detector_of_an_unknown_type_is_refused(good: Plain) -> None:
    good["camera"]["detectors"][0]["type"] = "Large"
    with pytest.raises(JobError, match="'Large'"):
        job.from_plain(good)


def test_the_frozen_job_holds_what_the_document_says(good: Plain) -> None:
    before = deepcopy(good)
    frozen = job.from_plain(good)
    assert good == before
    assert frozen.files["/raw/1.fits"] == job.File("/raw/1.fits")
    assert frozen.tasks[0].provenance == good["tasks"][0]["provenance"]
    assert (frozen.ranks, frozen.kernel, frozen.config) == (1, "combine", good["config"])


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_file_that_holds_no_job_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(content)
    with pytest.raises(JobError, match=str(path)):
        job.load(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="No such file.*none.json"):
        job.load(str(tmp_path / "none.json"))


class _Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class _Settings:
    number: float
    count: int
    switch: bool
    colour: _Colour
    made: str
    spare: int = 7


SETTINGS: Plain = {"number": 2, "many": 3, "switch": True, "colour": "red", "other": None}


def test_settings_are_built_by_their_annotations() -> None:
    found = build(_Settings, SETTINGS, {"count": "many"}, ("spare",), made="here")
    assert found == _Settings(2.0, 3, True, _Colour.RED, "here") and isinstance(found.number, float)
    assert build(_Settings, {**SETTINGS, "spare": 9}, {"count": "many"}, ("spare",), made="").spare == 9


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"many": None}, "many: None is no int"), ({"many": 3.0}, "many: 3.0 is no int"),
        ({"many": True}, "many: True is no int"), ({"switch": 1}, "switch: 1 is no bool"),
        ({"number": "2"}, "number: '2' is no float"), ({"number": True}, "number: True is no float"),
        ({"colour": "blue"}, "colour: 'blue' is not a valid _Colour"),
    ],
)  # fmt: skip
def test_settings_of_another_type_are_named(change: Plain, why: str) -> None:
    with pytest.raises(JobError, match=why):
        build(_Settings, SETTINGS | change, {"count": "many"}, made="")


def test_a_missing_setting_is_named() -> None:
    names: dict[str, str]
    for names, lacking in (({}, "count"), ({"count": "many"}, "spare")):  # a default alone does not make it optional
        with pytest.raises(JobError, match=f"{lacking} is missing"):
            build(_Settings, SETTINGS, names, made="")
