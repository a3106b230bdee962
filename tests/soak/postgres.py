"""A PostgreSQL server of one's own, to be ended and started again; it does not run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


def lacking() -> str:
    """Why there cannot be one; empty where there can."""
    if not _tools() or os.geteuid() or "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return "no PostgreSQL, or not root (make postgresql-deps)"
    return ""


def _tools() -> list[Path]:
    return sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@dataclass(frozen=True)
class Server:
    """A server with a socket in its folder, and no port."""

    folder: Path

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://postgres@/postgres?host={self.folder}"

    def _tool(self, name: str, *arguments: str) -> None:
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", str(_tools()[-1] / name)]
        where = ["-D", str(self.folder / "data")]
        subprocess.run([*words, *where, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def make(self) -> None:
        self._tool("initdb", "-A", "trust", "-N")

    def start(self) -> None:
        self._tool("pg_ctl", "-w", "-o", f"-k {self.folder} -c listen_addresses='' -F", "start")

    def stop(self) -> None:
        """End it as by a power cut, without notice to clients."""
        self._tool("pg_ctl", "-m", "immediate", "stop")


@contextmanager
def server() -> Iterator[Server]:
    """Run a server within the context."""
    one = Server(Path(tempfile.mkdtemp(prefix="campaign-pg-", dir="/tmp")))  # sockets have short names
    shutil.chown(one.folder, "postgres")
    try:
        one.make()
        one.start()
        yield one
    finally:
        with suppress(subprocess.CalledProcessError):
            one.stop()
        shutil.rmtree(one.folder)
