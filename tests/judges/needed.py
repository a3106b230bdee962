"""Rubin's own tools are the judges of this folder; where they are not installed, its tests say so."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest


def needs(*packages: str) -> None:
    """Skip the module that calls it, where a package of the extra `judge` is not installed."""
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            pytest.skip(f"no {package} (make pythons)", allow_module_level=True)
