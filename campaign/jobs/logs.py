"""Error lines of logs: the one place that searches the output of a process for the reason of its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

OWN: Final = "error: "
#: Errors of a shell, ``script: line 5: ...``, and of a launcher, ``srun: error: ...``.
_SHELL, _LAUNCHER = re.compile(r"\S+: line \d+: (.+)"), re.compile(r"[\w.-]+: error: ")


def lines_of(log: Path) -> list[str]:
    """Read the lines of a log; none if it does not exist."""
    return log.read_text(errors="replace").splitlines() if log.exists() else []


def complaint(lines: Sequence[str]) -> str:
    """Find the line that says why a process ended; empty if there is none.

    Its own error (``error: ...``) comes first, then the last exception's, a shell's, and a launcher's.
    """
    errors = [line.removeprefix(OWN) for line in lines if line.startswith(OWN)]
    exceptions = [line for line in lines if line[:1].isalpha() and "Error" in line.split(":")[0]]
    shells = [found[1] for found in map(_SHELL.match, lines) if found]
    programs = [line for line in lines if "execve" in line]
    launchers = [line for line in lines if _LAUNCHER.match(line)]
    return next(iter([*errors, *exceptions[-1:], *shells, *programs, *launchers]), "")


def last_words(lines: Sequence[str]) -> str:
    """Give the error line, else the last line that is not blank; empty if there is none."""
    return complaint(lines) or next((line.strip() for line in reversed(lines) if line.strip()), "")
