"""What a plan will cost, estimated from the camera's geometry and the number of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from campaign.plan import Group, Plan

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
    """An estimate for one group of tasks: CPU seconds, memory of a rank (MiB), files written (MiB)."""

    label: str
    ranks: int
    tasks: int
    cpu_seconds: float
    rank_mib: int
    output_mib: float


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


def estimate(plan: Plan) -> list[Cost]:
    """Estimate every group of a plan."""
    return [_group(plan, group) for group in plan.groups]
