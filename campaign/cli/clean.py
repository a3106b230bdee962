"""Command that removes unused runs: clean."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from campaign.cli.root import as_json, cli, repo_option
from campaign.wording import command, count

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.home import Home
    from campaign.upkeep.clean import Remains

MIB = 2**20


@cli.command()
@click.argument("ticket")
@repo_option
@click.option("--yes", is_flag=True, help="Remove the runs; without it they are only shown.")
@click.option(
    "--force",
    "forced",
    multiple=True,
    metavar="RUN",
    help="Remove RUN too, though a campaign uses it or something was made from it (repeat).",
)
@as_json
def clean(ticket: str, repo: str | None, yes: bool, forced: tuple[str, ...], as_json: bool) -> None:
    """Show, or remove, unused runs of TICKET: output RUNs, scratch at sites, submit folders."""
    from campaign import console
    from campaign.butler.repository import open_repository
    from campaign.errors import UsageError
    from campaign.home import home_of
    from campaign.upkeep.clean import remains

    if not repo:
        raise UsageError("no repository is named", do="give --repo, or export REPO")
    home = home_of(repo, os.environ)
    with open_repository(repo, writeable=yes) as repository:
        found = remains(ticket, repository, home, forced)
        if yes:
            found = _removed(ticket, found, repository, home)
    if as_json:
        console.emit({"ticket": ticket, "removed": yes, "runs": [asdict(one) for one in found]})
    else:
        _show(found, ticket, yes)


def _removed(ticket: str, found: list[Remains], repository: Repository, home: Home) -> list[Remains]:
    """Remove the runs without a reason to keep them; a run that proves to be used gets its reason."""
    from campaign import console
    from campaign.upkeep.clean import clean
    from campaign.upkeep.uses import Uses

    uses, left = Uses(repository, home), []
    gone: list[Remains] = []
    try:
        for one in found:
            kept = one.kept or clean(one, repository, home, uses)
            left.append(replace(one, kept=kept))
            if not kept:
                gone.append(one)
                console.say(f"removed {one.output_run}")
            elif kept != one.kept:
                console.say(f"kept {one.output_run}: {kept}")
    finally:
        if gone:
            home.record("clean", ticket, {"runs": [asdict(one) for one in gone]})
    return left


def _show(found: list[Remains], ticket: str, removed: bool) -> None:
    from campaign import console

    rows = [
        (one.output_run, one.state, f"{one.bytes / MIB:.1f}", one.kept or ("removed" if removed else "to be removed"))
        for one in found
    ]
    console.table(("output RUN", "state", "MiB", ""), rows)
    gone = [one for one in found if not one.kept]
    kept = [one for one in found if one.kept and not one.firm]
    size = sum(one.bytes for one in gone) / MIB
    if removed:
        print(f"removed {count(len(gone), 'run')}, {size:.1f} MiB")
    else:
        do = f"{command('clean', ticket, '--yes')} removes {'it' if len(gone) == 1 else 'them'}"
        print(f"{count(len(gone), 'run')}, {size:.1f} MiB; {do}" if gone else "nothing to remove")
    if kept and not removed:
        do = command("clean", ticket, "--force", "RUN")
        print(f"{count(len(kept), 'run')} kept, being used; {do} removes one of them too")
