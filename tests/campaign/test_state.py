"""The index: its queries, and equal answers however and how often the journals are read."""

from __future__ import annotations

import json
import random
import socket
import sqlite3
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign.campaigns.state import keep_document
from campaign.errors import ConfigurationError, SubmissionRefused, TransientError
from campaign.home import Home
from campaign.journal import claim
from campaign.journal.books import Books
from campaign.journal.campaigns import Spoken
from campaign.journal.events import DriverJournal, Event, Journals
from campaign.journal.failures import failures, ranges
from campaign.journal.index import RECORD, followed, opened, place, update
from campaign.journal.outcome import TaskRecord
from campaign.journal.progress import STATES, progress
from campaign.journal.status import state_of, status
from campaign.lines import left_out

LABELS = ("isr", "combine")
TASKS = [f"isr:{e},{d}" for e in range(3) for d in range(2)] + [f"combine:{d}" for d in range(2)]
GROUPS = [
    {"label": "isr", "kind": "quantum", "ranks": 1, "tasks": 6, "needs": []},
    {"label": "combine", "kind": "gang", "ranks": 2, "tasks": 2, "needs": ["isr"]},
]
DETAILS: dict[str, dict[str, Any]] = {
    "published": {"cpu_s": 1.5, "wall_s": 2.0, "rss_mib": 200},
    "failed": {"error": "/data/a.fits: HDU 3 is short", "cause": "data"},
    "lost": {"error": "needs isr:0,0, which failed"},
}


def event(task: str, name: str, attempt: int, token: int = 1, second: int = 0) -> Event:
    return Event(
        1, f"2026-01-01T00:00:{second:02d}.000Z", "r-1", task, attempt, "here", token, name, DETAILS.get(name, {})
    )


