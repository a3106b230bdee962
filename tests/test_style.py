"""The linters are part of the suite: a finding is a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
LINTERS = [
    ("ruff", "check", "--no-cache", "--output-format", "concise", "."),
    ("ruff", "format", "--no-cache", "--check", "."),
    ("mypy", "--no-error-summary"),
]


@pytest.mark.parametrize("linter", LINTERS, ids=lambda linter: " ".join(linter[:2]))
def test_linter_is_content(linter: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-P", "-m", *linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
