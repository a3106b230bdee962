"""The claim of a run's driver: ``claim.json`` in the run's folder, taken over only from an owner proven gone."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from campaign.errors import SubmissionRefused
from campaign.home import now
from campaign.jobs.file import write_text
from campaign.limited import from_json
from campaign.wording import command

NAME = "claim.json"
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Claim:
    """The driver that makes a run."""

    user: str
    host: str
    pid: int
    #: Start of the process, in clock ticks since the machine's; with `boot` it distinguishes a later process of the
    #: same number.
    started: str
    #: Id of the machine's start.
    boot: str
    #: ISO-8601, UTC.
    since: str

    @property
    def text(self) -> str:
        """The owner, for messages."""
        return self.user if self == UNKNOWN else f"{self.user} on {self.host} (process {self.pid}) since {self.since}"

    @property
    def alive(self) -> bool | None:
        """Whether the owner's process lives; `None` where this machine cannot tell."""
        if self.host != os.uname().nodename:
            return None
        return self.boot == _boot() and self.started == _started(self.pid)


def _boot() -> str:
    return BOOT.read_text().strip() if BOOT.exists() else ""


def _started(pid: int) -> str:
    """Read the 22nd field of /proc/<pid>/stat; empty for a process that is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def mine() -> Claim:
    """Make the claim of this process."""
    return of(os.getpid())


def of(pid: int) -> Claim:
    """Make the claim of a process of this machine."""
    return Claim(getpass.getuser(), os.uname().nodename, pid, _started(pid), _boot(), now())


#: Stands for an unreadable claim, whose owner may live.
UNKNOWN = Claim("an owner whom its damaged file does not name", "", 0, "", "", "")


def parse(path: Path) -> Claim | None:
    """Read the claim in a file; `None` where there is no file, or no claim in it."""
    try:
        found = Claim(**from_json(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return found if all(isinstance(value, int if key == "pid" else str) for key, value in vars(found).items()) else None


def read(folder: Path) -> Claim | None:
    """Read the claim of a run's folder; `None` where there is none, `UNKNOWN` where it cannot be read."""
    known = parse(folder / NAME)
    return UNKNOWN if known is None and os.path.lexists(folder / NAME) else known


def holder(folder: Path) -> Claim | None:
    """Read the claim of a run's folder; `None` where its owner is proven gone, too."""
    known = read(folder)
    return None if known is None or known.alive is False else known


def write(folder: Path) -> None:
    """Claim the run of a folder that only this process knows."""
    write_text(folder / NAME, json.dumps(asdict(mine()), indent=1))


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder's claim.

    Raises
    ------
    SubmissionRefused
        The folder is not there, or was removed.
    """
    path = folder / f"{NAME}.lock"
    while True:
        try:
            lock = path.open("a")
        except FileNotFoundError as error:
            raise SubmissionRefused(
                "there is no such folder any more", where=str(folder), do="campaign status lists the runs"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_at(lock.fileno(), path):  # otherwise the folder was removed or replaced
                yield
                return


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def take(folder: Path) -> None:
    """Take over a run from an owner that is gone.

    Raises
    ------
    SubmissionRefused
        The owner lives, or is on another machine, where it cannot be seen.
    """
    with held(folder):
        known = holder(folder)
        if known is not None and known != mine_again(known):
            raise SubmissionRefused(_refusal(known), where=str(folder), do=advice(known, folder))
        write(folder)


def mine_again(known: Claim) -> Claim | None:
    """Return the claim if it is this process's own, else `None`."""
    me: Mapping[str, object] = asdict(mine())
    same = all(me[key] == value for key, value in asdict(known).items() if key != "since")
    return known if same else None


def _refusal(known: Claim) -> str:
    if known.alive:
        return f"the run is being made by {known.text}"
    if known == UNKNOWN:
        return f"the run is claimed by {known.text}"
    return f"the run was claimed by {known.text}, and this machine cannot see whether that process lives"


def advice(known: Claim, folder: Path) -> str:
    """Advise on an owner that is not proven gone."""
    if known == UNKNOWN:
        return f"where it is certain that nobody makes the run, remove {NAME}"
    if known.alive:
        return f"campaign status --watch follows it; {command('cancel', folder)} ends it"
    return f"give the command on {known.host}; where that machine is gone for good, remove {NAME}"


def release(folder: Path) -> None:
    """Give up the run: it is over, or another process is to take it."""
    with held(folder):
        (folder / NAME).unlink(missing_ok=True)
