"""Make a planned and claimed run: its tasks, its products in the repository, its output chain.

Every step may be repeated: wherever a driver was killed, the next one drives
the same run again.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.errors import AGAIN, FULL, CampaignError, TransientError, of_system
from campaign.home import Home
from campaign.journal import claim, control
from campaign.journal.events import DriverJournal, Event, EventName, Journals
from campaign.journal.index import followed, update
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan
from campaign.killpoints import reach
from campaign.kinds import table
from campaign.planning import usage
from campaign.quality import judging, levels
from campaign.running.runner import Run, Runner
from campaign.runs import verdict
from campaign.runs.submit import create
from campaign.runs.verdict import Verification

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.camera.model import Camera
    from campaign.planning.order import Order
    from campaign.planning.step import Step
    from campaign.quality.summary import Summary


@dataclass(frozen=True)
class Submission:
    """Result of a submission."""

    plan: Plan
    outcome: Outcome
    #: Exposures that an operator should look at.
    findings: list[levels.Finding]
    #: The output chain; empty where nothing was made.
    chain: tuple[str, ...]
    #: PNG of each mosaic.
    pictures: list[Path]
    #: Inputs left out, assumptions, and collections made on the way.
    notes: list[str]
    #: Numbers of the products.
    numbers: tuple[str, ...] = ()
    #: Numbers of a product that is a table.
    summary: Summary | None = None
    #: Verdict on a product that the run verifies.
    verification: Verification | None = None


@dataclass(frozen=True)
class Destination:
    """Home, repository and chain that record a run."""

    home: Home
    repository: Repository
    #: The frames' camera.
    camera: Camera
    #: Made, empty, if missing.
    ticket_chain: str


def ingest(repository: Repository, plan: Plan, outcome: Outcome) -> int:
    """Record the published products; a second call changes nothing."""
    items = [(o.type, o.data_id, o.path) for task in plan.tasks if task.name in outcome.published for o in task.outputs]
    if items:
        repository.ingest_products(plan.output_run, items)
    return len(items)


def judge(plan: Plan, camera: Camera) -> list[levels.Finding]:
    """Judge the inputs table of a run, and keep it as one file."""
    rows = levels.read(plan.folder / "inputs") if table.judged(plan.product) else []
    if not rows:
        return []
    levels.write(rows, plan.folder / "inputs.csv")
    frames = [task.job.parameters for task in plan.tasks if "exposures" in task.job.parameters]
    times = {e: t for p in frames for e, t in zip(p["exposures"], p["exposure_times"], strict=True)}
    dates = {e: t for p in frames for e, t in zip(p["exposures"], p["dates"], strict=True)}
    return judging.judge(rows, plan.kind, times, camera, levels.nights(dates))


def numbers(plan: Plan, outcome: Outcome) -> tuple[str, ...]:
    """Give the numbers of a run's products for the operator, by what the kernels journalled."""
    kind = table.of_dataset(plan.product)
    if kind is None or kind.numbers is None:
        return ()
    names = {d["id"]: str(d["name"]) for d in plan.camera["detectors"]}
    tasks = {task.name: task.job.detector for task in plan.tasks if plan.product in (o.type for o in task.outputs)}
    details = outcome.made(Journals(plan.journal).new())
    made = {names[tasks[task]]: detail for task, detail in details if tasks.get(task) in names}
    return tuple(kind.numbers(made)) if made else ()


def run_here(plan: Plan, listener: Callable[[Event], None]) -> Outcome:
    """Run a plan on this machine."""
    return Runner(plan, listener).run()


def submit(
    step: Step,
    repository: Repository,
    plan: Plan,
    camera: Camera,
    listener: Callable[[Event], None],
    run: Run = run_here,
    order: Order | None = None,
) -> Submission:
    """Claim a run and make it; see `campaign.runs.submit.create` and `drive`."""
    create(step, repository, plan, order)
    return drive(plan, Destination(step.home, repository, camera, step.ticket_chain), listener, run)


def drive(
    plan: Plan, destination: Destination, listener: Callable[[Event], None], run: Run = run_here, resumed: bool = False
) -> Submission:
    """Make the rest of a run whose claim this process has, and record it; ``resumed``: another driver had it before.

    Raises
    ------
    CampaignError
        The run could not be made.
    KeyboardInterrupt
        The run was ended; nothing of it is left running.
    """
    with _resumable(plan):
        return _drive(plan, destination, listener, run, resumed)


