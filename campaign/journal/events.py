"""Read and write the run's journal: one event a line, whichever process wrote it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from operator import itemgetter
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
#: Bytes that are read, and decoded, at once: what is made of them stays in a core's cache.
BLOCK = 1 << 16
_values, _TYPES = itemgetter(*NEEDS), tuple(NEEDS.values())
_new, _set = object.__new__, object.__setattr__


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
        #: By file, an offset, and the number of lines before it.
        self._counted: dict[str, tuple[int, int]] = {}

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
        """Read the events written since the last call, a block at a time; in order within a file.

        ``closely`` opens every file, whatever its size: a shared file system may show an old size.
        """
        for path in self._grown(closely):
            for offset, block in _blocks(path, self._offset(path)):
                self._offsets[path] = offset + len(block)
                yield from _all_sound(block) or self._one_by_one(path, offset, block)

    def _one_by_one(self, path: str, offset: int, block: bytes) -> Iterator[Event]:
        """Read the events, and leave out damaged lines and those of another version; see `campaign.lines`."""
        before = self._lines_before(path, offset)
        for number, line in enumerate(block.split(b"\n"), before + 1):
            plain = lines.parse(line)
            if isinstance(plain, dict) and type(plain.get("v")) is int and plain["v"] != VERSION:
                self.foreign[path] += 1
                lines.leave_out(path, number, f"it is of version {plain['v']}, not {VERSION}")
                continue
            wrong = plain if isinstance(plain, str) else lines.lacking(plain, NEEDS)
            known = {key: plain[key] for key in NEEDS} if isinstance(plain, dict) and not wrong else None
            if known is not None and _sound(known):
                yield _event(known)
            elif line.strip():
                lines.leave_out(path, number, wrong or "its attempt or token is no number of one")

    def _lines_before(self, path: str, offset: int) -> int:
        """Count the lines before a block, from the last block on whose lines were counted."""
        known, number = self._counted.get(path, (0, 0))
        with open(path, "rb") as file:
            file.seek(known)
            while known < offset and (text := file.read(min(BLOCK, offset - known))):
                known, number = known + len(text), number + text.count(b"\n")
        self._counted[path] = known, number
        return number

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


def _sound(plain: Mapping[str, Any]) -> bool:
    """Whether an object has the fields of an event and no others, with their types, and numbers that the index stores.

    Raises
    ------
    KeyError, TypeError
        A field is missing; it is no object.
    """
    return (
        tuple(map(type, _values(plain))) == _TYPES
        and len(plain) == len(_TYPES)
        and plain["v"] == VERSION
        and 0 <= plain["attempt"] < MOST
        and 0 <= plain["token"] < MOST
    )


def _event(plain: dict[str, Any]) -> Event:
    """Make an event of a sound object, which it keeps; `Event` would set field by field, and take ten times as long."""
    event = _new(Event)
    _set(event, "__dict__", plain)
    return event


def _all_sound(block: bytes) -> list[Event]:
    """Make an event of each line; of none where one is unsound.

    All lines at once are decoded in half the time.  A newline stays between them, so that no text spans two.
    """
    try:
        found = json.loads(b"[" + block[:-1].replace(b"\n", b",\n") + b"]")
        sound = len(found) == block.count(b"\n") and all(map(_sound, found))
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return list(map(_event, found)) if sound else []


def _blocks(path: str, offset: int) -> Iterator[tuple[int, bytes]]:
    """Read whole lines from the beginning of a line on, with the offset of each block.

    All of the file is read where it was replaced.
    """
    with open(path, "rb") as file:
        file.seek(max(0, offset - 1))
        if offset and file.read(1) != b"\n":
            offset = 0
        file.seek(offset)
        while block := file.read(BLOCK):
            block += file.readline() if block[-1:] != b"\n" else b""
            whole = block[: block.rfind(b"\n") + 1]
            if whole:
                yield offset, whole
            if len(whole) < len(block):  # the rest of its last line is not there yet
                return
            offset += len(whole)


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
