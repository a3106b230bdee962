"""What became of a plan's tasks, folded from its journals' events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from campaign.journal.events import Event


@dataclass
class Outcome:
    """What became of a plan's tasks.

    Parameters
    ----------
    published : `dict`
        By task, the detail of its ``published`` event.
    failed : `dict`
        By task, why.
    skipped : `dict`
        By task, the task that it waited for in vain.
    causes : `dict`
        By failed task: ``data``, ``memory``, ...
    attempts : `dict`
        By group, the highest number of an attempt.
    jobs : `dict`
        By group, what is known of its last job: ``name``, ``resources``, the scheduler's ``job``, its death's
        ``cause`` and ``code``.
    drained : `bool`
        The run was ended before everything was begun.
    token : `int`
        The highest fencing token.
    """

    published: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    drained: bool = False
    token: int = 1
    _made: dict[str, tuple[int, int]] = field(default_factory=dict)
    _withdrawn: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether everything that was planned was made."""
        return not self.failed and not self.skipped and not self.drained

    def fold(self, event: Event) -> None:
        """Take an event in; a task is published for ever, unless the driver withdraws it.

        The journals' files may come in any order: tokens and attempts say what was before what.
        """
        group, when = event.task.partition(":")[0], (event.token, event.attempt)
        self.attempts[group] = max(self.attempts.get(group, 0), event.attempt if event.task else 0)
        self.token = max(self.token, event.token)
        if event.event == "published" and when > self._withdrawn.get(event.task, (0, 0)):
            if when > self._made.get(event.task, (0, 0)):
                self.published[event.task], self._made[event.task] = event.detail, when
            self.forget(event.task)
        elif event.event == "withdrawn":
            self._withdrawn[event.task] = max(when, self._withdrawn.get(event.task, (0, 0)))
            if self._made.get(event.task, (0, 0)) <= when:
                self.published.pop(event.task, None)
                self._made.pop(event.task, None)
        elif event.event == "failed" and event.task and event.task not in self.published:
            self.failed[event.task] = str(event.detail.get("error", "no word of why"))
            self.causes[event.task] = str(event.detail.get("cause", ""))
        elif event.event == "submitted":
            self.jobs[event.task] = dict(event.detail)
        elif event.event in ("queued", "died") and event.task in self.jobs:
            self.jobs[event.task] |= event.detail

    def forget(self, task: str) -> None:
        """Take a failure back: the task is, or was, tried again."""
        for known in (self.failed, self.skipped, self.causes):
            known.pop(task, None)
