"""The tables of the index, and the writing of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

SCHEMA = 2
#: Rows written with one statement.
BATCH = 5000

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
