"""What a plan will cost, estimated from the camera's geometry and the number of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from campaign.plan import Group, Plan
from campaign.usage import Expected

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


def _pixels(camera: dict[str, Any]) -> dict[int, tuple[int, int]]:
    """By detector: raw pixels of a frame, and pixels of the assembled detector."""
    found = {}
    for detector in camera["detectors"]:
        kind = camera["types"][detector["type"]]
        raw = sum(a["raw"][0] * a["raw"][1] for a in kind["amplifiers"])
        found[detector["id"]] = (raw, kind["size"][0] * kind["size"][1])
    return found


def _group(plan: Plan, group: Group) -> Cost:
    pixels = _pixels(dict(plan.camera))
    frames = [
        (pixels[t.job.detector], len(t.job.inputs.get("raw", ()))) for t in group.tasks if t.job.detector is not None
    ]
    read = sum(raw * n for (raw, _), n in frames)
    largest = max((size for (_, size), _ in frames), default=0)
    images = sum(size for (_, size), _ in frames) if group.kernel == "combine" else 0
    return Cost(
        group.label,
        group.ranks,
        len(group.tasks),
        START_SECONDS * group.ranks + read / (MPIXELS_PER_SECOND * 1e6),
        BASE_MIB + (BLOCK_MIB * 3 if frames else 0) + (largest * BYTES_PER_PIXEL >> 20),
        images * PRODUCT_BYTES_PER_PIXEL / 2**20,
    )


def estimate(plan: Plan, seen: Mapping[str, Expected] = MappingProxyType({})) -> list[Cost]:
    """Say what every group of a plan will take: by what was seen of its label, else by the camera's geometry."""
    return [_by_what_was_seen(_group(plan, group), seen.get(group.label)) for group in plan.groups]


def _by_what_was_seen(cost: Cost, seen: Expected | None) -> Cost:
    if seen is None:
        return cost
    return replace(cost, cpu_seconds=seen.cpu_s, rank_mib=seen.rank_mib, wall_seconds=seen.wall_s, seen=seen.runs)
