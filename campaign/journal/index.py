"""The index: the journals of all runs folded into a database, which may be deleted and rebuilt from them.

No decision depends on it.  Every column is a maximum, a minimum or a sum over
events (`campaign.journal.outcome.TaskRecord`), so that journals may be read in any
order; the state of a task follows from the orders (token, attempt) of its events.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import fields
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from campaign.console import repeating, say
from campaign.errors import CampaignError, ConfigurationError, TransientError
from campaign.home import Home
from campaign.journal.campaigns import Spoken, refresh_campaigns, spoken, unread
from campaign.journal.events import Event, EventName, Journals
from campaign.journal.locks import alone
from campaign.journal.outcome import TaskRecord, order
from campaign.journal.plan import undisturbed
from campaign.journal.tables import (
    FILES,
    GROUPS,
    METADATA,
    RUNS,
    SCHEMA,
    TASKS,
    VERSIONS,
    merge_tasks,
    replace_rows,
    run_rows,
    same_group,
    state,
)
from campaign.killpoints import reach
from campaign.lines import lacking, leave_out

T = TypeVar("T")

SQLITE = "sqlite:///"
#: Time that a writer waits for another, and that a server has to answer, second.
BUSY_S, ANSWERS_S = 30.0, 10
#: Said by SQLite of a file that is no database, or a damaged one.
DAMAGED = ("not a database", "malformed", "file is encrypted")
#: Time between two updates of the index while a run is made, second.
FOLLOW_S = 2.0
#: File systems of several machines, where SQLite's locks and shared memory are not reliable.
NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "ceph", "cifs", "smb3", "beegfs", "fuse.")
#: Advisory lock of PostgreSQL that a writer holds.
LOCK = 7_201_116
#: Fields of a plan's group that the index needs, and their types.
GROUP = {"label": str, "kind": str, "ranks": int, "tasks": int}
#: Most memory for pages: the keys of a run with many tasks, which are found and written in no order.
CACHE_KIB = 1 << 16
#: Tasks that are written together.
TOGETHER = 50_000
#: Columns of a task's row that its events decide.
RECORD = tuple(one.name for one in fields(TaskRecord))
_values = attrgetter(*RECORD)


def place(home: Home, environment: Mapping[str, str] = os.environ) -> str:
    """Choose the database's URL: ``CAMPAIGN_DB`` (a URL, or a path), else a file in the home.

    Raises
    ------
    ConfigurationError
        SQLite would lie on a file system of several machines.
    """
    wanted = environment.get("CAMPAIGN_DB", "")
    if "://" in wanted:  # the Butler's own driver
        return wanted.replace("postgresql://", "postgresql+psycopg2://", 1)
    path = Path(wanted) if wanted else home.path / "index.db"
    kind = _file_system(path)
    if kind.startswith(NETWORK):
        raise ConfigurationError(
            f"the index would lie on {kind}, where SQLite loses what several machines write",
            where=str(path),
            do="export CAMPAIGN_DB=/a/local/path/index.db, or a PostgreSQL URL; it can be made again at any time",
        )
    return f"{SQLITE}{path.absolute()}"


def _file_system(path: Path) -> str:
    """Find the kind of the file system that holds a path, or will hold it."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    where, best, kind = str(path.resolve()), "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mount = left.split()[4].encode().decode("unicode_escape")
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    return kind


