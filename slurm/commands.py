"""Calls Slurm's commands: argument lists, a declared environment, time-outs, back-off, errors that say why."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from slurm.states import State, hopeless, state_of

#: Variables that a command, and so a job, inherits from the shell; the site's file declares all others.
INHERITED: Final = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LANGUAGE", "TZ")

#: Errors of Slurm after which another try may help.
_TRANSIENT: Final = re.compile(
    r"unable to contact slurm controller|socket timed out|connection (?:refused|reset|timed out)"
    r"|communication connection failure|zero bytes were transmitted|temporarily un(?:able|available)"
    r"|standby mode|transport endpoint|message (?:send|receive) failure|unexpected message received"
    r"|unable to connect to (?:munge|database)|failed to access .*munge|munged? .*not running"
    r"|resource temporarily|too many open files|slurmdbd.*(?:down|connection)|slurm_persist_conn",
    re.IGNORECASE,
)
#: Errors of Slurm about options that will never be right.
_WRONG: Final = re.compile(r"invalid|unrecognized|ambiguous|not permitted|denied", re.IGNORECASE)
#: Error of scancel for a job that is over.
_OVER: Final = re.compile(r"invalid job id|already compl", re.IGNORECASE)
_ID: Final = re.compile(r"\d+(?:_(?:\d+|\[[^\]]*\]))?", re.ASCII)
#: Answer of sbatch --parsable: an id, and the cluster's name if there are several.
_SUBMITTED: Final = re.compile(r"(\d+)(?:;[\w.-]*)?", re.ASCII)
#: A state, in words or squeue's letters, and the reason why the job waits.
_STATE: Final = re.compile(r"([A-Z][A-Z_+,]*)\|(.*)", re.ASCII)
_NAME: Final = re.compile(r"^#SBATCH --job-name=(.*)$", re.MULTILINE)
_PREFIX: Final = re.compile(r"^(?:\w+: )?(?:fatal: |error: )+", re.IGNORECASE)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
#: Each field ends with a bar, so that Slurm does not cut it off; the name is last.
_ROW: Final = "--Format=" + ",".join(
    f"{key}:|" for key in ("JobArrayID", "JobID", "State", "exit_code", "Reason", "Name")
)
#: A controller that wakes up answers in any order: an sbatch may come so much later than a squeue, second.
_LATE: Final = 1.0
#: Reason of a job that was not yet compared with its partition's limits, and pauses before another look, second.
_UNDECIDED: Final = "PartitionConfig"
_LOOKS: Final = (0.3, 0.7, 1.0, 1.0)


@dataclass(frozen=True)
class Access:
    """Access to a cluster by its commands."""

    #: Path of its slurm.conf; by default the operator's ``SLURM_CONF``, else the machine's.
    conf: str | None = None
    #: Time limit of one command, second.
    timeout: float = 30.0


class SlurmError(Exception):
    """A command of Slurm failed; the text is one line that begins with the cause.

    Parameters
    ----------
    command : sequence of `str`
        Argument list.
    code : `int`, optional
        Exit code; `None` if it did not end, or did not start.
    stdout, stderr : `str`
        Its output.
    transient : `bool`
        Whether another try may help.
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
        """First error line of its output."""
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line or "fatal:" in line]
        return _PREFIX.sub("", (errors or lines or ["it said nothing"])[0])

    def __str__(self) -> str:
        end = "" if self.code is None else f", exit {self.code}"
        return f"{self.cause} ({self.command[0]}{end})"


@dataclass(frozen=True)
class Found:
    """A job in the queue."""

    #: Id (``12_3`` for an element of an array), and name.
    job: str
    name: str
    #: Meaning of Slurm's word.
    state: State
    #: Slurm's word for the state.
    slurm: str
    #: Reason why it waits, or why it ended.
    why: str = ""
    #: ``code:signal``, once it has ended.
    exit_code: str = ""
    #: Slurm's internal number: an element of an array gets one of its own when it starts.
    number: str = ""

    @property
    def living(self) -> bool:
        """Whether it waits or runs."""
        return self.state in (State.WAITING, State.RUNNING)


def environment(access: Access) -> dict[str, str]:
    """Give the environment of a command: a short list of the shell's variables, and ``SLURM_CONF``.

    A job inherits the environment of its sbatch.  Nothing of a surrounding job or MPI (``SLURM_*``, ``SBATCH_*``,
    ``PMI_*``, ``PMIX_*``), of the tools' defaults (``SQUEUE_FORMAT``) or of the operator's experiments (``PYTHONPATH``,
    ``LD_PRELOAD``, ``BASH_ENV``) may reach it; variables of jobs are in the site's file.
    """
    kept = {k: v for k, v in os.environ.items() if k in INHERITED or k.startswith("LC_")}
    conf = access.conf or os.environ.get("SLURM_CONF")
    return {**kept, "SLURM_CONF": conf} if conf else kept


def once(access: Access, arguments: Sequence[str], stdin: str | None = None) -> str:
    """Run a command of Slurm once; see `call`."""
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
            start_new_session=True,  # an operator's ^C must not cut off an answer
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
    """Run a command of Slurm and give its output; repeat it after growing pauses while its error is transient.

    Parameters
    ----------
    access : `Access`
        Of the cluster.
    arguments : sequence of `str`
        Command and arguments; never a shell string.
    stdin : `str`, optional
        Its input; empty by default.
    patience : `float`
        Time after which a transient error is raised too, second.

    Raises
    ------
    SlurmError
        The command failed.
    """
    end = time.monotonic() + patience
    for pause in pauses():
        try:
            return once(access, arguments, stdin)
        except SlurmError as error:
            if not error.transient or time.monotonic() + pause > end:
                raise
        time.sleep(pause)
    raise AssertionError("pauses never end")


