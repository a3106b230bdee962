"""Plans run on this machine: quanta and gangs in one graph, lost workers, the rest of a chunk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import fitsio
import numpy as np
import pytest

from campaign.errors import TransientError
from campaign.jobs.death import Death
from campaign.jobs.launch import JOB
from campaign.journal import control
from campaign.journal.events import Event, read
from campaign.journal.failures import log_of
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Group, Plan
from campaign.running import chunk
from campaign.running.retry import INFRASTRUCTURE
from campaign.running.rounds import CHUNK, chunked
from campaign.running.runner import Runner
from campaign.schedulers import secure
from campaign.schedulers.local import STARTS, Local
from campaign.schedulers.protocol import Workers
from tests.campaign import plans
from tests.conftest import ROOT

pytestmark = pytest.mark.processes

DETECTORS = 3


def needing(group: Group, label: str, tasks: Callable[[int], list[str]]) -> Group:
    """A group whose tasks wait for others."""
    waiting = [replace(task, needs=tasks(n)) for n, task in enumerate(group.tasks)]
    return replace(group, tasks=waiting, needs=[label])


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Eight frames of each detector corrected as quanta, and combined by a gang once they are."""
    folder = tmp_path / "a blank"
    files = plans.frames(folder / "raw", 8, DETECTORS)
    isr = plans.quanta(folder, 8, DETECTORS)
    combine = needing(plans.gang(folder, 8, DETECTORS, 2), "isr", lambda d: [f"isr:{e},{d}" for e in range(8)])
    return plans.plan(folder, [isr, combine], files, DETECTORS)


def test_chunks_are_of_one_detector_where_they_can_be(plan: Plan) -> None:
    parts = chunked(plan.groups[0].tasks)
    assert [len(part) for part in parts] == [CHUNK, 8 * DETECTORS - CHUNK]
    assert sorted(t.name for part in parts for t in part) == sorted(t.name for t in plan.groups[0].tasks)
    assert [t.job.detector for t in parts[0]][:8] == [0] * 8


@contextmanager
def _cluster(folder: Path) -> Iterator[Workers]:
    with secure.keys(folder) as keys, Local().cluster(1, {}, folder, "r-1-workers", print, keys) as workers:
        yield workers


@pytest.mark.parametrize("lost", [1, STARTS])
def test_a_worker_is_lost_while_the_cluster_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    real, begun = distributed.LocalCluster, list[int]()

    def start(**how: Any) -> Any:
        begun.append(1)
        if len(begun) <= lost:
            raise RuntimeError("Nanny failed to start.") from RuntimeError("worker process")
        return real(**how)

    monkeypatch.setattr(distributed, "LocalCluster", start)
    monkeypatch.delenv(JOB, raising=False)
    told: Any = pytest.raises(TransientError, match="workers do not start: worker process")
    with told if lost == STARTS else nullcontext(), _cluster(tmp_path) as workers:
        assert "//127.0.0.1:" in workers.address
    assert len(begun) == min(lost + 1, STARTS)


