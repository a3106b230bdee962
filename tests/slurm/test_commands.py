"""Slurm's commands on a real cluster: refusals, time-outs, and what a job inherits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from campaign.schedulers.slurm import Slurm
from slurm.commands import Access, SlurmError, call, cancel, find, name_of, once, pauses, queue, submit, try_out
from slurm.development import Cluster
from slurm.scripts import gang_script, keep
from slurm.settings import Resources, Scheduler
from slurm.states import State
from slurm.watcher import Watcher

pytestmark = pytest.mark.processes

SMALL = Resources(memory_mib=50, minutes=5)
MPIEXEC = Path(sysconfig.get_path("scripts")) / "mpiexec"
#: A rank's environment, in a file of its own.
ENVIRONMENT = "import json, os; json.dump(dict(os.environ), open(os.environ['SLURM_PROCID'] + '.json', 'w'))"


def script(folder: Path, name: str, *command: str, resources: Resources = SMALL, **site: object) -> Path:
    """Write a job script into a folder with a blank."""
    log = folder / "logs of it" / f"{name}.log"
    return keep(gang_script(name, command, log, resources, Scheduler(**site)), log)  # type: ignore[arg-type]


@pytest.fixture
def limited(cluster: Cluster) -> Iterator[str]:
    """A partition of ten minutes."""
    call(cluster.access, ["scontrol", "create", "PartitionName=tiny", "Nodes=ALL", "MaxTime=10"])
    yield "tiny"
    call(cluster.access, ["scontrol", "delete", "PartitionName=tiny"])


@pytest.mark.parametrize(
    ("site", "resources", "words"),
    [
        ({"partition": "nowhere"}, SMALL, "invalid partition specified: nowhere"),
        ({"constraint": "gpu"}, SMALL, "Invalid feature specification"),
        ({"reservation": "night"}, SMALL, "Requested reservation is invalid"),
        ({}, Resources(99999), "Memory specification can not be satisfied"),
        ({"extra": ["--array=0-999999"]}, SMALL, "Invalid job array specification"),
        ({"extra": ["--fairy=1"]}, SMALL, "fairy"),
        # Slurm accepts this one, and keeps it waiting without end
        ({"partition": "tiny"}, Resources(50, minutes=60), "the job could never run: PartitionTimeLimit"),
    ],
)
def test_a_refused_job_says_why_and_leaves_nothing_queued(
    site: dict[str, object], resources: Resources, words: str, cluster: Cluster, limited: str, tmp_path: Path
) -> None:
    path = script(tmp_path, "run-refused-1", "true", resources=resources, **site)
    with pytest.raises(SlurmError) as refused:
        submit(cluster.access, path)
    error = refused.value
    assert words in str(error).splitlines()[0]
    assert str(error).count("\n") == 0
    assert error.command == ["sbatch", "--parsable", str(path)]
    assert not error.transient
    assert find(cluster.access, ["run-refused-1"]) == {"run-refused-1": []}


def test_an_account_that_a_partition_does_not_take_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    call(cluster.access, ["scontrol", "create", "PartitionName=drp", "Nodes=ALL", "AllowAccounts=drp"])
    try:
        with pytest.raises(SlurmError, match="the job could never run: Job's account not known"):
            submit(cluster.access, script(tmp_path, "run-account-1", "true", partition="drp"))
        assert find(cluster.access, ["run-account-1"]) == {"run-account-1": []}
    finally:
        call(cluster.access, ["scontrol", "delete", "PartitionName=drp"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"partition": "nosuch"}, "invalid partition specified: nosuch"),
        ({"constraint": "nosuch"}, "Invalid feature specification"),
        ({"reservation": "nosuch"}, "Requested reservation is invalid"),
        ({"extra": ("--nosuch",)}, "unrecognized option '--nosuch'"),
        ({"partition": "main"}, ""),
        ({"extra": ("--nodes=99",)}, ""),  # that many nodes may be up tomorrow
    ],
)
def test_what_is_tried_out_is_not_queued(settings: dict[str, Any], words: str, cluster: Cluster) -> None:
    script = gang_script("tried", ["true"], Path("/dev/null"), Resources(50), Scheduler(**settings))
    if words:
        with pytest.raises(SlurmError, match=words):
            try_out(cluster.access, script)
    else:
        try_out(cluster.access, script)
    assert [one for one in queue(cluster.access) if one.name == "tried"] == []


def test_an_error_carries_command_code_and_what_was_said(cluster: Cluster) -> None:
    with pytest.raises(SlurmError) as failed:
        call(cluster.access, ["scontrol", "show", "job", "999999"])
    error = failed.value
    assert error.code == 1
    assert error.transient is False
    assert "Invalid job id specified" in error.stderr
    assert str(error) == "slurm_load_jobs error: Invalid job id specified (scontrol, exit 1)"


def test_a_command_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r"no squeue on PATH: install Slurm's client commands.* \(squeue\)"):
        call(Access(), ["squeue"])


def test_transient_errors_are_retried_until_patience_is_used_up(cluster: Cluster, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"  # the cluster's own configuration, with a port where nobody listens
    lines = Path(cluster.conf).read_text().splitlines()
    conf.write_text("\n".join([*(line for line in lines if "SlurmctldPort" not in line), "SlurmctldPort=1"]))
    began = time.monotonic()
    with pytest.raises(SlurmError, match=r"no answer within 0.2 s \(squeue\)") as failed:
        call(Access(str(conf), timeout=0.2), ["squeue"], patience=1.0)
    assert failed.value.transient
    assert 0.5 < time.monotonic() - began < 3


def test_pauses_grow_with_jitter_up_to_a_limit() -> None:
    first, second = ([pause for pause, _ in zip(pauses(1.0, 8.0), range(20), strict=False)] for _ in range(2))
    assert first != second
    assert all(0.5 * bound <= pause <= bound for pause, bound in zip(first, [1, 2, 4, *[8] * 17], strict=True))


def test_an_sbatch_that_was_heard_but_not_answered_is_not_repeated(cluster: Cluster, tmp_path: Path) -> None:
    path = script(tmp_path, "run-once-1", "sleep", "60")
    controller = cluster.daemons["slurmctld"]
    os.kill(controller, signal.SIGSTOP)
    waking = threading.Timer(1.5, os.kill, (controller, signal.SIGCONT))
    waking.start()
    try:
        job = submit(Access(cluster.conf, timeout=1.0), path, patience=20)
    finally:
        waking.join()
    try:
        assert [one.job for one in queue(cluster.access) if one.name == "run-once-1"] == [job]
    finally:
        cancel(cluster.access, job)


def test_living_jobs_are_found_by_name_and_cancelled_by_name_or_id(cluster: Cluster, tmp_path: Path) -> None:
    access = cluster.access
    first, second = (submit(access, script(tmp_path, f"run-live-{n}", "sleep", "60")) for n in (1, 2))
    array = submit(access, script(tmp_path, "run-live-a", "sleep", "60", extra=["--array=0-1", "--hold"]))
    found = find(access, ["run-live-1", "run-live-2", "run-live-a", "run-live"])
    assert [one.job for one in found["run-live-1"]] == [first]
    assert {one.job for one in found["run-live-a"]} == {f"{array}_0", f"{array}_1"}
    assert found["run-live-a"][0].state is State.WAITING
    assert found["run-live"] == []
    cancel(access, "run-live-1", second, "run-live-a", "nobody", "999999")
    left = find(access, ["run-live-1", "run-live-2", "run-live-a"])
    assert {one.slurm for living in left.values() for one in living} <= {"COMPLETING"}
    cancel(access, second)  # over: as wanted
    cancel(access)


@pytest.fixture
def chatty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wrappers of Slurm's commands that say something of their own, before the answer and behind it."""
    folder = tmp_path / "wrappers"
    folder.mkdir()
    for name in ("sbatch", "squeue", "sinfo", "scancel"):
        real = shutil.which(name)
        lines = ["#!/bin/sh", "echo 'Welcome: 3 jobs | 2 of 5 nodes'", "echo 17 nodes are free", f'{real} "$@"']
        (folder / name).write_text("\n".join([*lines, "code=$?", "echo 'Thank you.'", "exit $code", ""]))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_what_wrappers_say_of_their_own_is_not_taken_for_an_answer(
    cluster: Cluster, chatty: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    job = submit(cluster.access, script(tmp_path, "run-chatty-1", "sleep", "60"))
    try:
        assert job.isdecimal()
        assert time.monotonic() - began < 20, "it is not waited for"
        assert [one.job for one in queue(cluster.access) if one.name == "run-chatty-1"] == [job]
        assert Slurm("usdf", Scheduler(conf=cluster.conf), 1).ping() == "partition main is up"
    finally:
        cancel(cluster.access, job)
    assert not any(one.living and one.slurm != "COMPLETING" for one in queue(cluster.access) if one.job == job)


@pytest.mark.parametrize(("last", "found"), [("echo 'Submitted, thank you'", True), ("true", False)])
def test_an_answer_without_an_id_is_looked_up_by_name_or_an_error(
    last: str, found: bool, cluster: Cluster, chatty: Path, tmp_path: Path
) -> None:
    """An id is recognised if there is one; otherwise no word is taken for it."""
    real = shutil.which("sbatch", path=os.environ["PATH"].partition(":")[2]) if found else "true"
    (chatty / "sbatch").write_text(f'#!/bin/sh\n{real} "$@" >/dev/null\n{last}\n')
    name = f"run-mute-{found:d}"
    path = script(tmp_path, name, "sleep", "60")
    if not found:
        with pytest.raises(SlurmError, match=r"its answer has no job id: '' \(sbatch"):
            submit(cluster.access, path)
        return
    job = submit(cluster.access, path)
    try:
        assert [one.job for one in queue(cluster.access) if one.name == name] == [job]
    finally:
        cancel(cluster.access, job)


def test_a_scripts_name_is_read_back(tmp_path: Path) -> None:
    assert name_of(script(tmp_path, "it's-1", "true")) == "it's-1"
    (tmp_path / "bare.sh").write_text("#!/bin/bash\n")
    assert name_of(tmp_path / "bare.sh") == ""


def test_nothing_of_a_hostile_shell_reaches_a_command_or_a_job(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text("echo sprung; exit 9\n")
    (tmp_path / "json.py").write_text("raise SystemExit(9)\n")
    hostile = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "64",
        "SLURM_EXPORT_ENV": "NONE",
        "SLURM_MPI_TYPE": "none",
        "SLURM_CPU_BIND": "mask_cpu:0xff",
        "SLURM_MEM_PER_CPU": "999999",
        "SLURM_HINT": "nomultithread",
        "SBATCH_PARTITION": "nowhere",
        "SBATCH_TIMELIMIT": "never",
        "SBATCH_ARRAY_INX": "0-9",
        "SBATCH_EXPORT": "NONE",
        "SQUEUE_FORMAT": "%j",
        "SQUEUE_STATES": "CANCELLED",
        "SQUEUE_SORT": "nonsense",
        "PMI_RANK": "3",
        "PMI_SIZE": "9",
        "PMIX_RANK": "3",
        "OMPI_COMM_WORLD_SIZE": "9",
        "PYTHONPATH": str(tmp_path),
        "PYTHONSTARTUP": str(trap),
        "BASH_ENV": str(trap),
        "OMP_NUM_THREADS": "64",
        "LD_PRELOAD": str(tmp_path / "nothing.so"),
        "BASH_FUNC_srun%%": "() { echo sprung; }",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    # the world has the wanted size, so its PMI is that of this job
    program = f"from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2; {ENVIRONMENT}"
    log = tmp_path / '50% of it\'s "logs" $HOME' / "env %j.log"
    gang = Resources(memory_mib=100, ranks=2, nodes=2, minutes=5)
    site = Scheduler(environment={"MINE": "a b"}, conf=cluster.conf)
    path = keep(gang_script("run-env-1", [sys.executable, "-P", "-c", program], log, gang, site), log)
    bare = {**os.environ, "SLURM_CONF": cluster.conf}
    assert subprocess.run(["sbatch", str(path)], env={**bare, "LD_PRELOAD": ""}, capture_output=True).returncode != 0
    with Watcher(site.access, interval=0.3) as watcher:
        job = submit(site.access, path)
        watcher.watch(job, "run-env-1", log)
        status = watcher.wait(job, 30)
    assert status.state is State.DONE, log.read_text()
    ranks = [json.loads(log.with_name(f"{rank}.json").read_text()) for rank in range(2)]
    assert [rank["SLURM_JOB_ID"] for rank in ranks] == [job, job]
    assert len({rank["SLURMD_NODENAME"] for rank in ranks} & set(cluster.nodes)) == 2
    for rank in ranks:
        assert {key: value for key, value in hostile.items() if rank.get(key) == value} == {}
        assert (rank["SLURM_NTASKS"], rank["OMP_NUM_THREADS"], rank["MINE"]) == ("2", "1", "a b")
        assert rank["SLURM_CONF"] == cluster.conf
        assert not rank.keys() & {"SBATCH_PARTITION", "PYTHONPATH", "BASH_ENV", "PMIX_RANK", "LD_PRELOAD"}


@pytest.mark.skipif(not MPIEXEC.exists(), reason="no mpiexec in this environment (pip install 'drp-campaign[local]')")
def test_the_environments_own_mpiexec_spans_nodes(cluster: Cluster, tmp_path: Path) -> None:
    program = "from mpi4py import MPI; print(MPI.COMM_WORLD.size, MPI.Get_processor_name(), flush=True)"
    gang = Resources(memory_mib=100, ranks=3, nodes=2, minutes=5)
    python = [sys.executable, "-P", "-c", program]
    path = script(tmp_path, "run-mpiexec-1", *python, resources=gang, launcher="mpiexec", conf=cluster.conf)
    with Watcher(cluster.access, interval=0.3) as watcher:
        job = submit(cluster.access, path)
        watcher.watch(job)
        assert watcher.wait(job, 30).state is State.DONE, path.with_suffix(".log").read_text()
    assert [line[0] for line in path.with_suffix(".log").read_text().splitlines()] == ["3", "3", "3"]


@pytest.mark.parametrize(
    ("memory", "asked"),
    [("mem", "MinMemoryNode=200M"), ("mem-per-cpu", "MinMemoryCPU=50M"), ("none", "MinMemoryCPU=100M")],
)
def test_memory_is_asked_for_as_the_site_wants_it(memory: str, asked: str, cluster: Cluster, tmp_path: Path) -> None:
    gang = Resources(memory_mib=100, cores=2, ranks=2, nodes=1, minutes=5)
    name = "run-" + "long" * 20
    job = submit(cluster.access, script(tmp_path, name, "true", resources=gang, memory=memory, extra=["--hold"]))
    shown = call(cluster.access, ["scontrol", "-o", "show", "job", job])
    assert asked in shown.split()
    assert {"NumTasks=2", "CPUs/Task=2", "Requeue=0", "TimeLimit=00:05:00"} <= set(shown.split())
    assert [one.job for one in find(cluster.access, [name])[name]] == [job]
    cancel(cluster.access, job)


def test_a_ctrl_c_of_the_operator_does_not_cut_a_command_off(cluster: Cluster) -> None:
    code = (
        "import os, signal, sys\n"
        "from slurm.commands import Access, once\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        f"print(once(Access({cluster.conf!r}), ['bash', '-c', 'kill -INT -- -$PPID; sleep 0.2; echo whole']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, start_new_session=True, timeout=20
    )
    assert done.stdout.strip() == "whole", done.stderr


def test_what_goes_in_comes_out_as_text(cluster: Cluster) -> None:
    assert once(cluster.access, ["cat"], stdin="ü\n") == "ü\n"
    assert once(cluster.access, ["cat"]) == ""
