"""The index: the same answers however and how often the journals are read, and what is asked of it."""

from __future__ import annotations

import json
import os
import pwd
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign.errors import ConfigurationError
from campaign.events import Event
from campaign.failures import failures, ranges
from campaign.home import Home
from campaign.plans_books import Books
from campaign.progress import progress
from campaign.state import Index, opened, place, update
from campaign.state_campaigns import Spoken
from campaign.status import status

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


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A server of its own, under a user without rights: PostgreSQL does not run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or os.geteuid() or "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("no PostgreSQL, or not root (make postgresql-deps)")
    folder, tools = Path(tempfile.mkdtemp(prefix="campaign-pg-", dir="/tmp")), found[-1].parent
    shutil.chown(folder, "postgres")

    def tool(name: str, *arguments: str) -> None:
        line = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", str(tools / name), *arguments]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    data = str(folder / "data")
    try:
        tool("initdb", "-D", data, "-A", "trust", "-N")
        tool("pg_ctl", "-D", data, "-w", "-o", f"-k {folder} -c listen_addresses='' -F", "start")
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        with suppress(subprocess.CalledProcessError):
            tool("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


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


EVENTS = st.lists(
    st.one_of(
        st.builds(
            event,
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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, seed=st.integers(0, 1000))
def test_recovery_changes_no_answer(events: list[Event], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Read in pieces, as it grows, or all at once, in whatever order: the same."""
    folder = tmp_path_factory.mktemp("index")
    grown, whole = Run(folder / "grown"), Run(folder / "whole")
    for n, one in enumerate(events):
        grown.write([one], f"j{n % 3}")
        if n % 7 == 0:
            update(grown.home, "r-1")
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    whole.write(shuffled)
    known = grown.answers()
    with opened(grown.home) as index:
        index.clear()
        assert index.refresh() == len(events)
    assert grown.answers() == known
    said = whole.states()
    assert said == grown.states()


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
    monkeypatch.setattr("campaign.state.SCHEMA", 999)
    assert run.answers() == known


def test_a_network_file_system_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campaign.state._file_system", lambda path: "nfs4")
    with pytest.raises(ConfigurationError, match="nfs4") as refused:
        place(run.home, {})
    assert "CAMPAIGN_DB" in refused.value.do
    assert place(run.home, {"CAMPAIGN_DB": "postgresql://host/db"}) == "postgresql+psycopg2://host/db"
    assert "nfs4" in update(run.home, "r-1")  # a run goes on without it


def test_readers_do_not_block_the_writer(run: Run) -> None:
    import sqlalchemy as sa

    run.write([event(TASKS[0], "published", 1)])
    with opened(run.home) as reading:
        reading.refresh()
        with reading._engine.connect() as connection:
            cursor = connection.execute(sa.text("select * from tasks"))
            run.write([event(TASKS[1], "published", 1)])
            with opened(run.home) as writing:
                assert writing.refresh() == 1
            assert len(cursor.fetchall()) == 1
    assert isinstance(reading, Index)