def pauses(first: float = _FIRST_PAUSE, longest: float = _LONGEST_PAUSE) -> Iterator[float]:
    """Give pauses after transient errors, second: doubling, with jitter, so that drivers do not ask in step."""
    while True:
        yield first * random.uniform(0.5, 1.0)
        first = min(2 * first, longest)


def submit(access: Access, script: Path, *options: str, patience: float = 60.0) -> str:
    """Submit a script, once; give the id of the job.

    An sbatch that timed out may have succeeded: a job of the script's name is looked for before another try, and
    taken.  A job that Slurm queues although it can never run, say over the partition's time limit, is cancelled.

    Parameters
    ----------
    access : `Access`
        Of the cluster.
    script : `~pathlib.Path`
        Has the job's name in a line ``#SBATCH --job-name=``.
    *options : `str`
        More options of sbatch.
    patience : `float`
        Time after which a transient error is raised too, second.

    Raises
    ------
    SlurmError
        The job was refused; nothing is left in the queue.
    """
    command = ["sbatch", "--parsable", *options, str(script)]
    end = time.monotonic() + patience
    for pause in pauses():
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
    """Give the lines of an answer that have its shape: at many sites commands are wrappers that add lines."""
    return [match for line in said.splitlines() if (match := shape.fullmatch(line.strip()))]


def _id(said: str, access: Access, command: Sequence[str], script: Path, patience: float) -> str:
    """Find the job's id in sbatch's answer, else by the script's name in the queue.

    Raises
    ------
    SlurmError
        There is no such job.
    """
    if found := shaped(said, _SUBMITTED):
        return found[-1][1]
    if heard := _heard(access, name_of(script), patience):
        return heard
    raise SlurmError(command, 0, stderr=f"error: its answer has no job id: {' '.join(said.split())[:200]!r}")


def try_out(access: Access, script: str) -> None:
    """Ask whether sbatch would take a script; nothing is queued.

    Only errors about the script's options are raised: a job may wait for nodes that are down, drained or in use.

    Raises
    ------
    SlurmError
        The script would be refused, or Slurm does not answer.
    """
    try:
        once(access, ["sbatch", "--test-only"], script)
    except SlurmError as error:
        if error.transient or error.code is None or _WRONG.search(error.stderr):
            raise


def name_of(script: Path) -> str:
    """Read the job's name in a script; empty if there is none."""
    match = _NAME.search(script.read_text())
    return shlex.split(match[1])[0] if match else ""


def _heard(access: Access, name: str, patience: float) -> str:
    """Find the newest job of a name, living or ended; give its id, empty if there is none."""
    for pause in (_LATE, 0.0):
        jobs = [one.job for one in queue(access, patience) if name and one.name == name]
        if jobs:
            return jobs[-1].split("_")[0]
        time.sleep(pause)
    return ""


def _refuse_hopeless(access: Access, command: Sequence[str], job: str) -> None:
    """Cancel a job that would never run, and raise the reason."""
    for pause in (*_LOOKS, 0.0):
        try:
            said = shaped(once(access, ["squeue", "--noheader", "--jobs", job, "--format=%T|%r"]), _STATE)
        except SlurmError:  # the job has ended, or nobody answers: the watcher will find out
            return
        state, why = said[-1].groups() if said else ("", "")
        if state_of(state) is not State.WAITING or why != _UNDECIDED:
            break
        time.sleep(pause)
    if state_of(state) is State.WAITING and hopeless(why):
        cancel(access, job)
        raise SlurmError(command, 0, stderr=f"error: the job could never run: {why}")


def queue(access: Access, patience: float = 60.0) -> list[Found]:
    """Give all of the user's jobs that Slurm remembers, living or just ended, by one squeue."""
    arguments = ["squeue", "--noheader", "--array", "--all", "--states=all", f"--user={os.getuid()}", _ROW]
    rows = (line.removesuffix("|").split("|", 5) for line in call(access, arguments, patience=patience).splitlines())
    return [_found(row) for row in rows if len(row) == 6 and _ID.fullmatch(row[0])]


def _found(row: Sequence[str]) -> Found:
    job, number, slurm, code, why, name = row
    state = state_of(slurm)
    living = state in (State.WAITING, State.RUNNING)
    return Found(job, name, state, slurm, "" if why == "None" else why, "" if living else _exit_code(code), number)


def _exit_code(code: str) -> str:
    """Write the status of wait(2), which squeue gives, as ``code:signal``."""
    return f"{int(code) >> 8}:{int(code) & 0x7F}" if code.isdecimal() else code


def find(access: Access, names: Sequence[str], patience: float = 60.0) -> dict[str, list[Found]]:
    """Find the user's living jobs by name, by one squeue; every name has an entry, empty if there is no such job."""
    found: dict[str, list[Found]] = {name: [] for name in names}
    for one in queue(access, patience):
        if one.living and one.name in found:
            found[one.name].append(one)
    return found


def cancel(access: Access, *jobs: str, patience: float = 60.0) -> None:
    """Cancel jobs, by id or by name; jobs that are over or unknown are no errors.

    Raises
    ------
    SlurmError
        Slurm refused to.
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
