"""The tables of the index, and the writing of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from campaign.journal.events import EventName

SCHEMA = 2
#: Rows written with one statement.
BATCH = 5000
#: Names in one question: old releases of SQLite take 999.
NAMES = 500

METADATA = sa.MetaData()
VERSIONS = sa.Table("versions", METADATA, sa.Column("number", sa.Integer))
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("template", sa.String),
    sa.Column("ticket", sa.String, index=True),
    sa.Column("output_run", sa.String),
    sa.Column("submit_path", sa.String),
)
FILES = sa.Table(
    "files",
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("offset", sa.BigInteger),
)
GROUPS = sa.Table(
    "groups",
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("label", sa.String, primary_key=True),
    sa.Column("number", sa.Integer),
    sa.Column("kind", sa.String),
    sa.Column("ranks", sa.Integer),
    sa.Column("tasks", sa.Integer),
    sa.Column("submitted", sa.BigInteger, default=0),
)
TASKS = sa.Table(
    "tasks",
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("task", sa.String, primary_key=True),
    sa.Column("label", sa.String),
    sa.Column("withdrawn", sa.BigInteger),
    sa.Column("published", sa.BigInteger),
    sa.Column("failed", sa.BigInteger),
    sa.Column("started", sa.BigInteger),
    sa.Column("tries", sa.Integer),
    sa.Column("site", sa.String),
    sa.Column("began", sa.String),
    sa.Column("ended", sa.String),
    sa.Column("cpu_s", sa.Float),
    sa.Column("wall_s", sa.Float),
    sa.Column("rss_mib", sa.Integer),
    sa.Column("cause", sa.String),
    sa.Column("error", sa.String),
)
CAMPAIGNS = sa.Table(
    "campaigns",
    METADATA,
    sa.Column("campaign", sa.String, primary_key=True),
    sa.Column("offset", sa.BigInteger),
    sa.Column("steps", sa.Integer),
)
#: The last event of every step.
STEPS = sa.Table(
    "steps",
    METADATA,
    sa.Column("campaign", sa.String, primary_key=True),
    sa.Column("step", sa.String, primary_key=True),
    sa.Column("event", sa.String),
    sa.Column("t", sa.String),
    sa.Column("user", sa.String),
    sa.Column("run", sa.String),
    sa.Column("note", sa.String),
)


def state() -> sa.Case[str]:
    """Derive the state of a task, in SQL; needs `TASKS` joined with `GROUPS`."""
    t, submitted = TASKS.c, sa.func.coalesce(GROUPS.c.submitted, 0)
    failed = sa.and_(t.failed > t.withdrawn, t.failed >= t.started, t.failed >= submitted, t.failed > 0)
    running = sa.and_(t.started > t.withdrawn, t.started >= submitted, t.started > 0)
    return sa.case(
        (t.published > t.withdrawn, EventName.PUBLISHED.value),
        (sa.and_(failed, t.cause == EventName.LOST.value), EventName.LOST.value),
        (failed, EventName.FAILED.value),
        (running, "running"),
        else_="waiting",
    )


def same_group() -> sa.ColumnElement[bool]:
    """Join a task with its group."""
    return sa.and_(TASKS.c.run == GROUPS.c.run, TASKS.c.label == GROUPS.c.label)


def run_rows(connection: sa.Connection, table: sa.Table, run: str) -> Iterator[dict[str, Any]]:
    """Give the rows of a run."""
    for row in connection.execute(sa.select(table).where(table.c.run == run)).mappings():
        yield dict(row)


def task_rows(connection: sa.Connection, run: str, names: Iterable[str]) -> Iterator[sa.RowMapping]:
    """Give the rows of some tasks of a run, by their keys: a run may have a million others."""
    left, wanted = iter(names), sa.select(TASKS).where(TASKS.c.run == run)
    while some := list(islice(left, NAMES)):
        yield from connection.execute(wanted.where(TASKS.c.task.in_(some))).mappings()


def replace_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows; replace those with the same keys."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":  # its driver takes plain rows, in a third of the time
        values = itemgetter(*[column.name for column in table.columns])
        text = str(sa.insert(table).prefix_with("OR REPLACE").compile(dialect=connection.dialect))
        connection.exec_driver_sql(text, list(map(values, rows)))
        return
    from sqlalchemy.dialects.postgresql import insert

    plain = insert(table)
    keys = [column.name for column in table.primary_key]
    others = {c.name: plain.excluded[c.name] for c in table.columns if c.name not in keys}
    statement = plain.on_conflict_do_update(index_elements=keys, set_=others)
    for first in range(0, len(rows), BATCH):
        connection.execute(statement, list(rows[first : first + BATCH]))
