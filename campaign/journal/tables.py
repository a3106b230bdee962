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


def _table(name: str, keys: Sequence[str], **columns: Any) -> sa.Table:
    """Describe a table: its keys, which are texts, and the types of its other columns."""
    found = [sa.Column(key, sa.String, primary_key=True) for key in keys]
    return sa.Table(name, METADATA, *found, *(sa.Column(key, kind) for key, kind in columns.items()))


VERSIONS = _table("versions", (), number=sa.Integer)
RUNS = _table("runs", ("run",), **dict.fromkeys(("template", "ticket", "output_run", "submit_path"), sa.String))
sa.Index("ix_runs_ticket", RUNS.c.ticket)
FILES = _table("files", ("run", "name"), offset=sa.BigInteger)
GROUPS = _table(
    "groups",
    ("run", "label"),
    number=sa.Integer,
    kind=sa.String,
    ranks=sa.Integer,
    tasks=sa.Integer,
    submitted=sa.BigInteger,
)
TASKS = _table(
    "tasks",
    ("run", "task"),
    label=sa.String,
    **dict.fromkeys(("withdrawn", "published", "failed", "started"), sa.BigInteger),
    tries=sa.Integer,
    **dict.fromkeys(("site", "began", "ended"), sa.String),
    **dict.fromkeys(("cpu_s", "wall_s"), sa.Float),
    rss_mib=sa.Integer,
    **dict.fromkeys(("cause", "error"), sa.String),
)
CAMPAIGNS = _table("campaigns", ("campaign",), offset=sa.BigInteger, steps=sa.Integer)
#: The last event of every step.
STEPS = _table("steps", ("campaign", "step"), **dict.fromkeys(("event", "t", "user", "run", "note"), sa.String))


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
    if connection.dialect.name == "sqlite":  # the driver's own call takes a third of the time
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
