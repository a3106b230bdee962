"""Commands that look at runs: status, errors, logs, rerun, recover."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from campaign.cli.root import as_json, cli, repo_option
from campaign.wording import command, count

if TYPE_CHECKING:
    from campaign.home import Home
    from campaign.journal.campaigns import Spoken
    from campaign.journal.progress import Progress

run_option = click.option("--run", help="Run; the newest by default.")
#: Intervals of --watch and --follow, second.
WATCH_S, FOLLOW_S = 2.0, 0.5


def _home(repo: str | None) -> Home:
    from campaign.home import home_of

    return home_of(repo, os.environ)


def _entry(home: Home, run: str | None) -> dict[str, Any]:
    from campaign.errors import UsageError

    if run:
        return home.find_run(run)
    runs = home.runs()
    if not runs:
        raise UsageError("there is no run yet", where=str(home.runs_file))
    return runs[-1]


@cli.command()
@click.argument("run", required=False)
@repo_option
@click.option("--watch", is_flag=True, help="Refresh every two seconds until the run ends.")
@click.option("--stale", is_flag=True, help="Ask the repository which products would be made from other inputs today.")
@click.option(
    "--waiting", is_flag=True, help="Show the gates that wait for a person, and the commands to decide on them."
)
@as_json
def status(run: str | None, repo: str | None, watch: bool, stale: bool, waiting: bool, as_json: bool) -> None:
    """List the runs, newest last; for RUN, show the state of each task label."""
    from campaign import console
    from campaign.journal.progress import progress

    home = _home(repo)
    if waiting:
        _waiting(home, as_json)
        return
    if stale:
        _stale(home, run, as_json)
        return
    if run is None and not watch:
        _list(home, as_json)
        return
    entry = _entry(home, run)
    while True:
        found = progress(home, entry)
        if as_json:
            console.emit(asdict(found))
        else:
            if watch:
                click.clear()
            _show(found)
        if not watch or found.state != "running":
            return
        time.sleep(WATCH_S)


def _waiting(home: Home, as_json: bool) -> None:
    """Show every waiting gate as its campaign's driver does, and the command that accepts all of them."""
    from campaign import console
    from campaign.campaigns.decide import accept_all, describe, gates_of, standings, token
    from campaign.campaigns.gate import gate_text
    from campaign.errors import CampaignError

    campaigns, wrong = standings(home)
    console.warn(wrong)
    gates = gates_of(campaigns)
    if as_json:
        console.emit({"waiting": [gate.plain for gate in gates], "shown": token(gates)})
        return
    for gate in gates:
        print(f"{gate.campaign}, run {gate.run}")
        try:
            print("\n".join(gate_text(gate.state, home)))
        except (CampaignError, OSError) as error:  # its folder was cleared; a decision is still possible
            print(f"{gate.step:14s} waits for a person to look; nothing more is known: {str(error).splitlines()[0]}")
            print(f"    then        {gate.command('accept')}\n    or          {gate.command('reject')}")
    if len(gates) > 1:
        print(f"all of these  {accept_all(gates)}")
    console.say(describe(gates))


def _stale(home: Home, run: str | None, as_json: bool) -> None:
    """Ask the repository which products would be made from other inputs today."""
    from campaign import console
    from campaign.butler.repository import open_repository
    from campaign.errors import CampaignError
    from campaign.journal.plan import load
    from campaign.planning.staleness import stale

    entries = [_entry(home, run)] if run else home.runs()
    found: dict[str, list[str]] = {}
    unknown: dict[str, str] = {}
    for entry in entries:
        try:
            plan = load(Path(entry["submit_path"]) / "plan.json")
            with open_repository(plan.repository) as repository:
                found[entry["output_run"]] = [reason.text for reason in stale(plan, repository)]
        except CampaignError as error:  # its folder was cleared, an input is gone
            unknown[entry["output_run"]] = str(error).splitlines()[0]
    if as_json:
        console.emit({"stale": found, "unknown": unknown})
        return
    for output_run, why in unknown.items():
        print(f"unknown   {output_run}: {why}")
    for output_run, reasons in found.items():
        print(f"{'stale' if reasons else 'current':8s}  {output_run}{': ' * bool(reasons)}{'; '.join(reasons)}")


def _list(home: Home, as_json: bool) -> None:
    from campaign import console
    from campaign.journal.status import status
    from campaign.lines import left_out

    runs, campaigns = status(home)
    gates = _gates(home)
    if as_json:
        spoken = [{**asdict(one), "waits_at": gates.get(one.campaign, [])} for one in campaigns]
        left = [asdict(one) for one in left_out()]
        console.emit({"runs": [asdict(one) for one in runs], "campaigns": spoken, "left_out": left})
        return
    if not runs:
        console.say(f"no run is listed in {home.runs_file}")
        return
    rows = [(r.run, r.template, r.state, r.published, r.failed, r.output_run) for r in runs]
    console.table(("run", "template", "state", "published", "failed", "output run"), rows)
    for one in runs[-1:]:
        for error in one.errors:
            print(f"{one.run}: {error}")
    if campaigns:
        columns = ("campaign", "steps", "begun", "certified", "waits at", "failed")
        console.table(columns, [_campaign(c, gates.get(c.campaign, [])) for c in campaigns])
    if gates:
        console.say("campaign status --waiting shows what waits for a person, and the commands that decide on it")


