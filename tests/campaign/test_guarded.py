"""Words from elsewhere are shown, and do nothing to a terminal; streams may be closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from campaign import console
from campaign.cli.progress import Progress
from campaign.errors import ConfigurationError
from campaign.journal.events import Event
from tests.conftest import said, typed

ROOT = Path(console.__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # the same in C1
        ("a\rb\bc\x7f", r"a\rb\x08c\x7f"),
        ("a\u202eb\u2066c\u200b\ufeff", r"a\u202eb\u2066c\u200b\ufeff"),
        ("caf\udce9", r"caf\udce9"),
        ("a\n\tb", "a\n\tb"),
        ("Größe 星", "Größe 星"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert console.visible(text) == shown
    with said() as texts, console.guarded():
        print(text)
        console.say(text)
        print(text, file=sys.stderr)
    assert texts == [shown + "\n", 2 * (shown + "\n")]


def test_nothing_in_data_is_a_word_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["a", "[b]"], [["[/b]", "[red]x[/red]"], [":smile:", "1\n2\x1b[1m"]], title="[/]")
    shown = capsys.readouterr().out
    for text in ("[/b]", "[red]x[/red]", ":smile:", r"1\n2\x1b[1m", "[/]", "[b]"):
        assert text in shown


def test_an_error_of_a_site_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    event = Event(1, "", "r", "t:1", 1, "usdf", 1, "failed", {"error": "bad\nerror: all is lost\x1b[0m"})
    Progress(1)(event)
    assert capsys.readouterr().err == "t:1 failed: bad\\nerror: all is lost\\x1b[0m\n"


def test_a_place_is_one_line() -> None:
    assert str(ConfigurationError("x", where="a\nerror: b")) == "a\\nerror: b: x"


@pytest.mark.processes
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_no_terminal(tmp_path: Path, closed: str) -> None:
    """And no file that is opened later is standard error."""
    script = (
        "import os, sys\nfrom campaign import console\nfrom campaign.cli.progress import Progress\n"
        "with console.guarded():\n"
        "    number = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "    print('x'); console.say('y'); console.table(['a'], [['b']])\n"
        "    sys.stdin.read() if sys.argv[2] else None\n"
        "    with Progress(1): pass\n"
        "    os.write(number, b'end' if number > 2 else b'bad')\n"
    )
    file = tmp_path / "made"
    line = f'exec "$0" -P -c "$1" "$2" "$3" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, script, file, ("<&-" in closed and "x") or ""], capture_output=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == b"end"


def test_folders_are_not_for_everybody_to_write() -> None:
    before = os.umask(0)
    try:
        typed("sites", environment={})
        assert os.umask(0) == 0o002
    finally:
        os.umask(before)
