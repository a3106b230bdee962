"""Estimate a step whose inputs are not made yet: its raw frames are counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from campaign.errors import ConfigurationError
from campaign.frames.ingest import camera_of
from campaign.kinds import table
from campaign.planning.allocation import ranks_by_work, site_of
from campaign.planning.cost import by_geometry
from campaign.planning.derived import is_derived
from campaign.planning.inputs import purposed
from campaign.planning.usage import Work, expected, raw_pixels, work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from campaign.butler.repository import Repository
    from campaign.camera.model import Camera
    from campaign.planning.step import Step


@dataclass(frozen=True)
class Outlook:
    """An estimate of a step."""

    cpu_seconds: float
    #: `None` unless every label has run before.
    wall_seconds: float | None
    #: MPI ranks of the largest gang, and what decided them (`campaign.planning.allocation.gang_ranks`).
    ranks: int = 1
    ranks_by: str = ""


def outlook(step: Step, repository: Repository) -> Outlook:
    """Estimate a step by earlier runs of its labels, else by the camera's geometry.

    Raises
    ------
    ConfigurationError
        The step's selection finds nothing, or cannot be read.
    """
    camera = camera_of(step.home, step.config.instrument)
    derived = is_derived(step.pipeline)
    counts = dict.fromkeys(camera.detector_ids("SCIENCE"), 0) if derived else _counts(step, repository, camera)
    pixels = raw_pixels(camera.plain(sorted(counts)))
    wanted = _works(step, counts, pixels)
    seen, kernels = expected(step.home, camera.name, wanted), {t.label: t.kernel for t in step.pipeline.tasks.values()}
    site, _ = site_of(step)
    gangs = {task.label for task in step.pipeline.tasks.values() if task.kind == "gang"}
    cpu, walls, most = 0.0, list[float](), (1, "")
    for label, one in wanted.items():
        known = seen.get(label)
        ranks = ranks_by_work(site, None, kernels[label], one, known) if label in gangs else (1, "")
        most = max(most, ranks, key=lambda many: many[0])
        cpu += known.cpu_s if known else by_geometry(kernels[label], replace(one, ranks=ranks[0]))
        walls += [known.shared(ranks[0]).wall_s] if known else []
    return Outlook(cpu, sum(walls) if len(walls) == len(wanted) else None, *most)


def _counts(step: Step, repository: Repository, camera: Camera) -> dict[int, int]:
    """Count the raws of each detector."""
    query = step.config.data_query
    there = [name for name in step.config.in_collections if repository.collection_type(name)]
    found = repository.count_raws(there, query)
    counts = {detector: found[detector] for detector in sorted(purposed(found.keys(), camera, query))}
    if not counts:
        raise ConfigurationError("the selection finds no raw frame", where=step.query_place)
    return counts


def _works(step: Step, counts: Mapping[int, int], pixels: Mapping[int, int]) -> dict[str, Work]:
    """Give the work of every label that runs as jobs of its own, for one rank."""
    found = dict[str, Work]()
    for label, task in step.pipeline.tasks.items():
        if task.kind == "gang":
            frames = [(d, n if table.tasks()[task.cls].raws else 0) for d, n in counts.items()]
            found[label] = work(pixels, frames, len(counts), 1)
        elif task.kind == "serial":
            found[label] = work(pixels, [], 1, 1)
        elif task.config.get("doWrite"):
            found[label] = work(pixels, list(counts.items()), sum(counts.values()), 1)
    return found
