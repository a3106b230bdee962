"""Events from a site are checked before they are journalled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from campaign.errors import ConfigurationError
from campaign.federation import said
from campaign.journal.events import DriverJournal, Journals
from campaign.limited import CUT, from_json, into_log

PRODUCT = {"path": "/a/bias.fits", "bytes": 3, "sha256": "0" * 64}
GOOD: dict[str, Any] = {
    "v": 1,
    "t": "2026-11-20T22:41:39.742Z",
    "run": "r",
    "task": "combine:1",
    "attempt": 1,
    "site": "usdf",
    "token": 1,
    "event": "published",
    "detail": {"bias": PRODUCT, "cpu_s": 0.5, "rss_mib": 111},
}
LEFT_OUT = "left out"


def heard(**other: Any) -> Any:
    plain = {key: value for key, value in {**GOOD, **other}.items() if value is not LEFT_OUT}
    return said.event(json.dumps(plain).encode(), {"combine:1": ["bias"]}, {"combine", "workers"})


def test_what_makes_sense_is_taken() -> None:
    event = heard()
    assert (event.task, event.detail["bias"]["bytes"]) == ("combine:1", 3)
    died = {"error": "x", "cause": "memory", "code": None, "name": "n", "job": "1", "state": "FAILED"}
    assert heard(task="workers", event="died", detail=died).detail == died
    submitted = {"file": "f", "ranks": 2, "log": "l", "name": "n", "tasks": 3, "resources": {"memory_mib": 5}}
    assert heard(task="combine", event="submitted", detail=submitted).detail == submitted
    assert heard(event="failed", detail={"error": "e", "cause": "data", "code": 3, "kind": "k"}).event == "failed"
    assert heard(task="combine:2", event="started", detail={}) is None  # another site's
    assert heard(task="isr", event="note", detail={"note": "x"}) is None


@pytest.mark.parametrize(
    "other",
    [
        {"v": 2},
        {"t": "yesterday"},
        {"t": 5},
        {"task": 5},
        {"task": "x" * 2000},
        {"attempt": "z"},
        {"attempt": -1},
        {"attempt": 10**9},
        {"token": None},
        {"site": ["usdf"]},
        {"more": 1},
        {"token": LEFT_OUT},
        {"event": "withdrawn"},
        {"event": "done", "task": ""},
        {"event": "published", "task": "combine"},
        {"detail": []},
        {"detail": {}},
        {"detail": {"bias": {**PRODUCT, "sha256": "short"}}},
        {"detail": {"bias": {**PRODUCT, "bytes": -1}}},
        {"detail": {"bias": PRODUCT, "cpu_s": "much"}},
        {"event": "failed", "detail": {}},
        {"event": "failed", "detail": {"error": {"a": 1}}},
        {"event": "failed", "detail": {"error": "e", "cause": ["data"]}},
        {"event": "lost", "detail": {"error": None}},
        {"event": "submitted", "task": "combine", "detail": {"resources": {"memory_mib": "5"}}},
        {"event": "died", "task": "workers", "detail": {"error": "x" * 30_000}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_not(other: dict[str, Any]) -> None:
    with pytest.raises(said.Nonsense):
        heard(**other)


@pytest.mark.parametrize(
    "line", [b"good morning", b"[]", b"5", b"{}", b'{"a": NaN}', b"[" * 10_000, b"\xff", b'"\xed"']
)
def test_what_is_no_event_is_told_apart(line: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        said.event(line, {}, ())
    assert not isinstance(caught.value, said.Nonsense)


def test_json_has_limits() -> None:
    assert from_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert from_json("[" * 60 + "]" * 60)
    for text in ("[" * 70 + "]" * 70, "[" * 100_000 + "]" * 100_000, "[Infinity]", "1" * 10_000, "{"):
        with pytest.raises(ValueError):
            from_json(text)


@pytest.mark.parametrize("times", [10, 11, 30])
def test_a_log_has_a_limit(tmp_path: Path, times: int) -> None:
    log = tmp_path / "logs" / "site.log"
    for _ in range(2):
        with into_log(log, 100_000) as sink:
            for _ in range(times):
                os.write(sink.fileno(), b"x" * 10_000)
    assert log.read_bytes() == b"x" * 100_000 + CUT


def test_a_log_that_is_just_full_says_what_comes_after(tmp_path: Path) -> None:
    log = tmp_path / "site.log"
    for text in (b"x" * 1000, b"y", b"z"):
        with into_log(log, 1000) as sink:
            os.write(sink.fileno(), text)
    assert log.read_bytes() == b"x" * 1000 + CUT


def test_lines_of_another_version_are_no_events_and_no_run_goes_on_with_them(tmp_path: Path) -> None:
    journal = DriverJournal(tmp_path, "r")
    journal.write("note", {"note": "a"})
    with (tmp_path / "driver.jsonl").open("a") as file:
        file.write('{"v":2,"what":"is new"}\n')
    journal.write("note", {"note": "b"})
    journals = Journals(tmp_path)
    assert [event.detail["note"] for event in journals.new()] == ["a", "b"]
    with pytest.raises(ConfigurationError, match="1 lines are not of version 1"):
        journals.require_all_known()