@contextmanager
def _resumable(plan: Plan) -> Iterator[None]:
    """Advise a restart after a failure of the infrastructure: the same command again would make another run."""
    again = f"campaign restart {plan.run} resumes it, and keeps what is made"
    try:
        yield
    except TransientError as error:
        before = error.do.partition(AGAIN)[0] if AGAIN in error.do else ""
        raise TransientError(error.what, where=error.where, do=before + again) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise of_system(error, again) from error


def _drive(
    plan: Plan, destination: Destination, listener: Callable[[Event], None], run: Run, resumed: bool
) -> Submission:
    repository = destination.repository
    made_chain = repository.require_inputs(plan.inputs, destination.ticket_chain)
    driver = DriverJournal(plan.journal, plan.run)
    about = {"pid": os.getpid(), "host": socket.gethostname(), "user": getpass.getuser(), "resumed": resumed}
    listener(driver.write(EventName.STARTED, about | {"output_run": plan.output_run, "submit_path": plan.submit_path}))
    reach("run-started")
    chain: tuple[str, ...] = ()
    state = "failed"
    try:
        with control.signals(plan.folder, control.to_terminal), followed(destination.home, plan.run):
            outcome = run(plan, listener)
        behind = update(destination.home, plan.run)
        made = ingest(repository, plan, outcome)
        reach("products-ingested")
        with repository.deciding():  # a chain is removed with its last RUN
            chain = repository.chain_output(plan.output, plan.output_run, plan.inputs) if made else ()
        reach("output-chained")
        state = "drained" if outcome.drained else "done" if outcome.done else "failed"
    except KeyboardInterrupt:
        state = "cancelled"
        raise
    finally:
        name = EventName.DONE if state == "done" else EventName.FAILED
        listener(driver.write(name, {"state": state, "error": state}))
        reach("run-ended")
        control.take_back(plan.folder)
    notes = [f"the ticket chain {destination.ticket_chain} did not exist: made, empty"] if made_chain else []
    notes += [*plan.notes, *([behind] if behind else [])]
    pictures, summary = _shown(repository, plan, outcome, notes)
    findings, said = judge(plan, destination.camera), numbers(plan, outcome)
    verification = _verified(plan, outcome, destination.camera, notes)
    submission = Submission(plan, outcome, findings, chain, pictures, notes, said, summary, verification)
    usage.record(destination.home, plan, Journals(plan.journal).new())
    destination.home.record("restart" if resumed else "submit", plan.ticket, _detail(submission))
    claim.release(plan.folder)
    return submission


def _shown(repository: Repository, plan: Plan, outcome: Outcome, notes: list[str]) -> tuple[list[Path], Summary | None]:
    """Draw the mosaics and summarise tables; a failure costs only these."""
    from campaign.quality.pictures import mosaics, tables
    from campaign.quality.summary import Summary

    summary = None
    try:
        found = tables(repository, plan, outcome)
        summary = Summary.of(found, {d["id"]: d["name"] for d in plan.camera["detectors"]})
        if summary:
            summary.save(plan.folder)
        return mosaics(repository, plan, outcome, found), summary
    except (CampaignError, OSError, ValueError) as error:
        notes.append(f"no pictures: {error}")
        return [], summary


def _verified(plan: Plan, outcome: Outcome, camera: Camera, notes: list[str]) -> Verification | None:
    """Judge the rows of a verification; a failure costs only the verdict: its tables are there."""
    try:
        return verdict.judge(plan, outcome, camera)
    except (CampaignError, OSError, ValueError) as error:
        notes.append(f"no verdict: {error}")
        return None


def _detail(submission: Submission) -> Mapping[str, Any]:
    plan, outcome = submission.plan, submission.outcome
    return {
        "run": plan.run,
        "template": plan.template,
        "output_run": plan.output_run,
        "inputs": list(plan.inputs),
        "data_query": plan.data_query,
        "excluded": list(plan.excluded),
        "published": len(outcome.published),
        "failed": outcome.failed,
        "notes": submission.notes,
        **({"verdict": submission.verification.verdict} if submission.verification else {}),
        "exposures": sorted({e for t in plan.tasks for e in t.job.parameters.get("exposures", ())}),
    }
