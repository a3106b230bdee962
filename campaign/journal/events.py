"""Read and write the run's journal: one event a line, whichever process wrote it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from campaign import lines
from campaign.errors import ConfigurationError
from campaign.home import now

VERSION = 1


class EventName(StrEnum):
    """Names of the events of a run; those that a kernel writes are in `kernels.jobs.journal.EventName` too.

    STARTED and FAILED may concern the whole run; SUBMITTED to NOTE a group, its
    workers, or of a site.
    """

    STARTED = "started"
    PUBLISHED = "published"
    FAILED = "failed"
    LOST = "lost"
    WITHDRAWN = "withdrawn"
    SUBMITTED = "submitted"
    QUEUED = "queued"
    ADOPTED = "adopted"
    WORKER = "worker"
    RETRY = "retry"
    DIED = "died"
    NOTE = "note"
    DONE = "done"


class Decision(StrEnum):
    """Names of the events of a campaign, each of one of its steps."""

    BEGUN = "begun"
    PROCESS = "process"
    FAILED = "failed"
    MADE = "made"
    GATE = "gate"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CERTIFIED = "certified"


#: Events that end a task's attempt.
ENDED = frozenset({EventName.PUBLISHED, EventName.FAILED, EventName.LOST})


@dataclass(frozen=True)
class Event:
    """One line of a journal.

    ``task`` is a group's label, or a site's name, where it has no colon, and empty for the whole run.
    ``event`` is an `EventName`, or a name that only a later release knows.
    """

    v: int
    t: str
    run: str
    task: str
    attempt: int
    site: str
    token: int
    event: str
    detail: Mapping[str, Any]

    @property
    def of_task(self) -> bool:
        """Whether the event concerns a task, not a group, a site or the run."""
        return ":" in self.task


#: Bound of attempts and of tokens.
MOST = 1_000_000
#: Fields of an event, and their types.
NEEDS = {
    **dict.fromkeys(("v", "attempt", "token"), int),
    **dict.fromkeys(("t", "run", "task", "site", "event"), str),
    "detail": dict,
}


class Journals:
    """All journals of a run, each read from the end of the last reading.

    A killed writer may leave half a line, which is no event until its newline
    is there.  A damaged line costs that line alone.

    Parameters
    ----------
    folder : `Path`
        ``<submitPath>/journal``.
    known : mapping
        By file name, bytes that were read before.
    """

    def __init__(self, folder: Path, known: Mapping[str, int] | None = None) -> None:
        self._folder = folder
        self._offsets: dict[str, int] = {str(folder / name): offset for name, offset in (known or {}).items()}
        #: Number of lines of another version, by file; they are no events here.
        self.foreign: Counter[str] = Counter()

    def _offset(self, path: str) -> int:
        return self._offsets.get(path, 0)

    @property
    def read(self) -> dict[str, int]:
        """By file name, bytes that were read."""
        return {os.path.basename(path): offset for path, offset in self._offsets.items()}

    def grown(self) -> bool:
        """Whether any file has grown."""
        return bool(self._grown(closely=False))

    def _grown(self, closely: bool) -> list[str]:
        if not self._folder.is_dir():
            return []
        with os.scandir(self._folder) as entries:
            files = [entry for entry in entries if entry.name.endswith(".jsonl")]
        return sorted(e.path for e in files if closely or e.stat().st_size != self._offset(e.path))

    def new(self, closely: bool = False) -> Iterator[Event]:
        """Read the events written since the last call; in order within a file.

        ``closely`` opens every file, whatever its size: a shared file system may show an old size.
        """
        for path in self._grown(closely):
            offset, text = _after(path, self._offset(path))
            whole = text[: text.rfind(b"\n") + 1]
            self._offsets[path] = offset + len(whole)
            if not whole:
                continue
            try:  # parsing all lines at once takes a third of the time
                found = [Event(**plain) for plain in json.loads(b"[" + b",".join(whole.splitlines()) + b"]")]
            except (ValueError, TypeError, RecursionError):
                found = []
            yield from found if found and all(map(_sound, found)) else self._one_by_one(path, offset, whole)

    def _one_by_one(self, path: str, offset: int, text: bytes) -> Iterator[Event]:
        """Read the events, and leave out damaged lines and those of another version; see `campaign.lines`."""
        with open(path, "rb") as file:
            before = file.read(offset).count(b"\n")
        for number, line in enumerate(text.splitlines(), before + 1):
            plain = lines.parse(line)
            if isinstance(plain, dict) and type(plain.get("v")) is int and plain["v"] != VERSION:
                self.foreign[path] += 1
                lines.leave_out(path, number, f"it is of version {plain['v']}, not {VERSION}")
                continue
            wrong = plain if isinstance(plain, str) else lines.lacking(plain, NEEDS)
            event = Event(**{key: plain[key] for key in NEEDS}) if isinstance(plain, dict) and not wrong else None
            if event is not None and _sound(event):
                yield event
            elif line.strip():
                lines.leave_out(path, number, wrong or "its attempt or token is no number of one")

    def require_all_known(self) -> None:
        """Refuse a run that another version has written to.

        Raises
        ------
        ConfigurationError
            Some lines are of another version.
        """
        if self.foreign:
            path, many = next(iter(self.foreign.items()))
            do = "another release of drp-campaign has made this run: resume it with that release"
            raise ConfigurationError(f"{many} lines are not of version {VERSION}", where=path, do=do)


def _sound(event: Event) -> bool:
    """Whether the fields that are folded have their types, and numbers that the index can store."""
    order = (event.attempt, event.token)
    return (
        event.v == VERSION
        and all(type(number) is int and 0 <= number < MOST for number in order)
        and type(event.detail) is dict
        and type(event.t) is type(event.task) is type(event.event) is type(event.site) is str
    )


def _after(path: str, offset: int) -> tuple[int, bytes]:
    """Read a file from the beginning of a line on; all of it where the file was replaced."""
    with open(path, "rb") as file:
        file.seek(max(0, offset - 1))
        if offset and file.read(1) != b"\n":
            offset = 0
        file.seek(offset)
        return offset, file.read()


def read(folder: Path) -> list[Event]:
    """Read all events of a run, sorted by time."""
    return sorted(Journals(folder).new(), key=lambda e: e.t)


@dataclass
class DriverJournal:
    """The driver's own file in the journal folder; half a line that an earlier driver has left is cut off."""

    folder: Path
    run: str
    site: str = "local"
    token: int = 1

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / "driver.jsonl"
        _whole_lines(self._path)

    def write(self, event: str, detail: Mapping[str, Any], task: str = "", attempt: int = 1) -> Event:
        """Append one event, wait until it is on disk, and return it."""
        return self.write_all(event, {task: detail}, attempt)[0]

    def write_all(self, event: str, details: Mapping[str, Mapping[str, Any]], attempt: int = 1) -> list[Event]:
        """Append one event for many tasks, each with its detail; wait until all are on disk."""
        when, about = now(), (attempt, self.site, self.token, EventName(event))
        entries = [Event(VERSION, when, self.run, task, *about, dict(detail)) for task, detail in details.items()]
        text = "".join(json.dumps(asdict(entry), separators=(",", ":")) + "\n" for entry in entries)
        lines.append(self._path, text.encode())
        return entries


def _whole_lines(path: Path) -> None:
    """Cut off the text after the last newline."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)
