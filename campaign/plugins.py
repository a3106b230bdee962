"""Parts that other distributions bring, by entry-point group; the packaged ones need no metadata."""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, TypeVar

from campaign.errors import ConfigurationError

KINDS: Final = "drp_campaign.kinds"
#: Read by the process that runs a job; here only its names count.
KERNELS: Final = "drp_campaign.kernels"
SCHEDULERS: Final = "drp_campaign.schedulers"
PARTS: Final = {KINDS: "kind", KERNELS: "kernel", SCHEDULERS: "scheduler"}
#: Top-level package of what is found without entry points.
PACKAGED: Final = "campaign"
T = TypeVar("T")


@cache
def entries(group: str) -> list[EntryPoint]:
    """List the entry points of other distributions, by name.

    Raises
    ------
    ConfigurationError
        A distribution's entry points cannot be read.
    """
    try:
        found = {(entry.name, entry.value): entry for entry in entry_points(group=group) if _package(entry) != PACKAGED}
    except Exception as error:  # a file that no installer would have written
        raise _unreadable(error) from error
    return [found[key] for key in sorted(found)]


def _unreadable(error: Exception) -> ConfigurationError:
    """Tell which distribution has entry points that cannot be read."""
    where, name = "entry points", "that distribution"
    for one in Distribution.discover():
        try:
            list(map(_package, one.entry_points))
        except Exception:  # this one
            where, name = str(one.locate_file("")), one.name
            break
    return ConfigurationError(
        f"the entry points of {name} cannot be read: {type(error).__name__}: {error}",
        where=where,
        do=f"install {name} again, or remove it: pip uninstall {name}",
    )


def load(entry: EntryPoint, wanted: type[T]) -> T:
    """Import what an entry point names, an object of a type.

    Raises
    ------
    ConfigurationError
        It cannot be imported, or is another object.
    """
    try:
        made: Any = entry.load()
    except (Exception, SystemExit) as error:  # whatever another distribution's module raises
        raise broken(entry, f"{type(error).__name__}: {error}") from error
    if not isinstance(made, wanted):
        raise broken(entry, f"{entry.value} is no {wanted.__name__}")
    return made


def broken(entry: EntryPoint, why: str) -> ConfigurationError:
    """Tell of an entry point that cannot be used: whose it is, why, and what to do."""
    owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else _package(entry)
    name = entry.dist.name if entry.dist else _package(entry)
    return ConfigurationError(
        f"{entry.name} of {owner} cannot be used: {why}",
        where=f"entry point {entry.group}",
        do=f"install a release of {name} that fits this one, or remove it: pip uninstall {name}",
    )


def version_of(group: str, name: str) -> dict[str, str]:
    """Give the distribution that declares an entry point, with its version; empty for a packaged one."""
    return {entry.dist.name: entry.dist.version for entry in entries(group) if entry.name == name and entry.dist}


def distributions() -> dict[str, str]:
    """Give the versions of the distributions that bring any part."""
    found = [entry.dist for group in PARTS for entry in entries(group) if entry.dist]
    return {one.name: one.version for one in found}


def parts_of(distribution: str) -> list[str]:
    """Name what a distribution brings: ``kind skyMedian``."""
    all_parts = [(what, entry) for group, what in PARTS.items() for entry in entries(group)]
    return [f"{what} {entry.name}" for what, entry in all_parts if entry.dist and entry.dist.name == distribution]


def folders() -> list[Path]:
    """List the folders of packages that bring product kinds; their templates and pipelines lie there.

    Nothing is imported.
    """
    found: dict[Path, None] = {}
    for package in dict.fromkeys(map(_package, entries(KINDS))):
        spec = importlib.util.find_spec(package)
        found.update(dict.fromkeys(map(Path, (spec.submodule_search_locations or ()) if spec else ())))
    return list(found)


def _package(entry: EntryPoint) -> str:
    return entry.module.partition(".")[0]
