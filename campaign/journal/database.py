"""The database of the index: SQLite by the standard library, or PostgreSQL by psycopg2.

A library that speaks to any database takes longer to import than a short command to run.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from operator import itemgetter
from typing import Any, Final

from campaign.errors import ConfigurationError
from campaign.journal.tables import Table
from campaign.wording import listed

SQLITE: Final = "sqlite:///"
#: Table of the schema's number, which every index has had; a database with others alone is none.
VERSIONS: Final = "versions"
#: Time that a writer waits for another, and that a server has to answer, second.
BUSY_S, ANSWERS_S = 30.0, 10
#: Most memory for pages: the keys of a run with many tasks, which are found and written in no order.
CACHE_KIB = 1 << 16
#: Readers never block the writer; events that are lost in a power cut are read again.
PRAGMAS: Final = ("journal_mode=WAL", "synchronous=NORMAL", f"cache_size={-CACHE_KIB}")
#: Advisory lock of PostgreSQL that a writer holds.
LOCK = 7_201_116
#: Rows that are sent to a server with one statement.
BATCH = 5000
_SERVER: Final = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")


def errors() -> tuple[type[Exception], ...]:
    """Give the base of the errors of each driver that is in use."""
    server = sys.modules.get("psycopg2")
    return (sqlite3.Error, server.Error) if server else (sqlite3.Error,)


def hidden(url: str) -> str:
    """Write a URL without its password."""
    return re.sub(r"(://[^:/@]*:)[^@]*(?=@)|([?&]password=)[^&]*", r"\1\2***", url)


class Database:
    """An open connection; transactions begin only where `writing` begins them.

    Parameters
    ----------
    url : `str`
        See `campaign.journal.index.place`.

    Raises
    ------
    ConfigurationError
        There is no driver for the URL, or the database holds something else.
    """

    def __init__(self, url: str) -> None:
        self._server = bool(_SERVER.match(url))
        if self._server:
            self._connection = _served(url)
            self._require_own(url)
            return
        if not url.startswith(SQLITE):
            raise _unusable(f"{hidden(url)} is neither SQLite nor PostgreSQL")
        self._connection = sqlite3.connect(
            url.removeprefix(SQLITE), timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._require_own(url)  # first of all: the log's mode stays with the file
            for pragma in PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def execute(self, text: str, *values: Any) -> Any:
        """Execute a statement with a ``?`` for each value; give the driver's cursor."""
        cursor = self._connection.cursor()
        cursor.execute(text.replace("?", "%s") if self._server else text, values)
        return cursor

    def rows(self, text: str, *values: Any) -> list[dict[str, Any]]:
        """Execute a query with a ``?`` for each value; give the rows by column."""
        cursor = self.execute(text, *values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _require_own(self, url: str) -> None:
        """Refuse a database with tables of others, whose names may be those of ours."""
        column, tables = ("tbl_name", "sqlite_master")
        if self._server:
            column, tables = "table_name", "information_schema.tables WHERE table_schema = current_schema()"
        there = {row["name"] for row in self.rows(f"SELECT {column} AS name FROM {tables}")}
        if there and VERSIONS not in there:
            what = f"CAMPAIGN_DB names a database of something else: it holds {listed(sorted(there))}"
            raise ConfigurationError(what, where=hidden(url), do="give the index a database of its own")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a transaction for which other writers wait; an exception undoes it."""
        self.execute("BEGIN" if self._server else "BEGIN IMMEDIATE")
        try:
            if self._server:
                self.execute("SELECT pg_advisory_xact_lock(?)", LOCK)
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(*errors()):  # the connection may be gone
                self.execute("ROLLBACK")
            raise

    def create(self, table: Table) -> None:
        """Make a table; in SQLite the rows lie in the tree of their keys, not in one beside it."""
        self.execute(table.created + ("" if self._server else " WITHOUT ROWID"))

    def replace(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows; replace those with the same keys."""
        self.merge(table, table.replaced, rows)

    def merge(self, table: Table, text: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, in the order of their keys, by a statement of the table's."""
        values = list(map(itemgetter(*table.columns), sorted(rows, key=itemgetter(*table.keys))))
        cursor = self._connection.cursor()
        if self._server:
            extras = import_module("psycopg2.extras")
            extras.execute_values(cursor, text.format("%s"), values, page_size=BATCH)
        else:
            cursor.executemany(text.format(f"({', '.join('?' * len(table.columns))})"), values)


def _served(url: str) -> Any:
    """Connect to a server; its own library reads the URL."""
    try:
        psycopg2 = import_module("psycopg2")
    except ImportError as error:
        raise _unusable(str(error)) from error
    connection = psycopg2.connect(_SERVER.sub("postgresql://", url, count=1), connect_timeout=ANSWERS_S)
    connection.autocommit = True
    return connection


def _unusable(why: str) -> ConfigurationError:
    do = "give a path, or a URL postgresql://user@host/name (pip install drp-campaign[postgres])"
    return ConfigurationError(f"CAMPAIGN_DB cannot be used: {why}", do=do)
