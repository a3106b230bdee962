"""Names of events: both sides of the process wall agree, and no other word is written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from campaign.journal import events
from campaign.journal.books import Books
from campaign.journal.events import VERSION, DriverJournal, EventName, Journals
from campaign.journal.outcome import Outcome, TaskRecord
from campaign.lines import left_out
from kernels.jobs import journal as kernel
from tests.campaign.test_state import event


def test_both_sides_of_the_wall_agree() -> None:
    for name in kernel.EventName:
        assert EventName[name.name] == name.value
    assert kernel.SCHEMA == VERSION


def test_an_unknown_name_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="publised"):
        DriverJournal(tmp_path, "r").write("publised", {})
    assert not any(tmp_path.iterdir())


def test_a_record_and_the_outcome_agree_in_whatever_order() -> None:
    first, second = event("bias:1", "published", 1), event("bias:1", "withdrawn", 1)
    for some in ([first, second], [second, first]):
        outcome, record = Outcome(), TaskRecord()
        for one in some:
            outcome.fold(one)
            record.fold(one)
        assert not outcome.published and not record.stands
        outcome.fold(event("bias:1", "failed", 2))
        assert (outcome.failed.keys(), outcome.causes) == ({"bias:1"}, {"bias:1": "data"})
        outcome.fold(event("bias:1", "published", 3))
        assert outcome.published.keys() == {"bias:1"} and outcome.done
        again = [*some, event("bias:1", "published", 3)]
        assert [(task, detail["rss_mib"]) for task, detail in outcome.made(again)] == [("bias:1", 200)]


@pytest.mark.parametrize("block", [1, 300, 1 << 16])
def test_a_journal_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(events, "BLOCK", block)
    file, names = tmp_path / "driver.jsonl", [f"bias:{n}" for n in range(9)]
    good = [json.dumps(asdict(event(name, "published", 1))).encode() for name in names]
    first, _, rest = good[0].partition(b"bias:0")
    split = [first + b"bi", b"as" + rest]  # one object, were it one line
    damaged = [*good[:2], b"{}", *good[2:5], *split, good[5], good[6] + b" " + good[7], good[8]]
    half = len(good[8]) // 2
    file.write_bytes(b"\n".join(damaged)[:-half])
    journals = Journals(tmp_path)
    assert [one.task for one in journals.new()] == [names[n] for n in (0, 1, 2, 3, 4, 5)]
    assert {one.line for one in left_out() if one.file == str(file)} == {3, 7, 8, 10}
    assert not list(journals.new(closely=True)) and journals.grown()
    with file.open("ab") as more:
        more.write(good[8][-half:] + b"\n5\n")
    assert [one.task for one in journals.new()] == [names[8]] and not journals.grown()
    assert {one.line for one in left_out() if one.file == str(file)} == {3, 7, 8, 10, 12}
    assert [one.task for one in Journals(tmp_path, journals.read).new()] == []


def test_a_task_that_a_failed_one_has_cost_is_skipped() -> None:
    outcome = Outcome()
    for name in ("started", "lost"):
        outcome.fold(event("bias:1", name, 1))
    outcome.fold(event("usdf", "lost", 1))  # a site
    assert (outcome.skipped, outcome.failed) == ({"bias:1": "needs isr:0,0, which failed"}, {})


def test_a_campaigns_decisions_are_folded(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.write("begun", "bias", rerun="20250207a", log="1.log", nonce="n")
    books.write("made", "bias", run="r1")
    books.write("rejected", "bias", run="r1", rerun="20250207b", reason="noise")
    books.write("begun", "bias", rerun="20250207b", log="2.log", command="submit")
    books.write("gate", "bias", run="r2")
    found = books.decisions
    assert (found.rerun, found.raised) == ("20250207a", [("bias", "20250207b")])
    assert (found.made, found.shown, found.named) == ({"r1"}, {"r2"}, {"bias": ["r1", "r1", "r2"]})
    assert found.origins == {"r1": ("bias", "20250207a"), "r2": ("bias", "20250207b")}
    assert found.nonces == {("bias", "20250207a"): {"n"}} and found.begun.keys() == {("bias", "20250207b")}
    assert found.logs == {"bias": "2.log"} and found.rejected["r1"].endswith(": noise")
    with pytest.raises(ValueError, match="regretted"):
        books.write("regretted", "bias")
