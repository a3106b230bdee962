"""Translate the Butler's errors for the operator."""

from __future__ import annotations

import errno
import functools
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar

import yaml
from lsst.daf.butler import ButlerUserError
from lsst.daf.butler.registry import (
    CollectionError,
    CollectionTypeError,
    ConflictingDefinitionError,
    DataIdError,
    DatasetTypeError,
    MissingCollectionError,
)
from lsst.daf.butler.registry.interfaces import SchemaAlreadyDefinedError

from campaign.errors import AGAIN, CampaignError, ConfigurationError, TransientError
from campaign.kinds import table

P = ParamSpec("P")
T = TypeVar("T")

#: Message about a database that lacks tables.
NOT_WHOLE = "the repository's database is not whole"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
#: Errors of the Butler about a repository of another of its versions.
_VERSIONS = ("IncompatibleVersionError", "ManagerMismatchError", "MissingManagerError")
#: Words of SQLite and PostgreSQL about a database without the Butler's tables or columns.
_LACKS = re.compile(r"no such (?:table|column)|(?:relation|column) \S+ does not exist", re.IGNORECASE)
UPDATE = "install a release of lsst-daf-butler that reads it, or bring a copy up to date with daf_butler_migrate"
COMPARE = "compare butler.yaml with another repository's, or bring it and the database back from a backup"


@functools.cache
def _named() -> re.Pattern[str]:
    """Match parts of the names of collections that say what they hold."""
    return re.compile(rf"({'|'.join((*table.dataset_types(), 'defect'))})(?:Gen)?(?:-(\w+))?(?:\..*)?")


def _kind(name: str) -> tuple[str, str] | None:
    """Read the kind and band in the name of a collection of calibrations, such as ``.../flatGen-r.20250207a``."""
    parts = name.split("/")
    matches = (_named().fullmatch(part) for part in reversed(parts if len(parts) > 1 else []))
    found = next((match for match in matches if match), None)
    return (found[1], found[2] or "") if found else None


def similar(name: str, known: Iterable[str]) -> str:
    """Suggest the known names that are alike, or list the first known ones."""
    kind = _kind(name)
    names = [other for other in sorted(known) if not (kind and _kind(other) and _kind(other) != kind)]
    near = get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"known are {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else "there is none"


def denied(path: str) -> ConfigurationError:
    """Name the path that may not be written or reached, and the user who tried."""
    return ConfigurationError(
        f"permission denied on {path} as uid {os.geteuid()}", do="ask its owner, or use a repository of your own"
    )


def other(why: str, root: str) -> ConfigurationError:
    """Say that a repository is of another Butler version, and why this version cannot read it."""
    ours = version("lsst-daf-butler")
    return ConfigurationError(f"it was made with another daf_butler than {ours}: {why}", where=root, do=UPDATE)


def _from_os(error: OSError, root: str) -> CampaignError:
    place = str(error.filename or root)
    if error.errno in _FULL:
        return TransientError(f"the disk of {place} is full", do=f"make room, then {AGAIN}")
    if error.errno in _DENIED:
        return denied(place)
    return ConfigurationError(f"{error.strerror or error}", where=place)


def _from_database(error: BaseException, root: str) -> CampaignError:
    """Translate an error of the database driver (sqlite3, psycopg2)."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, sqlite3.DatabaseError) and ("not a database" in text or "malformed" in text):
        do = "bring it back from a backup"
        return ConfigurationError(f"the repository's database is corrupt: {text}", where=root, do=do)
    if "readonly" in text or "read-only" in text:
        return denied(root)
    if "out of range" in text:  # PostgreSQL, of a number in a selection
        return ConfigurationError(f"a number is larger than the repository's database can hold: {text}", where=root)
    if "check constraint" in text.lower():
        return ConfigurationError(f"the repository's database refuses a value: {text}", where=root)
    if _LACKS.search(text):
        ours = version("lsst-daf-butler")
        what = f"{NOT_WHOLE}, or made with another daf_butler than {ours}: {text}"
        return ConfigurationError(what, where=root, do=UPDATE)
    return TransientError(f"the repository's database says: {text}", where=root, do=AGAIN)


def _translate(error: Exception, root: str) -> CampaignError | None:
    driver = getattr(error, "orig", None)
    if isinstance(driver, BaseException):
        return _from_database(driver, root)
    if isinstance(error, OSError):
        return _from_os(error, root)
    if type(error).__name__ in _VERSIONS:
        return other(_sentence(error), root)
    if isinstance(error, SchemaAlreadyDefinedError):
        return ConfigurationError(
            f"its database has tables already, of something else or of a repository that was left half-made: {error}",
            where=root,
            do="see that nothing needs them, and drop them; or name another namespace or database in butler.yaml",
        )
    if isinstance(error, OverflowError):  # SQLite's driver, of a number in a selection
        return ConfigurationError("a number is larger than the repository's database can hold", where=root)
    if isinstance(error, yaml.YAMLError):
        return ConfigurationError(f"its butler.yaml is not readable YAML: {str(error).splitlines()[0]}", where=root)
    if isinstance(error, (ButlerUserError, CollectionError, DataIdError, DatasetTypeError, ConflictingDefinitionError)):
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return ConfigurationError(text.partition("\n")[0], where=root)
    return None


def _sentence(error: Exception) -> str:
    """Write an error of the Butler in one line."""
    words = re.sub(r"VersionTuple\(major=(\d+), minor=(\d+), patch=(\d+)\)", r"\1.\2.\3", " ".join(str(error).split()))
    return words[:400] or type(error).__name__


@contextmanager
def opening(root: str) -> Iterator[None]:
    """Translate errors as `told` does, while a repository is opened: unforeseen errors are the repository's too."""
    try:
        with told(root):
            yield
    except CampaignError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the Butler cannot open it: {type(error).__name__}: {_sentence(error)}",
            where=root,
            do=COMPARE,
        ) from error


@contextmanager
def told(root: str) -> Iterator[None]:
    """Turn the Butler's, the database's and the file system's errors into one clear line about ``root``."""
    try:
        yield
    except Exception as error:
        answer = None if isinstance(error, CampaignError) else _translate(error, root)
        if answer is None:
            raise
        raise answer from error


def answers(method: Callable[P, T]) -> Callable[P, T]:
    """Make a method of an object with a ``root`` raise `campaign.errors` only (see `told`)."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        owner: Any = args[0]
        with told(owner.root):
            return method(*args, **kwargs)

    return wrapped


__all__ = [
    "NOT_WHOLE",
    "CollectionTypeError",
    "ConflictingDefinitionError",
    "MissingCollectionError",
    "answers",
    "denied",
    "opening",
    "similar",
    "told",
]
