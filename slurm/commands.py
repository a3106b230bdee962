"""Calls Slurm's commands: argument lists, a declared environment, time-outs, back-off, errors that say why."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from slurm.states import State, hopeless, state_of

#: All that a command, and so a job, inherits of the shell it was submitted from; the rest is the site's to declare.
INHERITED: Final = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LANGUAGE", "TZ")

#: What Slurm says when asking again may help.
_TRANSIENT: Final = re.compile(
    r"unable to contact slurm controller|socket timed out|connection (?:refused|reset|timed out)"
    r"|communication connection failure|zero bytes were transmitted|temporarily un(?:able|available)"
    r"|standby mode|transport endpoint|message (?:send|receive) failure|unexpected message received"
    r"|unable to connect to (?:munge|database)|failed to access .*munge|munged? .*not running"
    r"|resource temporarily|too many open files|slurmdbd.*(?:down|connection)|slurm_persist_conn",
    re.IGNORECASE,
)
#: What Slurm says of options that are wrong today and tomorrow.
_WRONG: Final = re.compile(r"invalid|unrecognized|ambiguous|not permitted|denied", re.IGNORECASE)
#: What scancel says of a job that is over: as wanted.
_OVER: Final = re.compile(r"invalid job id|already compl", re.IGNORECASE)
_ID: Final = re.compile(r"\d+(?:_(?:\d+|\[[^\]]*\]))?", re.ASCII)
#: What sbatch --parsable says: an id, and the cluster's name where there are several.
_SUBMITTED: Final = re.compile(r"(\d+)(?:;[\w.-]*)?", re.ASCII)
#: A state, in words or squeue's letters, and what the job waits for.
_STATE: Final = re.compile(r"([A-Z][A-Z_+,]*)\|(.*)", re.ASCII)
_NAME: Final = re.compile(r"^#SBATCH --job-name=(.*)$", re.MULTILINE)
_PREFIX: Final = re.compile(r"^(?:\w+: )?(?:fatal: |error: )+", re.IGNORECASE)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
#: A bar ends each field, the name last: Slurm cuts none of them off then.
_ROW: Final = "--Format=" + ",".join(
    f"{key}:|" for key in ("JobArrayID", "JobID", "State", "exit_code", "Reason", "Name")
)
#: A controller that wakes up answers what has piled up in any order: seconds that an sbatch may come after a squeue.
_LATE: Final = 1.0
#: What a job waits for until the scheduler has looked at it against its partition's limits, and when to look again.
_UNDECIDED: Final = "PartitionConfig"
_LOOKS: Final = (0.3, 0.7, 1.0, 1.0)


@dataclass(frozen=True)
class Access:
    """How a cluster's commands are reached.

    Parameters
    ----------
    conf : `str`, optional
        Its slurm.conf (``SLURM_CONF``); by default what the machine, or the operator's ``SLURM_CONF``, has.
    timeout : `float`
        Seconds that one command may take.
    """

    conf: str | None = None
    timeout: float = 30.0


class SlurmError(Exception):
    """A command of Slurm failed; the text is one line, the cause first.

    Parameters
    ----------
    command : sequence of `str`
        The argument list.
    code : `int`, optional
        Its exit code; `None` where it did not end, or did not start.
    stdout, stderr : `str`
        What it said.
    transient : `bool`
        Whether asking again may help.
    """

    def __init__(
        self, command: Sequence[str], code: int | None, stdout: str = "", stderr: str = "", transient: bool = False
    ) -> None:
        super().__init__(command, code, stdout, stderr, transient)
        self.command = list(command)
        self.code = code
        self.stdout = stdout
        self.stderr = stderr
        self.transient = transient

    @property
    def cause(self) -> str:
        """The first error line of what it said."""
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line or "fatal:" in line]
        return _PREFIX.sub("", (errors or lines or ["it said nothing"])[0])

    def __str__(self) -> str:
        end = "" if self.code is None else f", exit {self.code}"
        return f"{self.cause} ({self.command[0]}{end})"


@dataclass(frozen=True)
class Found:
    """A job in the queue.

    Parameters
    ----------
    job, name : `str`
        Its id (``12_3`` for an element of an array) and its name.
    state : `State`
        What it means.
    slurm : `str`
        Slurm's own word for the state.
    why : `str`
        What it waits for, or why it ended.
    exit_code : `str`
        ``code:signal``, once it has ended.
    number : `str`
        What Slurm counts it by: an element of an array gets a number of its own when it starts.
    """

    job: str
    name: str
    state: State
    slurm: str
    why: str = ""
    exit_code: str = ""
    number: str = ""

    @property
    def living(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (State.WAITING, State.RUNNING)


def environment(access: Access) -> dict[str, str]:
    """Give the environment of a command: a short list of the shell's variables, and ``SLURM_CONF``.

    A job inherits what its sbatch had.  So nothing of a surrounding job or MPI (``SLURM_*``, ``SBATCH_*``, ``PMI_*``,
    ``PMIX_*``), of the tools' own defaults (``SQUEUE_FORMAT``) or of the operator's experiments (``PYTHONPATH``,
    ``LD_PRELOAD``, ``BASH_ENV``) reaches it; what a job needs is in the site's file.
    """
    kept = {k: v for k, v in os.environ.items() if k in INHERITED or k.startswith("LC_")}
    conf = access.conf or os.environ.get("SLURM_CONF")
    return {**kept, "SLURM_CONF": conf} if conf else kept


def once(access: Access, arguments: Sequence[str], stdin: str | None = None) -> str:
    """Run a command of Slurm one single time; see `call`."""
    command = [str(argument) for argument in arguments]
    try:
        done = subprocess.run(
            command,
            input=stdin or "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment(access),
            timeout=access.timeout,
            start_new_session=True,  # an operator's ^C must not cut an answer off
        )
    except subprocess.TimeoutExpired as error:
        said = f"error: no answer within {access.timeout:g} s"
        raise SlurmError(command, None, stderr=said, transient=True) from error
    except FileNotFoundError as error:
        said = f"error: no {command[0]} on PATH: install Slurm's client commands, or log in where they are"
        raise SlurmError(command, None, stderr=said) from error
    except OSError as error:
        raise SlurmError(command, None, stderr=f"error: {error.strerror}: {command[0]}") from error
    if done.returncode:
        transient = bool(_TRANSIENT.search(done.stderr))
        raise SlurmError(command, done.returncode, done.stdout, done.stderr, transient)
    return done.stdout


def call(access: Access, arguments: Sequence[str], stdin: str | None = None, patience: float = 60.0) -> str:
    """Run a command of Slurm, and again after a growing pause as long as its error is transient.

    Parameters
    ----------
    access : `Access`
        Which cluster.
    arguments : sequence of `str`
        The command and its arguments; never a shell string.
    stdin : `str`, optional
        What it reads; nothing by default.
    patience : `float`
        Seconds after which a transient error is raised too.

    Returns
    -------
    stdout : `str`
        What it wrote.

    Raises
    ------
    SlurmError
        It failed.
    """
    end = time.monotonic() + patience
    for pause in Pauses():
        try:
            return once(access, arguments, stdin)
        except SlurmError as error:
            if not error.transient or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
    raise AssertionError("pauses never end")


class Pauses:
    """Seconds to wait after each transient error: doubling, with jitter, so that no two drivers ask in step."""

    def __init__(self, first: float = _FIRST_PAUSE, longest: float = _LONGEST_PAUSE) -> None:
        self._next = first
        self._longest = longest

    def __iter__(self) -> Pauses:
        return self

    def __next__(self) -> float:
        pause = self._next
        self._next = min(2 * pause, self._longest)
        return pause * random.uniform(0.5, 1.0)


def submit(access: Access, script: Path, *options: str, patience: float = 60.0) -> str:
    """Submit a script, once.

    An sbatch that timed out may have been heard: before it is tried again, a job of the script's name is looked for,
    and taken.  A job that Slurm queues although it can never run (over the partition's time limit, say) is cancelled.

    Parameters
    ----------
    access : `Access`
        Which cluster.
    script : `~pathlib.Path`
        With its name in a line ``#SBATCH --job-name=``.
    *options : `str`
        More options of sbatch.
    patience : `float`
        Seconds after which a transient error is raised too.

    Returns
    -------
    job : `str`
        Its id.

    Raises
    ------
    SlurmError
        It was refused; nothing is left queued.
    """
    command = ["sbatch", "--parsable", *options, str(script)]
    end = time.monotonic() + patience
    for pause in Pauses():
        try:
            job = _id(once(access, command), access, command, script, patience)
            break
        except SlurmError as error:
            if not error.transient or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
        heard = _heard(access, name_of(script), patience)
        if heard:
            job = heard
            break
    _refuse_hopeless(access, command, job)
    return job


def shaped(said: str, shape: re.Pattern[str]) -> list[re.Match[str]]:
    """Give the lines of an answer that look as they should.

    At many sites a command of Slurm's is a wrapper that has something to say of its own, before or behind the answer.
    """
    return [match for line in said.splitlines() if (match := shape.fullmatch(line.strip()))]


def _id(said: str, access: Access, command: Sequence[str], script: Path, patience: float) -> str:
    """The job's id in sbatch's answer; where there is none, that of the job of the script's name.

    Raises
    ------
    SlurmError
        There is no such job either.
    """
    if found := shaped(said, _SUBMITTED):
        return found[-1][1]
    if heard := _heard(access, name_of(script), patience):
        return heard
    raise SlurmError(command, 0, stderr=f"error: its answer has no job id: {' '.join(said.split())[:200]!r}")


def try_out(access: Access, script: str) -> None:
    """Ask whether sbatch would take a script; nothing is queued.

    What Slurm holds against it may be the state of the nodes just now (down, drained, in use): a job waits for those,
    so that only what is wrong with the script's own options is raised.

    Raises
    ------
    SlurmError
        It would be refused, or Slurm does not answer.
    """
    try:
        once(access, ["sbatch", "--test-only"], script)
    except SlurmError as error:
        if error.transient or error.code is None or _WRONG.search(error.stderr):
            raise


def name_of(script: Path) -> str:
    """Give the name that a script gives its job; empty if it gives none."""
    match = _NAME.search(script.read_text())
    return shlex.split(match[1])[0] if match else ""


def _heard(access: Access, name: str, patience: float) -> str:
    """Give the job of a name, whatever became of it; empty if there is none."""
    for pause in (_LATE, 0.0):
        jobs = [one.job for one in queue(access, patience) if name and one.name == name]
        if jobs:
            return jobs[-1].split("_")[0]
        time.sleep(pause)
    return ""


def _refuse_hopeless(access: Access, command: Sequence[str], job: str) -> None:
    """Cancel what would wait for ever, and say why it would."""
    for pause in (*_LOOKS, 0.0):
        try:
            said = shaped(once(access, ["squeue", "--noheader", "--jobs", job, "--format=%T|%r"]), _STATE)
        except SlurmError:  # ended, or nobody answers: the watcher will tell
            return
        state, why = said[-1].groups() if said else ("", "")
        if state_of(state) is not State.WAITING or why != _UNDECIDED:
            break
        time.sleep(pause)
    if state_of(state) is State.WAITING and hopeless(why):
        cancel(access, job)
        raise SlurmError(command, 0, stderr=f"error: the job could never run: {why}")


def queue(access: Access, patience: float = 60.0) -> list[Found]:
    """Give all of the user's jobs that Slurm remembers, living or just ended: one squeue, however many they are."""
    arguments = ["squeue", "--noheader", "--array", "--all", "--states=all", f"--user={os.getuid()}", _ROW]
    rows = (line.removesuffix("|").split("|", 5) for line in call(access, arguments, patience=patience).splitlines())
    return [_found(row) for row in rows if len(row) == 6 and _ID.fullmatch(row[0])]


def _found(row: Sequence[str]) -> Found:
    job, number, slurm, code, why, name = row
    state = state_of(slurm)
    living = state in (State.WAITING, State.RUNNING)
    return Found(job, name, state, slurm, "" if why == "None" else why, "" if living else _exit_code(code), number)


def _exit_code(code: str) -> str:
    """Write the status of wait(2), which squeue gives, as everybody else does."""
    return f"{int(code) >> 8}:{int(code) & 0x7F}" if code.isdecimal() else code


def find(access: Access, names: Sequence[str], patience: float = 60.0) -> dict[str, list[Found]]:
    """Find the user's living jobs by name: one squeue for all.

    Returns
    -------
    found : `dict` [`str`, `list` [`Found`]]
        An entry for every name, empty where there is no such job.
    """
    found: dict[str, list[Found]] = {name: [] for name in names}
    for one in queue(access, patience):
        if one.living and one.name in found:
            found[one.name].append(one)
    return found


def cancel(access: Access, *jobs: str, patience: float = 60.0) -> None:
    """Cancel jobs, by id or by name; one that is over, or that nobody knows, is no error.

    Raises
    ------
    SlurmError
        Slurm refused.
    """
    ids = [job for job in jobs if _ID.fullmatch(job)]
    names = [job for job in jobs if not _ID.fullmatch(job)]
    if names:
        ids += [one.job for living in find(access, names, patience).values() for one in living]
    if not ids:
        return
    try:
        call(access, ["scancel", *ids], patience=patience)
    except SlurmError as error:
        if not all(_OVER.search(line) for line in error.stderr.splitlines() if line.strip()):
            raise
