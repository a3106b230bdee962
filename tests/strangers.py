"""Access of a stranger, on this machine or another, to the processes of a run."""

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
    """List addresses and ports at which processes and their children listen."""
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
    """Give a port's answer to a stranger in plain text, or with other keys."""
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
    """Whether another user can read a folder or its files; tried as `nobody`, if this user may switch."""
    if any(path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())):
        return True
    if os.geteuid() != 0:
        return False
    line = ["cat", *map(str, folder.iterdir()), "/dev/null"]
    return bool(subprocess.run(line, capture_output=True, user=NOBODY, group=NOBODY, extra_groups=()).stdout)
