"""Waiting for a repository's SQLite database: it is said who holds it, and tried again for as long as it is worth.

The Butler keeps SQLite's rollback journal (a write-ahead log would shut out who
may only read), in which a writer waits for every reader to end, and it waits for
five minutes.  What is written here may be written twice, so that it is tried
again: products are made by then, which a run must not lose to a forgotten shell.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from campaign.butler.errors import answers, told
from campaign.console import say
from campaign.errors import TransientError

P = ParamSpec("P")
T = TypeVar("T")

#: Before it is said that somebody else holds the database, and then again, second.
FIRST_S, AGAIN_S = 1.0, 60.0
#: For how long writing is tried, second.
PATIENCE_S = 3600.0
LOCKED = "database is locked"


def holders(database: str) -> list[str]:
    """Other processes of this machine that hold a lock on a file, with their command lines."""
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


def _tell(database: str, stop: threading.Event) -> None:
    """Say who is waited for, until told to stop; one who is seen once is none."""
    pause, before = FIRST_S, set[str]()
    while not stop.wait(pause):
        found = holders(database)
        if seen := before & set(found):
            say(f"waiting for the repository's database {database}: {', '.join(sorted(seen))} holds it open")
        before, pause = set(found), AGAIN_S if seen else FIRST_S


@contextmanager
def _telling(database: str) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=_tell, args=(database, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def patiently(call: Callable[[], T], root: str, database: str | None) -> T:
    """Do what needs the database for itself, and may be done twice; opening it for writing is such.

    Parameters
    ----------
    root : `str`
        The repository, for messages.
    database : `str` or `None`
        Its SQLite file, if it is one.

    Raises
    ------
    TransientError
        It was held for an hour.
    """
    if database is None:
        return call()
    with _telling(database):
        return _again(told(root)(call), database)


def _again(call: Callable[[], T], database: str) -> T:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except TransientError as error:
            if LOCKED not in error.what or time.monotonic() > until:
                raise
            who = ", ".join(holders(database)) or "somebody, perhaps of another machine,"
            say(f"the repository's database {database} is locked: {who} holds it open; trying again")


def writes(method: Callable[P, T]) -> Callable[P, T]:
    """Make a method of a repository wait for who holds its database; see `patiently`."""
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
