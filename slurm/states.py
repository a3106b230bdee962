"""Slurm's words for states of jobs: one total table of their meanings, and the causes of bad ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Meaning of a state for a campaign."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    #: Ended through no fault of its own: to be repeated, not to be charged.
    RETRY = "retry"
    #: Unknown to Slurm, so that neither success nor failure may be inferred.
    UNKNOWN = "unknown"


#: Every base state and every flag of Slurm's documentation (squeue, "JOB STATE CODES", and sacct's), 20.11 to 25.05.
TABLE: Final[dict[str, State]] = {
    "BOOT_FAIL": State.RETRY,
    "CANCELLED": State.FAILED,
    "COMPLETED": State.DONE,
    "COMPLETING": State.RUNNING,
    "CONFIGURING": State.WAITING,
    "DEADLINE": State.FAILED,
    "EXPEDITING": State.WAITING,
    "FAILED": State.FAILED,
    "LAUNCH_FAILED": State.RETRY,
    "NODE_FAIL": State.RETRY,
    "OUT_OF_MEMORY": State.FAILED,
    "PENDING": State.WAITING,
    "POWER_UP_NODE": State.WAITING,
    "PREEMPTED": State.RETRY,
    "RECONFIG_FAIL": State.RETRY,
    "REQUEUED": State.WAITING,
    "REQUEUE_FED": State.WAITING,
    "REQUEUE_HOLD": State.WAITING,
    "RESIZING": State.RUNNING,
    "RESV_DEL_HOLD": State.WAITING,
    "REVOKED": State.RETRY,
    "RUNNING": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "SPECIAL_EXIT": State.WAITING,
    "STAGE_OUT": State.RUNNING,
    "STOPPED": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "TIMEOUT": State.FAILED,
    "UPDATE_DB": State.RUNNING,
}

#: squeue's short codes.
CODES: Final[dict[str, str]] = {
    "BF": "BOOT_FAIL",
    "CA": "CANCELLED",
    "CD": "COMPLETED",
    "CF": "CONFIGURING",
    "CG": "COMPLETING",
    "DL": "DEADLINE",
    "F": "FAILED",
    "NF": "NODE_FAIL",
    "OOM": "OUT_OF_MEMORY",
    "PD": "PENDING",
    "PR": "PREEMPTED",
    "R": "RUNNING",
    "RD": "RESV_DEL_HOLD",
    "RF": "REQUEUE_FED",
    "RH": "REQUEUE_HOLD",
    "RQ": "REQUEUED",
    "RS": "RESIZING",
    "RV": "REVOKED",
    "S": "SUSPENDED",
    "SE": "SPECIAL_EXIT",
    "SI": "SIGNALING",
    "SO": "STAGE_OUT",
    "ST": "STOPPED",
    "TO": "TIMEOUT",
}

#: Precedence of several words for one job, the most open first: FAILED and REQUEUED is a job that waits.
_OPEN: Final = (State.UNKNOWN, State.RUNNING, State.WAITING, State.RETRY, State.FAILED, State.DONE)
_ENDED: Final = frozenset({State.DONE, State.FAILED, State.RETRY})

#: Reasons of jobs that will never run, which Slurm leaves in the queue.
_HOPELESS: Final = re.compile(
    r"Partition(?:Time|Node)Limit|BadConstraints|DependencyNeverSatisfied|Invalid(?:Account|QOS)|ReservationDeleted"
    r"|QOSNotAllowed|(?:QOS|Assoc)Max\w*PerJob(?:Limit)?|.*(?:can't|not permitted to) use this partition.*"
)

#: Exit code of a job script that stopped its command before the walltime (like that of timeout(1)).
WALLTIME_CODE: Final = 124
#: Exit code of a job script whose command could not start: no such interpreter, or one without the packages.
UNABLE_CODE: Final = 3

CAUSES: Final[dict[str, str]] = {
    "BOOT_FAIL": "infrastructure",
    "CANCELLED": "cancelled",
    "DEADLINE": "walltime",
    "LAUNCH_FAILED": "infrastructure",
    "NODE_FAIL": "infrastructure",
    "OUT_OF_MEMORY": "memory",
    "PREEMPTED": "infrastructure",
    "RECONFIG_FAIL": "infrastructure",
    "REVOKED": "infrastructure",
    "TIMEOUT": "walltime",
}

#: Line of slurmstepd in a log: "StepId=5.batch exceeded memory limit (434806784 > 104857600), being killed".
_STEPD: Final = re.compile(
    r"^slurmstepd\S*: error: .*?(?:(?P<memory>exceeded (?:\w+ )?memory limit|oom[-_ ]?kill)"
    r"|(?P<walltime>DUE TO TIME LIMIT)|(?P<infrastructure>DUE TO (?:NODE FAILURE|PREEMPTION)))",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Status:
    """Status of a job.

    A job that Slurm has forgotten is unknown because of ``infrastructure``: only its journal knows its end.
    """

    #: Id, ``12`` or ``12_3`` for an element of an array.
    job: str
    #: Empty if unknown to Slurm.
    name: str = ""
    #: Meaning of Slurm's word.
    state: State = State.UNKNOWN
    #: Slurm's word, with its reason if there is one: ``PENDING (Resources)``.
    slurm: str = ""
    #: ``code:signal``; empty before the end.
    exit_code: str = ""
    #: Cause of a bad end: ``memory``, ``walltime``, ``infrastructure``, ``cancelled`` or ``failed``; else empty.
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether its status is final."""
        return self.state in _ENDED or bool(self.reason)


