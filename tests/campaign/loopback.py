"""An sshd of one's own: keys, port and configuration in a folder, for connections of this user to this machine."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
#: Debian's init script makes it; sshd does not start without, as root.
PRIVILEGES = Path("/run/sshd")


def lacking() -> str:
    """Why there cannot be one; empty where there can."""
    tools = [name for name in ("sshd", "ssh", "ssh-keygen") if shutil.which(name, path=SBIN) is None]
    return f"no {tools[0]} (make ssh-deps)" if tools else ""


@dataclass(frozen=True)
class Server:
    """Data that a client needs."""

    host: str
    options: tuple[str, ...]


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Run a server within the context."""
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    if os.geteuid() == 0:
        PRIVILEGES.mkdir(mode=0o755, exist_ok=True)
    port, log = _port(), folder / "log"
    settings = {
        "HostKey": f'"{folder}/host"',
        "AuthorizedKeysFile": f'"{folder}/authorized"',
        "PidFile": "none",
        "ListenAddress": f"127.0.0.1:{port}",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "MaxStartups": "100",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    sshd = shutil.which("sshd", path=SBIN)
    assert sshd
    process = subprocess.Popen([sshd, "-D", "-f", str(folder / "config"), "-E", str(log)])
    try:
        _wait(process, port, log)
        client = {
            "HostName": "127.0.0.1",
            "Port": port,
            "User": getpass.getuser(),
            "IdentityFile": f'"{folder}/user"',
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": f'"{folder}/known"',
            "StrictHostKeyChecking": "accept-new",
        }
        text = "Host elsewhere\n" + "".join(f"  {key} {value}\n" for key, value in client.items())
        (folder / "client").write_text(text)
        yield Server("elsewhere", ("-F", str(folder / "client")))
    finally:
        process.terminate()
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"sshd does not listen: {log.read_text() if log.exists() else process.returncode}")
