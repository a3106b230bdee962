"""Commands that bring data in: simulate, ingest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from campaign.cli.root import as_json, cli, ranks
from campaign.wording import count, times

if TYPE_CHECKING:
    from campaign.frames.ingest import Report
    from campaign.frames.summary import SummaryRow
    from campaign.kinds.model import Flavour
    from campaign.simulation.simulate import Places


#: Most files whose notes are shown.
NOTES = 10


@cli.command()
@click.argument("repo", type=click.Path(file_okay=False, path_type=Path))
@click.option("--plan", "plan_name", metavar="PLAN", help="Simulate exactly the exposures of PLAN's simulation block.")
@click.option("--camera", "camera_name", default="LSSTComCam", show_default=True, help="Name, or a camera file.")
@click.option("--scale", type=click.IntRange(1), help="Divide the imaging area by N (default 1, or the plan's).")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same frames.")
@click.option("--bias", type=click.IntRange(0), default=10, show_default=True, help="Number of bias frames.")
@click.option("--dark", type=click.IntRange(0), default=10, show_default=True, help="Number of dark frames.")
@click.option("--flat", type=click.IntRange(0), default=10, show_default=True, help="Flats of each filter.")
@click.option("--filter", "filters", multiple=True, help="Physical filter of the flats (repeat; default the r one).")
@click.option(
    "--dark-time", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Exposure time of darks, second."
)
@click.option(
    "--flat-time", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Exposure time of flats, second."
)
@click.option(
    "--crosstalk", type=click.FloatRange(0, 0.01), default=0.0, help="Fraction from the next amplifier; LSSTCam: 2e-4."
)
@click.option(
    "--nonlinearity", type=click.FloatRange(0, 0.05), default=0.0, help="Largest relative deviation; LSSTCam: 0.01."
)
@click.option(
    "--rate", "rates", multiple=True, metavar="NAME=VALUE", help="Setting of the model, over a plan's (repeat)."
)
@click.option("--day-obs", "days", type=int, multiple=True, help="Night, YYYYMMDD (repeat; default two).")
@click.option("--detector", "detectors", type=int, multiple=True, help="Detector (repeat; default all science ones).")
@ranks
@as_json
def simulate(
    repo: Path,
    plan_name: str | None,
    camera_name: str,
    scale: int | None,
    seed: int,
    bias: int,
    dark: int,
    flat: int,
    filters: tuple[str, ...],
    dark_time: float,
    flat_time: float,
    crosstalk: float,
    nonlinearity: float,
    rates: tuple[str, ...],
    days: tuple[int, ...],
    detectors: tuple[int, ...],
    ranks: int,
    as_json: bool,
) -> None:
    """Make a new repository REPO with simulated raws, as the LSST camera writes them.

    The raws lie in REPO-raw, and their truth, to compare results with, in
    REPO-truth.
    """
    from campaign import console
    from campaign.camera.model import load
    from campaign.home import home_of_new
    from campaign.simulation.simulate import Nights, Places, default_filters, exposures, simulate

    if plan_name is not None:
        model = dict(map(_rate, rates))
        _simulate_plan(Places(repo.absolute()), plan_name, (scale, detectors), model, ranks, as_json)
        return
    scale = scale or 1
    camera = load(camera_name).scaled(scale)
    plan = Nights(bias, dark, flat, dark_time, flat_time, filters or default_filters(camera), days or Nights.days)
    places = Places(repo.absolute())
    home = home_of_new(places.repository, os.environ)
    chosen = tuple(sorted(set(detectors))) or camera.detector_ids("SCIENCE")
    model = {"crosstalk": crosstalk, "nonlinearity": nonlinearity, **dict(map(_rate, rates))}
    raws = simulate(places, home, camera, exposures(camera, plan), seed, chosen, ranks, model)
    made = {"camera": camera.name, "scale": scale, "seed": seed, "raws": raws}
    home.record("simulate", os.environ.get("TICKET", ""), made)
    if as_json:
        console.emit({"repository": str(places.repository), "truth": str(places.truth), "raws": raws})
        return
    many = f"{count(raws, 'raw')} of {count(len(chosen), 'detector')}"
    console.say(f"{many} in {places.repository}; their truth is in {places.truth}")


def _simulate_plan(
    places: Places,
    plan_name: str,
    chosen: tuple[int | None, tuple[int, ...]],
    model: dict[str, Any],
    ranks: int,
    as_json: bool,
) -> None:
    from campaign import console
    from campaign.campaigns.document import locate, read
    from campaign.errors import UsageError
    from campaign.home import home_of_new
    from campaign.simulation.truth import simulate_plan

    path = locate(plan_name)
    file = read(path)
    if file.simulation is None:
        raise UsageError("the plan has no simulation", where=str(path), do="name the numbers of frames instead")
    home = home_of_new(places.repository, os.environ)
    simulation = file.simulation.model_copy(update={"rates": {**file.simulation.rates, **model}})
    raws, wanted = simulate_plan(places, home, simulation, file.variables, chosen, ranks)
    made = {"plan": path.stem, "camera": file.simulation.camera, "seed": file.simulation.seed, "raws": raws}
    home.record("simulate", os.environ.get("TICKET", ""), made)
    if as_json:
        found = {name: sorted(ids) for name, ids in wanted.items()}
        console.emit({"repository": str(places.repository), "truth": str(places.truth), "raws": raws, "wanted": found})
        return
    console.say(f"{raws} raws in {places.repository}; their truth is in {places.truth}")


def _rate(text: str) -> tuple[str, Any]:
    """Parse a setting of the simulator's model: a number, or a JSON list or dictionary."""
    from campaign.errors import UsageError
    from campaign.limited import from_json

    name, _, value = text.partition("=")
    try:
        return name, from_json(value)
    except ValueError as error:
        raise UsageError(f"--rate {text}: NAME=NUMBER, NAME=[LOW,HIGH] or a JSON dictionary was expected") from error


