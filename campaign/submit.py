"""From a template to products in the repository: planned, run, ingested, chained."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from campaign import levels
from campaign.allocation import site_of, with_resources
from campaign.cost import estimate
from campaign.errors import CampaignError, SubmissionRefused
from campaign.events import DriverJournal, Event
from campaign.freeze import Request, freeze, product_of, run_id
from campaign.home import versions
from campaign.inputs import missing, require
from campaign.jobs import write_text
from campaign.launch import mpiexec
from campaign.plan import Plan
from campaign.runner import Outcome, Runner
from campaign.step import Options, Step, require_writeable, select

if TYPE_CHECKING:
    from campaign.camera import Camera
    from campaign.repository import Repository


#: Runs a plan that is written: on this machine, by a site's scheduler, or at several sites.
Run = Callable[[Plan, Callable[[Event], None]], Outcome]

#: Free space that plan, jobs, journal and logs want, bytes: in any case, and for each file of the plan.
RECORDS, RECORDS_A_FILE = 1 << 19, 1 << 10


@dataclass(frozen=True)
class Submission:
    """What a submission did.

    Parameters
    ----------
    plan : `Plan`
    outcome : `Outcome`
    findings : `list`
        Exposures that an operator should look at.
    chain : `tuple`
        The output chain; empty where nothing was made.
    pictures : `list` [`Path`]
        PNG of each mosaic.
    notes : `list` [`str`]
        What was left out, assumed or made on the way.
    """

    plan: Plan
    outcome: Outcome
    findings: list[levels.Finding]
    chain: tuple[str, ...]
    pictures: list[Path]
    notes: list[str]


def prepare(step: Step, repository: Repository, options: Options) -> tuple[Plan, Camera]:
    """Plan a step; nothing is written.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        Everything that would make the run fail and can be known beforehand.
    """
    known = [c for c in step.config.in_collections if c != step.ticket_chain]
    repository.require_collections(known or list(step.config.in_collections))
    camera, selection = select(step, repository, options)
    require(selection, product_of(step.pipeline), options.allow_missing, step.query_place)
    if repository.collection_type(step.config.output_run) is not None:
        raise SubmissionRefused(
            f"output run {step.config.output_run} exists already",
            where=repository.root,
            do="raise the letter of RERUN, or give another outputRun",
        )
    site, notes = site_of(step)
    if options.ranks > 1 and (site is None or site.scheduler is None):
        mpiexec()
    request = Request(
        step.config, step.pipeline, camera, selection, options.ranks, list(options.exclude), step.permissions
    )
    plan = with_resources(step.config, freeze(request, repository, run_id()))
    lacking = [text for text in [missing(selection)] if text]
    return replace(plan, notes=[*lacking, *notes, *plan.notes]), camera


@contextmanager
def _folder(plan: Plan) -> Iterator[None]:
    """Make the run's folder, of this run alone; take it away where the run does not come about.

    Raises
    ------
    SubmissionRefused
        It exists: another run's plan and journal lie there.
    """
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        plan.folder.mkdir()
    except FileExistsError as error:
        raise SubmissionRefused(
            "the submit folder exists already, it belongs to another submission",
            where=plan.submit_path,
            do="campaign status lists the runs; give another submitPath, or let the default name one a run",
        ) from error
    try:
        yield
    except BaseException:
        shutil.rmtree(plan.folder)
        raise


def _write_inputs(step: Step, plan: Plan) -> None:
    """Keep all that the run was decided from: configuration, variables, versions, plan."""
    text = yaml.safe_dump(json.loads(json.dumps(step.config.values)), sort_keys=False, width=120)
    write_text(plan.folder / "config.yaml", text)
    environment = {"variables": dict(step.config.variables), "versions": versions(), "host": socket.gethostname()}
    write_text(plan.folder / "env.json", json.dumps(environment, indent=1))
    plan.write()


def require_places(step: Step, plan: Plan) -> None:
    """Try the places that the run will write to: products, its own folder, the list of runs.

    Raises
    ------
    SubmissionRefused
        One cannot be written, or has not the room.
    """
    outputs = {Path(o.path).parent for task in plan.tasks for o in task.outputs}
    need = int(sum(cost.output_mib for cost in estimate(plan)) * 2**20)
    require_writeable(Path(os.path.commonpath(outputs)), need)
    require_writeable(plan.folder, RECORDS + RECORDS_A_FILE * len(plan.files))
    require_writeable(step.home.path, RECORDS)


def _claim(repository: Repository, plan: Plan, step: Step) -> None:
    """Claim the output RUN; exactly one of several submitters gets it."""
    if not repository.claim_run(plan.output_run):
        raise SubmissionRefused(
            f"output run {plan.output_run} was claimed by another submission just now",
            where=repository.root,
            do="campaign status shows who runs it",
        )
    entry = {
        "run": plan.run,
        "template": step.config.name,
        "ticket": plan.ticket,
        "output": plan.output,
        "output_run": plan.output_run,
        "product": plan.product,
        "detectors": [d["detector"] for d in plan.wanted(plan.product)],
        "submit_path": plan.submit_path,
    }
    step.home.add_run(entry)


def ingest(repository: Repository, plan: Plan, outcome: Outcome) -> int:
    """Record what was published; doing it again changes nothing."""
    items = [(o.type, o.data_id, o.path) for task in plan.tasks if task.name in outcome.published for o in task.outputs]
    if items:
        repository.ingest_products(plan.output_run, items)
    return len(items)


def judge(plan: Plan, camera: Camera) -> list[levels.Finding]:
    """Look at the inputs table of a run, and keep it as one file."""
    rows = levels.read(plan.folder / "inputs")
    if not rows:
        return []
    levels.write(rows, plan.folder / "inputs.csv")
    times = {
        e: t
        for task in plan.tasks
        if "exposures" in task.job.parameters
        for e, t in zip(task.job.parameters["exposures"], task.job.parameters["exposure_times"], strict=True)
    }
    return levels.judge(rows, plan.product, times, camera)


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
) -> Submission:
    """Run a plan and record what it makes.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        The outputs cannot be written, or somebody else was quicker.
    """
    require_places(step, plan)
    with _folder(plan):
        _write_inputs(step, plan)
        _claim(repository, plan, step)
    made_chain = repository.require_inputs(plan.inputs, step.ticket_chain)
    driver = DriverJournal(plan.journal, plan.run)
    about = {"pid": os.getpid(), "host": socket.gethostname()}
    driver.write("started", about | {"output_run": plan.output_run, "submit_path": plan.submit_path})
    state = "failed"
    try:
        outcome = run(plan, listener)
        made = ingest(repository, plan, outcome)
        chain = repository.chain_output(plan.output, plan.output_run, plan.inputs) if made else ()
        state = "done" if outcome.done else "failed"
    except KeyboardInterrupt:
        state = "cancelled"
        raise
    finally:
        listener(driver.write("done" if state == "done" else "failed", {"state": state, "error": state}))
    notes = [f"the ticket chain {step.ticket_chain} did not exist: made, empty"] if made_chain else []
    notes += plan.notes
    pictures, findings = _pictures(repository, plan, outcome, notes), judge(plan, camera)
    submission = Submission(plan, outcome, findings, chain, pictures, notes)
    step.home.record("submit", plan.ticket, _detail(submission))
    return submission


def _pictures(repository: Repository, plan: Plan, outcome: Outcome, notes: list[str]) -> list[Path]:
    """Draw the mosaics; the products stand, whatever becomes of their pictures."""
    from campaign.pictures import mosaics

    try:
        return mosaics(repository, plan, outcome)
    except (CampaignError, OSError, ValueError) as error:
        notes.append(f"no pictures: {error}")
        return []


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
        "exposures": sorted({e for t in plan.tasks for e in t.job.parameters.get("exposures", ())}),
    }
