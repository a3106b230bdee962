"""What a plan will cost, estimated from the camera's geometry and the number of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from campaign.journal.plan import Group, Plan
from campaign.planning.usage import Expected, Work, works

#: Mpixel a second and core, compressed raws to corrected rows; what reading alone does bounds it.
MPIXELS_PER_SECOND = 40.0
START_SECONDS = 1.0
BASE_MIB = 250
BLOCK_MIB = 64
#: A combine holds image, mask, variance and what it fills them from.
BYTES_PER_PIXEL = 40
PRODUCT_BYTES_PER_PIXEL = 12


@dataclass(frozen=True)
class Cost:
    """What one group of tasks will take.

    Parameters
    ----------
    label : `str`
    ranks, tasks : `int`
    cpu_seconds : `float`
        Of all ranks.
    rank_mib : `int`
        Memory of a rank, MiB.
    output_mib : `float`
        Files written, MiB.
    wall_seconds : `float` or `None`
        Only where it was seen.
    seen : `int`
        Runs that it is taken from; 0: estimated from the camera's geometry.
    """

    label: str
    ranks: int
    tasks: int
    cpu_seconds: float
    rank_mib: int
    output_mib: float
    wall_seconds: float | None = None
    seen: int = 0


def _pixels(camera: Mapping[str, Any]) -> dict[int, int]:
    """Pixels of the assembled detector, by detector."""
    sizes = {name: kind["size"][0] * kind["size"][1] for name, kind in camera["types"].items()}
    return {detector["id"]: sizes[detector["type"]] for detector in camera["detectors"]}


def by_geometry(one: Work) -> float:
    """CPU of all ranks, second, where nothing was seen."""
    return START_SECONDS * one.ranks + one.mpixels / MPIXELS_PER_SECOND


def _group(plan: Plan, group: Group, one: Work) -> Cost:
    pixels = _pixels(plan.camera)
    sizes = [pixels[t.job.detector] for t in group.tasks if t.job.detector is not None]
    largest = max(sizes, default=0)
    images = sum(sizes) if group.kernel == "combine" else 0
    return Cost(
        group.label,
        group.ranks,
        len(group.tasks),
        by_geometry(one),
        BASE_MIB + (BLOCK_MIB * 3 if sizes else 0) + (largest * BYTES_PER_PIXEL >> 20),
        images * PRODUCT_BYTES_PER_PIXEL / 2**20,
    )


def estimate(plan: Plan, seen: Mapping[str, Expected] = MappingProxyType({})) -> list[Cost]:
    """Say what every group of a plan will take: by what was seen of its label, else by the camera's geometry."""
    wanted = works(plan)
    return [_by_what_was_seen(_group(plan, g, wanted[g.label]), seen.get(g.label)) for g in plan.groups]


def _by_what_was_seen(cost: Cost, seen: Expected | None) -> Cost:
    if seen is None:
        return cost
    return replace(cost, cpu_seconds=seen.cpu_s, rank_mib=seen.rank_mib, wall_seconds=seen.wall_s, seen=seen.runs)