@cli.command()
@click.argument("repo", type=click.Path(file_okay=False, path_type=Path))
@click.argument("files", nargs=-1, type=click.Path())
@click.option("--camera", "camera_name", required=True, help="Name, or a camera file (kept with the repository).")
@click.option("--type", "observation_type", help="Instead of the header's: bias, dark, flat, ...")
@click.option("--filter", "physical_filter", help="Instead of the header's.")
@click.option("--day-obs", type=int, help="Instead of the header's: YYYYMMDD.")
@click.option(
    "--transfer",
    type=click.Choice(["direct", "copy"]),
    default="direct",
    show_default=True,
    help="Leave the files where they are, or copy them in.",
)
@click.option(
    "--flavour",
    type=click.Choice(["plain", "rubin"]),
    help="Storage classes of a new repository: ours (the default), or those of Rubin's stack.",
)
@click.option("--summary", is_flag=True, help="Show what the repository holds, with read noise and gain from pairs.")
@click.option("--amplifiers", is_flag=True, help="With --summary: every amplifier's figures beside the camera file's.")
@ranks
@as_json
def ingest(
    repo: Path,
    files: tuple[str, ...],
    camera_name: str,
    observation_type: str | None,
    physical_filter: str | None,
    day_obs: int | None,
    transfer: str,
    flavour: Flavour | None,
    summary: bool,
    amplifiers: bool,
    ranks: int,
    as_json: bool,
) -> None:
    """Ingest raw FILES (or folders of them) into REPO, which is made if missing.

    A file that cannot be read or translated is named with the reason; the others
    are ingested, and the exit code is 1.  Ingesting files again changes nothing.
    """
    from dataclasses import asdict

    from campaign import console
    from campaign.camera.translation import Overrides
    from campaign.errors import UsageError
    from campaign.frames.ingest import Report, camera_of
    from campaign.frames.ingest import ingest as ingest_files
    from campaign.frames.summary import disagreements, summarise
    from campaign.home import home_of_new

    if amplifiers and not summary:
        raise UsageError("--amplifiers needs --summary", do="give --summary too")
    if not files and not summary:
        raise UsageError("no file to ingest", do="name files or folders, or ask for --summary")
    root = repo.absolute()
    home = home_of_new(root, os.environ)
    camera = camera_of(home, camera_name)
    report = Report((), (), {})
    if files:
        overrides = Overrides(observation_type, physical_filter, day_obs)
        report = ingest_files(str(root), home, files, camera, overrides, transfer, ranks, flavour)
        if report.new:
            counts = {"new": len(report.new), "refused": len(report.refused)}
            home.record("ingest", os.environ.get("TICKET", ""), {"camera": camera.name, **counts})
    rows: list[SummaryRow] = []
    if summary and not (
        report.refused and not (root / "butler.yaml").exists()
    ):  # nothing was ingested, and there is no repository
        from campaign.butler.repository import open_repository

        with open_repository(str(root)) as repository:
            rows = summarise(repository, camera.name, camera, ranks)
    if as_json:
        found = {"summary": [asdict(row) for row in rows], "disagreements": disagreements(rows)}
        console.emit({**vars(report), "refused": dict(report.refused), "notes": dict(report.notes), **found})
    else:
        _show_ingest(report, rows, bool(files), amplifiers)
    if report.refused:
        raise SystemExit(1)


def _show_ingest(report: Report, rows: Sequence[SummaryRow], asked: bool, amplifiers: bool) -> None:
    from campaign import console
    from campaign.frames.summary import disagreements

    for path, why in report.refused.items():
        console.say(f"refused: {path}: {why}")
    for path, text in list(report.notes.items())[:NOTES]:
        console.say(f"note: {path}: {text}")
    if len(report.notes) > NOTES:
        console.say(f"note: {len(report.notes) - NOTES} more files have notes (--json lists all)")
    if asked:
        console.say(f"{len(report.new)} ingested, {len(report.existing)} were there, {len(report.refused)} refused")
    if rows:
        columns = ("type", "day_obs", "filter", "band", "exposures", "raws", "seconds", "read noise/ADU", "gain e-/ADU")
        console.table(columns, [_summary_cells(row) for row in rows])
    if amplifiers:
        each = ("type", "day_obs", "filter", "detector", "amplifier", "pairs",
                "read noise/ADU", "camera file", "gain e-/ADU", "camera file")  # fmt: skip
        console.table(each, [cells for row in rows for cells in _amplifier_cells(row)])
    for text in disagreements(rows):
        console.say(f"note: {text}")


def _summary_cells(row: SummaryRow) -> tuple[object, ...]:
    figures = (_figure(row.read_noise), _figure(row.gain))
    seconds = times(row.exposure_times)
    return row.type, row.day_obs, row.physical_filter, row.band, row.exposures, row.raws, seconds, *figures


def _amplifier_cells(row: SummaryRow) -> list[tuple[object, ...]]:
    return [
        (row.type, row.day_obs, row.physical_filter, m.detector, m.amplifier, m.pairs,
         *map(_figure, (m.read_noise, m.file_read_noise, m.gain, m.file_gain)))
        for m in row.amplifiers
    ]  # fmt: skip


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
