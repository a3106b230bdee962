"""Variables from a file: as a shell reads it, in time that grows with its length, and within limits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from campaign.envfile import MAX_VALUE, read
from campaign.errors import ConfigurationError


def test_words_are_a_shells(tmp_path: Path) -> None:
    path = tmp_path / "env.sh"
    path.write_text("export A='x y' B=\"q\\\"r\"s # no\nC=a#b\\ c\nD=\nE='' \\\n  F=$A-${C}\n")
    found = read(path, {})
    assert found == {"A": "x y", "B": 'q"rs', "C": "a#b c", "D": "", "E": "", "F": "x y-a#b c"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A=" + "x" * 900_000, ":1: A is longer than 128 KiB"),
        ("\nA='" + "y\n" * 100_000 + "'", "A is longer than 128 KiB"),
        ("A=" + "x" * 100_000 + "\nB=$A$A", ":2: B becomes longer than 128 KiB"),
        ("A=" + "x" * 2_000_000, "is larger than 1 MiB"),
        ('A="' + '\\"' * 200_000, ":1: a quote is not closed"),
    ],
    ids=["a value", "lines", "expanded", "a file", "open"],
)
def test_what_is_too_much_is_refused_at_once(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "env.sh"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigurationError) as caught:
        read(path, {})
    assert why in str(caught.value)
    assert time.process_time() - began < 2


def test_many_lines_take_no_longer_each(tmp_path: Path) -> None:
    path = tmp_path / "env.sh"
    path.write_text("".join(f"export A{n}={'x' * 20}\n" for n in range(20_000)))
    began = time.process_time()
    assert len(read(path, {})) == 20_000
    assert time.process_time() - began < 3
    assert MAX_VALUE == 131072
