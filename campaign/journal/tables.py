"""The tables of the index, and the writing of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from campaign.journal.events import EventName

SCHEMA = 3
#: Rows written with one statement.
BATCH = 5000

METADATA = sa.MetaData()


def _table(name: str, keys: Sequence[str], **columns: Any) -> sa.Table:
    """Describe a table: its keys, which are texts, and the types of its other columns.

    In SQLite the rows lie in the tree of their keys, not in one beside it.
    """
    found = [sa.Column(key, sa.String, primary_key=True) for key in keys]
    others = (sa.Column(key, kind) for key, kind in columns.items())
    return sa.Table(name, METADATA, *found, *others, sqlite_with_rowid=not keys)


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


def _merged(new: Any) -> dict[str, sa.ColumnElement[Any]]:
    """Merge a task's row with that of its later events, in SQL, as `campaign.journal.outcome.TaskRecord.fold` would."""
    old = TASKS.c

    def larger(name: str) -> sa.ColumnElement[Any]:
        return sa.case((new[name] > old[name], new[name]), else_=old[name])

    def where(later: sa.ColumnElement[bool], *names: str) -> dict[str, sa.ColumnElement[Any]]:
        return {name: sa.case((later, new[name]), else_=old[name]) for name in names}

    published = new.published > old.published
    failed = sa.tuple_(new.failed, new.cause, new.error) > sa.tuple_(old.failed, old.cause, old.error)
    nothing: sa.ColumnElement[str] = sa.literal_column("''")
    earlier = sa.or_(old.began == nothing, sa.and_(new.began != nothing, new.began < old.began))
    of_result = sa.case((larger("published") >= larger("failed"), published), else_=failed)
    return {
        **{name: larger(name) for name in ("withdrawn", "started", "ended", "published")},
        "tries": old.tries + new.tries,
        **where(earlier, "began"),
        **where(published, "cpu_s", "wall_s", "rss_mib"),
        **where(failed, "failed", "cause", "error"),
        **where(of_result, "site"),
    }


def replace_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows; replace those with the same keys."""
    keys = table.primary_key.columns.keys()
    _write(connection, table, rows, lambda new: {c.name: new[c.name] for c in table.columns if c.name not in keys})


def merge_tasks(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of tasks; merge each with the row of the same task."""
    _write(connection, TASKS, rows, _merged)


def _write(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    conflict: Callable[[Any], Mapping[str, Any]],
) -> None:
    """Write rows, in the order of their keys; ``conflict`` gives the columns of one that is there."""
    if not rows:
        return
    dialect: Any = import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    plain, keys = dialect.insert(table), table.primary_key.columns.keys()
    statement = plain.on_conflict_do_update(index_elements=keys, set_=conflict(plain.excluded))
    rows = sorted(rows, key=itemgetter(*keys))
    if connection.dialect.name == "sqlite":  # the driver's own call takes a third of the time
        text = str(statement.compile(dialect=connection.dialect))
        values = itemgetter(*[column.name for column in table.columns])
        connection.exec_driver_sql(text, list(map(values, rows)))
        return
    for first in range(0, len(rows), BATCH):
        connection.execute(statement, list(rows[first : first + BATCH]))