class Index:
    """The index of a home.

    Parameters
    ----------
    home : `Home`
    url : `str`
        See `place`.
    """

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        kind = url.partition(":")[0].partition("+")[0]
        patience = {"sqlite": {"timeout": BUSY_S}, "postgresql": {"connect_timeout": ANSWERS_S}}
        self._engine = sa.create_engine(url, connect_args=patience.get(kind, {}))
        if kind == "sqlite":
            home.path.mkdir(parents=True, exist_ok=True)
            sa.event.listen(self._engine, "connect", _prepare)
        self._require_schema()

    def _require_schema(self) -> None:
        """Make the tables; drop those of another schema."""
        with self._engine.begin() as connection:
            self._alone(connection)
            if sa.inspect(connection).has_table("versions"):
                known = connection.execute(sa.select(VERSIONS.c.number)).scalar()
                if known == SCHEMA:
                    return
                METADATA.drop_all(connection)
            METADATA.create_all(connection)
            connection.execute(sa.insert(VERSIONS).values(number=SCHEMA))

    def clear(self) -> None:
        """Drop everything."""
        with self._engine.begin() as connection:
            self._alone(connection)
            METADATA.drop_all(connection)
            METADATA.create_all(connection)
            connection.execute(sa.insert(VERSIONS).values(number=SCHEMA))

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def refresh(self, run: str | None = None) -> int:
        """Read the new events of one run's journals, or of all; give their number."""
        entries = [entry for entry in self._home.runs() if run in (None, entry["run"])]
        found = sum(self._refresh(entry) if run else self._refreshed(entry) for entry in entries)
        if run is None and self._home.campaigns:
            with self._engine.begin() as connection:
                self._alone(connection)
                found += refresh_campaigns(connection, self._home)
        return found

    def _refreshed(self, entry: Mapping[str, Any]) -> int:
        """Refresh one run; a run that may not be read (such as another operator's) is left out alone."""
        try:
            return self._refresh(entry)
        except OSError as error:
            unread(error, entry["submit_path"])
            return 0

    def _refresh(self, entry: Mapping[str, Any]) -> int:
        folder = Path(entry["submit_path"])
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(FILES.c.name, FILES.c.offset).where(FILES.c.run == entry["run"]))
            known = {name: offset for name, offset in rows}
            listed = connection.execute(sa.select(RUNS.c.run).where(RUNS.c.run == entry["run"])).first()
        if listed and not Journals(folder / "journal", known).grown():
            return 0
        with self._engine.begin() as connection:
            self._alone(connection)
            rows = connection.execute(sa.select(FILES.c.name, FILES.c.offset).where(FILES.c.run == entry["run"]))
            journals = Journals(
                folder / "journal", {name: offset for name, offset in rows}
            )  # another process may have been first
            with undisturbed():
                many = self._take(connection, entry, folder, journals.new())
            replace_rows(
                connection, FILES, [{"run": entry["run"], "name": n, "offset": o} for n, o in journals.read.items()]
            )
        reach("index-written")
        return many

    def _alone(self, connection: sa.Connection) -> None:
        """Make other writers wait until the end of the transaction."""
        if self._engine.dialect.name == "sqlite":
            connection.execute(sa.text("BEGIN IMMEDIATE"))
        else:
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({LOCK})"))

    def _take(self, connection: sa.Connection, entry: Mapping[str, Any], folder: Path, events: Iterator[Event]) -> int:
        """Fold events into the rows of a run, some at a time; give their number."""
        run, many = entry["run"], 0
        replace_rows(connection, RUNS, [{column.name: entry[column.name] for column in RUNS.columns}])
        groups = {row["label"]: row for row in run_rows(connection, GROUPS, run)} or dict(_planned(run, folder))
        tasks: dict[str, TaskRecord] = {}
        for event in events:
            many, task = many + 1, event.task
            if ":" in task:
                record = tasks.get(task)
                if record is None:
                    if len(tasks) == TOGETHER:
                        _merge(connection, run, tasks)
                    record = tasks[task] = TaskRecord()
                record.fold(event)
            elif event.event == EventName.SUBMITTED and task in groups:
                groups[task]["submitted"] = max(groups[task]["submitted"], order(event))
        _merge(connection, run, tasks)
        replace_rows(connection, GROUPS, list(groups.values()))
        return many

    # Queries
    def groups(self, run: str) -> list[dict[str, Any]]:
        """Sum up the groups, in the plan's order: tasks by state, times, and resources used."""
        t = TASKS.c
        done = sa.case((t.published > t.withdrawn, 1), else_=0)
        wanted = (
            sa.select(
                GROUPS.c.label, state().label("state"), sa.func.count(t.task).label("many"),
                sa.func.min(sa.func.nullif(t.began, "")).label("began"), sa.func.max(t.ended).label("ended"),
                sa.func.sum(t.cpu_s * done).label("cpu_s"), sa.func.sum(t.wall_s * done).label("wall_s"),
                sa.func.max(t.rss_mib).label("rss_mib"), sa.func.sum(t.tries).label("tries"),
            )
            .join(TASKS, same_group())
            .where(GROUPS.c.run == run)
            .group_by(GROUPS.c.label, "state")
        )  # fmt: skip
        with self._engine.connect() as connection:
            plan = sorted(run_rows(connection, GROUPS, run), key=lambda row: row["number"])
            rows = [dict(row) for row in connection.execute(wanted).mappings()]
        return [{**group, "states": [row for row in rows if row["label"] == group["label"]]} for group in plan]

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the tasks of every run by state."""
        both = sa.outerjoin(TASKS, GROUPS, same_group())
        wanted = sa.select(TASKS.c.run, state().label("state"), sa.func.count()).select_from(both)
        found: dict[str, dict[str, int]] = {}
        with self._engine.connect() as connection:
            for run, what, many in connection.execute(wanted.group_by(TASKS.c.run, "state")):
                found.setdefault(run, {})[what] = many
        return found

    def campaigns(self) -> list[Spoken]:
        """Give the last event of every step of every campaign that is still there."""
        with self._engine.connect() as connection:
            return spoken(connection, self._home)

    def failures(
        self, run: str, states: Sequence[str] = (EventName.FAILED,), most: int | None = None
    ) -> list[dict[str, Any]]:
        """List failed tasks, by default without those that are lost to a failed dependency."""
        wanted = (
            sa.select(TASKS, state().label("state"))
            .select_from(sa.outerjoin(TASKS, GROUPS, same_group()))
            .where(TASKS.c.run == run, state().in_(states))
            .order_by(TASKS.c.failed, TASKS.c.task)
            .limit(most)
        )
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(wanted).mappings()]


def _prepare(connection: Any, record: Any) -> None:
    """Set SQLite so that readers never block the writer, and transactions begin only where this module begins them."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")  # events lost in a power cut are read again
    connection.execute(f"PRAGMA cache_size={-CACHE_KIB}")


