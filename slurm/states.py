"""What Slurm says of a job, and what it means: one total table, and the cause of an end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """What a campaign makes of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    #: Ended through no fault of its own: to be run again, and not to be charged.
    RETRY = "retry"
    #: Slurm has not said: neither success nor failure may be inferred.
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

#: squeue's two letters, for whoever has only these.
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

#: Of several words for one job, the one that leaves most open wins: FAILED and REQUEUED is a job that waits.
_OPEN: Final = (State.UNKNOWN, State.RUNNING, State.WAITING, State.RETRY, State.FAILED, State.DONE)
_ENDED: Final = frozenset({State.DONE, State.FAILED, State.RETRY})

#: Why a job waits that will never run: Slurm leaves it queued for ever.
_HOPELESS: Final = re.compile(
    r"Partition(?:Time|Node)Limit|BadConstraints|DependencyNeverSatisfied|Invalid(?:Account|QOS)|ReservationDeleted"
    r"|QOSNotAllowed|(?:QOS|Assoc)Max\w*PerJob(?:Limit)?|.*(?:can't|not permitted to) use this partition.*"
)

#: What a job script says when it stopped its command because the time was nearly up (as timeout(1) does).
WALLTIME_CODE: Final = 124
#: What it says where its command could not begin: no such interpreter, or one without the packages.
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

#: slurmstepd in a log: "StepId=5.batch exceeded memory limit (434806784 > 104857600), being killed".
_STEPD: Final = re.compile(
    r"^slurmstepd\S*: error: .*?(?:(?P<memory>exceeded (?:\w+ )?memory limit|oom[-_ ]?kill)"
    r"|(?P<walltime>DUE TO TIME LIMIT)|(?P<infrastructure>DUE TO (?:NODE FAILURE|PREEMPTION)))",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Status:
    """What is known of a job.

    A job that Slurm has forgotten is unknown because of ``infrastructure``: what became of it, its journal knows.

    Parameters
    ----------
    job : `str`
        Its id, ``12`` or ``12_3`` for an element of an array.
    name : `str`
        Empty where Slurm never told.
    state : `State`
        What it means.
    slurm : `str`
        Slurm's own words, with its reason where it gave one: ``PENDING (Resources)``.
    exit_code : `str`
        ``code:signal``; empty as long as there is none.
    reason : `str`
        Why it did not end well: ``memory``, ``walltime``, ``infrastructure``, ``cancelled`` or ``failed``; else empty.
    """

    job: str
    name: str = ""
    state: State = State.UNKNOWN
    slurm: str = ""
    exit_code: str = ""
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether there is no more to be heard of it."""
        return self.state in _ENDED or bool(self.reason)


def words(text: str) -> list[str]:
    """Take Slurm's words for a state apart: ``CANCELLED by 0``, ``OUT_OF_ME+``, ``cd`` and ``FAILED,REQUEUED`` too."""
    return [_word(part.split()[0]) for part in re.split(r"[,|]|\+(?=\w)", text.upper()) if part.split()]


def _word(part: str) -> str:
    """Complete what sacct cut off, where that is unambiguous."""
    stem = part.rstrip("+")
    if stem in TABLE:
        return stem
    whole = [name for name in TABLE if name.startswith(stem)] if part.endswith("+") and stem else []
    return whole[0] if len(whole) == 1 else CODES.get(stem, part)


def state_of(text: str) -> State:
    """Say what Slurm's text for a state means; what is not documented is `State.UNKNOWN`."""
    found = {TABLE.get(word, State.UNKNOWN) for word in words(text)}
    return next((state for state in _OPEN if state in found), State.UNKNOWN)


def hopeless(why: str) -> bool:
    """Say whether what a job waits for can never come."""
    return bool(_HOPELESS.fullmatch(why))


def cause_of(text: str, why: str = "", exit_code: str = "", log: str | None = None) -> str:
    """Say why a job that has ended did not do so well.

    Parameters
    ----------
    text : `str`
        Slurm's text for the state.
    why : `str`
        Slurm's reason, where known.
    exit_code : `str`
        ``code:signal``.
    log : `str`, optional
        The end of the job's log, where slurmstepd says what it did.

    Returns
    -------
    cause : `str`
        One of ``memory``, ``walltime``, ``infrastructure``, ``cancelled``, ``failed``; empty for a job that did well,
        or has not ended.
    """
    state = state_of(text)
    if state not in (State.FAILED, State.RETRY):
        return ""
    known = next((CAUSES[word] for word in words(text) if word in CAUSES), "")
    return known or _told(log or "") or _failure(why, exit_code, log is None)


def _told(log: str) -> str:
    """Find what slurmstepd said of the end of a job that Slurm calls FAILED; the first word counts."""
    match = _STEPD.search(log)
    return str(match.lastgroup) if match else ""


def _failure(why: str, exit_code: str, no_log: bool) -> str:
    """Tell apart what Slurm calls FAILED, by its reason and the exit code."""
    if exit_code == f"{WALLTIME_CODE}:0" or why == "TimeLimit":
        return "walltime"
    if why == "OutOfMemory":
        return "memory"
    # OverMemoryKill looks like any kill -9 of the batch script but for the log
    if why == "JobLaunchFailure" and exit_code.endswith(":9") and no_log:
        return "memory"
    return "infrastructure" if why in ("JobLaunchFailure", "NodeDown", "SystemFailure") else "failed"
