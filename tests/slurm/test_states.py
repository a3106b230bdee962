"""Slurm's words for a job's state, all of them, against Slurm's own list and its documentation."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.states import CODES, TABLE, State, Status, cause_of, hopeless, state_of

DOCUMENTED = {
    State.WAITING: "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT POWER_UP_NODE",
    State.RUNNING: "RUNNING COMPLETING RESIZING SIGNALING STAGE_OUT STOPPED SUSPENDED UPDATE_DB",
    State.DONE: "COMPLETED",
    State.FAILED: "CANCELLED DEADLINE FAILED OUT_OF_MEMORY TIMEOUT",
    State.RETRY: "BOOT_FAIL LAUNCH_FAILED NODE_FAIL PREEMPTED RECONFIG_FAIL REVOKED",
}


@pytest.mark.parametrize(("state", "text"), [(s, text) for s, texts in DOCUMENTED.items() for text in texts.split()])
def test_every_documented_state_has_its_meaning(state: State, text: str) -> None:
    assert state_of(text) is state
    assert state_of(text.lower()) is state
    assert Status("1", state=state).ended == (state not in (State.WAITING, State.RUNNING))


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("CANCELLED by 0", State.FAILED),
        ("COMPLETED+", State.DONE),
        ("OUT_OF_ME+", State.FAILED),
        ("CANCELLED+", State.FAILED),
        ("COMPLETI+", State.RUNNING),
        ("RE+", State.UNKNOWN),
        ("COMPL+", State.UNKNOWN),
        ("FAILED,REQUEUED", State.WAITING),
        ("FAILED+REQUEUED", State.WAITING),
        ("COMPLETED,COMPLETING", State.RUNNING),
        ("COMPLETED,SOMETHING_NEW", State.UNKNOWN),
        ("CD", State.DONE),
        ("OOM", State.FAILED),
        ("", State.UNKNOWN),
        ("  ", State.UNKNOWN),
        ("+", State.UNKNOWN),
        ("NOT COMPLETED", State.UNKNOWN),
    ],
)
def test_flags_abbreviations_and_nonsense(text: str, state: State) -> None:
    assert state_of(text) is state


@given(st.one_of(st.text(), st.lists(st.sampled_from([*TABLE, *CODES, "by 0", "X"])).map(",".join)))
def test_the_table_is_total_and_done_is_never_inferred(text: str) -> None:
    state = state_of(text)
    assert state in State
    if state is State.DONE:
        assert re.fullmatch(r"[,|+\s]*((COMPLETED|CD)(\s[^,|+]*)?[,|+\s]*)+", text.upper())


@pytest.mark.skipif(shutil.which("squeue") is None, reason="no squeue on PATH (make slurm-deps)")
def test_every_state_that_this_slurm_knows_is_in_the_table(cluster: object) -> None:
    conf = {"SLURM_CONF": str(cluster.conf)}  # type: ignore[attr-defined]
    said = subprocess.run(["/usr/bin/env", "squeue", "--states=nonsense"], capture_output=True, text=True, env=conf)
    states = said.stderr.split("include:")[1].replace("\n", "").split(",")
    assert len(states) > 15
    assert [state.strip() for state in states if state_of(state.strip()) is State.UNKNOWN] == []


KILLED = "slurmstepd-n1: error: StepId=5.batch exceeded memory limit (434806784 > 104857600), being killed\n"
CGROUP = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed.\n"
LATE = "slurmstepd-n1: error: *** JOB 9 ON n1 CANCELLED AT 2026-11-21T01:26:24 DUE TO TIME LIMIT ***\n"


@pytest.mark.parametrize(
    ("text", "why", "code", "log", "cause"),
    [
        ("COMPLETED", "None", "0:0", "slurmstepd: error: oom_kill", ""),
        ("RUNNING", "", "", None, ""),
        ("TIMEOUT", "TimeLimit", "0:1", None, "walltime"),
        ("DEADLINE", "", "0:0", None, "walltime"),
        ("OUT_OF_MEMORY", "OutOfMemory", "0:125", None, "memory"),
        ("NODE_FAIL", "NodeDown", "1:0", None, "infrastructure"),
        ("PREEMPTED", "", "0:15", None, "infrastructure"),
        ("CANCELLED by 0", "", "0:15", None, "cancelled"),
        ("FAILED", "JobLaunchFailure", "0:9", None, "memory"),
        ("FAILED", "JobLaunchFailure", "0:9", KILLED, "memory"),
        ("FAILED", "JobLaunchFailure", "0:9", "nothing said\n", "infrastructure"),
        ("FAILED", "JobLaunchFailure", "0:53", None, "infrastructure"),
        ("FAILED", "NonZeroExitCode", "137:0", f"first\n{KILLED}last\n", "memory"),
        ("FAILED", "NonZeroExitCode", "137:0", CGROUP, "memory"),
        ("FAILED", "NonZeroExitCode", "1:0", LATE, "walltime"),
        ("FAILED", "NonZeroExitCode", "124:0", "", "walltime"),
        ("FAILED", "NonZeroExitCode", "1:0", "error: the memory limit is exceeded memory limit\n", "failed"),
        ("FAILED", "", "1:0", None, "failed"),
    ],
)
def test_the_cause_of_an_end(text: str, why: str, code: str, log: str | None, cause: str) -> None:
    assert cause_of(text, why, code, log) == cause


@pytest.mark.parametrize(
    ("why", "never"),
    [
        ("PartitionTimeLimit", True),
        ("PartitionNodeLimit", True),
        ("QOSMaxWallDurationPerJobLimit", True),
        ("AssocMaxMemPerJob", True),
        ("Job's account not known, so it can't use this partition (tiny allows drp)", True),
        ("Job's account not permitted to use this partition (a allows b not c)", True),
        ("Priority", False),
        ("Resources", False),
        ("PartitionConfig", False),
        ("PartitionDown", False),
        ("QOSMaxJobsPerUserLimit", False),
        ("AssocMaxJobsLimit", False),
        ("ReqNodeNotAvail, UnavailableNodes:n1", False),
        ("", False),
    ],
)
def test_what_can_never_come(why: str, never: bool) -> None:
    assert hopeless(why) is never
