"""Fold the events of a run: a record of each task, and the outcome of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.journal.events import MOST, Event, EventName
from campaign.lines import parse

#: Largest whole number that a database stores.
LARGEST = 2**31


def order(event: Event) -> int:
    """Rank an event among those of its task: by token, then by attempt."""
    return event.token * MOST + event.attempt


@dataclass(slots=True)
class TaskRecord:
    """One task in the journals: maxima, minima and sums, so that events may come in any order."""

    #: `order` of the latest such event; 0 without any.
    withdrawn: int = 0
    published: int = 0
    failed: int = 0
    started: int = 0
    tries: int = 0
    #: Of the latest result, as are its times, its cause and its error.
    site: str = ""
    #: ISO-8601, UTC.
    began: str = ""
    ended: str = ""
    #: Second.
    cpu_s: float = 0.0
    wall_s: float = 0.0
    rss_mib: float = 0
    #: ``lost`` if a dependency failed.
    cause: str = ""
    error: str = ""

    @property
    def stands(self) -> bool:
        """Whether the task is published, and was not withdrawn since."""
        return self.published > self.withdrawn

    def fold(self, event: Event) -> None:
        """Fold in an event of the task."""
        name, detail, when = event.event, event.detail, event.token * MOST + event.attempt
        if name == EventName.STARTED:
            self.started, self.tries = max(self.started, when), self.tries + 1
            self.began = min(self.began or event.t, event.t)
        elif name == EventName.PUBLISHED:
            self.ended = max(self.ended, event.t)
            if when > self.published:
                self.published, self.site = when, event.site
                self.cpu_s = _number(detail.get("cpu_s"), self.cpu_s)
                self.wall_s = _number(detail.get("wall_s"), self.wall_s)
                self.rss_mib = _number(detail.get("rss_mib"), self.rss_mib)
        elif name == EventName.WITHDRAWN:
            self.withdrawn = max(self.withdrawn, when)
        elif name in (EventName.FAILED, EventName.LOST):
            cause = _text(detail.get("cause", "")) if name == EventName.FAILED else EventName.LOST.value
            error = _text(detail.get("error", ""))
            self.ended = max(self.ended, event.t)
            if (when, cause, error) > (self.failed, self.cause, self.error):
                self.failed, self.site, self.cause, self.error = when, event.site, cause, error


def _number(value: Any, instead: float) -> float:
    return value if isinstance(value, (int, float)) and abs(value) < LARGEST else instead


def _text(value: Any) -> str:
    """A text that PostgreSQL stores too."""
    return str(value).replace("\0", "")


@dataclass
class Outcome:
    """Outcome of a plan's tasks."""

    #: Detail of the ``published`` event, by task.
    published: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    #: By task, why.
    failed: dict[str, str] = field(default_factory=dict)
    #: Dependency that failed, by task, or words that name it.
    skipped: dict[str, str] = field(default_factory=dict)
    #: Cause by failed task: ``data``, ``memory``, ...
    causes: dict[str, str] = field(default_factory=dict)
    #: Highest number of an attempt, by group.
    attempts: dict[str, int] = field(default_factory=dict)
    #: By group, its last job: ``name``, ``resources``, the scheduler's ``job``, the ``cause`` and ``code`` of its
    #: death.
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: The run was ended before everything was begun.
    drained: bool = False
    #: The highest fencing token.
    token: int = 1

    _records: dict[str, TaskRecord] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether everything that was planned was made."""
        return not self.failed and not self.skipped and not self.drained

    def fold(self, event: Event) -> None:
        """Fold in an event; a published task stays published unless the driver withdraws it.

        The journals' files may come in any order: `order` says which event of a task is the latest.
        """
        group, colon, _ = event.task.partition(":")
        self.attempts[group] = max(self.attempts.get(group, 0), event.attempt if event.task else 0)
        self.token = max(self.token, event.token)
        if colon:
            self._fold_task(event)
        elif event.event == EventName.SUBMITTED:
            self.jobs[event.task] = dict(event.detail)
        elif event.event in (EventName.QUEUED, EventName.DIED) and event.task in self.jobs:
            self.jobs[event.task] |= event.detail

    def _fold_task(self, event: Event) -> None:
        task, name = event.task, event.event
        record = self._records.get(task)
        if record is None:
            record = self._records[task] = TaskRecord()
        before = record.published
        record.fold(event)
        if not record.stands:
            self.published.pop(task, None)
        elif name == EventName.PUBLISHED:
            if record.published > before:
                self.published[task] = event.detail
            self.forget(task)
        if task in self.published:
            return
        if name == EventName.FAILED:
            self.failed[task] = record.error or "no reason is known"
            self.causes[task] = record.cause
        elif name == EventName.LOST:
            self.skipped.setdefault(task, record.error)

    def begun(self, task: str) -> int:
        """Give the attempt at which a task was last begun; 0 for never."""
        record = self._records.get(task)
        return record.started % MOST if record else 0

    def forget(self, task: str) -> None:
        """Take a failure back: the task is, or was, tried again."""
        for known in (self.failed, self.skipped, self.causes):
            known.pop(task, None)


def last_state(folder: Path) -> str:
    """State that a run's last driver left (done, failed, cancelled, drained); empty while one works, or without any."""
    path = folder / "journal" / "driver.jsonl"
    text = path.read_bytes() if path.exists() else b""
    found = [parse(line) for line in text[: text.rfind(b"\n") + 1].splitlines() if b'"task":""' in line]
    names = (EventName.STARTED, EventName.DONE, EventName.FAILED)
    ends = [one for one in found if isinstance(one, dict) and one.get("event") in names]
    detail = ends[-1].get("detail") if ends else None
    return str(detail["state"]) if isinstance(detail, dict) and "state" in detail else ""
