"""Commands of camera files: check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from campaign.cli.root import as_json, cli, ranks

if TYPE_CHECKING:
    from campaign.frames.sections import Report


@cli.group()
def camera() -> None:
    """Look at camera files."""


@camera.command()
@click.argument("file")
@click.argument("frames", nargs=-1, required=True, type=click.Path())
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default="here",
    help="Folder of the pictures, one a detector.",
)
@ranks
@as_json
def check(file: str, frames: tuple[str, ...], pictures: Path, ranks: int, as_json: bool) -> None:
    """Compare the camera FILE (or a packaged camera's name) with FRAMES of its camera.

    Sections are compared with the edges of the light, read noises with those of
    the frames.  For sections that are a few pixels off, corrected ones are
    proposed.  Give a flat, best with two biases.  Exit code 5: the file does not
    fit the frames.
    """
    from campaign import console
    from campaign.errors import VerificationFailed
    from campaign.frames.sections import check

    report = check(file, frames, pictures, ranks)
    if as_json:
        console.emit(report.plain())
    else:
        _show(report)
    if not report.fits:
        many = len(report.misfits) + len(report.refused)
        do = "look at the pictures, correct the file, check again; only then ingest"
        raise VerificationFailed(f"does not fit the frames: {many} misfit{'s' * (many > 1)}", where=file, do=do)


def _show(report: Report) -> None:
    from campaign import console
    from campaign.frames.sections import pasted

    console.table(
        ("detector", "amplifier", "data", "light", "read noise/ADU", "electron", "file says"),
        [
            (
                report.camera.by_id[one["detector"]].name,
                row["amplifier"],
                _declared(report, one["detector"], row["amplifier"]),
                _light(row),
                "" if row["noise_adu"] is None else f"{row['noise_adu']:.2f}",
                "" if row["noise_adu"] is None else f"{row['noise_adu'] * row['gain']:.2f}",
                f"{row['read_noise']:g}",
            )
            for one in report.detectors
            for row in one["amplifiers"]
        ],
    )
    for why in dict.fromkeys(report.refused.values()):
        first, *more = [path for path, reason in report.refused.items() if reason == why]
        print(f"refused     {first}{f' and {len(more)} more' if more else ''}: {why}")
    for text in report.misfits:
        print(f"misfit      {text}")
    for text in report.notes:
        print(f"note        {text}")
    if not report.lit:
        print("note        no frame with light (a flat): the sections are drawn, and cannot be judged")
    for name, proposed in report.proposed.items():
        print(f"sections that fit, for the camera file:\n{pasted(name, proposed)}")
        if proposed["problem"]:
            print(f"note        not whole: {proposed['problem']}")
    for picture in report.pictures:
        print(f"picture     {picture}")
    if report.fits:
        console.say("the camera file fits these frames" if report.judged else "nothing speaks against the camera file")


def _declared(report: Report, detector: int, amplifier: str) -> str:
    kind = report.camera.types[report.camera.by_id[detector].type]
    return next(str(a.data) for a in kind.amplifiers if a.name == amplifier)


def _light(row: dict[str, list[int]]) -> str:
    if not row["judged"]:
        return "not judged"
    x0, y0, x1, y1 = row["lit"]
    return f"[{x0 + 1}:{x1},{y0 + 1}:{y1}]"
