"""Wait for a repository's SQLite database: name its holders, and try for an hour.

The Butler keeps SQLite's rollback journal (a write-ahead log would shut out
users who may only read): a writer waits for every reader to end, for at most
five minutes.  Every write here may be repeated, and is tried again: by then
products are made, which a run must not lose to a forgotten shell.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from campaign.butler.errors import answers, told
from campaign.console import patience, say
from campaign.errors import TransientError

P = ParamSpec("P")
T = TypeVar("T")

#: Wait before the holders of the database are named, and between two times, second.
FIRST_S, AGAIN_S = 1.0, 60.0
#: Time for which a write is tried, second.
PATIENCE_S = 3600.0
LOCKED = "database is locked"


def holders(database: str) -> list[str]:
    """Name the other processes of this machine that hold a lock on a file, with their command lines."""
    try:
        inode, locks = os.stat(database).st_ino, Path("/proc/locks").read_text()
    except OSError:  # not Linux, or gone
        return []
    words = (line.split() for line in locks.splitlines())
    pids = {int(w[4]) for w in words if "->" not in w and w[5].rpartition(":")[2] == str(inode)} - {os.getpid()}
    return [f"process {pid} ({_command(pid)})" for pid in sorted(pids) if pid > 0]


def _command(pid: int) -> str:
    line = b""
    with suppress(OSError):  # another user's, or gone
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    return ascii(line.replace(b"\0", b" ").decode(errors="replace").strip()[:80]) if line else "unknown"


def _waiting(database: str) -> Callable[[], str]:
    """Name the processes that hold a database, once each has been seen twice: readers come and go."""
    before = set[str]()

    def tell() -> str:
        nonlocal before
        found = set(holders(database))
        seen, before = sorted(before & found), found
        return f"waiting for the repository's database {database}: {', '.join(seen)} holds it open" if seen else ""

    return tell


def patiently(call: Callable[[], T], root: str, database: str | None) -> T:
    """Call a function that needs the database for itself and may be repeated; opening it for writing is one.

    Parameters
    ----------
    root : `str`
        The repository, for messages.
    database : `str` or `None`
        The repository's SQLite file; `None` for a server.

    Raises
    ------
    TransientError
        The database was held for an hour.
    """
    if database is None:
        return call()
    with patience(_waiting(database), first=FIRST_S, again=AGAIN_S):
        return _again(told(root)(call), database)


def _again(call: Callable[[], T], database: str) -> T:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except TransientError as error:
            if LOCKED not in error.what or time.monotonic() > until:
                raise
            who = ", ".join(holders(database)) or "a process, perhaps on another machine,"
            say(f"the repository's database {database} is locked: {who} holds it open; trying again")


def writes(method: Callable[P, T]) -> Callable[P, T]:
    """Make a method of a repository wait for the holders of its database; see `patiently`."""
    plain = answers(method)

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        owner: Any = args[0]
        if owner._database is None or owner.waiting:
            return plain(*args, **kwargs)
        owner.waiting = True
        try:
            return patiently(lambda: plain(*args, **kwargs), owner.root, owner._database)
        finally:
            owner.waiting = False

    return wrapped