def _merge(connection: sa.Connection, run: str, tasks: dict[str, TaskRecord]) -> None:
    """Merge records into the rows of a run, and let them go."""
    about = ({"run": run, "task": task, "label": task.partition(":")[0]} for task in tasks)
    # asdict would copy every value, and take much longer
    records = (dict(zip(RECORD, _values(record), strict=True)) for record in tasks.values())
    merge_tasks(connection, [one | record for one, record in zip(about, records, strict=True)])
    tasks.clear()


def _planned(run: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the groups of a run's plan."""
    path = folder / "groups.json"
    try:
        groups = json.loads(path.read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as error:
        leave_out(str(path), 1, f"it cannot be read: {error}")
        return
    for number, group in enumerate(groups if isinstance(groups, list) else [groups]):
        wrong = lacking(group, GROUP) if isinstance(group, dict) else "it is no group of tasks"
        if wrong:
            leave_out(str(path), number + 1, wrong)
            continue
        yield group["label"], {"run": run, "number": number, "submitted": 0, **{key: group[key] for key in GROUP}}


@contextmanager
def opened(home: Home) -> Iterator[Index]:
    """Open the index of a home; make one where there is none.

    Raises
    ------
    DamagedIndex
        The file cannot be read; see `asked`.
    ConfigurationError, TransientError
        The place cannot be used; the server does not answer.
    """
    url = place(home)
    try:
        with closing(Index(home, url)) as index:
            yield index
    except (sa.exc.ArgumentError, ImportError) as error:
        raise ConfigurationError(
            f"CAMPAIGN_DB cannot be used: {str(error).splitlines()[0]}",
            do="give a path, or a URL postgresql://user@host/name (pip install drp-campaign[postgres])",
        ) from error
    except sa.exc.DBAPIError as error:
        raise _told(url, str(error.orig).strip()) from error


class DamagedIndex(TransientError):
    """The file of the index is no database, or a damaged one."""


def _told(url: str, said: str) -> CampaignError:
    """Turn the database's complaint into an error for the operator."""
    where, what = sa.make_url(url).render_as_string(hide_password=True), said.partition("\n")[0]
    if not url.startswith("sqlite"):
        do = "look whether the server runs, then give the same command again; or unset CAMPAIGN_DB"
        return TransientError(f"the index's database does not answer: {what}", where=where, do=do)
    where = url.removeprefix(SQLITE)
    if any(words in what for words in DAMAGED):
        return DamagedIndex(f"the index is damaged: {what}", where=where, do="campaign recover makes it again")
    if any(words in what for words in ("locked", "full", "I/O")):
        return TransientError(f"the index's database says: {what}", where=where, do="give the same command again")
    do = "look at the place, or export CAMPAIGN_DB=/another/place/index.db"
    return ConfigurationError(f"the index's database says: {what} (uid {os.geteuid()})", where=where, do=do)


def asked(home: Home, question: Callable[[Index], T]) -> T:
    """Query the index of a home; rebuild a damaged one from the journals.

    Raises
    ------
    CampaignError
        See `opened`.
    """
    try:
        with opened(home) as index:
            return question(index)
    except DamagedIndex as error:
        _throw_away(home, error)
    with opened(home) as index:
        return question(index)


def _throw_away(home: Home, error: DamagedIndex) -> None:
    """Remove the file of an index, unless another process has rebuilt it meanwhile."""
    path = Path(place(home).removeprefix(SQLITE))
    with alone(path.with_name(f"{path.name}.lock"), f"the index {path}"):
        with suppress(DamagedIndex), opened(home) as index:
            index.counts()
            return
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
    say(f"warning: {error.where}: {error.what}; it is made again from the journals")


def update(home: Home, run: str) -> str:
    """Bring the index of a run up to date; return the reason of a failure, which must not end the run."""
    try:
        asked(home, lambda index: index.refresh(run))
    except (sa.exc.SQLAlchemyError, CampaignError, OSError) as error:
        return f"the index is not up to date, campaign recover makes it again: {str(error).splitlines()[0]}"
    return ""


@contextmanager
def followed(home: Home, run: str) -> Iterator[None]:
    """Keep the index of a run up to date while the run is made, so that a status query need not wait."""

    with ExitStack() as held:  # open meanwhile: who closes SQLite's last connection waits four times for the disk
        hold = cache(lambda: held.enter_context(closing(Index(home, place(home)))))

        def follow() -> None:
            with suppress(sa.exc.SQLAlchemyError, CampaignError, OSError, ImportError):  # the last update tells
                hold()
            update(home, run)

        with repeating(follow, FOLLOW_S, leave=FOLLOW_S):  # an update that waits for a database is left behind
            yield
