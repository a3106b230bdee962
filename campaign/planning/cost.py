"""Estimate the time and memory of a plan from the camera's geometry and the number of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from campaign.jobs.launch import START_SECONDS
from campaign.kinds import table
from campaign.planning.usage import Expected, Work, works

if TYPE_CHECKING:
    from campaign.journal.plan import Plan, PlanTask

#: CPU time of a task beside its pixels, second: files opened, written, synced.
TASK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class Cost:
    """Time and memory of one group of tasks.

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
        `None` without an earlier run.
    seen : `int`
        Number of earlier runs behind the estimate; 0: it is from the camera's geometry.
    ranks_by : `str`
        See `campaign.journal.plan.Group`.
    """

    label: str
    ranks: int
    tasks: int
    cpu_seconds: float
    rank_mib: int
    output_mib: float
    wall_seconds: float | None = None
    seen: int = 0
    ranks_by: str = ""


def pixels_of(camera: Mapping[str, Any]) -> dict[int, int]:
    """Count the pixels of the assembled detectors, by detector of a camera as plans have it."""
    sizes = {name: kind["size"][0] * kind["size"][1] for name, kind in camera["types"].items()}
    return {detector["id"]: sizes[detector["type"]] for detector in camera["detectors"]}


def sizes_of(pixels: Mapping[int, int], tasks: Sequence[PlanTask]) -> list[int]:
    """Give the pixels of the detector of each task that has one."""
    return [pixels[task.job.detector] for task in tasks if task.job.detector is not None]


def work_by_geometry(kernel: str, one: Work) -> float:
    """Estimate the CPU time of the work itself, second: frames read, and as much again as one for each product."""
    mpixels = one.mpixels + one.tasks * one.frame / 1e6
    return TASK_SECONDS * one.tasks + mpixels / table.cost(kernel).mpixels_per_second


def by_geometry(kernel: str, one: Work) -> float:
    """Estimate the CPU time of all ranks, second, their start included."""
    return START_SECONDS * one.ranks + work_by_geometry(kernel, one)


def cost_of(
    label: str, kernel: str, one: Work, sizes: Sequence[int], seen: Expected | None, ranks_by: str = ""
) -> Cost:
    """Estimate a group: by earlier runs of its label, else by the camera's geometry.

    Parameters
    ----------
    one : `Work`
        Work of the group.
    sizes : sequence of `int`
        Pixels of the detector of each task that has one.
    """
    model = table.cost(kernel)
    output_mib = sum(sizes) * model.output_bytes / 2**20
    if seen is not None:
        spent = seen.cpu_s, seen.rank_mib, output_mib, seen.wall_s, seen.runs
        return Cost(label, one.ranks, one.tasks, *spent, ranks_by)
    blocks = model.blocks_mib if sizes else 0
    rank_mib = model.base_mib + blocks + (max(sizes, default=0) * model.pixel_bytes >> 20)
    return Cost(label, one.ranks, one.tasks, by_geometry(kernel, one), rank_mib, output_mib, ranks_by=ranks_by)


def estimate(plan: Plan, seen: Mapping[str, Expected] = MappingProxyType({})) -> list[Cost]:
    """Estimate every group of a plan; ``seen`` is by label."""
    wanted, pixels = works(plan), pixels_of(plan.camera)
    return [
        cost_of(g.label, g.kernel, wanted[g.label], sizes_of(pixels, g.tasks), seen.get(g.label), g.ranks_by)
        for g in plan.groups
    ]
