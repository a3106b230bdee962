"""Plan and claim a run, given a template; `campaign.runs.drive` makes it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from campaign import release
from campaign.errors import SubmissionRefused
from campaign.home import Home, versions
from campaign.jobs.file import write_text
from campaign.jobs.launch import mpiexec
from campaign.journal import claim
from campaign.journal import owner as owners
from campaign.journal.outcome import last_state
from campaign.journal.plan import Group, Plan, undisturbed
from campaign.killpoints import reach
from campaign.planning.allocation import site_of
from campaign.planning.cost import estimate
from campaign.planning.freeze import freeze, run_id
from campaign.planning.order import NAME, Order, fingerprint
from campaign.planning.step import Options, Step, require_writeable
from campaign.runs.listing import entry_of, list_unlisted
from campaign.schedulers import secure
from campaign.wording import command

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.camera.model import Camera


#: Free space for plan, jobs, journal and logs, bytes: a base, and an allowance for each file of the plan.
RECORDS, RECORDS_A_FILE = 1 << 19, 1 << 10

#: Files of a run's folder that are older than its plan.
WRITTEN = (claim.NAME, f"{claim.NAME}.lock", "config.yaml", "env.json", "groups.json", NAME)


@undisturbed()
def prepare(
    step: Step, repository: Repository, options: Options, run: str | None = None, notes: Sequence[str] = ()
) -> tuple[Plan, Camera]:
    """Plan a step; nothing is written.

    Parameters
    ----------
    run : `str`, optional
        An existing run to be planned again, which has its output RUN already.
    notes : sequence of `str`
        Further notes for the operator; see `campaign.runs.execution.overrides`.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        Reasons, known beforehand, for which the run would fail.
    """
    known = [c for c in step.config.in_collections if c != step.ticket_chain]
    repository.require_collections(known or list(step.config.in_collections))
    if run is None and repository.collection_type(step.config.output_run) is not None:
        raise taken(step.home, repository, step.config.output_run, "exists already", step.config.timestamp)
    name = run or run_id()
    planned = freeze(_own_folder(step, name) if run is None else step, repository, options, name, notes)
    _require_means(step, planned[0].groups)
    return planned


def _require_means(step: Step, groups: Sequence[Group]) -> None:
    """Refuse ranks that have no launcher here, and quanta where Dask cannot read its configuration."""
    site, _ = site_of(step)
    if any(group.ranks > 1 for group in groups) and not (site and site.scheduler.queued):
        mpiexec()
    if any(group.kind == "quantum" for group in groups):
        secure.pin()


def _own_folder(step: Step, run: str) -> Step:
    """Add the run's own characters to a folder named by the time, since another run may have the same second."""
    path, time = step.config.submit_path, step.config.timestamp
    if not time or not path.endswith(time):
        return step
    mine = {**step.config.command_line, "submitPath": f"{path}-{run.rpartition('-')[2]}"}
    return replace(step, config=replace(step.config, command_line=mine))


def taken(home: Home, repository: Repository, output_run: str, how: str, second: str = "") -> SubmissionRefused:
    """Name the owner of an output RUN that is taken, maybe by a submission of the same second."""
    owned = repository.run_owner(output_run)
    run, folder = owned.run, owned.folder or home.folder_of(owned.run)
    what, do = f"output run {output_run} {how}", "raise the letter of RERUN, or give another outputRun"
    if second and output_run.endswith(second):
        do = "submit again: the name has the second of the submission, and another one began in the same second"
    if not run:
        return SubmissionRefused(what, where=repository.root, do=do)
    if not folder:
        what = f"{what}: it is run {run}{owned.submitter}, which another home ($CAMPAIGN_HOME) lists"
        do = f"{command('restart', run)} resumes it there; here {do}"
    elif owner := claim.holder(Path(folder)):
        what, do = f"{what}: run {run} is being made by {owner.text}", f"{command('status', run, '--watch')} follows it"
    elif run not in {entry["run"] for entry in home.runs()} or last_state(Path(folder)) != "done":
        what, do = f"{what}: run {run} was left unfinished", f"{command('restart', folder)} resumes it, or {do}"
    else:
        what = f"{what}: run {run} made it"
    return SubmissionRefused(what, where=repository.root, do=do)


@contextmanager
def _folder(plan: Plan) -> Iterator[None]:
    """Make the run's folder, claimed for this run alone; remove it if the submission fails.

    The folder is made under a temporary name, with its claim, and then renamed:
    it never exists without its owner, and only one of two submissions gets the name.

    Raises
    ------
    SubmissionRefused
        The folder exists: another run's plan and journal lie there.
    """
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_stillborn(plan.folder)
    reach("folder-named")
    aside = _aside(plan.folder, plan.run)
    aside.mkdir()
    claim.write(aside)
    reach("folder-made")
    try:
        aside.rename(plan.folder)  # over an empty folder, too
    except OSError as error:
        shutil.rmtree(aside)
        if not os.path.lexists(plan.folder):
            raise
        owner = claim.holder(plan.folder)
        who = f" by {owner.text}" if owner else ""
        ours = (plan.folder / "plan.json").is_file()
        resumes = f"{command('restart', plan.submit_path)} resumes that run; or " if ours else ""
        raise SubmissionRefused(
            f"the submit folder exists already, it is claimed{who}" if who else "the submit folder exists already",
            where=plan.submit_path,
            do=f"{resumes}give another submitPath, or let the default name one a run",
        ) from error
    try:
        yield
    except BaseException:
        _give_back(plan)
        raise