class Run:
    """A run that a home lists, with journals to be written."""

    def __init__(self, folder: Path) -> None:
        self.home, self.folder = Home(folder / "home"), folder / "submit"
        (self.folder / "journal").mkdir(parents=True)
        (self.folder / "groups.json").write_text(json.dumps(GROUPS))
        names = ("template", "ticket", "output", "output_run", "product")
        self.home.add_run({"run": "r-1", "submit_path": str(self.folder), **dict.fromkeys(names, "x")})
        self.entry = self.home.runs()[0]

    def write(self, events: Sequence[Event], file: str = "driver") -> None:
        with (self.folder / "journal" / f"{file}.jsonl").open("a") as journal:
            journal.writelines(json.dumps(asdict(e)) + "\n" for e in events)

    def answers(self) -> tuple[Any, Any, Any]:
        found = progress(self.home, self.entry)
        return asdict(found), [asdict(one) for one in failures(self.home, self.entry)], self.campaigns()

    def rows(self) -> dict[str, dict[str, Any]]:
        with opened(self.home) as index:
            rows = index.failures("r-1", STATES)
        return {row["task"]: {name: row[name] for name in RECORD} for row in rows}

    def campaigns(self) -> list[Spoken]:
        return status(self.home)[1]

    def say(self, *words: str, **detail: str) -> Path:
        """Have a campaign's journal say something of a step."""
        books = Books(self.home.path / "campaigns" / "mine.DM-1.a")
        books.write(*words, **detail)
        (books.folder / "plan.yaml").write_text("steps: {bias: {}, dark: {}}")
        return books.journal

    def states(self) -> dict[str, dict[str, int]]:
        names = ("waiting", "running", "published", "failed", "lost")
        return {g["label"]: {n: g[n] for n in names if g[n]} for g in progress(self.home, self.entry).groups}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_postgresql_gives_the_same_answers(run: Run, postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chances = random.Random(7)
    names = ["started", "published", "failed", "lost", "withdrawn"]
    some = [event(chances.choice(TASKS), chances.choice(names), chances.randint(1, 4)) for _ in range(80)]
    run.write([event("isr", "submitted", 2), *some])
    run.say("failed", "bias", error="it's full", log="a.log")
    known = run.answers()
    monkeypatch.setenv("CAMPAIGN_DB", postgresql)
    assert run.answers() == known
    run.write([event(TASKS[3], "published", 9)], "more")
    run.say("begun", "bias")
    later = run.answers()
    assert later != known
    with opened(run.home) as index:
        index.clear()
        index.refresh()
    assert run.answers() == later
    monkeypatch.delenv("CAMPAIGN_DB")
    assert run.answers() == later


def varied(task: str, name: str, attempt: int, token: int, second: int) -> Event:
    """Make an event whose site and times are its own."""
    numbers = {"cpu_s": token + attempt / 4, "wall_s": token + attempt / 8, "rss_mib": 10 * token + attempt}
    one = event(task, name, attempt, token, second)
    return replace(one, site=f"{name}-{token}-{attempt}", detail={**one.detail, **numbers})


EVENTS = st.lists(
    st.one_of(
        st.builds(
            varied,
            st.sampled_from(TASKS),
            st.sampled_from(["started", "published", "failed", "lost", "withdrawn"]),
            st.integers(1, 4),
            st.integers(1, 2),
            st.integers(0, 59),
        ),
        st.builds(event, st.sampled_from(LABELS), st.just("submitted"), st.integers(1, 4), st.integers(1, 2)),
    ),
    max_size=60,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, seed=st.integers(0, 1000))
def test_recovery_changes_no_answer(events: list[Event], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Read in pieces, as it grows, or all at once, in whatever order: the same."""
    folder = tmp_path_factory.mktemp("index")
    grown, whole = Run(folder / "grown"), Run(folder / "whole")
    for n, one in enumerate(events):
        grown.write([one], f"j{n % 3}")
        if n % 2 == 0:
            update(grown.home, "r-1")
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    whole.write(shuffled)
    known, rows = grown.answers(), grown.rows()
    with opened(grown.home) as index:
        index.clear()
        assert index.refresh() == len(events)
    assert grown.answers() == known
    said = whole.states()
    assert said == grown.states()
    records: defaultdict[str, TaskRecord] = defaultdict(TaskRecord)
    for one in shuffled:
        if one.of_task:
            records[one.task].fold(one)
    assert whole.rows() == rows == {task: asdict(record) for task, record in records.items()}


def test_what_a_task_has_come_to(run: Run) -> None:
    assert run.states() == {"isr": {"waiting": 6}, "combine": {"waiting": 2}}
    run.write([event("isr", "submitted", 1), *(event(t, "started", 1) for t in TASKS[:4])])
    assert run.states()["isr"] == {"waiting": 2, "running": 4}
    run.write([event(TASKS[0], "published", 1), event(TASKS[1], "failed", 1)], "isr.1")
    assert run.states() == {
        "isr": {"waiting": 2, "running": 2, "published": 1, "failed": 1},
        "combine": {"waiting": 2},
    }
    run.write([event("combine:1", "lost", 1)])
    assert run.states()["combine"] == {"waiting": 1, "lost": 1}
    run.write([event("isr", "submitted", 2), event("combine", "submitted", 2)])
    assert run.states() == {"isr": {"waiting": 5, "published": 1}, "combine": {"waiting": 2}}
    run.write([event(TASKS[0], "withdrawn", 1)])
    assert run.states()["isr"] == {"waiting": 6}
    run.write([event(t, "started", 2) for t in TASKS[:6]] + [event(t, "published", 2) for t in TASKS[:6]], "isr.2")
    assert run.states()["isr"] == {"published": 6}
    (group, _) = progress(run.home, run.entry).groups
    assert (group["cpu_s"], group["rss_mib"], group["left_s"], group["tries"]) == (9.0, 200, 0.0, 4)


def test_half_a_line_is_no_event_yet(run: Run) -> None:
    line = json.dumps(asdict(event(TASKS[0], "published", 1)))
    path = run.folder / "journal" / "isr.1.jsonl"
    path.write_text(line[:40])
    assert run.states()["isr"] == {"waiting": 6}
    path.write_text(line + "\n")
    assert run.states()["isr"] == {"waiting": 5, "published": 1}


def test_a_campaign_is_what_its_journal_said_last_of_each_step(run: Run) -> None:
    run.say("begun", "bias")
    assert run.campaigns()[0].of("begun") == ["bias"]
    run.say("begun", "dark")
    run.say("gate", "dark", run="r-7")
    journal = run.say("certified", "bias", run="r-6", target="calib/bias")
    with journal.open("a") as file:
        file.write('{"t": "2999", "event": "failed", "step": "da')
    (one,) = run.campaigns()
    assert (one.campaign, one.steps) == ("mine.DM-1.a", 2)
    said = {x["step"]: (x["event"], x["run"], x["note"]) for x in one.said}
    assert said == {"dark": ("gate", "r-7", ""), "bias": ("certified", "r-6", "calib/bias")}
    with journal.open("a") as file:
        file.write('rk", "error": "the disk is full"}\n')
    (one,) = run.campaigns()
    assert one.of("failed") == ["dark"] and one.of("gate") == []
    before = run.answers()
    with opened(run.home) as index:
        index.clear()
        index.refresh()
    assert run.answers() == before


def test_failures_that_are_alike_are_told_once(run: Run) -> None:
    run.write([event(task, "failed", 1) for task in TASKS[:6]])
    (one,) = failures(run.home, run.entry)
    assert len(one.tasks) == 6
    assert (one.cause, one.detectors, one.exposures) == ("data", "0-1", "0-2")
    assert one.again == "campaign rerun isr:0,0 --run r-1"


@pytest.mark.parametrize(
    ("numbers", "said"), [([], ""), ([3], "3"), ([1, 2, 3, 7], "1-3, 7"), ([5, 4, 4], "4-5"), ([0, 2], "0, 2")]
)
def test_ranges(numbers: list[int], said: str) -> None:
    assert ranges(numbers) == said


def test_another_schema_is_made_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write([event(TASKS[0], "published", 1)])
    known = run.answers()
    monkeypatch.setattr("campaign.journal.index.SCHEMA", 999)
    assert run.answers() == known


def test_a_network_file_system_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campaign.journal.index._file_system", lambda path: "nfs4")
    with pytest.raises(ConfigurationError, match="nfs4") as refused:
        place(run.home, {})
    assert "CAMPAIGN_DB" in refused.value.do
    assert place(run.home, {"CAMPAIGN_DB": "postgresql://host/db"}) == "postgresql://host/db"
    assert "nfs4" in update(run.home, "r-1")  # a run continues without it


def test_readers_do_not_block_the_writer(run: Run) -> None:
    run.write([event(TASKS[0], "published", 1)])
    with opened(run.home) as reading:
        reading.refresh()
        cursor = reading._database.execute("SELECT * FROM tasks")
        run.write([event(TASKS[1], "published", 1)])
        with opened(run.home) as writing:
            assert writing.refresh() == 1
        assert len(cursor.fetchall()) == 1


# Damage

NULS = b"\0" * 4096


def hurt(path: Path, *texts: bytes) -> None:
    """Add remains of a power cut, a full disk or a stranger."""
    with path.open("ab") as file:
        for text in texts:
            file.write(text)


def test_a_damaged_line_of_the_list_of_runs_costs_that_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    file = run.home.runs_file
    hurt(file, b"5\n", NULS + b"\n", b"[1]\n", b'{"run": "r-2"}\n', b"\xff\xfe\n", b'{"t": "2026", "run": "r-')
    names = ("template", "ticket", "output", "output_run", "product", "submit_path")
    run.home.add_run({"run": "r-3", **dict.fromkeys(names, "y")})  # is not joined to the cut one
    hurt(file, NULS)  # and NULs of a power cut before a record are no part of it
    run.home.add_run({"run": "r-4", **dict.fromkeys(names, "y")})
    assert [one["run"] for one in run.home.runs()] == ["r-1", "r-3", "r-4"]
    assert run.home.find_run("r-3")["output"] == "y"
    assert [one.run for one in status(run.home)[0]] == ["r-1", "r-3", "r-4"]
    said = capsys.readouterr().err
    for number, why in ((2, "no JSON object"), (4, "no JSON object"), (5, "lacks 't'")):
        assert f"left out: {file}, line {number}: it {'is ' if why[0] == 'n' else ''}{why}" in said
    assert len(said.splitlines()) == 6  # once, however often it is read, and of many not all
    assert next(one.why for one in left_out() if (one.file, one.line) == (str(file), 7)) == "it is cut"
    assert {one.line for one in left_out() if one.file == str(file)} >= {2, 3, 4, 5, 6, 7}


DAMAGED = {
    "NULs": NULS + b"\n",
    "a number": b"5\n",
    "an attempt that is none": json.dumps({**asdict(event(TASKS[1], "failed", 1)), "attempt": "z"}).encode() + b"\n",
    "a detail that is none": json.dumps({**asdict(event(TASKS[1], "failed", 1)), "detail": []}).encode() + b"\n",
    "an order beyond the index": json.dumps(asdict(event(TASKS[1], "failed", 10**30))).encode() + b"\n",
    "bytes": b"\xff" * 40 + b"\n",
    "deep": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_line_of_a_journal_costs_that_line(run: Run, what: str) -> None:
    run.write([event(TASKS[0], "published", 1)])
    hurt(run.folder / "journal" / "driver.jsonl", DAMAGED[what])
    run.write([event(TASKS[2], "published", 1)])
    assert run.states()["isr"] == {"waiting": 4, "published": 2}
    assert left_out()[-1].file == str(run.folder / "journal" / "driver.jsonl")
    assert left_out()[-1].line == 2
    with opened(run.home) as index:
        index.clear()
    assert run.states()["isr"] == {"waiting": 4, "published": 2}
    assert state_of(run.folder) == "lost"


def test_a_driver_ends_a_line_that_was_cut(run: Run) -> None:
    hurt(run.folder / "journal" / "driver.jsonl", b'{"v":1,"t":"20')
    journal = DriverJournal(run.folder / "journal", "r-1")
    hurt(run.folder / "journal" / "driver.jsonl", b'{"v":1,"t":"20')  # like a disk that was full for a moment
    journal.write("started", {})
    (found,) = Journals(run.folder / "journal").new()
    assert found.event == "started"


@pytest.mark.parametrize("text", ["5", "{", '[{"label": "isr"}, 7]', "\0\0"])
def test_damaged_groups_cost_the_columns_of_that_run(run: Run, text: str) -> None:
    (run.folder / "groups.json").write_text(text)
    run.write([event(TASKS[0], "published", 1)])
    (one,) = status(run.home)[0]
    assert (one.run, one.published) == ("r-1", 1)


def test_a_damaged_line_of_a_campaign_costs_that_line(run: Run) -> None:
    journal = run.say("gate", "bias", run="r-7", rerun="a")
    hurt(journal, b"5\n", b'{"t": "2026", "event": "begun", "step": "bias"}\n', b'{"event": "ga')
    run.say("begun", "dark", rerun="a")
    (one,) = run.campaigns()
    assert one.of("begun") == ["bias", "dark"]
    assert [line["event"] for line in Books(journal.parent).lines()] == ["gate", "begun"]
    (journal.parent / "variables.json").write_text("5")
    with pytest.raises(SubmissionRefused, match=r"variables\.json, which is damaged"):
        keep_document(Books(journal.parent), (journal.parent / "plan.yaml").read_text(), {}, changed=False)


@pytest.mark.parametrize("content", [b"garbage " * 2000, b"", None])
def test_a_damaged_index_is_made_again(run: Run, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    run.write([event(TASKS[0], "published", 1), event(TASKS[1], "failed", 1)])
    known = run.answers()
    file = run.home.path / "index.db"
    if content is None:  # its first page is whole
        content = file.read_bytes()[:4096] + b"\xff" * 40960
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    file.write_bytes(content)
    assert run.answers() == known
    assert ("it is made again from the journals" in capsys.readouterr().err) == bool(content)


def test_a_file_or_database_of_something_else_is_no_index(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, other = tmp_path / "raw.fits", tmp_path / "registry.sqlite3"
    text.write_bytes(b"SIMPLE  = " * 2000)
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE runs (mine TEXT)")
    for path, why in ((text, "a file that is no index"), (other, "a database of something else: it holds runs")):
        content = path.read_bytes()
        monkeypatch.setenv("CAMPAIGN_DB", str(path))
        with pytest.raises(ConfigurationError, match=why):
            status(run.home)
        assert path.read_bytes() == content


def test_an_index_that_is_followed_stays_open_and_costs_no_waits_for_the_disk(run: Run) -> None:
    """SQLite writes its log into the database, and removes it, with the last connection."""
    log = run.home.path / "index.db-wal"
    with followed(run.home, "r-1"):
        until = time.monotonic() + 30
        while not log.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        for n, task in enumerate(TASKS, 1):
            run.write([event(task, "published", 1)])
            assert update(run.home, "r-1") == "" and log.exists()
            assert status(run.home)[0][0].published == n
    assert not log.exists()


def test_a_server_that_does_not_answer_is_transient(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CAMPAIGN_DB", f"postgresql://me:secret@127.0.0.1:{free.getsockname()[1]}/db")
        with pytest.raises(TransientError, match="does not answer") as caught:
            status(run.home)
        assert caught.value.exit_code == 75
        assert "secret" not in str(caught.value)
        assert "does not answer" in update(run.home, "r-1")
    monkeypatch.setenv("CAMPAIGN_DB", "nonsense://x")
    with pytest.raises(ConfigurationError, match="CAMPAIGN_DB cannot be used"):
        status(run.home)


def test_a_damaged_claim_is_somebodys(tmp_path: Path) -> None:
    assert claim.read(tmp_path) is None
    for text in ("5", "{", "{}", '{"pid": "x"}'):
        (tmp_path / claim.NAME).write_text(text)
        assert claim.read(tmp_path) == claim.UNKNOWN
        with pytest.raises(
            SubmissionRefused, match=r"claimed by an owner whom its damaged file does not name"
        ) as caught:
            claim.take(tmp_path)
        assert f"remove {claim.NAME}" in caught.value.do


@pytest.mark.parametrize("what", ["run", "campaign"])
def test_what_may_not_be_read_costs_that_alone(run: Run, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Like another operator's folder; a folder in a file's place cannot be read, even by root."""
    one = run.home.runs()[0]
    driver = Path(one["submit_path"]) / "journal" / "driver.jsonl"
    place = driver if what == "run" else run.home.path / "campaigns" / "c" / "journal.jsonl"
    place.unlink(missing_ok=True)
    place.mkdir(parents=True)
    runs, _ = status(run.home)
    assert [found.run for found in runs] == [entry["run"] for entry in run.home.runs()]
    assert (runs[0].state == "unknown") == (what == "run")
    assert f"left out: {place}: Is a directory" in capsys.readouterr().err


def test_a_claim_of_any_depth_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / claim.NAME).write_text("[" * 100_000)
    assert claim.read(tmp_path) == claim.UNKNOWN
