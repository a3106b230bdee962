"""Variables from a file: as a shell reads it, and within limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaign.errors import ConfigurationError
from campaign.template.envfile import MOST, read


def test_words_are_a_shells(tmp_path: Path) -> None:
    path = tmp_path / "env.sh"
    path.write_text("export A='x y' B=\"q\\\"r\"s # no\nC=a#b\\ c\nD=\nE='' \\\n  F=$A-${C}\n")
    found = read(path, {})
    assert found == {"A": "x y", "B": 'q"rs', "C": "a#b c", "D": "", "E": "", "F": "x y-a#b c"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("A=" + "x" * 900_000, ":1: A is longer than the 131072 bytes"),
        ("\nA='" + "y\n" * 100_000 + "'", "A is longer than the 131072 bytes"),
        ("A=" + "x" * 100_000 + "\nB=$A$A", ":2: B is longer than the 131072 bytes"),
        ("A=" + "x" * 2_000_000, "is larger than 1 MiB"),
        ('A="' + '\\"' * 200_000, ":1: a quote is not closed"),
    ],
    ids=["a value", "lines", "expanded", "a file", "open"],
)
def test_what_is_too_much_is_refused_at_once(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "env.sh"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read(path, {})
    assert why in str(caught.value)


def test_many_lines_take_no_longer_each(tmp_path: Path) -> None:
    path = tmp_path / "env.sh"
    path.write_text("".join(f"export A{n}={'x' * 20}\n" for n in range(20_000)))
    assert len(read(path, {})) == 20_000
    assert MOST == 131072
