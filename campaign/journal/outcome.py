"""Fold the events of a run: a record of each task, and the outcome of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.journal.events import MOST, Event, EventName
from campaign.lines import parse

#: Largest whole number that a database stores.
LARGEST = 2**31
#: Plain texts: a member of an enumeration takes several times as long to look up, and to compare.
STARTED, PUBLISHED, FAILED, LOST, WITHDRAWN = (
    name.value
    for name in (EventName.STARTED, EventName.PUBLISHED, EventName.FAILED, EventName.LOST, EventName.WITHDRAWN)
)
#: Events of the whole run that begin or end what a driver does.
ENDS = (EventName.STARTED, EventName.DONE, EventName.FAILED)


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
        name, detail, when = event.event, event.detail, order(event)
        if name == STARTED:
            self.started, self.tries = max(self.started, when), self.tries + 1
            self.began = min(self.began or event.t, event.t)
        elif name == PUBLISHED:
            self.ended = max(self.ended, event.t)
            if when > self.published:
                self.published = when
                self.cpu_s = _number(detail.get("cpu_s"))
                self.wall_s = _number(detail.get("wall_s"))
                self.rss_mib = _number(detail.get("rss_mib"))
                if when >= self.failed:
                    self.site = event.site
        elif name == WITHDRAWN:
            self.withdrawn = max(self.withdrawn, when)
        elif name in (FAILED, LOST):
            cause, error = _reason(event)
            self.ended = max(self.ended, event.t)
            if (when, cause, error) > (self.failed, self.cause, self.error):
                self.failed, self.cause, self.error = when, cause, error
                if when > self.published:
                    self.site = event.site


def _number(value: Any) -> float:
    """Give a number that a database stores, 0 for another."""
    return value if isinstance(value, (int, float)) and abs(value) < LARGEST else 0


def _text(value: Any) -> str:
    """A text that PostgreSQL stores too."""
    return str(value).replace("\0", "")


def _reason(event: Event) -> tuple[str, str]:
    """Give cause and error of a failure; a task that a failed dependency has cost has the cause ``lost``."""
    cause = LOST if event.event == LOST else _text(event.detail.get("cause", ""))
    return cause, _text(event.detail.get("error", ""))


@dataclass
class Outcome:
    """Outcome of a plan's tasks."""

    #: `order` of the ``published`` event that stands, by task.  Its detail stays in the journal; see `made`.
    published: dict[str, int] = field(default_factory=dict)
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

    _withdrawn: dict[str, int] = field(default_factory=dict)
    _failures: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    #: `order` of the latest start, by task that is not published since.
    _started: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether everything that was planned was made."""
        return not self.failed and not self.skipped and not self.drained

    def fold(self, event: Event) -> None:
        """Fold in an event; a published task stays published unless the driver withdraws it.

        The journals' files may come in any order: `order` says which event of a task is the latest.
        """
        group, colon, _ = event.task.partition(":")
        attempt, token = event.attempt, event.token
        if attempt > self.attempts.get(group, -1):
            self.attempts[group] = attempt if event.task else 0
        if token > self.token:
            self.token = token
        if colon:
            self._fold_task(event, token * MOST + attempt)
        elif event.event == EventName.SUBMITTED:
            self.jobs[event.task] = dict(event.detail)
        elif event.event in (EventName.QUEUED, EventName.DIED) and event.task in self.jobs:
            self.jobs[event.task] |= event.detail

    def _fold_task(self, event: Event, when: int) -> None:
        task, name = event.task, event.event
        if name == STARTED:
            if when > self.published.get(task, 0):
                self._started[task] = max(when, self._started.get(task, 0))
        elif name == PUBLISHED:
            if when > self.published.get(task, 0) and when > self._withdrawn.get(task, 0):
                self.published[task] = when
                self.forget(task)
                if self._started.get(task, when + 1) <= when:
                    del self._started[task]
        elif name == WITHDRAWN:
            self._withdrawn[task] = max(when, self._withdrawn.get(task, 0))
            if self.published.get(task, 0) <= self._withdrawn[task]:
                self.published.pop(task, None)
        elif name in (FAILED, LOST):
            self._fold_failure(event, when)

    def _fold_failure(self, event: Event, when: int) -> None:
        task, failure = event.task, (when, *_reason(event))
        latest = self._failures[task] = max(failure, self._failures.get(task, failure))
        if task in self.published:
            return
        if event.event == FAILED:
            _, self.causes[task], error = latest
            self.failed[task] = error or "no reason is known"
        else:
            self.skipped.setdefault(task, latest[2])

    def made(self, events: Iterable[Event]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Give task and detail of each ``published`` event that stands, of the same events once more."""
        left = set(self.published)
        for event in events:
            standing = event.event == PUBLISHED and self.published.get(event.task) == order(event)
            if standing and event.task in left:
                left.remove(event.task)
                yield event.task, event.detail

    def begun(self, task: str) -> int:
        """Give the attempt at which a task was last begun; 0 for never."""
        return max(self._started.get(task, 0), self.published.get(task, 0)) % MOST

    def forget(self, task: str) -> None:
        """Take a failure back: the task is, or was, tried again."""
        if task in self.failed or task in self.skipped:
            for known in (self.failed, self.skipped, self.causes):
                known.pop(task, None)


def last_state(folder: Path) -> str:
    """State that a run's last driver left (done, failed, cancelled, drained); empty while one works, or without any."""
    detail: Any = None
    try:
        with (folder / "journal" / "driver.jsonl").open("rb") as file:
            for line in file:
                if b'"task":""' in line and line.endswith(b"\n"):
                    found = parse(line)
                    if isinstance(found, dict) and found.get("event") in ENDS:
                        detail = found.get("detail")
    except FileNotFoundError:
        return ""
    return str(detail["state"]) if isinstance(detail, dict) and "state" in detail else ""
