"""Resume an unfinished run, into its own output RUN: finished tasks are not made again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from campaign.errors import SubmissionRefused
from campaign.frames.ingest import camera_of
from campaign.journal import claim, control
from campaign.journal.events import DriverJournal, Event, EventName
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan
from campaign.killpoints import reach
from campaign.running.chunk import clear
from campaign.runs import submit
from campaign.runs.drive import Destination, Submission, drive
from campaign.runs.record import PLAN, RunRecord

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.planning.step import Step
    from campaign.running.runner import Run

#: Most tasks that are listed by name.
TOLD = 5


def restart(
    left: RunRecord,
    repository: Repository,
    how: Callable[[Step, Plan], Run],
    listener: Callable[[Event], None],
    redo_stale: bool = False,
) -> Submission:
    """Make the rest of a run.

    ``how`` gives the function that runs the plan of a step; ``redo_stale`` makes finished tasks again that would give
    another product today.

    Raises
    ------
    SubmissionRefused
        Another driver makes the run, or may do so; or finished tasks would give another product today.
    """
    reach("restart-looked")
    with repository.deciding():
        claim.take(left.plan.folder)
        left = left.again()
        plan = left.plan
        control.take_back(plan.folder)
        if left.standing.stale and not redo_stale:
            raise _outdated(left)
        reach("restart-claimed")
        step = left.order.step(plan.output_run, plan.submit_path)
        submit.register(left.home, repository, plan, step.config.name, left.order.nonce)
        again = {**left.standing.damaged, **left.standing.stale}
        published = left.standing.outcome.published.keys()
        _prune(plan, repository, published - again.keys())  # first, since it may refuse
        _withdraw(plan, left.standing.outcome, again)
    if left.standing.reasons:
        plan = _planned_again(left, step, repository)
    destination = Destination(left.home, repository, camera_of(left.home, plan.instrument), step.ticket_chain)
    return drive(plan, destination, listener, how(step, plan), resumed=True)


def _outdated(left: RunRecord) -> SubmissionRefused:
    stale = left.standing.stale
    some = [*left.standing.reasons, *(f"{task}: {why}" for task, why in stale.items())][:TOLD]
    return SubmissionRefused(
        f"{len(stale)} finished tasks would be made otherwise today:\n    " + "\n    ".join(some),
        where=left.plan.submit_path,
        do="--redo-stale makes them again; a new RERUN leaves these as they are",
    )


def _prune(plan: Plan, repository: Repository, done: Collection[str]) -> None:
    """Make the repository forget the products of unfinished tasks, which are made again."""
    outputs = [(o.type, o.data_id) for task in plan.tasks if task.name not in done for o in task.outputs]
    repository.forget_products(plan.output_run, outputs)


def _withdraw(plan: Plan, outcome: Outcome, again: Mapping[str, str]) -> None:
    """Withdraw finished tasks: in the journal first, then their files."""
    driver = DriverJournal(plan.journal, plan.run, token=outcome.token)
    for label in {task.partition(":")[0] for task in again}:
        details = {task: {"why": why} for task, why in again.items() if task.partition(":")[0] == label}
        driver.write_all(EventName.WITHDRAWN, details, outcome.attempts.get(label, 1))
    clear(o.path for task in plan.tasks if task.name in again for o in task.outputs)


def _planned_again(left: RunRecord, step: Step, repository: Repository) -> Plan:
    """Plan the same run again, as of today; keep the old plan beside the new one."""
    folder = left.plan.folder
    plan, _ = submit.prepare(step, repository, left.order.options, left.plan.run)
    old = {(o.type, o.path) for task in left.plan.tasks for o in task.outputs}
    if lost := old - {(o.type, o.path) for task in plan.tasks for o in task.outputs}:
        raise SubmissionRefused(
            f"{len(lost)} products of this run are not planned any more; the first: {min(lost)[1]}",
            where=plan.submit_path,
            do="submit the template under a new RERUN",
        )
    number = sum(1 for _ in folder.glob("plan.*.json")) + 1
    (folder / PLAN).replace(folder / f"plan.{number}.json")
    submit.write_inputs(step, plan)
    plan.write()
    return plan
