"""Attempts of a run's groups: tasks that fail with their job, and tasks that are tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from campaign.jobs.death import Cause, Death
from campaign.journal.events import EventName
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.killpoints import reach
from campaign.running.record import Ready, Record
from campaign.running.requests import Requests
from campaign.running.retry import Budget

SILENT = "the job ended, and its journal does not say what became of this task"


@dataclass
class Attempts:
    """Attempts of each group of a plan."""

    plan: Plan
    record: Record
    requests: Requests

    _budgets: dict[str, Budget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups = {group.label: group for group in self.plan.groups}

    def next(self, label: str) -> int:
        """Number of a group's next attempt."""
        return self.record.outcome.attempts.get(label, 0) + 1

    def budget(self, label: str) -> Budget:
        """Tries that a group has left, and resources of its next job: at least those of its last, by any driver."""
        if label not in self._budgets:
            group, last = self._groups[label], self.record.outcome.jobs.get(label, {})
            self._budgets[label] = Budget({**group.resources, **last.get("resources", {})}, group.policy)
            if last.get("cause") in (Cause.MEMORY, Cause.WALLTIME):
                self._budgets[label].again(last["cause"])
        return self._budgets[label]

    def carry(self, group: Group, attempt: int) -> None:
        """Repeat final failures in the next attempt, because the highest attempt of a task counts."""
        known = self.record.outcome
        failed = [task.name for task in group.tasks if task.name in known.failed]
        if failed:
            details = {name: {"error": known.failed[name], "cause": known.causes[name]} for name in failed}
            self.record.write_all(group.label, EventName.FAILED, details, attempt)

    def settle(self, jobs: Sequence[tuple[Sequence[PlanTask], Death]]) -> None:
        """Fail tasks of ended jobs (each with its death) that no journal mentions: absence is never success."""
        self.record.wait_told([task for tasks, why in jobs if not why for task in tasks])
        for tasks, why in jobs:
            if why.cause is Cause.CANCELLED and self.requests.ending:
                continue  # cancelled by us: the task was not begun
            if untold := self.record.untold(tasks):
                detail = {"error": why.why or SILENT, "cause": why.cause, "code": why.code}
                self.record.write_all(untold[0].partition(":")[0], EventName.FAILED, dict.fromkeys(untold, detail))
        self.record.drain()
        reach("tasks-settled")

    def ended(self, ready: Ready, death: Death) -> None:
        """Settle the tasks of a gang's or serial job that has ended, and decide for each group what is tried again.

        A serial job that died did not come to the tasks behind the one in hand: these are still ready.
        """
        tasks = [task for some in ready.values() for task in some]
        if death and all(self._groups[label].kind == "serial" for label in ready):
            self.record.drain(closely=True)
            known = self.record.outcome
            begun = [t for t in tasks if known.begun(t.name) == known.attempts[t.name.partition(":")[0]]]
            tasks = begun or tasks
        self.settle([(tasks, death)])
        for label in ready:
            self.again(self._groups[label])

    def again(self, group: Group) -> bool:
        """Decide whether failed tasks of a group are tried again; if so forget their failures, and pause."""
        known, budget = self.record.outcome, self.budget(group.label)
        failed = [task.name for task in group.tasks if task.name in known.failed]
        code = known.jobs.get(group.label, {}).get("code")
        worth = {cause for cause in {known.causes[name] for name in failed} if budget.again(cause, code)}
        if not worth or self.requests.ending:
            return False
        about = {"causes": sorted(worth), "resources": dict(budget.resources), "pause_s": budget.pause_s}
        self.record.write(group.label, EventName.RETRY, about)
        for name in failed:
            if known.causes[name] in worth:
                known.forget(name)
        self.requests.sleep(budget.pause_s)
        return True