def words(text: str) -> list[str]:
    """Split Slurm's text for a state: ``CANCELLED by 0``, ``OUT_OF_ME+``, ``cd`` and ``FAILED,REQUEUED`` too."""
    return [_word(part.split()[0]) for part in re.split(r"[,|]|\+(?=\w)", text.upper()) if part.split()]


def _word(part: str) -> str:
    """Complete a word that sacct has cut off, if that is unambiguous."""
    stem = part.rstrip("+")
    if stem in TABLE:
        return stem
    whole = [name for name in TABLE if name.startswith(stem)] if part.endswith("+") and stem else []
    return whole[0] if len(whole) == 1 else CODES.get(stem, part)


def state_of(text: str) -> State:
    """Translate Slurm's text for a state; undocumented words are `State.UNKNOWN`."""
    found = {TABLE.get(word, State.UNKNOWN) for word in words(text)}
    return next((state for state in _OPEN if state in found), State.UNKNOWN)


def hopeless(why: str) -> bool:
    """Decide whether a job waits for something that can never come."""
    return bool(_HOPELESS.fullmatch(why))


def cause_of(text: str, why: str = "", exit_code: str = "", log: str | None = None) -> str:
    """Find the cause of a job's bad end.

    Parameters
    ----------
    text : `str`
        Slurm's text for the state.
    why : `str`
        Slurm's reason, if known.
    exit_code : `str`
        ``code:signal``.
    log : `str`, optional
        End of the job's log, which may have slurmstepd's reason.

    Returns
    -------
    cause : `str`
        One of ``memory``, ``walltime``, ``infrastructure``, ``cancelled``, ``failed``; empty for a job that ended well,
        or has not ended.
    """
    state = state_of(text)
    if state not in (State.FAILED, State.RETRY):
        return ""
    known = next((CAUSES[word] for word in words(text) if word in CAUSES), "")
    return known or _told(log or "") or _failure(why, exit_code, log is None)


def _told(log: str) -> str:
    """Find slurmstepd's reason for the end of a job that Slurm calls FAILED; the first counts."""
    match = _STEPD.search(log)
    return str(match.lastgroup) if match else ""


def _failure(why: str, exit_code: str, no_log: bool) -> str:
    """Distinguish causes of FAILED by Slurm's reason and the exit code."""
    if exit_code == f"{WALLTIME_CODE}:0" or why == "TimeLimit":
        return "walltime"
    if why == "OutOfMemory":
        return "memory"
    # only the log tells OverMemoryKill from any kill -9 of the batch script
    if why == "JobLaunchFailure" and exit_code.endswith(":9") and no_log:
        return "memory"
    return "infrastructure" if why in ("JobLaunchFailure", "NodeDown", "SystemFailure") else "failed"
