"""Processes of this machine, by /proc."""

from __future__ import annotations

import os
from pathlib import Path


def pids() -> list[int]:
    """List the ids of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat(pid: int) -> tuple[int, str, int]:
    """Give process id, state letter and parent; the state of a process that is gone is X."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return pid, "X", 0
    return pid, fields[0], int(fields[1])


def variables(pid: int) -> dict[str, str]:
    """Read a process's variables; empty for a zombie, and for another user's."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return {name: value for name, _, value in (entry.partition("=") for entry in text.split("\0"))}
