"""Commands of a whole campaign: run, plan, accept, reject."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from campaign.cli.root import MOST_RANKS, as_json, cli, options, repo_option
from campaign.wording import command, count

if TYPE_CHECKING:
    from campaign.campaigns.decide import Gate
    from campaign.campaigns.document import Campaign
    from campaign.home import Home
    from campaign.journal.books import Books

plan_options = options(
    click.argument("plan_name", metavar="PLAN"),
    click.option(
        "--env",
        "env_file",
        type=click.Path(dir_okay=False),
        help="Read variables from FILE; they override the plan's and the shell's.",
    ),
)
campaign_option = click.option("--campaign", "name", help="Campaign, where several wait at a step of that name.")
looked_option = click.option(
    "--run", "run", help="Run that was inspected, or the beginning of its id; no other run is decided on."
)


def _campaign(plan_name: str, env_file: str | None) -> tuple[Campaign, Home, Books]:
    from campaign.campaigns.document import load
    from campaign.campaigns.state import books_of
    from campaign.errors import ConfigurationError
    from campaign.home import home_of

    campaign = load(plan_name, Path(env_file) if env_file else None, os.environ)
    if not campaign.environment.get("REPO"):
        raise ConfigurationError("the variable REPO is not set", do="export REPO=/repo/main")
    home = home_of(campaign.environment["REPO"], campaign.environment)
    return campaign, home, books_of(home, campaign)


@cli.command("run")
@plan_options
@click.option("--from", "first", metavar="STEP", help="Only this step and steps that need it.")
@click.option("--to", "last", metavar="STEP", help="Only this step and steps that it needs.")
@click.option("--yes", is_flag=True, help="Accept every gate; recorded.")
@click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Most steps that run at the same time."
)
@click.option("--sites", metavar="A,B,...", help="Split every step over these sites, by their fractions.")
@click.option("--site", metavar="NAME", help="Run every step at this site.")
@click.option("--ranks", type=click.IntRange(1, MOST_RANKS), help="MPI ranks of a gang.")
@click.option("--changed", is_flag=True, help="Continue although plan or variables have changed.")
@as_json
def run_plan(
    plan_name: str,
    env_file: str | None,
    first: str | None,
    last: str | None,
    yes: bool,
    jobs: int,
    sites: str | None,
    site: str | None,
    ranks: int | None,
    changed: bool,
    as_json: bool,
) -> None:
    """Run the steps of PLAN, each as soon as its needs are done; resume an earlier campaign.

    A gate waits for `campaign accept STEP` or `campaign reject STEP`; steps that do
    not need it continue meanwhile.
    """
    from campaign import console
    from campaign.campaigns.draw import Row, plain
    from campaign.campaigns.driver import Chosen, Driver

    campaign, home, books = _campaign(plan_name, env_file)
    given = {"--sites": sites, "--site": site, "--ranks": ranks}
    arguments = [word for key, value in given.items() if value for word in (key, str(value))]
    chosen = Chosen(first, last, yes, jobs, changed, tuple(arguments))
    console.say(f"campaign {campaign.name}: {count(len(campaign.steps), 'step')}, books in {books.folder}")
    driver = Driver(campaign, home, books, chosen, console.say)
    look = f"{command('plan', plan_name)} shows how {campaign.name} stands"
    with console.patience(lambda: f"{' and '.join(driver.at)} in hand; {look}" if driver.at else ""):
        states = driver.run()
    if as_json:
        console.emit({"campaign": campaign.name, "steps": plain(campaign, {n: Row(s) for n, s in states.items()})})
    else:
        done = sum(state.state == "done" for state in states.values())
        console.say(f"{done} of {count(len(states), 'step')} {'is' if 1 in (done, len(states)) else 'are'} done")


@cli.command("plan")
@plan_options
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into FILE.")
@click.option("--quick", is_flag=True, help="Do not ask the repository about staleness and cost to come.")
@as_json
def show_plan(plan_name: str, env_file: str | None, svg_file: Path | None, quick: bool, as_json: bool) -> None:
    """Show the steps of PLAN: needs, state, cost so far or to come, and staleness."""
    from campaign import console
    from campaign.campaigns import draw as plans_draw
    from campaign.campaigns.look import rows
    from campaign.jobs.file import write_text

    campaign, home, books = _campaign(plan_name, env_file)
    found = rows(campaign, home, books, quick)
    if svg_file:
        write_text(svg_file, plans_draw.svg(campaign, found))
    if as_json:
        console.emit({"campaign": campaign.name, "steps": plans_draw.plain(campaign, found)})
        return
    console.table(plans_draw.headings(), plans_draw.text(campaign, found), campaign.name)
    if left := plans_draw.to_come(found):
        console.say(left)
    if svg_file:
        console.say(f"drawn in {svg_file}")


def _found(home: Home, steps: Sequence[str], token: str | None, name: str | None, run: str | None) -> list[Gate]:
    """Find the gates to decide on: by name, or as they were shown."""
    from campaign import console
    from campaign.campaigns.decide import WAITING, shown, waiting_gate
    from campaign.errors import UsageError

    if bool(steps) == bool(token):
        raise UsageError("name the steps, or give --all-shown and what was shown", do=WAITING)
    if run and len(steps) != 1:
        raise UsageError("--run is of one step", do=WAITING)
    if token is None:
        return [waiting_gate(home, step, name, run) for step in dict.fromkeys(steps)]
    gates, notes = shown(home, token)
    for note in notes:
        console.say(note)
    return gates


@contextmanager
def _decided(find: Callable[[], list[Gate]]) -> Iterator[list[Gate]]:
    """Hold gates while one person decides on them."""
    from campaign.campaigns.decide import WAITING, deciding
    from campaign.errors import UsageError

    gates = find()
    with deciding(gates):
        if [gate.run for gate in find()] != [gate.run for gate in gates]:  # another may have been quicker
            raise UsageError("somebody has decided meanwhile; nothing was recorded", do=WAITING)
        yield gates


def _require_products(home: Home, gates: Sequence[Gate], repo: str | None) -> None:
    from campaign.butler.repository import open_repository
    from campaign.campaigns.decide import require_products

    for root in dict.fromkeys(gate.repository or repo or "" for gate in gates):
        with open_repository(root) as repository:
            for gate in gates:
                if (gate.repository or repo or "") == root:
                    require_products(gate, home, repository)


def _say_decided(home: Home, gates: Sequence[Gate], words: str) -> None:
    """Print the decision, and the command that resumes a campaign without a driver."""
    from campaign import console
    from campaign.errors import CampaignError

    for gate in gates:
        console.say(f"{gate.step} of {gate.campaign} is {words}, run {gate.run}")
    for name, books in {gate.campaign: gate.books for gate in gates}.items():
        if books.driven:
            continue
        begun: dict[str, str] = {}
        with suppress(CampaignError):  # the decision stands, even if the history is damaged
            runs = [entry for entry in home.history() if entry["command"] == "run"]
            begun = {entry["detail"]["campaign"]: entry["line"] for entry in runs}
        console.say(f"nobody drives {name} now: {begun.get(name, 'campaign run PLAN')} resumes it")


@cli.command()
@click.argument("steps", metavar="STEP...", nargs=-1)
@click.option("--reason", required=True, help="Why; it is recorded.")
@click.option(
    "--all-shown",
    "token",
    metavar="SHOWN",
    help="Accept all that `campaign status --waiting` showed, by the word that it gave.",
)
@looked_option
@campaign_option
@repo_option
def accept(
    steps: tuple[str, ...], reason: str, token: str | None, run: str | None, name: str | None, repo: str | None
) -> None:
    """Accept the products of STEP: the waiting campaign continues.

    Several steps are accepted together, or not at all.
    """
    from campaign.home import home_of, typed_line

    home = home_of(repo, os.environ)
    with _decided(lambda: _found(home, steps, token, name, run)) as gates:
        _require_products(home, gates, repo)
        for gate in gates:
            gate.books.write("accepted", gate.step, run=gate.run, reason=reason, line=typed_line())
    _say_decided(home, gates, "accepted")


@cli.command()
@click.argument("step")
@click.option("--reason", required=True, help="Why; it is recorded.")
@click.option("--rerun", help="RERUN of the repetition; the next letter by default.")
@looked_option
@campaign_option
@repo_option
def reject(step: str, reason: str, rerun: str | None, run: str | None, name: str | None, repo: str | None) -> None:
    """Reject the products of STEP: the step, and steps that need it, are made again under the next RERUN."""
    from campaign.campaigns.state import following
    from campaign.home import home_of, typed_line

    home = home_of(repo, os.environ)
    with _decided(lambda: _found(home, [step], None, name, run)) as gates:
        (gate,) = gates
        found = following(home, gate.books, gate.run, gate.state.rerun, rerun)
        gate.books.write("rejected", step, run=gate.run, reason=reason, rerun=found, line=typed_line())
    _say_decided(home, gates, f"rejected; it and what needs it are made next as RERUN {found}")


@cli.command("reads")
@click.option("--instrument", default="LSSTComCam", show_default=True, help="Instrument whose pipelines are read.")
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into FILE.")
@as_json
def show_reads(instrument: str, svg_file: Path | None, as_json: bool) -> None:
    """Show the inputs of each product beside DMTN-222's figure 2, and the differences."""
    from campaign import console
    from campaign.jobs.file import write_text
    from campaign.planning.reads import differences, draw, plain, reads

    real = reads(instrument, os.environ)
    if svg_file:
        write_text(svg_file, draw(instrument, real))
    if as_json:
        console.emit(plain(real))
        return
    console.table(("product", "is made from"), [(name, ", ".join(needs)) for name, needs in real.items() if needs])
    for one in differences(real):
        print(f"unlike figure 2   {one.text}")
    if svg_file:
        console.say(f"drawn in {svg_file}")
