"""A campaign from measured costs, by sites and nodes: ``python -P -m tests.benchmarks.model [FILE]`` prints a table.

Steps follow one another; a step is a driver's share and one gang a pass.  A gang
ends when its slowest site does; a site's gang takes the start of its ranks, and
then the longer of its work and of its bytes through the site's file system.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from math import ceil
from pathlib import Path
from typing import Any

from campaign.documents import load_plain
from campaign.jobs.launch import START_SHARE

INPUTS = Path(__file__).with_suffix(".yaml")
MB, GB = 1e6, 1e9


@dataclass(frozen=True)
class Costs:
    """Costs of a camera, its nodes and its sites.

    Parameters
    ----------
    detectors, cores : `int`
        Of the camera; of a node.
    raw_mb, product_mb, calibration_mb : `float`
        A raw; a product; what of a calibration is read for a detector's frames.
    start_s : `float`
        Of a rank.
    step_s, task_s : `float`
        Of the driver, by step and by task of each gang.
    file_system_gb_s, home_gb_s : `float`
        Of a site's file system; between a site and the archive.
    """

    detectors: int
    cores: int
    raw_mb: float
    product_mb: float
    calibration_mb: float
    start_s: float
    step_s: float
    task_s: float
    file_system_gb_s: float
    home_gb_s: float


@dataclass(frozen=True)
class Step:
    """A step of the campaign; ``again``: an earlier step counts its raws."""

    exposures: int
    cpu_s: float
    passes: int = 1
    calibrations: int = 0
    again: bool = False


@dataclass(frozen=True)
class Total:
    """Totals: CPU s of the work and of ranks that start, bytes, and s of wall time with its parts."""

    work_s: float = 0.0
    start_cpu_s: float = 0.0
    read: float = 0.0
    written: float = 0.0
    wall_s: float = 0.0
    driver_s: float = 0.0
    start_s: float = 0.0
    home_s: float = 0.0

    def __add__(self, other: Total) -> Total:
        """Add two, one after the other."""
        return Total(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def shares(detectors: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Give each site its detectors; the first ones take what rounding leaves."""
    found = {site: int(detectors * fraction) for site, fraction in fractions.items()}
    for site in list(found)[: detectors - sum(found.values())]:
        found[site] += 1
    return found


def _gang(costs: Costs, step: Step, detectors: int, nodes: int, last: bool) -> tuple[Total, float]:
    """Give one pass of a step at one site, without the driver; and the bytes that it brings to the archive.

    A gang has the ranks that the product gives it: one a core, a task at most, and as many as the work is worth.
    """
    work = step.exposures * detectors * step.cpu_s / step.passes
    ranks = min(nodes * costs.cores, detectors, max(1, int(START_SHARE * work / costs.start_s)))
    calibrations = detectors * step.calibrations * costs.calibration_mb
    read = (step.exposures * detectors * costs.raw_mb + calibrations) * MB
    written = detectors * costs.product_mb * MB if last else 0.0
    busy = max(work / ranks, (read + written) / (costs.file_system_gb_s * GB))
    wall = costs.start_s + busy
    return Total(work, ranks * costs.start_s, read, written, wall, start_s=costs.start_s), written


def _pass(costs: Costs, step: Step, parts: Mapping[str, int], nodes: int, last: bool) -> Total:
    """Give one pass of a step at all sites; the first one is the archive."""
    gangs = {site: _gang(costs, step, detectors, nodes, last) for site, detectors in parts.items() if detectors}
    archive = next(iter(parts))
    homes = {site: 0.0 if site == archive else written / (costs.home_gb_s * GB) for site, (_, written) in gangs.items()}
    slowest = max(gangs, key=lambda site: gangs[site][0].wall_s + homes[site])
    driver = costs.task_s * costs.detectors
    return Total(
        sum(one.work_s for one, _ in gangs.values()),
        sum(one.start_cpu_s for one, _ in gangs.values()),
        sum(one.read for one, _ in gangs.values()),
        sum(one.written for one, _ in gangs.values()),
        gangs[slowest][0].wall_s + homes[slowest] + driver,
        driver,
        gangs[slowest][0].start_s,
        homes[slowest],
    )


def campaign(costs: Costs, steps: Mapping[str, Step], fractions: Mapping[str, float], nodes: int) -> Total:
    """Add up a campaign.

    Parameters
    ----------
    fractions : mapping
        By site, its share of the detectors; the archive comes first.
    nodes : `int`
        Of each site.
    """
    total, parts = Total(), shares(costs.detectors, fractions)
    for step in steps.values():
        total += Total(wall_s=costs.step_s, driver_s=costs.step_s)
        for number in range(step.passes):
            total += _pass(costs, step, parts, nodes, last=number == step.passes - 1)
    return total


def read(path: Path) -> tuple[Costs, dict[str, Step], dict[str, Any]]:
    """Read the inputs: costs, steps, and the rest."""
    plain = load_plain(path)
    costs = Costs(**{one.name: plain.pop(one.name) for one in fields(Costs)})
    return costs, {name: Step(**step) for name, step in plain.pop("steps").items()}, plain


def _row(sites: str, nodes: int, total: Total) -> str:
    parts = (total.driver_s, total.start_s, total.home_s)
    rest = total.wall_s - sum(parts)
    hours, bytes_ = (total.work_s, total.start_cpu_s), (total.read, total.written)
    cells = [sites, nodes, *(f"{cpu / 3600:.1f}" for cpu in hours), *(f"{size / 1e12:.2f}" for size in bytes_)]
    cells += [ceil(total.wall_s), *(f"{part:.0f}" for part in (*parts, rest))]
    return f"| {' | '.join(map(str, cells))} |"


def lines(path: Path) -> Iterator[str]:
    """Write the model's answer as Markdown."""
    costs, steps, rest = read(path)
    raws = costs.detectors * sum(step.exposures for step in steps.values() if not step.again)
    names = ("sites", "nodes of each", "core-hours of work", "of starting ranks", "TB read", "TB written", "wall s",
             "driver s", "start s", "way home s", "work or file system s")  # fmt: skip
    yield f"{raws} raws, {len(steps)} steps, {sum(step.passes for step in steps.values())} gangs."
    yield ""
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"
    for sites, fractions in rest["sites"].items():
        for nodes in rest["nodes"]:
            yield _row(sites, nodes, campaign(costs, steps, fractions, nodes))
    yield ""
    peer = rest["peer"]
    yield f"{peer['name']}: {peer['cpu_s']:g} CPU s a raw, {raws * peer['cpu_s'] / 3600:.0f} core-hours for as many."


if __name__ == "__main__":
    print("\n".join(lines(Path(sys.argv[1]) if len(sys.argv) > 1 else INPUTS)))
