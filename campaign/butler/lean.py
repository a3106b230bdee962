"""Import the Butler without the libraries that few of its calls need.

``import lsst.daf.butler`` also loads astropy's coordinates and tables, pyarrow, psutil, and structlog with rich: a
third of its time and memory, and no command uses them.  While the Butler is imported, its own modules get stand-ins,
which load the real module at the first use of one of its names.  Only import statements of ``lsst`` are answered so,
and `sys.modules` never holds a stand-in: other code and other threads import the real modules, before, meanwhile and
after.

The import is the plain one for a Butler that is not in `VERSIONS`, for modules that are loaded already, and where
`SWITCH` says so.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

BUTLER = "lsst.daf.butler"
#: Versions of the Butler whose imports are known; the tests prove those of constraints.txt.
VERSIONS = ("30.2026.4300",)
#: Variable that, set to ``0``, has everything imported at once.
SWITCH = "CAMPAIGN_LEAN_IMPORT"
ARROW = f"{BUTLER}.arrow_utils"
#: Modules that a stand-in may replace in the Butler's own modules.
DEFERRED = ("astropy.coordinates", "astropy.table", "psutil", "pyarrow", "pyarrow.compute", ARROW)


class StandIn(ModuleType):
    """A module that is loaded when one of its names is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


class _ArrowTableUtils:
    """The class of that name, loaded at its first use; the Butler only calls its functions."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(ARROW).ArrowTableUtils, name)


def _context(logger: Any) -> Any:
    """Give the context of a logger of structlog; where structlog is not loaded, no logger can be one."""
    loaded = sys.modules.get("structlog")
    if loaded is None:
        raise ValueError(f"{logger!r} is no logger of structlog")
    return loaded.get_context(logger)


#: Names that the Butler takes from a module when it is imported, and calls later or never.
NAMES: Mapping[str, Mapping[str, Any]] = {
    ARROW: {"ArrowTableUtils": _ArrowTableUtils()},
    "structlog": {"get_context": _context},
}


class _Importer:
    """Answers import statements; those of other modules than the Butler's, and of other names, as ever."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        self._plain = plain
        self._made: dict[str, StandIn] = {}

    def __call__(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if globals and str(globals.get("__name__", "")).startswith("lsst."):
            if not fromlist and _may_wait(name):
                return self._late(name)
            if fromlist:
                whole = importlib.util.resolve_name("." * level + name, globals["__package__"]) if level else name
                if whole not in sys.modules and NAMES.get(whole, {}).keys() >= set(fromlist) and _is_there(whole):
                    return SimpleNamespace(**NAMES[whole])
                late = [one for one in fromlist if _may_wait(f"{whole}.{one}")]
                for one in late:
                    self._late(f"{whole}.{one}")
                fromlist = [one for one in fromlist if one not in late] or ["__name__"]
        return self._plain(name, globals, locals, fromlist, level)

    def _late(self, name: str) -> ModuleType:
        """Put a stand-in where ``import a.b`` makes it be found, and give what the statement binds, ``a``."""
        parent, _, child = name.rpartition(".")
        if not parent:
            return self._stand_in(name)
        there = self._stand_in(parent) if _may_wait(parent) else importlib.import_module(parent)
        if child not in vars(there):
            setattr(there, child, self._stand_in(name))
            if name in sys.modules:  # another thread was importing the real one
                setattr(there, child, sys.modules[name])
        top = name.partition(".")[0]
        return self._stand_in(top) if _may_wait(top) else importlib.import_module(top)

    def _stand_in(self, name: str) -> StandIn:
        return self._made.setdefault(name, StandIn(name))


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _may_wait(name: str) -> bool:
    return name in DEFERRED and name not in sys.modules


def _known() -> bool:
    """Whether the installed Butler is one whose imports are known; it is not imported for that."""
    spec = importlib.util.find_spec(BUTLER)
    text = Path(str(spec.origin)).with_name("version.py").read_text() if spec else ""
    return any(f'"{version}"' in text for version in VERSIONS)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put signals off until the end: C code that imports would swallow the exceptions of their handlers."""
    came: list[int] = []
    kept = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(signal.getsignal(number)):
                kept[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for one in dict.fromkeys(came):
            signal.raise_signal(one)


@contextmanager
def _answering() -> Iterator[None]:
    """Answer the Butler's imports; collect no garbage meanwhile, as nothing of an import becomes any."""
    plain, collecting = builtins.__import__, gc.isenabled()
    builtins.__import__ = _Importer(plain)
    gc.disable()
    try:
        yield
    finally:
        builtins.__import__ = plain
        if collecting:
            gc.enable()


def load(environment: Mapping[str, str] = os.environ) -> None:
    """Import the Butler, leanly if that is possible.

    Raises
    ------
    ImportError
        The Butler cannot be imported at all.
    """
    try:
        if BUTLER not in sys.modules and environment.get(SWITCH) != "0" and _known():
            with _undisturbed(), _answering():
                importlib.import_module(BUTLER)
    except Exception:  # whatever was not foreseen: from the beginning, as everybody imports it
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{BUTLER}.")]:
            del sys.modules[name]
    importlib.import_module(BUTLER)


load()
