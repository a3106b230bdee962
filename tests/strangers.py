"""What somebody else, of this machine or of another, gets from the processes of a run."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from campaign.schedulers import secure

PATIENCE_S = 0.5
NOBODY = 65534


def listening(*roots: int) -> Iterator[tuple[str, int]]:
    """Addresses and ports that processes, and those that they started, wait for connections at."""
    for root in roots:
        for process in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]:
            try:
                found = process.net_connections("inet")
            except psutil.NoSuchProcess:
                continue
            yield from ((one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN)


def _said(line: socket.socket, question: bytes) -> bytes:
    line.settimeout(PATIENCE_S)
    try:
        line.sendall(question)
        return line.recv(4096)
    except (OSError, ssl.SSLError):
        return b""


def answer(host: str, port: int, keys: Path) -> bytes:
    """What a port says to a stranger who comes in plain text, or with keys of his own."""
    context = secure.security(keys).get_connection_args("client")["ssl_context"]
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(keys / secure.CERTIFICATE, keys / secure.KEY)
    question = b"GET /info/main/workers.html HTTP/1.0\r\n\r\n"
    said = b""
    for wrap in (lambda line: line, context.wrap_socket):
        try:
            with socket.create_connection((host, port), PATIENCE_S) as line, wrap(line) as wrapped:
                said += _said(wrapped, question)
        except (OSError, ssl.SSLError):
            continue
    return said


def given(said: bytes) -> bool:
    """Whether that was anything but a word that there is nothing."""
    return bool(said) and not said.startswith(b"HTTP/1.1 404 ")


def may_read(folder: Path) -> bool:
    """Whether another user sees what is in a folder, or a file of it; as `nobody`, where this one may be him."""
    if any(path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())):
        return True
    if os.geteuid() != 0:
        return False
    line = ["cat", *map(str, folder.iterdir()), "/dev/null"]
    return bool(subprocess.run(line, capture_output=True, user=NOBODY, group=NOBODY, extra_groups=()).stdout)
