"""Record of a run: its outcome, folded from the journals as they grow, and the driver's own events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from campaign.journal.events import DriverJournal, Event, EventName, Journals
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Group, Plan, PlanTask

POLL_SECONDS = 0.2
#: Longest delay until the last lines of a job that has ended are visible on a shared file system.
LATE_SECONDS = 5.0
Listener = Callable[[Event], None]
#: Tasks that can be begun, by the label of their group.
Ready = Mapping[str, Sequence[PlanTask]]


@dataclass
class Record:
    """Outcome of a plan's tasks so far, and the driver's journal."""

    plan: Plan
    #: Called with every event that the journals gain.
    listener: Listener
    #: Written into the driver's events.
    site: str
    #: Fencing token of the driver's events.
    token: int

    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self._journals = Journals(self.plan.journal)
        self._driver = DriverJournal(self.plan.journal, self.plan.run, self.site, self.token)
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Fold the events of earlier drivers; forget their failures, which are tried again.

        Raises
        ------
        ConfigurationError
            Another release has written some of the events.
        """
        for event in self._journals.new(closely=True):
            self.outcome.fold(event)
        self._journals.require_all_known()
        for task in [*self.outcome.failed, *self.outcome.skipped]:
            self.outcome.forget(task)

    def drain(self, closely: bool = False) -> None:
        """Fold the new events of the journals; see `campaign.journal.events.Journals.new`."""
        with self._lock:
            for event in self._journals.new(closely):
                self.outcome.fold(event)
                self.listener(event)

    def write(self, task: str, event: str, detail: Mapping[str, Any], attempt: int | None = None) -> None:
        """Append an event to the driver's journal; by default at the present attempt of the task's group."""
        self.write_all(task.partition(":")[0], event, {task: detail}, attempt)

    def write_all(
        self, label: str, event: str, details: Mapping[str, Mapping[str, Any]], attempt: int | None = None
    ) -> None:
        """Append the same event for many tasks of a group, each with its detail."""
        with self._lock:
            known = self.outcome.attempts.get(label, 1)
            self._driver.write_all(event, details, known if attempt is None else attempt)

    def left(self, group: Group) -> list[PlanTask]:
        """List the tasks of a group that are neither published, failed nor lost."""
        known = (self.outcome.published, self.outcome.failed, self.outcome.skipped)
        return [task for task in group.tasks if not any(task.name in some for some in known)]

    def take(self, group: Group) -> list[PlanTask]:
        """List the remaining tasks of a group that are ready; record those that need a failed task as lost."""
        self.drain()
        ready, known, gone = [], self.outcome, {}
        for task in self.left(group):
            lacking = [name for name in task.needs if name not in known.published]
            lost = next((name for name in lacking if name in known.failed or name in known.skipped), None)
            if lost is not None:
                known.skipped[task.name] = lost
                gone[task.name] = {"error": f"needs {lost}, which failed"}
            elif not lacking:
                ready.append(task)
        if gone:
            self.write_all(group.label, EventName.LOST, gone)
        return ready

    def ready(self, groups: Sequence[Group]) -> Ready:
        """Take the tasks of several groups; a group without any is left out."""
        found = {group.label: self.take(group) for group in groups}
        return {label: tasks for label, tasks in found.items() if tasks}

    def untold(self, tasks: Sequence[PlanTask]) -> list[str]:
        """Name the tasks that no journal reports as published or failed."""
        published, failed = self.outcome.published, self.outcome.failed
        return [task.name for task in tasks if task.name not in published and task.name not in failed]

    def wait_told(self, tasks: Sequence[PlanTask]) -> None:
        """Wait until the journals mention all these tasks, for as long as lines may be late."""
        until = time.monotonic() + LATE_SECONDS
        self.drain(closely=True)
        while self.untold(tasks) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            self.drain(closely=True)
