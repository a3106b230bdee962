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

from campaign.console import repeating, say
from campaign.errors import CampaignError, ConfigurationError, TransientError
from campaign.home import Home
from campaign.journal.campaigns import Spoken, refresh_campaigns, spoken, unread
from campaign.journal.database import SQLITE, Database, errors, hidden
from campaign.journal.events import Event, EventName, Journals
from campaign.journal.locks import alone
from campaign.journal.outcome import TaskRecord, order
from campaign.journal.plan import undisturbed
from campaign.journal.tables import FILES, GROUPS, JOINED, MERGED, RUNS, SCHEMA, STATE, TABLES, TASKS
from campaign.killpoints import reach
from campaign.lines import lacking, leave_out

T = TypeVar("T")

#: Said by SQLite of a file that is no database, or a damaged one.
DAMAGED = ("not a database", "malformed", "file is encrypted")
#: Time between two updates of the index while a run is made, second.
FOLLOW_S = 2.0
#: First bytes of SQLite's files.
MAGIC = b"SQLite format 3\0"
#: File systems of several machines, where SQLite's locks and shared memory are not reliable.
NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "ceph", "cifs", "smb3", "beegfs", "fuse.")
#: Fields of a plan's group that the index needs, and their types.
GROUP = {"label": str, "kind": str, "ranks": int, "tasks": int}
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
    if "://" in wanted:
        return wanted
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
    database : `Database`
    """

    def __init__(self, home: Home, database: Database) -> None:
        self._home = home
        self._database = database
        with database.writing():  # tables of another schema are made anew
            database.execute("CREATE TABLE IF NOT EXISTS versions (number INTEGER)")
            if database.rows("SELECT number FROM versions") != [{"number": SCHEMA}]:
                self._make()

    def _make(self) -> None:
        for table in TABLES:
            self._database.execute(f'DROP TABLE IF EXISTS "{table.name}"')
            self._database.create(table)
        self._database.execute("DELETE FROM versions")
        self._database.execute("INSERT INTO versions VALUES (?)", SCHEMA)

    def clear(self) -> None:
        """Drop everything."""
        with self._database.writing():
            self._make()

    def refresh(self, run: str | None = None) -> int:
        """Read the new events of one run's journals, or of all; give their number."""
        entries = [entry for entry in self._home.runs() if run in (None, entry["run"])]
        found = sum(self._refresh(entry) if run else self._refreshed(entry) for entry in entries)
        if run is None and self._home.campaigns:
            with self._database.writing():
                found += refresh_campaigns(self._database, self._home)
        return found

    def _refreshed(self, entry: Mapping[str, Any]) -> int:
        """Refresh one run; a run that may not be read (such as another operator's) is left out alone."""
        try:
            return self._refresh(entry)
        except OSError as error:
            unread(error, entry["submit_path"])
            return 0

    def _refresh(self, entry: Mapping[str, Any]) -> int:
        run, folder = entry["run"], Path(entry["submit_path"])
        listed = self._database.rows("SELECT run FROM runs WHERE run = ?", run)
        if listed and not self._journals(run, folder).grown():
            return 0
        with self._database.writing():
            journals = self._journals(run, folder)  # another process may have been first
            with undisturbed():
                many = self._take(entry, folder, journals.new())
            self._database.replace(FILES, [{"run": run, "name": n, "offset": o} for n, o in journals.read.items()])
        reach("index-written")
        return many

    def _journals(self, run: str, folder: Path) -> Journals:
        """Open the journals of a run where they were read to."""
        rows = self._database.rows('SELECT name, "offset" FROM files WHERE run = ?', run)
        return Journals(folder / "journal", {row["name"]: row["offset"] for row in rows})

    def _take(self, entry: Mapping[str, Any], folder: Path, events: Iterator[Event]) -> int:
        """Fold events into the rows of a run, some at a time; give their number."""
        run, many = entry["run"], 0
        self._database.replace(RUNS, [entry])
        groups = {row["label"]: row for row in self._groups(run)} or dict(_planned(run, folder))
        tasks: dict[str, TaskRecord] = {}
        for event in events:
            many, task = many + 1, event.task
            if ":" in task:
                record = tasks.get(task)
                if record is None:
                    if len(tasks) == TOGETHER:
                        self._merge(run, tasks)
                    record = tasks[task] = TaskRecord()
                record.fold(event)
            elif event.event == EventName.SUBMITTED and task in groups:
                groups[task]["submitted"] = max(groups[task]["submitted"], order(event))
        self._merge(run, tasks)
        self._database.replace(GROUPS, list(groups.values()))
        return many

    def _merge(self, run: str, tasks: dict[str, TaskRecord]) -> None:
        """Merge records into the rows of a run, and let them go."""
        about = ({"run": run, "task": task, "label": task.partition(":")[0]} for task in tasks)
        # asdict would copy every value, and take much longer
        records = (dict(zip(RECORD, _values(record), strict=True)) for record in tasks.values())
        self._database.merge(TASKS, MERGED, [one | record for one, record in zip(about, records, strict=True)])
        tasks.clear()

    # Queries
    def _groups(self, run: str) -> list[dict[str, Any]]:
        return self._database.rows("SELECT * FROM groups WHERE run = ? ORDER BY number", run)

    def groups(self, run: str) -> list[dict[str, Any]]:
        """Sum up the groups, in the plan's order: tasks by state, times, and resources used."""
        done = "CASE WHEN t.published > t.withdrawn THEN 1 ELSE 0 END"
        wanted = f"""
            SELECT t.label AS label, {STATE} AS state, COUNT(t.task) AS many,
                MIN(NULLIF(t.began, '')) AS began, MAX(t.ended) AS ended,
                SUM(t.cpu_s * {done}) AS cpu_s, SUM(t.wall_s * {done}) AS wall_s,
                MAX(t.rss_mib) AS rss_mib, SUM(t.tries) AS tries
            FROM {JOINED} WHERE t.run = ? GROUP BY 1, 2
        """
        rows = self._database.rows(wanted, run)
        return [
            {**group, "states": [row for row in rows if row["label"] == group["label"]]} for group in self._groups(run)
        ]

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the tasks of every run by state."""
        found: dict[str, dict[str, int]] = {}
        for row in self._database.rows(f"SELECT t.run, {STATE} AS state, COUNT(*) AS many FROM {JOINED} GROUP BY 1, 2"):
            found.setdefault(row["run"], {})[row["state"]] = row["many"]
        return found

    def campaigns(self) -> list[Spoken]:
        """Give the last event of every step of every campaign that is still there."""
        return spoken(self._database, self._home)

    def failures(
        self, run: str, states: Sequence[str] = (EventName.FAILED,), most: int | None = None
    ) -> list[dict[str, Any]]:
        """List failed tasks, by default without those that are lost to a failed dependency."""
        wanted = f"""
            SELECT t.*, {STATE} AS state FROM {JOINED}
            WHERE t.run = ? AND {STATE} IN ({", ".join("?" * len(states))})
            ORDER BY t.failed, t.task {f"LIMIT {most}" if most else ""}
        """
        return self._database.rows(wanted, run, *map(str, states))


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
        if url.startswith(SQLITE):
            home.path.mkdir(parents=True, exist_ok=True)
        with closing(Database(url)) as database:
            yield Index(home, database)
    except errors() as error:
        raise _told(url, str(error).strip()) from error


class DamagedIndex(TransientError):
    """The file of the index is no database, or a damaged one."""


def _told(url: str, said: str) -> CampaignError:
    """Turn the database's complaint into an error for the operator."""
    where, what = hidden(url), said.partition("\n")[0]
    if not url.startswith(SQLITE):
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
    """Put a damaged index aside, unless another process has rebuilt it meanwhile.

    Raises
    ------
    ConfigurationError
        ``CAMPAIGN_DB`` names a file that never was an index.
    """
    path = Path(place(home).removeprefix(SQLITE))
    with path.open("rb") as file:
        if path != home.path.absolute() / "index.db" and file.read(len(MAGIC)) != MAGIC:
            raise ConfigurationError(
                "CAMPAIGN_DB names a file that is no index", where=str(path), do="name another one; this one is kept"
            )
    with alone(path.with_name(f"{path.name}.lock"), f"the index {path}"):
        with suppress(DamagedIndex), opened(home) as index:
            index.counts()
            return
        path.replace(path.with_name(f"{path.name}.damaged"))
        for name in (f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
    say(f"warning: {error.where}: {error.what}; it is made again from the journals, the old one is {path.name}.damaged")


def update(home: Home, run: str) -> str:
    """Bring the index of a run up to date; return the reason of a failure, which must not end the run."""
    try:
        asked(home, lambda index: index.refresh(run))
    except (CampaignError, OSError) as error:
        return f"the index is not up to date, campaign recover makes it again: {str(error).splitlines()[0]}"
    return ""


@contextmanager
def followed(home: Home, run: str) -> Iterator[None]:
    """Keep the index of a run up to date while the run is made, so that a status query need not wait."""

    with ExitStack() as held:  # open meanwhile: who closes SQLite's last connection waits four times for the disk
        hold = cache(lambda: held.enter_context(opened(home)))

        def follow() -> None:
            with suppress(CampaignError, OSError):  # the last update tells
                hold()
            update(home, run)

        with repeating(follow, FOLLOW_S, leave=FOLLOW_S):  # an update that waits for a database is left behind
            yield
