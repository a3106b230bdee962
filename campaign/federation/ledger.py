"""The holder of every task of a federated run, under a fencing token."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from campaign.journal.plan import Group, Plan, PlanTask


@dataclass
class Ledger:
    """Holder of each task, and the fencing token that it holds the task under."""

    plan: Plan
    #: Of the next grant, above those of an earlier driver; under it, a task that was withdrawn counts again.
    token: int = 1

    def __post_init__(self) -> None:
        self._holders: dict[str, tuple[str, int]] = {}
        self._tasks = {task.name: (group, task) for group in self.plan.groups for task in group.tasks}
        self.lock = threading.RLock()

    def grant(self, tasks: Sequence[str], site: str) -> int:
        """Give tasks to a site; return the token of the grant."""
        with self.lock:
            self._holders |= {task: (site, self.token) for task in tasks}
            return self.token

    def holds(self, task: str, site: str, token: int) -> bool:
        """Whether a result is wanted; hold `lock` for as long as the answer must stay true."""
        return self._holders.get(task) == (site, token)

    def revoke(self, tasks: Sequence[str]) -> None:
        """Take tasks from their holders, and raise the token of the next grant."""
        with self.lock:
            self.token += 1
            for task in tasks:
                del self._holders[task]

    def held(self, site: str) -> list[str]:
        """Name the tasks that a site holds, done or not."""
        with self.lock:
            return [task for task, (holder, _) in self._holders.items() if holder == site]

    def about(self, task: str) -> tuple[Group, PlanTask]:
        """Find a task with its group; `KeyError` where there is none of that name."""
        return self._tasks[task]
