"""Faults of a scheduler, its nodes and its jobs, on a real cluster.

Items 3 (node down), 6 (the Dask scheduler is killed, with the driver that it lives in), 7 (the driver is killed while
jobs are queued or run), 9 (the login node is gone: the driver is a job), 10 (walltime) and 11 (memory).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from campaign.butler.repository import open_repository
from campaign.home import Home
from campaign.journal.events import read
from campaign.schedulers.slurm import Slurm
from slurm.commands import call, queue
from slurm.development import Cluster
from slurm.settings import Scheduler
from tests.campaign.test_runner_slurm import Running, blocked, make, only, wait_for
from tests.conftest import soak
from tests.faults.conftest import Operator
from tests.faults.test_kill_points import TASKS, Killed

TEMPLATE = str(Path(__file__).parents[1] / "data" / "bps_isr.yaml")
#: Eight corrected frames, two biases, the table of levels, a mosaic.
ISR_TASKS = 8 + 4
SITE = """\
name: usdf
fraction: 0.25
roles: [archive, processing]
scheduler: {{conf: "{conf}", interface: lo, node_cores: 2}}
"""


@pytest.fixture
def sites(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared cluster is the site usdf."""
    folder = tmp_path / "sites"
    folder.mkdir()
    (folder / "usdf.yaml").write_text(SITE.format(conf=cluster.conf))
    monkeypatch.setenv("CAMPAIGN_SITES", str(folder))


@pytest.fixture
def killed(operator: Operator, sites: None, request: pytest.FixtureRequest) -> Callable[..., Killed]:
    def make(template: str) -> Killed:
        name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
        return Killed(operator, name, template, "--site", "usdf")

    return make


def living(cluster: Cluster, run: Killed) -> list[str]:
    (name,) = {e.run for e in read(run.folder / "journal")}
    return [one.name for one in queue(cluster.access) if one.living and one.name.startswith(name)]


@pytest.mark.parametrize("point", ["job-submitting", "job-accepted", soak("job-queued")])
def test_item_07_a_driver_killed_around_sbatch(killed: Callable[..., Killed], cluster: Cluster, point: str) -> None:
    run = killed("bps_bias")
    assert run.submit(point) == -signal.SIGKILL, run.err
    assert run.restart() == 0, run.err
    run.require_whole(TASKS)
    events = [e for e in read(run.folder / "journal") if e.task == "cpBiasCombine"]
    assert sum(e.event == "queued" for e in events) <= 1  # never doubled: accepted jobs are adopted, or have ended
    assert living(cluster, run) == []


@pytest.mark.parametrize("point", ["quanta-submitted", soak("tasks-settled")])
def test_item_06_the_dask_scheduler_is_killed(killed: Callable[..., Killed], cluster: Cluster, point: str) -> None:
    run = killed(TEMPLATE)
    assert run.submit(point) == -signal.SIGKILL, run.err
    assert run.restart() == 0, run.err
    run.require_whole(ISR_TASKS)
    wait_for(lambda: living(cluster, run) == [])


def test_item_09_the_driver_is_a_job(killed: Callable[..., Killed], cluster: Cluster) -> None:
    run = killed("bps_bias")
    run.options = ("--site", "usdf", "--detach=job")
    assert run.submit() == 0, run.err
    assert "follow it   campaign status" in run.out
    wait_for(lambda: [e for e in read(run.folder / "journal") if (e.task, e.event) == ("", "done")])
    run.options = ("--site", "usdf")
    wait_for(lambda: living(cluster, run) == [])
    run.require_whole(TASKS)


