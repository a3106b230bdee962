"""Locks between processes, and between the machines that share a file system.

A lock is ``flock`` on a file that is never removed; Linux carries it over NFS
and, mounted with ``flock``, over Lustre.  It ends with the process that holds
it, however that ends.  The file names the last holder, for those who wait.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from campaign.console import patience
from campaign.errors import ConfigurationError, TransientError
from campaign.journal import claim

#: Wait before the lock's owner is named, and between two times, second.
FIRST_S, AGAIN_S = 1.0, 60.0
_threads: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
_depth: defaultdict[str, int] = defaultdict(int)


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that one process at a time, on any machine, can hold; wait for it, and name its holder meanwhile.

    A thread that holds the lock already need not wait.

    ``what`` is the lock's subject, for messages: ``the repository /data/repo``.

    Raises
    ------
    ConfigurationError
        The file cannot be made or opened, or its file system has no locks.
    """
    key = os.path.realpath(path)
    with _threads[key]:
        if _depth[key]:
            yield
            return
        handle = _opened(path)
        try:
            while not _lock(handle, path, what):  # the file was replaced meanwhile
                os.close(handle)
                handle = _opened(path)
            _depth[key] += 1
            try:
                yield
            finally:
                _depth[key] -= 1
        finally:
            os.close(handle)


def _opened(path: Path) -> int:
    """Open a lock's file; anybody who may write to its folder may lock it."""
    try:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return _existing(path)
        with suppress(OSError):
            os.fchmod(handle, stat.S_IMODE(path.parent.stat().st_mode) & 0o666)
        return handle
    except OSError as error:
        raise ConfigurationError(
            f"the lock cannot be opened: {error.strerror} (uid {os.geteuid()})", where=str(path)
        ) from error


def _existing(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:  # another user's file; a local file system locks it nevertheless
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _waiting(path: Path, what: str) -> str:
    owner = claim.parse(path)
    return f"waiting for {what}: {owner.text if owner else 'somebody'} decides on it"


def _lock(handle: int, path: Path, what: str) -> bool:
    """Lock an open file; whether it still has its name."""
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with patience(lambda: _waiting(path, what), first=FIRST_S, again=AGAIN_S):
                fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise ConfigurationError(
                f"its file system has no locks between processes: {error.strerror}",
                where=str(path),
                do="mount it with flock (Lustre), or with lockd (NFS)",
            ) from error
        raise TransientError(f"cannot be locked: {error.strerror}", where=str(path)) from error
    with suppress(OSError):  # read only by those who wait
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(claim.mine())).encode(), 0)
    return claim.is_at(handle, path)
