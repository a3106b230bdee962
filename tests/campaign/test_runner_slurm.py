"""Plans run by a real Slurm: gangs over nodes, quanta on worker jobs, and the fate of damaged jobs."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fitsio
import psutil
import pytest

from campaign.journal import control
from campaign.journal.events import Event, read
from campaign.journal.plan import Group, Plan
from campaign.running.runner import Runner
from campaign.schedulers import secure
from campaign.schedulers.protocol import Refused
from campaign.schedulers.slurm import Slurm
from slurm.commands import call, queue
from slurm.development import Cluster
from slurm.settings import Scheduler
from tests import strangers
from tests.campaign import plans

pytestmark = pytest.mark.processes

importlib.import_module("slurm.workers")  # by the main thread: dask-jobqueue sets a signal handler

DETECTORS, EXPOSURES = 3, 8
PATIENCE_S = 30


def scheduler(cluster: Cluster, **more: Any) -> Scheduler:
    return Scheduler(conf=cluster.conf, interface="lo", **more)


@pytest.fixture
def backend(cluster: Cluster) -> Slurm:
    """Two workers, and nodes of two cores as far as gangs are concerned."""
    return Slurm("usdf", scheduler(cluster, node_cores=2), 2)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Quanta and a gang of four ranks, in a folder with a blank, under a run's name of its own."""
    return make(tmp_path / "a blank", f"r-{tmp_path.name}".replace("_", "-"))


def make(folder: Path, run: str) -> Plan:
    files = plans.frames(folder / "raw", EXPOSURES, DETECTORS)
    groups = [plans.quanta(folder, EXPOSURES, DETECTORS), plans.gang(folder, EXPOSURES, DETECTORS, 4)]
    return plans.plan(folder, groups, files, DETECTORS, run)


def blocked(plan: Plan, key: str) -> tuple[Plan, Callable[[], None]]:
    """Make a plan with a raw frame that blocks its readers, and a function that delivers the frame."""
    raw = Path(plan.files[key]["path"])
    kept = raw.rename(raw.with_name(f"kept {raw.name}"))
    os.mkfifo(raw)
    return replace(plan, files={**plan.files, key: {"path": str(raw)}}), lambda: os.replace(kept, raw)


def only(plan: Plan, group: Group) -> Plan:
    return replace(plan, groups=[group])


def wait_for(what: Callable[[], Any], patience: float = PATIENCE_S) -> Any:
    until = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
    return found


class Running:
    """A plan that runs in a thread."""

    def __init__(self, plan: Plan, backend: Slurm) -> None:
        self.plan, self.events = plan, list[Event]()
        self.runner = Runner(plan, self.events.append, backend)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.runner.run()
        except BaseException as error:
            self.error = error

    def detail(self, event: str, task: str) -> Mapping[str, Any]:
        """Wait for an event."""
        found = lambda: [e.detail for e in list(self.events) if (e.event, e.task) == (event, task)]  # noqa: E731
        return dict(wait_for(found)[0])

    def end(self, patience: float = PATIENCE_S) -> None:
        self._thread.join(patience)
        assert not self._thread.is_alive(), "it hangs"
        assert self.error is None


def living(cluster: Cluster, run: str) -> list[str]:
    return [one.job for one in queue(cluster.access) if one.living and one.name.startswith(run)]


def gone(cluster: Cluster, run: str) -> None:
    """A cancelled job takes a moment to disappear."""
    wait_for(lambda: not living(cluster, run))


def pixels(plan: Plan) -> dict[str, bytes]:
    return {
        Path(o.path).name: b"".join(fitsio.read(o.path, hdu).tobytes() for hdu in ("IMAGE", "MASK", "VARIANCE"))
        for task in plan.tasks
        for o in task.outputs
    }


def test_a_site_makes_the_same_bits_as_this_machine(cluster: Cluster, backend: Slurm, tmp_path: Path) -> None:
    here, there = make(tmp_path / "here", "r-here"), make(tmp_path / "over there", "r-there")
    assert Runner(here, lambda event: None).run().done
    began = time.monotonic()
    outcome = Runner(there, lambda event: None, backend).run()
    took = time.monotonic() - began
    assert outcome.done
    assert len(outcome.published) == DETECTORS * (EXPOSURES + 1)
    assert pixels(here) == pixels(there)
    events = read(there.journal)
    assert {e.site for e in events} == {"usdf"}
    names = [e.detail["name"] for e in events if e.event in ("submitted", "queued") and e.task == "combine"]
    assert names == ["r-there-combine-1"] * 2  # the name is known before the job exists
    (job,) = [e.detail["job"] for e in events if e.event == "queued"]
    said = call(cluster.access, ["scontrol", "--oneliner", "show", "job", job])
    assert "NumNodes=2" in said
    joined = [e for e in events if e.event == "worker" and e.detail["state"] == "joined"]
    assert len(joined) == 2
    gone(cluster, "r-there")
    assert backend.commands <= took + 2, "more than a command a second"


def test_a_cancelled_gang_fails_its_tasks_with_the_cause(cluster: Cluster, backend: Slurm, plan: Plan) -> None:
    hurt, _ = blocked(only(plan, plan.groups[1]), "0:1")
    running = Running(hurt, backend)
    running.detail("started", "combine:1")
    call(cluster.access, ["scancel", running.detail("queued", "combine")["job"]])
    running.end()
    outcome = running.runner.outcome
    assert "combine:1" in outcome.failed
    assert "CANCELLED" in outcome.failed["combine:1"]
    causes = {e.detail["cause"] for e in read(hurt.journal) if e.event in ("failed", "died")}
    assert causes == {"cancelled"}


