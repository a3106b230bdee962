"""The tables of the index, and the writing of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

SCHEMA = 2
#: Rows written with one statement.
BATCH = 5000

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


def replace_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows; replace those with the same keys."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":  # the driver's own call takes a third of the time
        names = [column.name for column in table.columns]
        text = str(sa.insert(table).prefix_with("OR REPLACE").compile(dialect=connection.dialect))
        connection.exec_driver_sql(text, [tuple(row[name] for name in names) for row in rows])
        return
    from sqlalchemy.dialects.postgresql import insert

    plain = insert(table)
    keys = [column.name for column in table.primary_key]
    others = {c.name: plain.excluded[c.name] for c in table.columns if c.name not in keys}
    statement = plain.on_conflict_do_update(index_elements=keys, set_=others)
    for first in range(0, len(rows), BATCH):
        connection.execute(statement, list(rows[first : first + BATCH]))
