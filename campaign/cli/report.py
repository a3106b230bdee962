"""Commands that report: demo, history, doctor."""

from __future__ import annotations

import os
from pathlib import Path

import click

from campaign.cli.root import as_json, cli, repo_option, site_ranks


@cli.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@site_ranks
@as_json
def demo(directory: Path | None, ranks: int | None, as_json: bool) -> None:
    """Simulate a small camera, make bias, dark and flat, certify them, and compare them with the truth."""
    from campaign import console
    from campaign.errors import VerificationFailed
    from campaign.simulation.demo import folder, run

    made = run(folder(directory), ranks, (lambda text: None) if as_json else console.say)
    if as_json:
        console.emit({"products": made.products})
    else:
        columns = (
            "product",
            "detectors",
            "good pixels",
            "rms(z)",
            "|z| > 5",
            "max |mean z|",
            "variance",
            "defects showing",
            "s",
        )
        rows = [
            (
                p["name"],
                p["detectors"],
                p["good_pixels"],
                f"{p['rms_z']:.4f}",
                f"{p['frac_gt5']:.1e}",
                f"{p['max_abs_amp_mean_z']:.2f}",
                f"{p['variance_ratio']:.3f}",
                p["defects_showing"],
                p["seconds"],
            )
            for p in made.products
        ]
        console.table(columns, rows, "products against the truth that the raws were simulated from")
        for picture in made.pictures:
            print(f"picture  {picture}")
        console.say(f"{made.seconds:.0f} s in all; the repository is {made.repository}")
    if made.problems:
        raise VerificationFailed("; ".join(made.problems))


@cli.command()
@click.argument("ticket")
@repo_option
def history(ticket: str, repo: str | None) -> None:
    """Print every command, selection and version recorded for TICKET, as Markdown."""
    from campaign.home import home_of
    from campaign.journal.history import history

    print(history(home_of(repo, os.environ), ticket), end="")


@cli.command()
@click.option("--warm", is_flag=True, help="Fill numba's cache, so that no job compiles.")
@click.option("--kill-points", is_flag=True, help="List the points for CAMPAIGN_KILL_AT=<point>[:n], and stop.")
@as_json
def doctor(warm: bool, kill_points: bool, as_json: bool) -> None:
    """Examine this installation: versions, MPI, Butler, folders, scratch."""
    from campaign.cli.doctor import examine, show

    if kill_points:
        _show_kill_points(as_json)
        return

    found = examine(os.environ, warm=warm)
    show(found, as_json)
    raise SystemExit(0 if all(f.ok for f in found) else 3)


def _show_kill_points(as_json: bool) -> None:
    from campaign import console
    from campaign.killpoints import DECISIONS, DRIVER, KERNEL

    known = {"driver": DRIVER, "kernel": KERNEL, "decision": DECISIONS}
    if as_json:
        console.emit(known)
        return
    rows = [(process, *row) for process, points in known.items() for row in points.items()]
    console.table(("process", "point", "what is true there"), rows)