def nothing_for_strangers(plan: Plan, folder: Path) -> None:
    """Driver and workers listen on one address each, and answer nobody with other keys."""
    (own,) = plan.folder.glob(f"{secure.PREFIX}*")
    jobs = [one.pid for one in psutil.process_iter(["cmdline"]) if str(own) in (one.info["cmdline"] or ())]
    assert len(jobs) == 2
    ports = sorted(set(strangers.listening(os.getpid(), *jobs)))
    assert len(ports) > 6  # scheduler, nannies, workers, the driver's own
    assert {host for host, _ in ports} == {"127.0.0.1"}
    with secure.keys(folder) as others:
        assert [port for port in ports if strangers.given(strangers.answer(*port, others))] == []
    assert not strangers.may_read(own)


def test_a_lost_worker_is_replaced_and_its_chunk_done_again(
    cluster: Cluster, backend: Slurm, plan: Plan, tmp_path: Path
) -> None:
    hurt, mend = blocked(only(plan, plan.groups[0]), "5:1")
    running = Running(hurt, backend)
    running.detail("started", "isr:5,1")
    nothing_for_strangers(hurt, tmp_path)
    mend()
    (job,) = [e.detail["name"] for e in running.events if e.event == "submitted" and e.task == "workers"]
    call(cluster.access, ["scancel", "--name", job])  # all of them
    running.end()
    assert running.runner.outcome.done
    events = read(hurt.journal)
    assert sorted(e.detail["cause"] for e in events if e.event == "died") == ["cancelled", "cancelled"]
    assert sum(e.event == "worker" and e.detail["state"] == "joined" for e in events) >= 3
    published = [e.task for e in events if e.event == "published"]
    assert len(published) == len(set(published)) == DETECTORS * EXPOSURES
    gone(cluster, plan.run)


def test_a_living_job_of_the_name_is_adopted(cluster: Cluster, backend: Slurm, plan: Plan) -> None:
    hurt, _ = blocked(only(plan, plan.groups[1]), "0:1")
    first = Running(hurt, backend)
    job = first.detail("queued", "combine")["job"]
    first.detail("started", "combine:1")
    # Another driver of the same run; the first one's journal is not in its way.
    second = Running(replace(hurt, submit_path=f"{hurt.submit_path} again"), Slurm("usdf", scheduler(cluster), 2))
    assert second.detail("adopted", "combine") == {"name": f"{plan.run}-combine-1", "job": job}
    call(cluster.access, ["scancel", job])
    first.end()
    second.end()
    assert len(second.runner.outcome.failed) == DETECTORS


@pytest.mark.parametrize("which", [0, 1], ids=["workers", "gang"])
def test_what_slurm_refuses_is_refused_with_its_words(cluster: Cluster, plan: Plan, which: int) -> None:
    backend = Slurm("usdf", scheduler(cluster, partition="nosuch"), 2)
    with pytest.raises(Refused, match="invalid partition") as refused:
        Runner(only(plan, plan.groups[which]), lambda event: None, backend).run()
    assert refused.value.exit_code == 4
    gone(cluster, plan.run)


def test_workers_that_never_come_up_end_the_run(cluster: Cluster, plan: Plan) -> None:
    backend = Slurm("usdf", scheduler(cluster, python="/bin/false"), 2)
    running = Running(only(plan, plan.groups[0]), backend)
    running.end()
    failed = running.runner.outcome.failed
    assert len(failed) == DETECTORS * EXPOSURES
    assert "no worker comes up" in failed["isr:0,0"]
    assert {e.detail["cause"] for e in read(plan.journal) if e.event == "failed"} == {"configuration"}
    gone(cluster, plan.run)


def test_an_interrupted_run_leaves_nothing_queued(cluster: Cluster, backend: Slurm, plan: Plan) -> None:
    hurt, _ = blocked(plan, "0:1")

    def interrupt(event: Event) -> None:
        if event.event == "started" and event.task == "combine:1":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Runner(hurt, interrupt, backend).run()
    gone(cluster, plan.run)


def test_workers_of_a_driver_that_was_killed_are_cancelled_by_the_next(
    cluster: Cluster, backend: Slurm, plan: Plan, tmp_path: Path
) -> None:
    script = tmp_path / "old.sh"
    script.write_text(f"#!/bin/sh\n#SBATCH --job-name={plan.run}-workers-1.0\n#SBATCH -o /dev/null\nsleep 600\n")
    old = subprocess.run(
        ["sbatch", "--parsable", script], env={**os.environ, "SLURM_CONF": cluster.conf}, capture_output=True, text=True
    ).stdout.strip()
    assert living(cluster, plan.run) == [old]
    running = Running(only(plan, plan.groups[0]), backend)
    running.detail("started", "isr:0,0")
    assert old not in living(cluster, plan.run)
    running.end()


def test_workers_that_wait_for_their_nodes_do_not_hold_a_drain_up(
    new_cluster: Callable[..., Cluster], plan: Plan
) -> None:
    own = new_cluster("full", nodes=1)
    call(own.access, ["scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test"])
    running = Running(only(plan, plan.groups[0]), Slurm("usdf", scheduler(own, node_cores=2), 2))
    running.detail("submitted", "workers")
    control.ask(plan.folder, control.DRAIN)
    running.end()
    assert running.runner.outcome.drained
    gone(own, plan.run)
