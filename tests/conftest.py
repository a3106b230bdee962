"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FRAMES = Path(os.environ.get("CAMPAIGN_FRAMES", ROOT.parent / "shared" / "frames"))


@pytest.fixture(scope="session")
def frames() -> Callable[[str], Path]:
    """Find a folder of real frames, or skip: they are not part of the repository."""

    def find(name: str) -> Path:
        folder = FRAMES / name
        if not folder.is_dir():
            pytest.skip(f"no real frames at {folder} (set CAMPAIGN_FRAMES)")
        return folder

    return find
