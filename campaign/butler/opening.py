"""Open a Butler repository."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from lsst.daf.butler import Butler, ButlerConfig, Config, DimensionUniverse
from lsst.resources import ResourcePath

import templates
from campaign.butler.errors import denied, opening, other
from campaign.butler.flavours import overlay
from campaign.butler.wait import patiently
from campaign.errors import ConfigurationError

SEED = templates.ROOT / "repository.yaml"
SQLITE = "sqlite:///"
#: Dimensions that record raws and products: universes before version 6 have no day_obs and no group.
DIMENSIONS = {"instrument", "detector", "physical_filter", "day_obs", "group", "exposure"}

# The Butler logs its errors before it raises them; the operator sees each once.
logging.getLogger("lsst").addHandler(logging.NullHandler())


def file_uri(path: str) -> str:
    """Name a file so that ``#``, ``?`` and ``%`` in its path stay what they are."""
    return Path(path).absolute().as_uri()


def folder_uri(path: str) -> ResourcePath:
    """Name a repository's folder.

    Raises
    ------
    ConfigurationError
        The Butler cannot keep an SQLite repository under such a path.
    """
    odd = sorted(set("#?%") & set(path))
    if odd:
        raise ConfigurationError(f"the path of a Butler repository cannot hold {' '.join(odd)}", where=path)
    return ResourcePath(file_uri(path), forceDirectory=True)


def sqlite_file(config: ButlerConfig, root: str) -> str | None:
    """Find the file of the repository's database, if it is SQLite."""
    url = str(config["registry", "db"])
    return url.removeprefix(SQLITE).replace("<butlerRoot>", root) if url.startswith(SQLITE) else None


def _is_repository(uri: ResourcePath) -> bool:
    """Find the configuration; a local one that may not be reached is an error, not an absence."""
    file = uri.join("butler.yaml")
    if not file.isLocal:
        return bool(file.exists())
    try:
        os.stat(file.ospath)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _require_writeable(paths: list[str]) -> None:
    for path in paths:
        if not os.access(path, os.W_OK, effective_ids=True):
            raise denied(path)


def _require_dimensions(universe: DimensionUniverse, root: str) -> None:
    """Check that a repository records exposures as this program does.

    Raises
    ------
    ConfigurationError
        The repository's dimensions are different, or of an older version.
    """
    lacking = sorted(DIMENSIONS - set(universe.elements.names))
    if lacking:
        which = f"{universe.namespace} version {universe.version}"
        raise other(f"its dimensions, {which}, have no {' and no '.join(lacking)}", root)


def connect(path: str, writeable: bool) -> tuple[Butler, str, str | None, ButlerConfig]:
    """Open the Butler; also give the root's path, the SQLite file, if any, and the configuration.

    Raises
    ------
    ConfigurationError
        There is no repository, it is corrupt, was made with another Butler, or may not be written.
    """
    with opening(path):
        uri = folder_uri(path) if os.path.isdir(path) else Butler.get_repo_uri(path, return_label=True)
    root = uri.ospath.rstrip("/") if uri.isLocal else str(uri)
    with opening(root):
        if not _is_repository(uri):
            raise ConfigurationError(
                f"no Butler repository at {root}", do="`campaign ingest` or `campaign simulate` make one"
            )
        config = ButlerConfig(uri)
        database = sqlite_file(config, root)
        if database is not None and not os.path.exists(database):
            do = "bring it back from a backup, or correct registry.db in butler.yaml"
            raise ConfigurationError(f"the repository's database {database} is not there", where=root, do=do)
        if writeable:
            _require_writeable([root] + ([database] if database else []))
        config.merge(Config(str(SEED)))  # under what it has: our storage classes
        overlay(config)
        butler = patiently(
            lambda: Butler.from_config(config, writeable=writeable), root, database if writeable else None
        )
        _require_dimensions(butler.dimensions, root)
        return butler, root, database, config


def analyse(database: str) -> None:
    """Let SQLite count its tables: after a bulk ingest that makes later queries 3-4 times cheaper."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ANALYZE")
        connection.commit()
