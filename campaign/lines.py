"""Append-only files of one JSON object a line: only whole lines are added; a damaged line costs that line alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.errors import naming

#: Damaged lines of one file that are reported one by one.
TOLD = 5


@dataclass(frozen=True)
class Damaged:
    """A line that was left out: its file, its number from 1, and the damage."""

    file: str
    line: int
    why: str

    @property
    def text(self) -> str:
        """The line, for messages."""
        return f"{self.file}, line {self.line}: {self.why}"


_left_out: dict[tuple[str, int], Damaged] = {}
_told: Counter[str] = Counter()


def left_out() -> list[Damaged]:
    """List the lines that this process has left out, in the order of reading."""
    return list(_left_out.values())


def leave_out(file: str, line: int, why: str) -> None:
    """Note a damaged line, and report it on standard error, once however often the file is read."""
    from campaign.console import say

    if (file, line) in _left_out:
        return
    _left_out[file, line] = Damaged(file, line, why)
    _told[file] += 1
    if _told[file] <= TOLD:
        say(f"warning: left out: {_left_out[file, line].text}")
    elif _told[file] == TOLD + 1:
        say(f"warning: left out: {file}: more than {TOLD} lines")


def parse(raw: bytes) -> dict[str, Any] | str:
    """Read one line, without its newline: give the object, or the damage.

    NULs before the record, which a power cut may leave, are dropped.
    """
    try:
        found = json.loads(raw.rpartition(b"\0")[2])
    except (ValueError, RecursionError):  # not UTF-8, not JSON
        return "it is cut" if raw.startswith(b"{") and not raw.endswith(b"}") else "it is not JSON"
    return found if isinstance(found, dict) else "it is no JSON object"


def lacking(found: Mapping[str, Any], needs: Mapping[str, type | tuple[type, ...]]) -> str:
    """Say which keys an object lacks, or which of its values have another type; empty where all is right."""
    for key, kind in needs.items():
        if key not in found:
            return f"it lacks {key!r}"
        if not isinstance(found[key], kind):
            return f"its {key!r} is of type {type(found[key]).__name__}"
    return ""


def numbered(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give the objects of a file with the numbers of their lines; none where there is no file.  See `leave_out`."""
    try:
        with file.open("rb") as handle:
            with contextlib.suppress(OSError):  # a file system without locks; a line that is being written is cut
                fcntl.flock(handle, fcntl.LOCK_SH)
            text = handle.read()
    except FileNotFoundError:
        return
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        one = parse(line)
        if isinstance(one, str):
            leave_out(str(file), number, one)
        else:
            yield number, one


def read(file: Path, needs: Mapping[str, type | tuple[type, ...]]) -> list[dict[str, Any]]:
    """Read the objects of a file, oldest first, that have all needed keys; see `lacking` and `leave_out`."""
    found = []
    for number, one in numbered(file):
        if wrong := lacking(one, needs):
            leave_out(str(file), number, wrong)
        else:
            found.append(one)
    return found


def append(file: Path, text: bytes) -> None:
    """Add whole lines, all or none, and wait until they are on disk; several processes may do so at once.

    A part of a line that a killed writer has left is ended first, so that no new line becomes a part of it.

    Raises
    ------
    OSError
        Nothing was added.
    """
    with naming(file), file.open("a+b", buffering=0) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        end = handle.seek(0, os.SEEK_END)
        if end and os.pread(handle.fileno(), 1, end - 1) != b"\n":
            text = b"\n" + text
        try:
            while text:
                text = text[handle.write(text) :]
            os.fsync(handle.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                handle.truncate(end)
            raise
