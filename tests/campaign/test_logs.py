"""The line of a log with the reason of a process's end."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaign.jobs.logs import complaint, last_words, lines_of

TRACEBACK = ["Traceback (most recent call last):", '  File "x.py", line 1', "KeyError: 'first'", "OSError: last"]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["loading", "error: no such frame", *TRACEBACK, "error: another"], "no such frame"),
        (["srun: error: node1: task 0: Exited", *TRACEBACK], "OSError: last"),
        (["slurm_script: line 12: python: not found", "srun: error: task 0"], "python: not found"),
        (["srun: error: task 0", "slurmstepd: execve(): nowhere"], "slurmstepd: execve(): nowhere"),
        (["srun: error: task 0: Killed"], "srun: error: task 0: Killed"),
        (["all is well, error: none", " "], ""),
        ([], ""),
    ],
)
def test_the_line_that_says_why(lines: list[str], why: str) -> None:
    assert complaint(lines) == why
    assert last_words([*lines, "behind", " "]) == (why or "behind")


def test_a_log_is_read_whatever_is_in_it(tmp_path: Path) -> None:
    assert lines_of(tmp_path / "none.log") == []
    (tmp_path / "a.log").write_bytes(b"error: \xff\nmore\n")
    assert last_words(lines_of(tmp_path / "a.log")) == "\ufffd"
