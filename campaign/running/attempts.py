"""Attempts of a run's groups: tasks that fail with their job, and tasks that are tried again."""

from __future__ import annotations

from collections.abc import Sequence

from campaign.jobs.death import Cause, Death
from campaign.journal.plan import Group, Plan, PlanTask
from campaign.killpoints import reach
from campaign.running.record import Record
from campaign.running.requests import Requests
from campaign.running.retry import Budget

SILENT = "the job ended, and its journal does not say what became of this task"


class Attempts:
    """Attempts of each group of a plan.

    Parameters
    ----------
    plan : `Plan`
    record : `Record`
    requests : `Requests`
    """

    def __init__(self, plan: Plan, record: Record, requests: Requests) -> None:
        self._groups = {group.label: group for group in plan.groups}
        self._record, self._requests = record, requests
        self._budgets: dict[str, Budget] = {}

    def next(self, label: str) -> int:
        """Number of a group's next attempt."""
        return self._record.outcome.attempts.get(label, 0) + 1

    def budget(self, label: str) -> Budget:
        """Tries that a group has left, and resources of its next job: at least those of its last, by any driver."""
        if label not in self._budgets:
            group, last = self._groups[label], self._record.outcome.jobs.get(label, {})
            self._budgets[label] = Budget({**group.resources, **last.get("resources", {})}, group.policy)
            if last.get("cause") in (Cause.MEMORY, Cause.WALLTIME):
                self._budgets[label].again(last["cause"])
        return self._budgets[label]

    def carry(self, group: Group, attempt: int) -> None:
        """Repeat final failures in the next attempt, because the highest attempt of a task counts."""
        known = self._record.outcome
        failed = [task.name for task in group.tasks if task.name in known.failed]
        if failed:
            details = {name: {"error": known.failed[name], "cause": known.causes[name]} for name in failed}
            self._record.write_all(group.label, "failed", details, attempt)

    def settle(self, jobs: Sequence[tuple[Sequence[PlanTask], Death]]) -> None:
        """Fail the tasks of ended jobs that no journal mentions: absence is never success.

        Parameters
        ----------
        jobs : sequence of `tuple`
            Tasks of a job, and why it died.
        """
        self._record.wait_told([task for tasks, why in jobs if not why for task in tasks])
        for tasks, why in jobs:
            if why.cause is Cause.CANCELLED and self._requests.ending:
                continue  # cancelled by us: the task was not begun
            if untold := self._record.untold(tasks):
                detail = {"error": why.why or SILENT, "cause": why.cause, "code": why.code}
                self._record.write_all(untold[0].partition(":")[0], "failed", dict.fromkeys(untold, detail))
        self._record.drain()
        reach("tasks-settled")

    def again(self, group: Group) -> bool:
        """Decide whether failed tasks of a group are tried again; if so forget their failures, and pause."""
        known, budget = self._record.outcome, self.budget(group.label)
        failed = [task.name for task in group.tasks if task.name in known.failed]
        code = known.jobs.get(group.label, {}).get("code")
        worth = {cause for cause in {known.causes[name] for name in failed} if budget.again(cause, code)}
        if not worth or self._requests.ending:
            return False
        about = {"causes": sorted(worth), "resources": dict(budget.resources), "pause_s": budget.pause_s}
        self._record.write(group.label, "retry", about)
        for name in failed:
            if known.causes[name] in worth:
                known.forget(name)
        self._requests.sleep(budget.pause_s)
        return True
