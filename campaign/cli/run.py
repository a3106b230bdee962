"""Commands of an existing run: restart, cancel, pause, resume."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from campaign.cli.root import as_json, cli, repo_option
from campaign.wording import command, count

if TYPE_CHECKING:
    from campaign.runs.drive import Submission
    from campaign.runs.record import RunRecord

run_argument = click.argument("run")


def _folder(run: str, repo: str | None) -> Path:
    from campaign.home import home_of
    from campaign.runs.record import folder_of

    return folder_of(run, home_of(repo, os.environ))


@cli.command()
@run_argument
@repo_option
@click.option("--check", is_flag=True, help="Report the remaining tasks, and do nothing.")
@click.option("--verify", is_flag=True, help="Read every product and compare its checksum.")
@click.option("--redo-stale", is_flag=True, help="Make products again that would be different today.")
@as_json
def restart(run: str, repo: str | None, check: bool, verify: bool, redo_stale: bool, as_json: bool) -> None:
    """Resume RUN (an id, its output RUN or its submit folder); finished tasks are not repeated."""
    from campaign import console
    from campaign.runs.record import record_of

    if check:
        gc.disable()  # the process ends soon, and keeps everything that it reads
    left = record_of(_folder(run, repo), verify)
    if check:
        _show_left(left, as_json)
        return
    done = _restarted(left, redo_stale, as_json)
    from campaign.cli.step import show_end

    show_end(done, as_json)
    if not as_json:
        console.say(f"restarted   {left.plan.run}")


def _restarted(left: RunRecord, redo_stale: bool, as_json: bool) -> Submission:
    from campaign import console
    from campaign.butler.repository import open_repository
    from campaign.cli.progress import Progress
    from campaign.runs.execution import execution, overrides
    from campaign.runs.restart import restart

    def how(step: Any, plan: Any) -> Any:
        overrides(step, left.order)
        return execution(step, plan, left.order, console.say)[0]

    many = sum(group["left"] for group in left.groups)
    with (
        open_repository(left.plan.repository, writeable=True) as repository,
        Progress(many, as_json) as progress,
    ):
        return restart(left, repository, how, progress, redo_stale)


def _show_left(left: RunRecord, as_json: bool) -> None:
    from campaign import console

    plain = left.plain
    if as_json:
        console.emit(plain)
        return
    columns = ("task", "tasks", "done", "failed", "left")
    console.table(columns, [tuple(group.values()) for group in plain["groups"]], plain["run"])
    for kind in ("damaged", "stale"):
        for task, why in list(plain[kind].items())[:5]:
            print(f"{kind:10s}  {task}: {why}")
        if len(plain[kind]) > 5:
            print(f"{kind:10s}  ... {len(plain[kind])} in all")
    if plain["made_by"]:
        print(f"made by     {plain['made_by']}")
    many = sum(group["left"] for group in plain["groups"])
    console.say(f"{count(many, 'task')} {'is' if many == 1 else 'are'} left" if many else "nothing is left to be done")


def _ask(run: str, repo: str | None, what: Callable[[Path], None], say: str) -> None:
    from campaign import console
    from campaign.errors import SubmissionRefused
    from campaign.journal import claim

    folder = _folder(run, repo)
    owner = claim.holder(folder)
    if owner is None:
        raise SubmissionRefused("nobody makes this run", where=str(folder), do=f"{command('restart', run)} resumes it")
    what(folder)
    console.say(say.format(owner=owner.text))


@cli.command()
@run_argument
@repo_option
def pause(run: str, repo: str | None) -> None:
    """Pause RUN: nothing more is started until `resume`; running jobs continue."""
    from campaign.journal import control

    _ask(run, repo, lambda folder: control.ask(folder, control.PAUSE), "asked to pause: {owner}")


@cli.command()
@run_argument
@repo_option
def resume(run: str, repo: str | None) -> None:
    """Continue RUN after a pause."""
    from campaign.journal import control

    _ask(run, repo, lambda folder: control.take_back(folder, control.PAUSE), "asked to continue: {owner}")


@cli.command()
@run_argument
@repo_option
@click.option("--drain", is_flag=True, help="Let running jobs come to their end.")
@as_json
def cancel(run: str, repo: str | None, drain: bool, as_json: bool) -> None:
    """End RUN: nothing of it is left running; `restart` resumes it."""
    from campaign import console
    from campaign.runs.cancel import cancel

    folder = _folder(run, repo)
    found = cancel(folder, drain, console.say)
    if as_json:
        console.emit(found)
    else:
        print(f"{found['state']:10s}  {found['run']}; {command('restart', found['run'])} resumes it")
