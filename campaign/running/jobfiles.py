"""Job files of a plan's groups, and the files that their tasks write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from campaign.jobs.file import JobFile
from campaign.journal.plan import Group, Plan, PlanTask


def write(
    plan: Plan, group: Group, tasks: Sequence[PlanTask], attempt: int, site: str, token: int, chunk: int | None = None
) -> Path:
    """Write the job file of some tasks of a group.

    Parameters
    ----------
    attempt : `int`
        Of the group; part of the file's name.
    site : `str`
    token : `int`
        Fencing token.
    chunk : `int`, optional
        Number of a chunk of quanta, which one process runs; without it the job has the group's ranks.
    """
    used = {key for task in tasks for keys in task.job.inputs.values() for key in keys}
    name = f"{group.label}.{attempt}" + ("" if chunk is None else f".{chunk}")
    job = JobFile(
        kernel=group.kernel,
        run=plan.run,
        ranks=group.ranks if chunk is None else 1,
        journal=str(plan.journal / name),
        camera=_seen(plan.camera, tasks),
        config=group.config,
        files={key: plan.files[key] for key in sorted(used)},
        tasks=[task.job for task in tasks],
        attempt=attempt,
        site=site,
        token=token,
    )
    return job.write(plan.folder / "jobs" / f"{name}.json")


def _seen(camera: Mapping[str, Any], tasks: Sequence[PlanTask]) -> Mapping[str, Any]:
    """Reduce a camera to the detectors of some tasks, if each task has one: a chunk reads no more than it needs."""
    wanted = {task.job.detector for task in tasks}
    if None in wanted or not camera:
        return camera
    return {**camera, "detectors": [d for d in camera["detectors"] if d["id"] in wanted]}


def outputs(group: Group, tasks: Sequence[PlanTask]) -> Iterator[str]:
    """Paths that tasks write: products, and their inputs tables, as `kernels.products.levels` names these."""
    yield from (output.path for task in tasks for output in task.outputs)
    if table := group.config.get("inputs_table"):
        yield from (f"{table}/{task.name.replace(':', '_')}.csv" for task in tasks)