def test_a_cluster_that_does_not_answer_is_infrastructure(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(*arguments: Any) -> Any:
        raise TimeoutError("Timed out trying to connect")

    monkeypatch.setattr("campaign.running.graph._on_workers", deaf)
    with pytest.raises(TransientError, match="the Dask cluster does not answer: Timed out"):
        Runner(plan, lambda event: None).run()


class Reaper:
    """Kills the process of a task, as soon and as often as it starts."""

    def __init__(self, task: str) -> None:
        self.task, self.killed = task, 0

    def __call__(self, event: Event) -> None:
        if (event.event, event.task) == ("started", self.task):
            os.kill(int(event.detail["pid"]), signal.SIGKILL)
            self.killed += 1


def test_a_quantum_that_kills_its_workers_fails_and_stops_only_what_needs_it(plan: Plan) -> None:
    raw = Path(plan.files["4:2"]["path"])
    raw.unlink()
    os.mkfifo(raw)  # whoever opens it waits, until the reaper comes
    files = {**plan.files, "4:2": {"path": str(raw)}}
    reaper = Reaper("isr:4,2")
    outcome = Runner(replace(plan, files=files), reaper).run()
    assert reaper.killed == chunk.DEATHS
    assert outcome.failed.keys() == {"isr:4,2"}
    assert outcome.skipped == {"combine:2": "isr:4,2"}
    assert {name for name in outcome.published if name.startswith("combine")} == {"combine:0", "combine:1"}
    events = read(plan.journal)
    causes = {e.task: e.detail["cause"] for e in events if e.event == "failed"}
    assert causes == {"isr:4,2": "killed"}
    assert outcome.failed["isr:4,2"].startswith("it has cost 3 workers")
    published = [e.task for e in events if e.event == "published"]
    assert len(published) == len(set(published)) == 8 * DETECTORS - 1 + 2


def test_quanta_come_before_a_gang_that_needs_them(plan: Plan) -> None:
    outcome = Runner(plan, lambda event: None).run()
    assert outcome.done
    assert len(outcome.published) == 9 * DETECTORS
    events = read(plan.journal)
    last = max(e.t for e in events if e.event == "published" and e.task.startswith("isr"))
    first = min(e.t for e in events if e.event == "started" and e.task.startswith("combine"))
    assert last <= first
    for d in range(DETECTORS):
        frames = [fitsio.read(t.outputs[0].path, "IMAGE") for t in plan.groups[0].tasks if t.job.detector == d]
        bias = fitsio.read(plan.groups[1].tasks[d].outputs[0].path, "IMAGE")
        assert np.all((bias >= np.min(frames, axis=0)) & (bias <= np.max(frames, axis=0)))


def test_a_gang_that_dies_fails_its_tasks_and_says_why(plan: Plan) -> None:
    broken = replace(plan.groups[1], config={**plan.groups[1].config, "isr": {"nonsense": True}}, needs=[])
    tasks = [replace(task, needs=[]) for task in broken.tasks]
    outcome = Runner(replace(plan, groups=[replace(broken, tasks=tasks)]), lambda event: None).run()
    assert set(outcome.failed.values()) == {"isr: unknown key 'nonsense'"}
    died = [e for e in read(plan.journal) if e.event == "died"]
    assert [(e.task, e.detail["name"]) for e in died] == [("combine", f"{plan.run}-combine-1")]


def test_an_interrupted_run_leaves_nothing_running(plan: Plan) -> None:
    raw = Path(plan.files["0:0"]["path"])
    raw.unlink()
    os.mkfifo(raw)
    pids: list[int] = []
    gang = replace(plan.groups[1], needs=[], tasks=[replace(t, needs=[]) for t in plan.groups[1].tasks])

    def interrupt(event: Event) -> None:
        if event.event == "started" and event.detail["pid"] not in pids:
            pids.append(event.detail["pid"])
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start() if len(pids) == 2 else None

    files = {**plan.files, "0:0": {"path": str(raw)}}
    with pytest.raises(KeyboardInterrupt):
        Runner(replace(plan, files=files, groups=[gang]), interrupt).run()
    until = time.monotonic() + 5
    while (living := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until:
        time.sleep(0.05)
    assert living == []


def serial(folder: Path) -> Plan:
    """Two serial groups that differ in nothing but their label and detector, and a gang of another detector."""
    groups = []
    for detector, label in enumerate(("first", "second", "gang")):
        group = plans.gang(folder, 4, DETECTORS, 1, label)
        kind = group.kind if label == "gang" else "serial"
        groups.append(replace(group, kind=kind, tasks=group.tasks[detector : detector + 1]))
    return plans.plan(folder, groups, plans.frames(folder / "raw", 4, DETECTORS), DETECTORS)


def test_serial_groups_that_are_alike_share_a_process(tmp_path: Path) -> None:
    made = serial(tmp_path)
    assert Runner(made, lambda event: None).run().done
    events = read(made.journal)
    first, second, gang = (e.detail["pid"] for e in events if e.event == "started" and e.task)
    assert first == second != gang
    jobs = [(e.task, e.detail["name"], e.detail["tasks"]) for e in events if e.event == "submitted"]
    assert jobs == [("first", "r-1-first-1", 1), ("second", "r-1-first-1", 1), ("gang", "r-1-gang-1", 1)]
    logs = {label: log_of(made.folder, f"{label}:0") for label in ("first", "second", "gang")}
    assert logs["first"] == logs["second"] != logs["gang"] and all(logs.values())


def test_a_task_that_kills_a_shared_process_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("campaign.running.retry.PAUSES_S", (0.0,))
    monkeypatch.setattr("campaign.running.retry.INFRASTRUCTURE", 1)
    made = serial(tmp_path)
    raw = Path(made.files["0:0"]["path"])
    raw.unlink()
    os.mkfifo(raw)  # whoever opens it waits, until the reaper comes
    reaper = Reaper("first:0")
    files = {**made.files, "0:0": {"path": str(raw)}}
    outcome = Runner(replace(made, files=files), reaper).run()
    assert reaper.killed == 2
    assert outcome.failed.keys() == {"first:0"} and outcome.published.keys() == {"second:1", "gang:2"}
    tried = [e.task for e in read(made.journal) if e.event in ("started", "failed") and e.task.startswith("second")]
    assert tried == ["second:1"]


class TestChunk:
    """Run a chunk on another worker after the first was lost."""

    @pytest.fixture
    def job(self, plan: Plan) -> Path:
        runner = Runner(plan, lambda event: None)
        runner.chunks = {"isr": chunked(plan.groups[0].tasks)}
        return Path(runner.prepare("isr")[0])

    def journal(self, job: Path) -> Path:
        return Path(json.loads(job.read_text())["journal"] + ".r0.jsonl")

    def test_a_chunk_is_done_as_it_is(self, job: Path) -> None:
        assert chunk.unfinished(str(job)) == chunk.Rest(str(job))

    def test_what_is_told_is_not_done_again(self, job: Path) -> None:
        assert chunk.run([str(job)], 0) == chunk.Answer()
        assert chunk.unfinished(str(job)) == chunk.Rest("")

    def test_what_is_left_is_done_by_another_job(self, job: Path) -> None:
        assert chunk.run([str(job)], 0) == chunk.Answer()
        path = self.journal(job)
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:5]) + lines[5][:20])  # two published; a third begun; half a line
        left = json.loads(Path(chunk.unfinished(str(job)).path).read_text())
        assert (left["attempt"], len(left["tasks"])) == (2, CHUNK - 2)
        assert chunk.run([str(job)], 0) == chunk.Answer()
        assert chunk.unfinished(str(job)) == chunk.Rest("")
        told = [json.loads(line) for p in path.parent.glob("isr*") for line in p.read_text().splitlines()[:-1]]
        assert {e["event"] for e in told} == {"started", "published"}

    def test_an_error_is_a_text(self, tmp_path: Path) -> None:
        answer = chunk.run([str(tmp_path / "none.json")], 0)
        assert answer.why.startswith("FileNotFoundError")
        assert answer.cause == "code"
        assert chunk.run([""], 0) == chunk.Answer()


