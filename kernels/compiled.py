"""Compile functions by numba, and cache the machine code on disk until one of its sources changes.

numba's own cache compares a function's own file only, and would run code compiled with a constant, an intrinsic or a
helper that has changed since in another file.  Here the caches lie in folders named by a digest of all rooms with
compiled functions, at the place that numba chooses (``NUMBA_CACHE_DIR``, else beside the source, else the user's
cache).  Kernels of other distributions may use `njit` too: numba compares their own files as usual.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numba
from numba.core import caching, config

#: Rooms with compiled functions, and the rooms below them; single modules are included in the digest, too.
ROOMS: Final = ("camera", "statistics", "transfer", "jobs", "fits", "calibrations", "isr", "verification", "simulation")
#: Age at which machine code of other sources is removed, day.
OLD: Final = 30.0
_PREFIX: Final = "kernels-"
_folders: set[Path] = set()


@cache
def digest() -> str:
    """Compute the digest of the sources."""
    root, total = Path(__file__).parent, hashlib.sha256()
    for file in sorted([*root.glob("*.py"), *(file for room in ROOMS for file in (root / room).glob("*.py"))]):
        total.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]


class _Digested:
    """A locator of numba's, turned to the folder of the present sources."""

    def get_cache_path(self) -> str:
        folder = os.path.join(super().get_cache_path(), _PREFIX + digest())  # type: ignore[misc]
        _folders.add(Path(folder))
        return folder


class Named(_Digested, caching.UserProvidedCacheLocator):
    """``NUMBA_CACHE_DIR``."""


class Beside(_Digested, caching.InTreeCacheLocator):
    """``__pycache__``, where that is writable."""


class Own(_Digested, caching.UserWideCacheLocator):
    """The user's cache."""


config.CACHE_LOCATOR_CLASSES = ",".join(f"{__name__}.{kind.__name__}" for kind in (Named, Beside, Own))
#: Compile a function that runs without Python's lock.
njit: Any = partial(numba.njit, cache=True, nogil=True)
#: Compile a function into its callers.
inlined: Any = partial(numba.njit, inline="always")


def remove_old() -> None:
    """Remove machine code of other sources, not warmed for `OLD` days, beside the folders in use."""
    before = time.time() - OLD * 86400
    for used in _folders:
        with suppress(OSError):  # the folder is not writable, or another process removes the same
            os.utime(used)
            for folder in used.parent.glob(f"{_PREFIX}*"):
                if folder not in _folders and folder.stat().st_mtime < before:
                    shutil.rmtree(folder, ignore_errors=True)
