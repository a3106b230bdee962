"""The command that converts an export: convert."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from campaign.cli.root import as_json, cli
from campaign.wording import count

if TYPE_CHECKING:
    from campaign.kinds.model import Flavour


@cli.command()
@click.argument("export", type=click.Path(file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--flavour",
    type=click.Choice(["plain", "rubin"]),
    required=True,
    help="That of the repository that is to import it; `campaign check` shows it.",
)
@as_json
def convert(export: Path, out: Path, flavour: Flavour, as_json: bool) -> None:
    """Copy EXPORT, a folder of `butler export-calibs`, to OUT with the dataset types of another flavour.

    Storage classes and formatters change; collections, ids, dates and files stay.
    `sha256sum -c SHA256SUMS` checks OUT wherever it travels.
    """
    from campaign import console
    from campaign.butler.exports import convert

    with console.patience(lambda: f"copying {export}"):
        made = convert(export, out, flavour)
    if as_json:
        console.emit({"out": str(out), **asdict(made), "datasets": dict(made.datasets)})
        return
    print(f"converted   to {flavour}, in {out}")
    for name, number in sorted(made.datasets.items()):
        print(f"datasets    {count(number, name, name)}")
    print(f"size        {made.bytes / 2**20:.1f} MiB")
    if made.others:
        console.say(f"note: none of ours, left as they are: {', '.join(made.others)}")
    if flavour == "rubin":
        console.say("note: `butler import` of it needs the stack's obs_base; `campaign import-calibs` does without")
