"""From a template to a run that is planned and claimed; `campaign.drive` does the rest."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from campaign import agreement, claim, release
from campaign.allocation import site_of, slots, with_ranks, with_resources
from campaign.cost import estimate
from campaign.derived import Deriver, is_derived
from campaign.errors import SubmissionRefused
from campaign.events import Journals
from campaign.freeze import Request, freeze, kind_of, run_id
from campaign.home import Home, versions
from campaign.ingest import camera_of
from campaign.inputs import missing, require
from campaign.jobs import write_text
from campaign.killpoints import reach
from campaign.launch import mpiexec
from campaign.order import NAME, Order, fingerprint
from campaign.plan import Plan, undisturbed
from campaign.step import Options, Step, in_unit, require_writeable, select
from campaign.usage import expected, works

if TYPE_CHECKING:
    from campaign.camera import Camera
    from campaign.repository import Repository


#: Free space that plan, jobs, journal and logs want, bytes: in any case, and for each file of the plan.
RECORDS, RECORDS_A_FILE = 1 << 19, 1 << 10

#: What lies in a run's folder before its plan does.
WRITTEN = (claim.NAME, f"{claim.NAME}.lock", "config.yaml", "env.json", "groups.json", NAME)


@undisturbed()
def prepare(step: Step, repository: Repository, options: Options, run: str | None = None) -> tuple[Plan, Camera]:
    """Plan a step; nothing is written.

    Parameters
    ----------
    run : `str`, optional
        A run that is planned again, and has its output RUN already.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        Everything that would make the run fail and can be known beforehand.
    """
    known = [c for c in step.config.in_collections if c != step.ticket_chain]
    repository.require_collections(known or list(step.config.in_collections))
    if run is None and repository.collection_type(step.config.output_run) is not None:
        raise taken(step.home, repository, step.config.output_run, "exists already")
    site, notes = site_of(step)
    many = slots(site, options.ranks)
    if many > 1 and (site is None or site.scheduler is None):
        mpiexec()
    frozen, camera = _frozen(step, repository, options, many, run or run_id())
    seen = expected(step.home, frozen.instrument, works(frozen))
    plan = with_resources(step.config, with_ranks(frozen, site, options.ranks, seen), seen)
    return replace(plan, notes=[*notes, *plan.notes]), camera


def _frozen(step: Step, repository: Repository, options: Options, ranks: int, run: str) -> tuple[Plan, Camera]:
    """Decide what is made of frames, or of other calibrations."""
    if is_derived(step.pipeline):
        camera = camera_of(step.home, step.config.instrument)
        return Deriver(step, repository, camera, ranks, run, options.named).freeze(), camera
    camera, selection = select(step, repository, options)
    require(selection, kind_of(step.pipeline), options.allow_missing, step.query_place)
    settings = agreement.read(camera, selection)
    agreement.require(settings, step.query_place)
    camera = in_unit(camera, step.pipeline)
    chosen = (list(options.exclude), options.named)
    request = Request(step.config, step.pipeline, camera, selection, ranks, *chosen, step.permissions, settings.cards)
    plan = freeze(request, repository, run)
    notes = [text for text in [missing(selection)] if text]
    notes += [*settings.notes, *agreement.against(camera, settings, plan), *plan.notes]
    return replace(plan, notes=notes), camera


def taken(home: Home, repository: Repository, output_run: str, how: str) -> SubmissionRefused:
    """Say whose an output RUN is that cannot be had."""
    run, _, folder = repository.run_owner(output_run).partition(" ")
    what, do = f"output run {output_run} {how}", "raise the letter of RERUN, or give another outputRun"
    if not folder:
        return SubmissionRefused(what, where=repository.root, do=do)
    owner = claim.read(Path(folder))
    if owner is not None and owner.alive is not False:
        what, do = f"{what}: run {run} is being made by {owner.text}", f"campaign status {run} --watch follows it"
    elif run not in {entry["run"] for entry in home.runs()} or not journal_done(Path(folder)):
        what, do = f"{what}: run {run} was left unfinished", f"campaign restart {folder} goes on with it, or {do}"
    else:
        what = f"{what}: run {run} made it"
    return SubmissionRefused(what, where=repository.root, do=do)


def journal_done(folder: Path) -> bool:
    """Whether a run's last driver came to its end with everything done."""
    ends = [e for e in Journals(folder / "journal").new() if not e.task and e.event in ("started", "done", "failed")]
    return bool(ends) and ends[-1].event == "done"


