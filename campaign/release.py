"""What makes the bits of a product: the release of this installation, to be compared between sites."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from campaign.home import versions

#: Libraries that compute or write pixels; those of the driver alone may differ.
NUMERIC = ("drp-campaign", "numpy", "numba", "fitsio")


@cache
def kernels() -> str:
    """SHA-256 over the sources of the kernels, in the order of their names: a checkout has no other release."""
    found = importlib.util.find_spec("kernels")
    digest = hashlib.sha256()
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def about() -> dict[str, str]:
    """This installation's release: versions by distribution, and the kernels' checksum."""
    known = versions()
    return {name: known[name] for name in NUMERIC} | {"kernels": kernels()}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What of another installation is not as it is here; empty where they make the same bits."""
    return [f"{name} {there.get(name, 'unknown')[:12]}, not {mine[:12]}" for name, mine in here.items()
            if there.get(name) != mine]  # fmt: skip