@pytest.mark.parametrize("late", [False, True], ids=["beforehand", "by sbatch"])
def test_a_driver_that_is_refused_leaves_nothing(
    late: bool, killed: Callable[..., Killed], cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm takes no job of that size, or refuses it only at its submission, once the run is claimed."""
    run = killed("bps_bias")
    run.options = ("--site", "usdf", "--detach=job")
    if late:
        real = shutil.which("sbatch")
        script = (
            f'case "$*" in *--test-only*) exec {real} "$@";; esac; echo "sbatch: error: QOSMaxSubmitJob" >&2; exit 1'
        )
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "sbatch").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    else:
        run.options += ("--set", "driverMemory=99999999", "--set", "driverWalltime=7")
    assert run.submit() == 4, run.err
    assert ("QOSMaxSubmitJob" if late else "Memory specification can not be satisfied") in run.err
    assert not run.folder.exists()
    assert run.run_collection not in {entry["output_run"] for entry in Home(run.operator.repo / "campaign").runs()}
    with open_repository(str(run.operator.repo)) as repository:
        assert repository.collection_type(run.run_collection) is None


def scheduler(cluster: Cluster, **more: object) -> Scheduler:
    return Scheduler(conf=cluster.conf, interface="lo", node_cores=2, **more)  # type: ignore[arg-type]


@pytest.mark.soak
def test_item_03_a_node_is_lost(new_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """Its slurmd and the gang on it are killed: another node has the gang, and no try is charged."""
    own = new_cluster("hurt", nodes=3, cpus=2)
    plan = make(tmp_path / "a", "r-node")
    hurt, mend = blocked(only(plan, plan.groups[1]), "0:1")
    running = Running(hurt, Slurm("usdf", scheduler(own), 2))
    first = running.detail("started", "combine:1")
    job = running.detail("queued", "combine")["job"]
    said = call(own.access, ["scontrol", "--oneliner", "show", "job", job])
    node = next(word for word in said.split() if word.startswith("BatchHost=")).removeprefix("BatchHost=")
    mend()
    os.kill(own.daemons[node], signal.SIGKILL)
    os.kill(int(first["pid"]), signal.SIGKILL)
    running.end(60)
    assert running.runner.outcome.done
    events = read(hurt.journal)
    assert {e.detail["cause"] for e in events if e.event == "died"} == {"infrastructure"}
    assert [e.detail["causes"] for e in events if e.event == "retry"] == [["infrastructure"]]


def test_item_11_a_gang_out_of_memory(cluster: Cluster, tmp_path: Path) -> None:
    """More memory, until it is enough; the next driver remembers it."""
    plan = make(tmp_path / "a", "r-memory")
    group = plan.groups[1]
    small = {**group.resources, "memory_mib": 50}
    tight = type(group)(**{**vars(group), "resources": small, "policy": {"memoryLimit": 120}, "ranks": 1})
    hurt, mend = blocked(only(plan, tight), "0:1")
    running = Running(hurt, Slurm("usdf", scheduler(cluster), 2))
    running.end(60)
    outcome = running.runner.outcome
    asked = [e.detail["resources"]["memory_mib"] for e in read(hurt.journal) if e.event == "submitted"]
    assert asked == [50, 100, 120]
    assert outcome.causes["combine:1"] == "memory"
    mend()
    wider = type(group)(**{**vars(tight), "policy": {"memoryLimit": 4000}})
    again = Running(only(hurt, wider), Slurm("usdf", scheduler(cluster), 2))
    again.end(60)
    assert again.runner.outcome.done
    asked = [e.detail["resources"]["memory_mib"] for e in read(hurt.journal) if e.event == "submitted"]
    assert asked[3] == 240
    assert [e.task for e in read(hurt.journal) if e.event == "published"].count("combine:0") == 1


def test_item_11_workers_out_of_memory(cluster: Cluster, tmp_path: Path) -> None:
    """The nanny ends a worker for want of memory: the only sign of it is an event."""
    plan = make(tmp_path / "a", "r-nanny")
    group = plan.groups[0]
    small = {**group.resources, "memory_mib": 290}
    tight = only(plan, type(group)(**{**vars(group), "resources": small}))
    running = Running(tight, Slurm("usdf", scheduler(cluster), 1))
    running.end(120)
    events = read(plan.journal)
    assert running.runner.outcome.done, running.runner.outcome.failed
    assert [e.detail["causes"] for e in events if e.event == "retry"] == [["memory"]]
    asked = [e.detail["resources"]["memory_mib"] for e in events if e.event == "submitted" and e.task == "isr"]
    assert asked == [290, 580]


@pytest.mark.soak
def test_item_10_walltime(cluster: Cluster, tmp_path: Path) -> None:
    """A signal beforehand, then twice the time; Slurm checks limits every 30 s."""
    plan = make(tmp_path / "a", "r-time")
    group = plan.groups[1]
    short = type(group)(**{**vars(group), "resources": {**group.resources, "minutes": 1}})
    hurt, mend = blocked(only(plan, short), "0:1")
    running = Running(hurt, Slurm("usdf", scheduler(cluster, signal_before_s=20), 2))
    wait_for(lambda: [e for e in running.events if e.event == "retry"], 150)
    mend()
    running.end(60)
    assert running.runner.outcome.done
    events = read(hurt.journal)
    assert [e.detail["causes"] for e in events if e.event == "retry"] == [["walltime"]]
    assert [e.detail["resources"]["minutes"] for e in events if e.event == "submitted"] == [1, 2]