def _gates(home: Home) -> dict[str, list[str]]:
    """List the steps of each campaign that wait for a person, as `accept` and `plan` do."""
    if not home.campaigns:
        return {}
    from campaign import console
    from campaign.campaigns.decide import gates_of, standings

    campaigns, wrong = standings(home)
    console.warn(wrong)
    found: dict[str, list[str]] = {}
    for gate in gates_of(campaigns):
        found.setdefault(gate.campaign, []).append(gate.step)
    return found


def _campaign(one: Spoken, gates: list[str]) -> tuple[object, ...]:
    certified, failed = one.of("certified"), one.of("failed")
    return one.campaign, one.steps or "", len(one.said), len(certified), ", ".join(gates), ", ".join(failed)


def _show(found: Progress) -> None:
    from campaign import console

    def some(value: float | None, unit: str = "") -> str:
        return "" if value is None else f"{value:.0f}{unit}"

    columns = (
        "task",
        "tasks",
        "waiting",
        "running",
        "published",
        "failed",
        "lost",
        "again",
        "s",
        "CPU s",
        "MiB",
        "CPU %",
        "left s",
    )
    keys = ("label", "tasks", "waiting", "running", "published", "failed", "lost", "tries")
    rows = [
        (
            *(group[key] for key in keys),
            some(group["wall_s"]),
            f"{group['cpu_s']:.1f}",
            group["rss_mib"] or "",
            some(None if group["efficiency"] is None else 100 * group["efficiency"]),
            some(group["left_s"]),
        )
        for group in found.groups
    ]
    console.table(columns, rows, f"{found.run}: {found.state}")
    print(f"output run  {found.output_run}\nsubmit path {found.submit_path}")
    if found.made_by:
        print(f"made by     {found.made_by}")
    if any(group["failed"] for group in found.groups):
        print(f"failures    {command('errors', found.run)}")


@cli.command()
@click.argument("run", required=False)
@repo_option
@as_json
def errors(run: str | None, repo: str | None, as_json: bool) -> None:
    """Report failures of RUN (the newest by default): similar ones once, with the command to look closer."""
    from campaign import console
    from campaign.journal.failures import failures

    home = _home(repo)
    entry = _entry(home, run)
    found = failures(home, entry)
    if as_json:
        console.emit({"run": entry["run"], "failures": [asdict(one) for one in found]})
        return
    if not found:
        console.say(f"no task of {entry['run']} has failed")
    for one in found:
        many = f"{len(one.tasks)} tasks" if len(one.tasks) > 1 else one.tasks[0]
        print(f"{many}: {one.error.splitlines()[0] if one.error else 'no word of it'}")
        print(f"  cause      {one.cause}")
        if one.detectors:
            print(f"  detectors  {one.detectors}")
        if one.exposures:
            print(f"  exposures  {one.exposures}")
        if one.log:
            print(f"  log        {one.log}")
        for line in one.last:
            print(f"    {line}")
        print(f"  by hand    {one.again}")


@cli.command()
@click.argument("task")
@repo_option
@run_option
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the run ends.")
def logs(task: str, repo: str | None, run: str | None, follow: bool) -> None:
    """Print the log of the newest job of TASK, or of a label."""
    from campaign import console
    from campaign.errors import UsageError
    from campaign.journal.failures import log_of
    from campaign.journal.status import state_of

    entry = _entry(_home(repo), run)
    folder = Path(entry["submit_path"])
    path = log_of(folder, task)
    if path is None:
        known = ", ".join(sorted(one.name for one in (folder / "logs").glob("*.log"))) or "none yet"
        raise UsageError(
            f"run {entry['run']} has no log of {task!r}", where=str(folder / "logs"), do=f"there are {known}"
        )
    if not follow and not path.stat().st_size:
        console.say(f"{path} is empty: the job said nothing")
    with path.open(errors="replace") as file:
        while True:
            print(file.read(), end="", flush=True)
            if not follow or state_of(folder) != "running":
                print(file.read(), end="", flush=True)
                return
            time.sleep(FOLLOW_S)


@cli.command()
@click.argument("task")
@repo_option
@run_option
@click.option("--local", is_flag=True, help="Run on this machine; the only choice, and the default.")
@click.option("--pdb", "debug", is_flag=True, help="Enter pdb where an exception ends the task.")
def rerun(task: str, repo: str | None, run: str | None, local: bool, debug: bool) -> None:
    """Run one TASK of a run again on this machine; its products go into a new folder, never into the run."""
    from campaign.runs.single import make_one

    entry = _entry(_home(repo), run)
    code, made = make_one(Path(entry["submit_path"]), task, debug)
    print(f"ended with {code}; products, job file and journal are in {made}")
    raise SystemExit(code)


@cli.command()
@repo_option
@as_json
def recover(repo: str | None, as_json: bool) -> None:
    """Rebuild the index from the journals; no answer changes."""
    from campaign import console
    from campaign.journal.index import Index, asked
    from campaign.lines import left_out

    home = _home(repo)

    def anew(index: Index) -> int:
        index.clear()
        return index.refresh()

    found: Mapping[str, int] = {"events": asked(home, anew), "runs": len(home.runs())}
    if as_json:
        console.emit({**found, "left_out": [asdict(one) for one in left_out()]})
        return
    lost = f"; {count(len(left_out()), 'damaged line')} left out" if left_out() else ""
    print(f"{count(found['events'], 'event')} of {count(found['runs'], 'run')}{lost}")
