"""Output on a terminal, wide or narrow: whole names, commands that can be copied."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.console import laid_out
from campaign.wording import command, count

RUN = "20260101T000000Z-abcd"
OUTPUT = "LSSTComCam/calib/DM-48520/DP1/biasBootstrapGen.20250207a/20260101T000000Z"
COLUMNS = ("run", "template", "state", "published", "failed", "output run")
ROW = (RUN, "bps_biasBootstrap.yaml", "done", "4", "0", OUTPUT)


@pytest.mark.parametrize("wide", [None, 200, 100, 80, 60, 20])
def test_no_name_is_cut_however_narrow_the_terminal(wide: int | None) -> None:
    lines = laid_out(COLUMNS, [ROW, (*ROW[:5], "")], wide)
    assert all(any(cell in line for line in lines) for cell in (*ROW, *COLUMNS))
    assert all(len(line) <= (wide or 500) or len(line.split()[-1]) > wide - 30 for line in lines if wide)
    assert (len(lines) == 3) is (wide in (None, 200))
    if wide == 80:
        assert lines[1].split() == [RUN, *ROW[1:5]] and lines[2].split() == ["output", "run", OUTPUT]
        assert len(lines) == 4  # an empty cell is left out


@pytest.mark.processes
def test_a_terminal_of_80_columns() -> None:
    """Through a real one."""
    code = f"from campaign.console import guarded, table\nwith guarded():\n table({COLUMNS!r}, [{ROW!r}], 'runs')"
    mine, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=its, env=environment) as process:
        os.close(its)
        text = ""
        try:
            while piece := os.read(mine, 1 << 16):
                text += piece.decode()
        except OSError:  # it has ended
            pass
    os.close(mine)
    assert process.returncode == 0
    assert RUN in text and OUTPUT in text and "…" not in text and "\x1b[1m" in text


CLOSED = """
import os, sys, time
from campaign.journal import control
heard = []
with control.heard(lambda: heard.append(1)):
    print("ready", flush=True)
    while not heard:
        time.sleep(0.01)
    for stream in (sys.stdout, sys.stderr):
        print("nobody listens", file=stream, flush=True)
open(sys.argv[1], "w").write(f"{len(heard)}")
"""


@pytest.mark.processes
def test_a_terminal_that_is_closed_ends_nothing_at_once(tmp_path: Path) -> None:
    """Output into it is dropped."""
    mine, its = pty.openpty()
    line = [sys.executable, "-P", "-c", CLOSED, str(tmp_path / "heard")]
    streams = {"stdin": its, "stdout": its, "stderr": its}
    own = {"start_new_session": True, "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}
    with subprocess.Popen(line, **streams, **own) as process:
        os.close(its)
        assert b"ready" in os.read(mine, 100)
        os.close(mine)
        assert process.wait(60) == 0
    assert (tmp_path / "heard").read_text() == "1"


@settings(max_examples=50)
@given(words=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_a_command_can_be_given_as_it_stands(words: list[str]) -> None:
    assert shlex.split(command(*words)) == ["campaign", *words]


@pytest.mark.parametrize(("number", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_one_run_is_no_runs(number: int, text: str) -> None:
    assert count(number, "run") == text
    assert count(number, "mistake", "of them") == f"{number} {'mistake' if number == 1 else 'of them'}"
