"""The release of this installation, which decides the bits of products: to be compared between sites."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from campaign import plugins
from campaign.home import versions

#: Libraries that compute or write pixels; libraries of the driver alone may differ.
NUMERIC = ("drp-campaign", "numpy", "numba", "fitsio")


@cache
def kernels() -> str:
    """Compute the SHA-256 of the kernels' sources, in the order of their names: the release of a checkout."""
    found = importlib.util.find_spec("kernels")
    digest = hashlib.sha256()
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def about() -> dict[str, str]:
    """Describe this installation's release: versions by distribution, plug-ins included, and the kernels' checksum."""
    known = versions()
    return {name: known[name] for name in NUMERIC} | plugins.distributions() | {"kernels": kernels()}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """List the differences of another installation; empty where both make the same bits."""
    return [f"{name} {there.get(name, 'unknown')[:12]}, not {mine[:12]}" for name, mine in here.items()
            if there.get(name) != mine]  # fmt: skip