def test_absence_is_no_success(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that ends well without a line in the journal has failed."""
    monkeypatch.setattr("campaign.running.record.LATE_SECONDS", 0.1)
    monkeypatch.setattr("campaign.running.retry.PAUSES_S", (0.0,))
    tried = []

    class Silent(Local):
        def job(self, *_: object) -> Death:
            tried.append(1)
            return Death()

    gang = replace(plan.groups[1], needs=[], tasks=[replace(t, needs=[]) for t in plan.groups[1].tasks])
    outcome: Outcome = Runner(replace(plan, groups=[gang]), lambda event: None, Silent()).run()
    assert len(outcome.failed) == DETECTORS
    assert all("does not say" in why for why in outcome.failed.values())
    assert len(tried) == 1 + INFRASTRUCTURE


#: Runs quanta where every process of Python's that is started ends at once.
POISONED = """
import os, sys
from pathlib import Path
from campaign.errors import TransientError
from campaign.running.runner import Runner
from tests.campaign import plans
from tests.conftest import ROOT
folder = Path(sys.argv[1])
os.environ["PYTHONPATH"] = sys.argv[2]
plan = plans.plan(folder, [plans.quanta(folder, 2, 1)], plans.frames(folder / "raw", 2, 1), 1)
try:
    Runner(plan, lambda event: None).run()
except TransientError as error:
    print(error.exit_code, error)
"""


def test_workers_that_do_not_start_are_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(7)\n")
    line = [sys.executable, "-c", POISONED, str(tmp_path / "run"), str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert re.match("75 Dask('s workers do| does) not start: Nanny failed to start", done.stdout), done.stderr
    assert not list((tmp_path / "run").glob(".keys-*"))


def test_a_run_that_is_paused_and_drained_is_gone_on_with(plan: Plan) -> None:
    """Nothing is begun; another runner does all of it, and a third has nothing left to do."""
    control.ask(plan.folder, control.PAUSE)
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(Runner(plan, lambda event: None).run()))
    thread.start()
    until = time.monotonic() + 20
    while not any(e.event == "submitted" for e in read(plan.journal)) and time.monotonic() < until:
        time.sleep(0.05)
    control.ask(plan.folder, control.DRAIN)
    thread.join(20)
    (outcome,) = found
    assert outcome.drained
    assert not outcome.done
    assert (outcome.published, outcome.failed, outcome.skipped) == ({}, {}, {})
    control.take_back(plan.folder)
    assert Runner(plan, lambda event: None).run().done
    events = read(plan.journal)
    published = [e.task for e in events if e.event == "published"]
    assert len(published) == len(set(published)) == 9 * DETECTORS
    assert Runner(plan, lambda event: None).run().done
    assert len(read(plan.journal)) == len(events)
