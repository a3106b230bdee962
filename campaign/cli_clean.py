"""The command that removes what nobody needs any more."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from campaign.cli import as_json, cli
from campaign.wording import command, count

if TYPE_CHECKING:
    from campaign.clean import Remains

MIB = 2**20


@cli.command()
@click.argument("ticket")
@click.option("--repo", default=lambda: os.environ.get("REPO"), help="Repository; $REPO by default.")
@click.option("--yes", is_flag=True, help="Remove it; else it is only shown.")
@as_json
def clean(ticket: str, repo: str | None, yes: bool, as_json: bool) -> None:
    """Show, or remove, the runs of TICKET that are not certified: RUNs, scratch at sites, submit folders."""
    from campaign import console
    from campaign.clean import clean as remove
    from campaign.clean import remains
    from campaign.errors import UsageError
    from campaign.home import home_of
    from campaign.repository import open_repository

    if not repo:
        raise UsageError("no repository is named", do="give --repo, or export REPO")
    home = home_of(repo, os.environ)
    with open_repository(repo, writeable=yes) as repository:
        found = remains(ticket, repository, home)
        gone = [one for one in found if not one.kept]
        for one in gone if yes else ():
            console.say(f"removing {one.output_run}")
            remove(one, repository, home)
    if yes and gone:
        home.record("clean", ticket, {"runs": [asdict(one) for one in gone]})
    if as_json:
        console.emit({"ticket": ticket, "removed": yes, "runs": [asdict(one) for one in found]})
    else:
        _show(found, ticket, yes)


def _show(found: list[Remains], ticket: str, removed: bool) -> None:
    from campaign import console

    rows = [
        (one.output_run, one.state, f"{one.bytes / MIB:.1f}", one.kept or ("removed" if removed else "to be removed"))
        for one in found
    ]
    console.table(("output RUN", "state", "MiB", ""), rows)
    gone = [one for one in found if not one.kept]
    size = sum(one.bytes for one in gone) / MIB
    if removed:
        print(f"removed {count(len(gone), 'run')}, {size:.1f} MiB")
    else:
        do = f"{command('clean', ticket, '--yes')} removes {'it' if len(gone) == 1 else 'them'}"
        print(f"{count(len(gone), 'run')}, {size:.1f} MiB; {do}" if gone else "nothing to remove")
