"""Commands that make products valid: certify, chain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from campaign.cli.root import as_json, cli, env_file, environment, options

certify_options = options(
    click.option("--begin-date", help="ISO-8601, TAI; $START_DATE by default."),
    click.option("--end-date", help="ISO-8601, TAI; open by default."),
    click.option("--search-all-inputs", is_flag=True, help="Certify from all RUNs of a chain, not only the newest."),
)
chain_options = options(
    click.option("--mode", type=click.Choice(["prepend", "redefine"]), default="prepend", show_default=True),
    click.option(
        "--yes",
        is_flag=True,
        help="Allow redefining a chain that is not empty, and older calibrations in front of newer ones.",
    ),
    click.option("--deploy", is_flag=True, help="Change $INSTRUMENT/calib itself."),
)


@cli.command()
@click.argument("template", required=False)
@env_file
@click.option("--repo", help="Repository, without a template.")
@click.option("--source", help="Generation RUN or CHAINED collection.")
@click.option("--target", help="CALIBRATION collection.")
@click.option("--type", "dataset_type", help="Dataset type: bias, dark, flat, ...")
@certify_options
@click.option("--chain", "chain_name", help="Chain to extend; the ticket's by default.")
@click.option("--no-chain", is_flag=True, help="Do not chain.")
@chain_options
@as_json
def certify(template: str | None, env_file: str | None, as_json: bool, **chosen: Any) -> None:
    """Certify the products of TEMPLATE for a range of dates, and chain them.

    Names follow DMTN-222: from .../biasGen.$RERUN into .../bias.$CERT_RERUN, from
    $START_DATE on, prepended to the ticket's chain.  Without a template, give
    --repo, --source, --target and --type.
    """
    from campaign import console
    from campaign.certification.command import request, run

    made = run(request(template, environment(env_file), chosen))
    if as_json:
        console.emit(made)
        return
    report = made["certified"]
    print(f"certified   {len(report['data_ids'])} {report['dataset_type']} of {', '.join(report['sources'])}")
    print(f"into        {report['target']}, valid {report['begin'] or 'ever'} to {report['end'] or 'open'} TAI")
    if made["chain"]:
        show_chain(made["chain"])


@cli.command()
@click.argument("repo")
@click.argument("parent")
@click.argument("children", nargs=-1, required=True)
@chain_options
@as_json
def chain(repo: str, parent: str, children: tuple[str, ...], mode: str, yes: bool, deploy: bool, as_json: bool) -> None:
    """Put CHILDREN into the chain PARENT of REPO, as `butler collection-chain` does."""
    from dataclasses import asdict

    from campaign import console
    from campaign.butler.repository import open_repository
    from campaign.certification.certify import Change, chain
    from campaign.certification.command import ticket_of
    from campaign.home import home_of

    with open_repository(repo, writeable=True) as repository, repository.deciding():
        report = chain(repository, parent, children, Change(mode, yes, deploy))
    home_of(str(Path(repo)), os.environ).record("chain", ticket_of(parent), asdict(report))
    if as_json:
        console.emit(asdict(report))
    else:
        show_chain(asdict(report))


def show_chain(report: dict[str, Any]) -> None:
    """Print a chain before and after."""
    print(f"chain       {report['chain']}")
    print(f"  before    {', '.join(report['before']) or '(empty)'}")
    print(f"  after     {', '.join(report['after'])}")