@contextmanager
def _folder(plan: Plan) -> Iterator[None]:
    """Make the run's folder, of this run alone; take it away where the run does not come about.

    Raises
    ------
    SubmissionRefused
        It exists: another run's plan and journal lie there.
    """
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_stillborn(plan.folder)
    try:
        plan.folder.mkdir()
    except FileExistsError as error:
        raise SubmissionRefused(
            "the submit folder exists already, it belongs to another submission",
            where=plan.submit_path,
            do=f"campaign restart {plan.submit_path} goes on with that one; or give another submitPath, or let the "
            "default name one a run",
        ) from error
    reach("folder-made")
    try:
        yield
    except BaseException:
        shutil.rmtree(plan.folder)
        raise


def _clear_stillborn(folder: Path) -> None:
    """Remove the folder of a submitter that was killed before it had a plan."""
    if not folder.is_dir() or (folder / "plan.json").exists():
        return
    owner, names = claim.read(folder), {path.name for path in folder.iterdir()}
    ours = {name for name in names if name.startswith(".") or name in WRITTEN}
    if names == ours and (owner is None or owner.alive is False):
        shutil.rmtree(folder, ignore_errors=True)


def create(step: Step, repository: Repository, plan: Plan, order: Order | None = None) -> None:
    """Claim a run: its folder, with all that it was decided from, its output RUN, its line in the list of runs.

    Parameters
    ----------
    order : `Order`, optional
        How it was asked for; without it the run cannot be restarted by another process.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        The outputs cannot be written, or somebody else was quicker.
    """
    require_places(step, plan)
    with _folder(plan):
        claim.write(plan.folder)
        reach("claim-written")
        write_inputs(step, plan)
        if order is not None:
            order.write(plan.folder)
        plan.write()
        reach("plan-written")
        register(step.home, repository, plan, step.config.name)


def write_inputs(step: Step, plan: Plan) -> None:
    """Keep all that the run was decided from: configuration, variables, versions."""
    text = yaml.safe_dump(json.loads(json.dumps(step.config.values)), sort_keys=False, width=120)
    write_text(plan.folder / "config.yaml", text)
    environment = {
        "variables": dict(step.config.variables),
        "versions": versions(),
        "release": release.about(),
        "host": socket.gethostname(),
        "pipeline": fingerprint(step),
    }
    write_text(plan.folder / "env.json", json.dumps(environment, indent=1))


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


def register(home: Home, repository: Repository, plan: Plan, template: str) -> None:
    """Claim the output RUN, of which exactly one of several submitters is the owner, and list the run; both once.

    Raises
    ------
    SubmissionRefused
        The output RUN is another's.
    """
    owner = f"{plan.run} {plan.folder.absolute()}"
    if not repository.claim_run(plan.output_run, owner) and repository.run_owner(plan.output_run) != owner:
        raise taken(home, repository, plan.output_run, "was claimed by another submission just now")
    reach("run-registered")
    if plan.run in {entry["run"] for entry in home.runs()}:
        return
    entry = {
        "run": plan.run,
        "template": template,
        "ticket": plan.ticket,
        "output": plan.output,
        "output_run": plan.output_run,
        "product": plan.product,
        "detectors": [d["detector"] for d in plan.wanted(plan.product)],
        "submit_path": plan.submit_path,
    }
    home.add_run(entry)
    reach("run-listed")
