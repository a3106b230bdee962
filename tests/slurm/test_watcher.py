"""One watcher through everything that happens to jobs, on real clusters; the slow stories run side by side."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from slurm.commands import SlurmError, call, cancel, find, once, submit
from slurm.development import Cluster, down, up
from slurm.scripts import gang_script, keep
from slurm.settings import Resources, Scheduler
from slurm.states import State, Status
from slurm.watcher import Watcher, due

pytestmark = pytest.mark.processes

SMALL = Resources(memory_mib=50, minutes=5)
EAT = "x = bytearray(b'1' * (300 << 20)); import time; time.sleep(60)"


def write(folder: Path, name: str, *command: str, resources: Resources = SMALL, **site: object) -> Path:
    log = folder / f"{name}.log"
    return keep(gang_script(name, command, log, resources, Scheduler(**site)), log)  # type: ignore[arg-type]


class Controller:
    """A cluster's slurmctld, to be stopped and started again."""

    def __init__(self, cluster: Cluster) -> None:
        self._pid = cluster.daemons["slurmctld"]
        here = Path(f"/proc/{self._pid}")
        self._command = here.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        pairs = here.joinpath("environ").read_bytes().rstrip(b"\0").split(b"\0")
        self._environment = dict(pair.split(b"=", 1) for pair in pairs)
        self._own: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        os.kill(self._own.pid if self._own else self._pid, signal.SIGTERM)
        if self._own:
            self._own.wait(10)
        while not self._own and self._alive():
            time.sleep(0.05)

    def _alive(self) -> bool:
        stat = Path(f"/proc/{self._pid}/stat")
        return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"

    def start(self) -> None:
        self._own = subprocess.Popen(
            self._command,
            env=self._environment,  # type: ignore[arg-type]
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end(self) -> None:
        if self._own and self._own.poll() is None:
            self._own.kill()
            self._own.wait()


@dataclass
class Outage:
    """Observations while the controller was away."""

    seen: set[State] = field(default_factory=set)
    trouble: str = ""
    commands: int = 0
    seconds: float = 0.0
    short: Status | None = None
    long: Status | None = None


def outage(cluster: Cluster, controller: Controller, folder: Path, story: Outage) -> None:
    """Stop the controller for 15 s while jobs continue.

    One ends soon after: had it ended in between, slurmd would have told the controller only 15 s later.
    """
    access = cluster.access
    with Watcher(access, interval=0.5) as watcher:
        short, long = (submit(access, write(folder, f"run-{n}-1", "sleep", str(n))) for n in (16, 60))
        for job in (short, long):
            watcher.watch(job)
        while watcher.status(long).state is not State.RUNNING:
            time.sleep(0.1)
        before, began = watcher.commands, time.monotonic()
        controller.stop()
        while time.monotonic() - began < 15:
            time.sleep(0.1)
            story.seen.add(watcher.status(long).state)
            story.trouble = story.trouble or watcher.trouble
        story.commands = watcher.commands - before
        controller.start()
        story.short = watcher.wait(short, 30)
        story.seconds = time.monotonic() - began
        story.long = watcher.status(long)
    cancel(access, long)


@dataclass
class Stories:
    """Jobs that run side by side."""

    watcher: Watcher
    jobs: dict[str, str]
    outage: Outage
    thread: threading.Thread


@pytest.fixture(scope="module")
def stories(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stories]:
    """Start everything that takes long; the tests examine the results."""
    root = tmp_path_factory.mktemp("stories")
    away = up(root / "away", "away", nodes=1)
    controller = Controller(away)
    story = Outage()
    thread = threading.Thread(target=outage, args=(away, controller, root / "outage", story))
    thread.start()
    python = [sys.executable, "-P", "-c"]
    gang = Resources(memory_mib=60, ranks=2, nodes=2, minutes=5)
    scripts = {
        "done": write(root, "run-done-1", "true"),
        "exit": write(root, "run-exit-1", "bash", "-c", "exit 3"),
        "eater": write(root, "run-eater-1", *python, EAT),
        "gang": write(root, "run-gang-1", *python, EAT, resources=gang),
        "killed": write(root, "run-killed-1", "bash", "-c", "kill -9 $PPID"),
    }
    try:
        with Watcher(cluster.access, interval=0.5) as watcher:
            jobs = {name: submit(cluster.access, path) for name, path in scripts.items()}
            for name, job in jobs.items():
                watcher.watch(job, f"run-{name}-1", scripts[name].with_suffix(".log"))
            yield Stories(watcher, jobs, story, thread)
    finally:
        thread.join()
        controller.end()
        down(root / "away")


def test_scancel_before_and_after_the_start(stories: Stories, cluster: Cluster, tmp_path: Path) -> None:
    access, watcher = cluster.access, stories.watcher
    runs = submit(access, write(tmp_path, "run-runs-1", "sleep", "60"))
    waits = submit(access, write(tmp_path, "run-waits-1", "sleep", "60", extra=["--hold"]))
    for job in (runs, waits):
        watcher.watch(job)
    while watcher.status(runs).state is not State.RUNNING or watcher.status(waits).state is not State.WAITING:
        time.sleep(0.05)
    assert watcher.status(waits).slurm == "PENDING (JobHeldUser)"
    assert watcher.wait(runs, 0.1).state is State.RUNNING
    cancel(access, runs, waits)
    for job in (runs, waits):
        status = watcher.wait(job, 10)
        assert (status.state, status.reason, status.slurm[:9]) == (State.FAILED, "cancelled", "CANCELLED")


def test_a_job_that_could_never_run_is_cancelled_and_failed(stories: Stories, cluster: Cluster, tmp_path: Path) -> None:
    call(cluster.access, ["scontrol", "create", "PartitionName=few", "Nodes=ALL", "MaxTime=10"])
    try:
        path = write(tmp_path, "run-never-1", "true", partition="few", resources=Resources(50, minutes=60))
        job = once(cluster.access, ["sbatch", "--parsable", "--array=0-1", str(path)]).strip()
        for element in (f"{job}_0", f"{job}_1"):
            stories.watcher.watch(element)
            status = stories.watcher.wait(element, 20)
            assert (status.state, status.slurm) == (State.FAILED, "PENDING (PartitionTimeLimit)")
            assert status.reason == "failed"
        assert find(cluster.access, ["run-never-1"]) == {"run-never-1": []}
    finally:
        call(cluster.access, ["scontrol", "delete", "PartitionName=few"])


def test_the_commands_do_not_grow_with_the_jobs(cluster: Cluster, tmp_path: Path) -> None:
    path = write(tmp_path, "run-many-1", "true", extra=["--hold", "--array=0-999"])
    job = submit(cluster.access, path)
    try:
        with Watcher(cluster.access) as watcher:
            for index in range(1000):
                watcher.watch(f"{job}_{index}")
            time.sleep(2.5)
            assert watcher.status(f"{job}_999").state is State.WAITING
            assert 2 <= watcher.commands <= 3
    finally:
        cancel(cluster.access, job)


def test_quiet_jobs_are_asked_for_less_often() -> None:
    """But at least every three seconds, or as seldom as the site wants."""
    assert [due(1.0, quiet) for quiet in (0, 10, 15, 30, 1e6)] == [1.0, 1.0, 1.5, 3.0, 3.0]
    assert due(0.05, 0) == 0.05 and due(20.0, 1e6) == 20.0


def test_news_makes_a_watcher_attentive_again(cluster: Cluster, tmp_path: Path) -> None:
    """A job that is held is quiet; then its cancellation is news."""
    job = submit(cluster.access, write(tmp_path, "run-quiet-1", "true", extra=["--hold"]))
    with Watcher(cluster.access, interval=0.05) as watcher:
        watcher.watch(job)
        while watcher.status(job).state is not State.WAITING:
            time.sleep(0.02)
        seen = watcher._news
        time.sleep(1)
        assert watcher._news == seen and watcher.commands > 1
        cancel(cluster.access, job)
        assert watcher.wait(job, 10).ended and watcher._news > seen


def test_a_watcher_with_nothing_to_watch_asks_nothing(cluster: Cluster) -> None:
    with Watcher(cluster.access, interval=0.05) as watcher:
        time.sleep(0.3)
        assert watcher.commands == 0
        with pytest.raises(KeyError):
            watcher.status("1")


def test_closing_ends_the_waiting_and_leaves_the_jobs(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster.access, write(tmp_path, "run-close-1", "sleep", "60"))
    watcher = Watcher(cluster.access, interval=0.2)
    watcher.watch(job)
    threading.Timer(0.5, watcher.close).start()
    began = time.monotonic()
    assert not watcher.wait(job, 20).ended
    assert time.monotonic() - began < 5
    assert len(find(cluster.access, ["run-close-1"])["run-close-1"]) == 1
    cancel(cluster.access, job)


@pytest.mark.parametrize(
    ("name", "state", "cause", "code"),
    [
        ("done", State.DONE, "", "0:0"),
        ("exit", State.FAILED, "failed", "3:0"),
        ("killed", State.FAILED, "infrastructure", "0:9"),
        ("eater", State.FAILED, "memory", "0:9"),
        ("gang", State.FAILED, "memory", ""),
    ],
)
def test_every_end_has_its_cause(stories: Stories, name: str, state: State, cause: str, code: str) -> None:
    status = stories.watcher.wait(stories.jobs[name], 90)
    assert (status.state, status.reason, status.name) == (state, cause, f"run-{name}-1"), status
    assert code in ("", status.exit_code)


def test_a_node_that_goes_down_is_nobodys_fault(stories: Stories, cluster: Cluster, tmp_path: Path) -> None:
    node, watcher = cluster.nodes[-1], stories.watcher
    job = submit(cluster.access, write(tmp_path, "run-pin-1", "sleep", "60", extra=[f"--nodelist={node}"]))
    watcher.watch(job)
    while watcher.status(job).state is not State.RUNNING:
        time.sleep(0.05)
    update = ["scontrol", "update", f"NodeName={node}"]
    call(cluster.access, [*update, "State=DOWN", "Reason=test"])
    try:
        status = watcher.wait(job, 20)
        assert (status.state, status.reason) == (State.RETRY, "infrastructure"), status
        assert status.slurm.startswith("NODE_FAIL")
    finally:
        with suppress(SlurmError):  # ReturnToService may have been quicker
            call(cluster.access, [*update, "State=RESUME"])


def test_what_slurm_has_forgotten_is_told_by_the_accounting_or_unknown(
    new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    forgetful = new_cluster("forgetful", nodes=2)
    access, controller = forgetful.access, Controller(forgetful)
    runs = {"good": ["true"], "bad": ["bash", "-c", "exit 3"], "lost": ["sleep", "60"]}
    jobs = {name: submit(access, write(tmp_path, f"run-{name}-1", *command)) for name, command in runs.items()}
    array = submit(access, write(tmp_path, "run-array-1", "bash", "-c", "exit $SLURM_ARRAY_TASK_ID", extra=["-a0-2"]))
    try:
        with Watcher(access, interval=0.3, grace=2) as watcher:
            watcher.watch(jobs["lost"], "run-lost-1")
            while watcher.status(jobs["lost"]).state is not State.RUNNING:
                time.sleep(0.05)
            while any(find(access, ["run-good-1", "run-bad-1", "run-array-1"]).values()):
                time.sleep(0.05)
            controller.stop()
            for file in (Path(forgetful.conf).parent / "state").iterdir():
                shutil.rmtree(file) if file.is_dir() else file.unlink()
            controller.start()
            again = submit(access, write(tmp_path, "run-again-1", "bash", "-c", "exit 5"))
            assert again == jobs["good"]  # numbers begin anew
            while any(find(access, ["run-again-1"]).values()):
                time.sleep(0.05)
            for name in ("good", "bad"):
                watcher.watch(jobs[name], f"run-{name}-1")
            watcher.watch(f"{array}_1", "run-array-1")
            watcher.watch("9999", "run-nobody-1")
            ends = {name: watcher.wait(job, 30) for name, job in jobs.items()}
            assert (ends["good"].state, ends["good"].exit_code, ends["good"].slurm) == (State.DONE, "0:0", "COMPLETED")
            assert (ends["bad"].state, ends["bad"].exit_code, ends["bad"].reason) == (State.FAILED, "3:0", "failed")
            for status in (ends["lost"], watcher.wait(f"{array}_1", 30), watcher.wait("9999", 30)):
                assert (status.state, status.reason) == (State.UNKNOWN, "infrastructure"), status
    finally:
        controller.end()


def test_the_watch_goes_on_over_a_controller_that_is_away(stories: Stories) -> None:
    stories.thread.join()
    story = stories.outage
    assert State.UNKNOWN in story.seen
    assert not story.seen & {State.DONE, State.FAILED, State.RETRY}
    assert story.trouble
    assert story.commands <= 8
    assert story.short is not None and story.long is not None
    assert (story.short.state, story.long.state) == (State.DONE, State.RUNNING)


@pytest.mark.soak
def test_a_warning_before_the_walltime(cluster: Cluster, tmp_path: Path) -> None:
    minute = Resources(memory_mib=50, minutes=1)
    path = write(tmp_path, "run-warned-1", "sleep", "90", resources=minute, signal_before_s=59)
    job = submit(cluster.access, path)
    with Watcher(cluster.access) as watcher:
        watcher.watch(job)
        status = watcher.wait(job, 90)
    assert (status.state, status.reason, status.exit_code) == (State.FAILED, "walltime", "124:0")


@pytest.mark.soak
def test_a_slurmd_that_is_killed(new_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = new_cluster("failing", nodes=2)
    job = submit(cluster.access, write(tmp_path, "run-node-1", "sleep", "90"))
    with Watcher(cluster.access) as watcher:
        watcher.watch(job)
        while watcher.status(job).state is not State.RUNNING:
            time.sleep(0.05)
        os.kill(cluster.daemons[cluster.nodes[0]], signal.SIGKILL)
        status = watcher.wait(job, 80)
    assert (status.state, status.reason) == (State.RETRY, "infrastructure"), status


@pytest.mark.soak
def test_a_job_over_its_walltime(cluster: Cluster, tmp_path: Path) -> None:
    minute = Resources(memory_mib=50, minutes=1)
    plain = submit(cluster.access, write(tmp_path, "run-late-1", "sleep", "300", resources=minute))
    with Watcher(cluster.access) as watcher:
        watcher.watch(plain)
        status = watcher.wait(plain, 240)
    assert (status.state, status.reason, status.slurm) == (State.FAILED, "walltime", "TIMEOUT (TimeLimit)")


@pytest.mark.soak
def test_a_controller_that_is_away_for_a_minute(new_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = new_cluster("away")
    controller = Controller(cluster)
    try:
        job = submit(cluster.access, write(tmp_path, "run-away-1", "sleep", "20"))
        with Watcher(cluster.access) as watcher:
            watcher.watch(job)
            controller.stop()
            with pytest.raises(SlurmError) as refused:
                submit(cluster.access, write(tmp_path, "run-away-2", "true"), patience=1)
            assert refused.value.transient
            waiting = threading.Timer(50, controller.start)
            waiting.start()
            late = submit(cluster.access, write(tmp_path, "run-away-3", "true"), patience=120)
            watcher.watch(late)
            assert {watcher.wait(job, 60).state, watcher.wait(late, 60).state} == {State.DONE}
    finally:
        controller.end()
