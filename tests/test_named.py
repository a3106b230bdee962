"""Tests that the documentation names exist: by file, and by name or pattern within it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
#: ``tests/folder/test_file.py::test_name``; a missing folder, or file, is that of the name before.
NAME = re.compile(r"`((?:tests/)?(?:\w+/)*test_\w+\.py)?(?:::([\w*:]+))?`")


def named(text: str) -> Iterator[tuple[str, str]]:
    """Give (file, pattern of a test's name) of every test that a page names, line by line."""
    for line in text.splitlines():
        file = ""
        for match in NAME.finditer(line):
            if match[1]:
                file = match[1] if "/" in match[1] else f"{file.rpartition('/')[0]}/{match[1]}"
            if match[0] != "``":
                yield file, match[2] or "*"


def names_in(path: Path) -> list[str]:
    """Name the tests of a file, those of a class after its name."""
    found = []
    for node in ast.parse(path.read_text()).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        before = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found += [f"{before}{one.name}" for one in inside if isinstance(one, ast.FunctionDef)]
    return [name for name in found if name.rpartition("::")[2].startswith("test_")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_test_that_a_page_names_exists(page: Path) -> None:
    unknown = [
        f"{file}::{pattern}"
        for file, pattern in named(page.read_text())
        if not (ROOT / file).is_file() or not any(fnmatchcase(name, pattern) for name in names_in(ROOT / file))
    ]
    assert unknown == []


def test_names_are_read_as_they_are_written() -> None:
    text = "`tests/a/test_b.py::test_c`, `::Of::test_*`; `test_d.py` | `campaign/x.py`, ``, `x::y`"
    assert list(named(text)) == [
        ("tests/a/test_b.py", "test_c"),
        ("tests/a/test_b.py", "Of::test_*"),
        ("tests/a/test_d.py", "*"),
    ]