def _aside(folder: Path, run: str) -> Path:
    """Name the place where a folder is made before it has its name, or removed after."""
    return folder.with_name(f".{folder.name}.{run}")


def _give_back(plan: Plan) -> None:
    """Remove the folder of a failed submission, if it is still this process's."""
    with suppress(SubmissionRefused), claim.held(plan.folder):
        owner = claim.read(plan.folder)
        if owner is not None and owner == claim.mine_again(owner):
            plan.folder.rename(_aside(plan.folder, plan.run))
    shutil.rmtree(_aside(plan.folder, plan.run), ignore_errors=True)


def _clear_stillborn(folder: Path) -> None:
    """Remove folders of submitters that were killed before they had a plan: of this name, and of runs beside it."""
    for beside in [*folder.parent.iterdir()]:
        if beside.name.startswith(".") and _is_stillborn(beside):
            shutil.rmtree(beside, ignore_errors=True)
        elif _is_stillborn(beside):
            with suppress(SubmissionRefused, OSError), claim.held(beside):
                if _is_stillborn(beside):  # check again, now that nobody else decides
                    aside = _aside(beside, f"{os.getpid()}.stillborn")
                    beside.rename(aside)
                    shutil.rmtree(aside, ignore_errors=True)


def _is_stillborn(folder: Path) -> bool:
    """Whether a folder's submitter is gone, and it holds only files that precede a plan."""
    owner = claim.read(folder)
    if owner is None or owner.alive is not False:
        return False
    try:
        return all(path.name.startswith(".") or path.name in WRITTEN for path in folder.iterdir())
    except OSError:
        return False


def create(step: Step, repository: Repository, plan: Plan, order: Order | None = None) -> None:
    """Claim a run: its folder, with all inputs of its planning, its output RUN, its line in the list of runs.

    Without an order, the operator's, no other process can restart the run.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        The outputs cannot be written, or another submission was quicker.
    """
    require_places(step, plan)
    list_unlisted(step.home, repository, plan.folder.parent)
    with _folder(plan):
        reach("claim-written")
        write_inputs(step, plan)
        if order is not None:
            order.write(plan.folder)
        plan.write()
        reach("plan-written")
        with repository.deciding():
            _require_sources(repository, plan)
            register(step.home, repository, plan, step.config.name, order.nonce if order else "")


def _require_sources(repository: Repository, plan: Plan) -> None:
    """Check that the sources of a run still exist; once the run is registered, they are kept for it.

    Raises
    ------
    SubmissionRefused
        A source was removed since the run was planned.
    """
    if gone := repository.missing_collections(sorted(plan.made_from)):
        what = f"{', '.join(gone)}, of which calibrations were to be applied, was removed just now"
        raise SubmissionRefused(what, where=repository.root, do="give the same command again: it plans anew")


def write_inputs(step: Step, plan: Plan) -> None:
    """Keep all inputs of the run's planning: configuration, variables, versions."""
    values = {**step.config.values, "submitPath": plan.submit_path}
    text = yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, width=120)
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
    """Test the places of output: products, the run's own folder, the list of runs.

    Raises
    ------
    SubmissionRefused
        A place cannot be written, or has too little room.
    """
    outputs = {Path(o.path).parent for task in plan.tasks for o in task.outputs}
    need = int(sum(cost.output_mib for cost in estimate(plan)) * 2**20)
    require_writeable(Path(os.path.commonpath(outputs)), need)
    require_writeable(plan.folder, RECORDS + RECORDS_A_FILE * len(plan.files))
    require_writeable(step.home.path, RECORDS)


def register(home: Home, repository: Repository, plan: Plan, template: str, nonce: str) -> None:
    """Claim the output RUN, which the Butler gives to exactly one submitter, and list the run; both once.

    Raises
    ------
    SubmissionRefused
        Another run owns the output RUN.
    """
    listed = plan.run in {entry["run"] for entry in home.runs()}
    if not listed:
        home.add_claim(plan.run, str(plan.folder.absolute()))
    mine = owners.mine(plan.run).written
    if not repository.claim_run(plan.output_run, mine) and repository.run_owner(plan.output_run).run != plan.run:
        raise taken(home, repository, plan.output_run, "was claimed by another submission just now")
    reach("run-registered")
    if listed:
        return
    home.add_run(entry_of(plan, template, nonce))
    reach("run-listed")
