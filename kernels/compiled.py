"""Compile functions by numba, and keep their machine code on disk until a source that it may be made of changes.

numba's own cache compares a function's file alone, and would run what it compiled with a constant, an intrinsic or a
helper that another file has changed since.  Here the caches lie in folders named by a digest of all rooms that hold
compiled functions, at the place that numba chooses (``NUMBA_CACHE_DIR``, else beside the source, else the user's
cache).  Kernels of other distributions may use `njit` too: numba compares their own files as ever.
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

#: Rooms with compiled functions, and those below them: single modules count too, the others cannot matter to these.
ROOMS: Final = ("camera", "statistics", "jobs", "fits", "calibrations", "isr")
#: Age at which the machine code of other sources is removed, day.
OLD: Final = 30.0
_PREFIX: Final = "kernels-"
_folders: set[Path] = set()


@cache
def digest() -> str:
    """Digest of the sources."""
    root, total = Path(__file__).parent, hashlib.sha256()
    for file in sorted([*root.glob("*.py"), *(file for room in ROOMS for file in (root / room).glob("*.py"))]):
        total.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]


class _Digested:
    """Turn a locator of numba's to the folder of the present sources."""

    def get_cache_path(self) -> str:
        folder = os.path.join(super().get_cache_path(), _PREFIX + digest())  # type: ignore[misc]
        _folders.add(Path(folder))
        return folder


class Named(_Digested, caching.UserProvidedCacheLocator):
    """``NUMBA_CACHE_DIR``."""


class Beside(_Digested, caching.InTreeCacheLocator):
    """``__pycache__``, where it can be written to."""


class Own(_Digested, caching.UserWideCacheLocator):
    """The user's cache."""


config.CACHE_LOCATOR_CLASSES = ",".join(f"{__name__}.{kind.__name__}" for kind in (Named, Beside, Own))
#: Compile a function; it runs without Python's lock.
njit: Any = partial(numba.njit, cache=True, nogil=True)
#: Have a function's code written into those that call it.
inlined: Any = partial(numba.njit, inline="always")


def remove_old() -> None:
    """Remove the machine code of other sources that was not warmed for `OLD` days, beside all that is in use here."""
    before = time.time() - OLD * 86400
    for used in _folders:
        with suppress(OSError):  # a place of numba's that cannot be written to; or another process removes the same
            os.utime(used)
            for folder in used.parent.glob(f"{_PREFIX}*"):
                if folder not in _folders and folder.stat().st_mtime < before:
                    shutil.rmtree(folder, ignore_errors=True)
