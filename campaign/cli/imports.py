"""The command that brings existing calibrations in: import-calibs."""

from __future__ import annotations

from typing import Any

import click

from campaign.cli.root import as_json, cli, env_file, environment, ranks


@cli.command("import-calibs")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="FILES|EXPORT")
@env_file
@click.option("--repo", "-r", help="Repository; $REPO by default.")
@click.option("--ticket", help="Ticket; $TICKET by default.")
@click.option("--tag", help="Second part of the collections' names; $TAG by default.")
@click.option("--cert-rerun", help="Last part of the collections' names; $CERT_RERUN by default.")
@click.option("--instrument", help="$INSTRUMENT, or the repository's only one, by default.")
@click.option("--begin-date", help="Of files whose names are no dates: ISO-8601, TAI; $START_DATE by default.")
@click.option("--end-date", help="Of files whose names are no dates: ISO-8601, TAI; open by default.")
@click.option("--filter", "physical_filter", default="", help="Physical filter of flats whose files name none.")
@click.option(
    "--kernel-axes",
    type=click.Choice(["xy", "yx"]),
    help="Order of the axes of brighter-fatter kernels whose files do not say it: xy, axis 0 is x.",
)
@click.option("--no-chain", is_flag=True, help="Do not chain.")
@click.option("--yes", is_flag=True, help="Allow imported calibrations in front of others for the same time.")
@click.option("--dry-run", is_flag=True, help="Check everything, and change nothing.")
@ranks
@as_json
def import_calibs(paths: tuple[str, ...], env_file: str | None, as_json: bool, **chosen: Any) -> None:
    """Import existing calibrations into a ticket's collections, certified for their dates, and chain them.

    FILES are calibrations in upstream's layouts (FITS, ECSV, YAML) or folders of
    them; a file named <kind>/<detector>/<date>.ecsv is valid from its date (UTC)
    to that of the next one.  EXPORT is a folder of `butler export-calibs`.  All
    files are checked before anything is registered; the same import again
    changes nothing, and finishes one that was killed.
    """
    from campaign import console
    from campaign.errors import UsageError
    from campaign.home import home_of
    from campaign.imports.command import Request, run
    from campaign.imports.plan import Names

    variables = environment(env_file)
    names = {name: chosen[name] or variables.get(name.upper(), "") for name in ("ticket", "tag", "cert_rerun")}
    repository = chosen["repo"] or variables.get("REPO", "")
    lacking = [f"--{name.replace('_', '-')}" for name, text in {**names, "repo": repository}.items() if not text]
    if lacking:
        raise UsageError(f"missing {', '.join(lacking)}", do="give it, or export the variable of that name")
    instrument, prefix = chosen["instrument"] or variables.get("INSTRUMENT", ""), variables.get("USER_CALIB_PREFIX", "")
    made = run(
        Request(
            repository=repository,
            home=home_of(repository, variables),
            paths=paths,
            names=Names(instrument, names["ticket"], names["tag"], names["cert_rerun"], prefix),
            begin=chosen["begin_date"],
            end=chosen["end_date"],
            kernel_axes=chosen["kernel_axes"] or "",
            physical_filter=chosen["physical_filter"],
            chained=not chosen["no_chain"],
            hide=chosen["yes"],
            dry=chosen["dry_run"],
            ranks=chosen["ranks"],
            environment=variables,
        )
    )
    if as_json:
        console.emit(made)
    else:
        _show(made)


def _show(made: dict[str, Any]) -> None:
    from campaign import console
    from campaign.cli.certify import show_chain
    from campaign.wording import count

    for note in made["notes"]:
        console.say(f"note: {note}")
    if not (made["new"] or made["certified"] or made["chain"]):
        print(f"nothing to do: {count(made['existing'], 'calibration')} were imported before")
        return
    there = f", {made['existing']} were there" if made["existing"] else ""
    print(f"{'would import' if made['dry_run'] else 'imported    '} {count(made['new'], 'calibration')}{there}")
    for one in made["collections"]:
        ranges = [f"{begin or 'ever'} to {end or 'open'}" for begin, end in one["ranges"]]
        many = f" and {len(ranges) - 1} more ranges" if len(ranges) > 1 else ""
        print(f"into         {one['collection']}: {one['calibrations']} {one['type']}, valid {ranges[0]}{many} TAI")
    if made["chain"]:
        show_chain(made["chain"])
