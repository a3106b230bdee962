"""The tables of the index, and the state of a task in SQL.

SQLite and PostgreSQL take the same text.  Generated names are in quotes, because ``user`` and ``offset`` are words of
PostgreSQL's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from campaign.journal.events import EventName

SCHEMA = 3


@dataclass(frozen=True)
class Table:
    """A table: its keys, which are texts, and the SQL types of its other columns."""

    name: str
    keys: tuple[str, ...]
    others: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return (*self.keys, *self.others)

    @property
    def created(self) -> str:
        """The statement that makes it."""
        columns = [*(f'"{key}" VARCHAR NOT NULL' for key in self.keys), *(f'"{n}" {t}' for n, t in self.others.items())]
        return f'CREATE TABLE "{self.name}" ({", ".join(columns)}, PRIMARY KEY ({_named(self.keys)}))'

    @property
    def replaced(self) -> str:
        """The statement that writes rows over those with the same keys; ``{}`` stands for the values."""
        return self.written({name: f'excluded."{name}"' for name in self.others})

    def written(self, changes: Mapping[str, str]) -> str:
        """Give the statement that writes rows; ``changes`` are the columns of one that is there."""
        into = f'INSERT INTO "{self.name}" ({_named(self.columns)}) VALUES {{}}'
        texts = ", ".join(f'"{name}" = {value}' for name, value in changes.items())
        return f"{into} ON CONFLICT ({_named(self.keys)}) DO UPDATE SET {texts}"


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _texts(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "VARCHAR")


RUNS: Final = Table("runs", ("run",), _texts("template", "ticket", "output_run", "submit_path"))
FILES: Final = Table("files", ("run", "name"), {"offset": "BIGINT"})
GROUPS: Final = Table(
    "groups",
    ("run", "label"),
    {"number": "INTEGER", "kind": "VARCHAR", "ranks": "INTEGER", "tasks": "INTEGER", "submitted": "BIGINT"},
)
TASKS: Final = Table(
    "tasks",
    ("run", "task"),
    {
        "label": "VARCHAR",
        **dict.fromkeys(("withdrawn", "published", "failed", "started"), "BIGINT"),
        "tries": "INTEGER",
        **_texts("site", "began", "ended"),
        **dict.fromkeys(("cpu_s", "wall_s"), "DOUBLE PRECISION"),
        "rss_mib": "INTEGER",
        **_texts("cause", "error"),
    },
)
CAMPAIGNS: Final = Table("campaigns", ("campaign",), {"offset": "BIGINT", "steps": "INTEGER"})
#: The last event of every step.
STEPS: Final = Table("steps", ("campaign", "step"), _texts("event", "t", "user", "run", "note"))
TABLES: Final = (RUNS, FILES, GROUPS, TASKS, CAMPAIGNS, STEPS)


def _merged() -> dict[str, str]:
    """Merge a task's row with that of its later events as `campaign.journal.outcome.TaskRecord.fold` would, in SQL."""

    def chosen(later: str, *names: str) -> dict[str, str]:
        return {name: f"CASE WHEN {later} THEN excluded.{name} ELSE tasks.{name} END" for name in names}

    larger = {
        name: f"CASE WHEN excluded.{name} > tasks.{name} THEN excluded.{name} ELSE tasks.{name} END"
        for name in ("withdrawn", "started", "ended", "published", "failed")
    }
    published = "excluded.published > tasks.published"
    failed = "(excluded.failed, excluded.cause, excluded.error) > (tasks.failed, tasks.cause, tasks.error)"
    earlier = "tasks.began = '' OR (excluded.began <> '' AND excluded.began < tasks.began)"
    of_result = f"CASE WHEN {larger['published']} >= {larger['failed']} THEN {published} ELSE {failed} END"
    return {
        **larger,
        "tries": "tasks.tries + excluded.tries",
        **chosen(earlier, "began"),
        **chosen(published, "cpu_s", "wall_s", "rss_mib"),
        **chosen(failed, "failed", "cause", "error"),
        **chosen(of_result, "site"),
    }


#: The statement that merges rows of tasks; ``{}`` stands for the values.
MERGED: Final = TASKS.written(_merged())

#: State of a task ``t`` of a group ``g``, which need not be known.
STATE: Final = f"""
    CASE WHEN t.published > t.withdrawn THEN '{EventName.PUBLISHED}'
         WHEN t.failed > t.withdrawn AND t.failed >= t.started AND t.failed >= COALESCE(g.submitted, 0) AND t.failed > 0
         THEN CASE t.cause WHEN '{EventName.LOST}' THEN '{EventName.LOST}' ELSE '{EventName.FAILED}' END
         WHEN t.started > t.withdrawn AND t.started >= COALESCE(g.submitted, 0) AND t.started > 0 THEN 'running'
         ELSE 'waiting' END
"""
#: Tasks with their groups.
JOINED: Final = "tasks AS t LEFT JOIN groups AS g ON g.run = t.run AND g.label = t.label"
