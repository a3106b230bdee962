"""Make a Butler repository: whole, or not at all.

The repository is made under another name within its folder, by one process at a
time, and then renamed: the database first, last ``butler.yaml``, which marks a
repository.  A half-made repository, left by a process that was killed, holds
nothing, and is made again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import yaml
from lsst.daf.butler import Butler, ButlerConfig, Config

from campaign.butler.base import LOCK
from campaign.butler.errors import NOT_WHOLE, told
from campaign.butler.opening import SEED, SQLITE, connect, file_uri, folder_uri, sqlite_file
from campaign.console import say
from campaign.errors import ConfigurationError, TransientError, UsageError
from campaign.journal.locks import alone
from campaign.killpoints import reach

CONFIG, DATABASE = "butler.yaml", "gen3.sqlite3"
#: Folder in which a repository is made, below its own.
ASIDE = "campaign-making"  # the Butler takes what follows a point for a format
#: Files that an empty repository's folder may hold.
OURS = (CONFIG, DATABASE, "campaign", LOCK, ASIDE)
#: Suffixes of SQLite's files for a transaction.
JOURNALS = ("", "-journal", "-wal", "-shm")


def make(root: str) -> None:
    """Make an empty repository from the seed, or leave nothing behind.

    Raises
    ------
    UsageError
        There is a repository already.
    ConfigurationError
        The place cannot be written.
    """
    folder_uri(root)
    with _alone(Path(root)) as folder:
        if (folder / CONFIG).exists() and not _is_half_made(folder):
            raise UsageError(f"{root} is a Butler repository already")
        _make(folder)


def ensure(root: str) -> None:
    """Make an empty repository where there is none, or only a half-made one.

    Raises
    ------
    ConfigurationError
        The place cannot be written, or holds a database without its repository.
    """
    folder_uri(root)
    folder = Path(root)
    if (folder / CONFIG).exists() and not _is_half_made(folder):
        return
    with _alone(folder):
        if (half := (folder / CONFIG).exists()) and not _is_half_made(folder):
            return
        if half:
            say(f"{folder}: a repository was begun there and left half-made; it is made again")
        _make(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Hold the lock of a repository's making; remove a folder that was made for it if that fails."""
    with told(str(folder)):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with alone(folder / LOCK, f"the repository {folder}"):
            yield folder
    except BaseException:
        if made and {path.name for path in folder.iterdir()} <= {LOCK}:
            with suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()
        raise


def _make(folder: Path) -> None:
    """Make the repository, with its lock held."""
    aside = folder / ASIDE
    try:
        with told(str(folder)):
            _make_aside(folder, aside)
            with Butler.from_config(file_uri(str(aside)), writeable=True):  # makes the tables of the datastore
                pass
            reach("repository-made")
            if (aside / DATABASE).exists():
                _require_nothing(folder / DATABASE)
                for end in JOURNALS:
                    (folder / f"{DATABASE}{end}").unlink(missing_ok=True)
                _renamed(aside / DATABASE, folder / DATABASE)
            reach("repository-database")
            _renamed(aside / CONFIG, folder / CONFIG)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    reach("repository-named")


def _renamed(file: Path, name: Path) -> None:
    """Rename a whole file, and wait until the name is on disk."""
    for path in (file, file.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    file.replace(name)


def _make_aside(folder: Path, aside: Path) -> None:
    """Make the repository under another name: from a half-made one's configuration if that is whole, else from ours."""
    shutil.rmtree(aside, ignore_errors=True)  # abandoned: its maker is gone
    try:
        there = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        there = None
    if isinstance(there, dict) and there:
        try:
            Butler.makeRepo(folder_uri(str(aside)), config=Config(there))
            return
        except (ImportError, KeyError, TypeError, ValueError, AttributeError):  # of an incomplete configuration
            shutil.rmtree(aside, ignore_errors=True)
            registry = there.get("registry")
            if isinstance(registry, dict) and not str(registry.get("db", SQLITE)).startswith(SQLITE):
                raise
    Butler.makeRepo(folder_uri(str(aside)), config=Config(str(SEED)))


def _require_nothing(database: Path) -> None:
    """Refuse to replace a database that is not empty."""
    if database.is_file() and not _is_empty(database):
        raise ConfigurationError(
            f"{database} holds a repository's records, and {CONFIG} is not there",
            where=str(database.parent),
            do=f"bring {CONFIG} back, or make the repository elsewhere",
        )
    if database.exists() and not database.is_file():
        raise TransientError("unable to open database file: it is no file", where=str(database))


def _is_empty(database: Path) -> bool:
    """Whether a database has no collection and no dataset type; one that cannot be read may have some."""
    try:
        with closing(sqlite3.connect(f"{file_uri(str(database))}?mode=rw", uri=True)) as connection:
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            known = [name for name in ("collection", "dataset_type", "instrument") if name in there]
            return not any(connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() for name in known)
    except sqlite3.Error:
        return False


def _is_half_made(folder: Path) -> bool:
    """Whether a repository is half-made: it cannot be opened, and holds no collection and no file of its own."""
    ours = {*OURS, *(f"{DATABASE}{end}" for end in JOURNALS)}
    others = [path for path in folder.iterdir() if path.name not in ours and not path.name.startswith(".")]
    server = _is_on_a_server(folder)
    if others or not (server or _holds_nothing(folder)):
        return False
    try:
        with closing(connect(str(folder), writeable=False)[0]):
            return False
    except TransientError:  # a server that does not answer, a database that is locked
        return False
    except ConfigurationError as error:
        if server and NOT_WHOLE not in error.what:
            return False
    except Exception:  # the Butler's own, of an incomplete configuration
        if server:
            return False
    return True


def _is_on_a_server(folder: Path) -> bool:
    """Whether a repository's database is no file."""
    try:
        return sqlite_file(ButlerConfig(folder_uri(str(folder))), str(folder)) is None
    except Exception:  # no configuration, or a part of one
        return False


def _holds_nothing(folder: Path) -> bool:
    """Whether a repository's database is a file that is absent or empty."""
    try:
        database = sqlite_file(ButlerConfig(folder_uri(str(folder))), str(folder)) or ""
    except Exception:  # no configuration, or a part of one
        database = str(folder / DATABASE)
    return not os.path.exists(database) or _is_empty(Path(database))
