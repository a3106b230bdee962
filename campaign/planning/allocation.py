"""Decide where a step runs, and what its jobs request from a site's scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.jobs.launch import cores, worthwhile
from campaign.journal.plan import Group, PlanTask
from campaign.kinds.draft import GroupDraft
from campaign.planning.cost import Cost, cost_of, pixels_of, sizes_of, work_by_geometry
from campaign.planning.usage import Expected, Work, expected, raw_pixels, work_of
from campaign.schedulers.protocol import MEMORY_MIB, MINUTES
from campaign.template.resolve import StepConfig

if TYPE_CHECKING:
    from campaign.planning.step import Step
    from campaign.sites.model import Site

#: Least request where earlier runs decide it, and the factor on their time.
LEAST_MIB, LEAST_MINUTES, WALL_MARGIN = 256, 10, 3.0


def site_of(step: Step) -> tuple[Site | None, list[str]]:
    """Give the site that a step runs at, `None` for this machine, and notes for the operator.

    A template may come from elsewhere and name a site of another system; the
    command line may not.

    Raises
    ------
    UsageError
        The command line names an unknown site.
    """
    name = step.config.find("computeSite")
    if not name:
        return None, []
    from campaign.sites.model import find, load

    sites = load(step.environment, step.home)
    if "computeSite" in step.config.command_line or name in sites:
        return find(sites, str(name)), []
    return None, [f"computeSite: there is no site {name!r} (campaign sites lists them): this machine is used"]


def require_release(site: Site, override: bool) -> list[str]:
    """Refuse a site of another release; if that is overridden, give notes.

    Raises
    ------
    SubmissionRefused
        The releases differ.
    """
    from campaign.sites.model import check_release

    return check_release([site], override)


def slots(site: Site | None, asked: int | None) -> int:
    """Give the number of processes of a run at a site, workers of quanta included.

    Parameters
    ----------
    asked : `int` or `None`
        ``--ranks``; else the site file's ranks, else the cores of its nodes, else those of this machine.
    """
    return asked or (site and (site.scheduler.ranks or site.scheduler.node_cores)) or cores()


def gang_ranks(
    site: Site | None, asked: int | None, tasks: int, seconds: float, rank_mib: int | None = None
) -> tuple[int, str]:
    """Give the MPI ranks of a gang, and the setting or limit that decides.

    Parameters
    ----------
    asked : `int` or `None`
        ``--ranks``, which has priority over all else; then comes the site file's ``ranks``.
    tasks : `int`
        A scheduler is asked for at most one rank a task, unless ``asked`` says otherwise.
    seconds : `float`
        CPU time of the work; see `campaign.jobs.launch.worthwhile`.
    rank_mib : `int`, optional
        Memory of a rank by earlier runs, MiB: on this machine, all ranks must fit.

    Returns
    -------
    ranks : `int`
    by : `str`
        ``--ranks``, ``site file``, ``cores``, ``tasks``, ``work`` or ``memory``.
    """
    if asked:
        return asked, "--ranks"
    queued = site is not None and site.scheduler.queued
    said = site is not None and site.scheduler.ranks is not None
    limits = {"site file" if said else "cores": slots(site, None)}
    if queued:
        limits["tasks"] = tasks
    if not said:
        limits["work"] = worthwhile(seconds)
        if rank_mib and not queued:
            limits["memory"] = max(1, available_mib() // rank_mib)
    by = min(limits, key=limits.__getitem__)  # of equal limits the first
    return limits[by], by


def available_mib() -> int:
    """Give the free memory of this machine, MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) >> 10


def at_site(groups: Sequence[Group], camera: Mapping[str, Any], site: Site | None, asked: int | None) -> list[Group]:
    """Give the groups, of a plan or a part of one, with their gangs sized for a site by the camera's geometry."""
    raw, found = raw_pixels(camera), []
    for group in groups:
        if group.kind == "gang":
            one = work_of(raw, [task.job for task in group.tasks], 1)
            ranks, by = ranks_by_work(site, asked, group.kernel, one, None)
            group = replace(group, ranks=ranks, ranks_by=by)
        found.append(group)
    return found


def sized(
    step: Step,
    site: Site | None,
    asked: int | None,
    camera: Mapping[str, Any],
    drafts: Sequence[tuple[GroupDraft, Sequence[PlanTask]]],
) -> list[Group]:
    """Give groups their ranks, memory, time and retries.

    Parameters
    ----------
    asked : `int` or `None`
        ``--ranks``.
    camera : `dict`
        As plans have it.
    drafts : sequence of (`GroupDraft`, sequence of `PlanTask`)
        Groups, and their tasks with file names.

    Raises
    ------
    SubmissionRefused
        A rank will take more memory than the template's limit.
    """
    raw, pixels = raw_pixels(camera), pixels_of(camera)
    works = {draft.label: work_of(raw, [task.job for task in tasks], 1) for draft, tasks in drafts}
    seen = expected(step.home, camera["name"], works)
    groups = []
    for draft, tasks in drafts:
        known, one, by = seen.get(draft.label), works[draft.label], ""
        if draft.kind == "gang":
            ranks, by = ranks_by_work(site, asked, draft.kernel, one, known)
            one, known = replace(one, ranks=ranks), known and known.shared(ranks)
        cost = cost_of(draft.label, draft.kernel, one, sizes_of(pixels, tasks), known)
        groups.append(
            Group(
                label=draft.label,
                kernel=draft.kernel,
                kind=draft.kind,
                ranks=one.ranks,
                fused=draft.fused,
                config=draft.config,
                tasks=tasks,
                needs=draft.needs,
                resources=resources(step.config, cost),
                policy=policy(step.config, draft.label),
                ranks_by=by,
            )
        )
    return groups


def ranks_by_work(
    site: Site | None, asked: int | None, kernel: str, one: Work, seen: Expected | None
) -> tuple[int, str]:
    """Give the ranks of a gang by earlier runs, else by the camera's geometry; see `gang_ranks`."""
    if seen is None:
        return gang_ranks(site, asked, one.tasks, work_by_geometry(kernel, one))
    return gang_ranks(site, asked, one.tasks, seen.cpu_s, seen.rank_mib)


def resources(config: StepConfig, cost: Cost) -> dict[str, int]:
    """Decide the request of a group's jobs: by the template, else by earlier runs, else by the estimate.

    Raises
    ------
    SubmissionRefused
        A rank will take more memory than the template's limit.
    """
    asked = int(config.resource(cost.label, "requestMemory") or MEMORY_MIB)
    if cost.seen and not config.chosen("requestMemory"):
        memory = max(LEAST_MIB, math.ceil(cost.rank_mib))
    else:
        memory = asked if cost.seen else max(asked, math.ceil(cost.rank_mib))
    limit = int(config.resource(cost.label, "memoryLimit") or memory)
    if memory > limit:
        raise SubmissionRefused(
            f"{cost.label}: a rank takes {memory} MiB, memoryLimit is {limit} MiB", where=config.path, do="raise it"
        )
    cores, minutes = (config.resource(cost.label, key) for key in ("requestCpus", "requestWalltime"))
    if not minutes and cost.wall_seconds is not None:
        minutes = max(LEAST_MINUTES, math.ceil(WALL_MARGIN * cost.wall_seconds / 60))
    return {"memory_mib": memory, "cores": int(cores or 1), "minutes": int(minutes or MINUTES)}


def policy(config: StepConfig, label: str) -> dict[str, Any]:
    """Give the retry policy of a label from the template.

    Raises
    ------
    ConfigurationError
        ``retryUnlessExit`` is neither an exit code nor a list of them.
    """
    said = {key: config.resource(label, key) for key in ("numberOfRetries", "memoryMultiplier", "memoryLimit")}
    unless = config.resource(label, "retryUnlessExit")
    codes = unless if isinstance(unless, list) else [unless] if unless is not None else []
    if not all(str(code).isdecimal() for code in codes):
        raise ConfigurationError(
            f"retryUnlessExit {unless!r} is no exit code, and no list of them", where=f"{config.path}: {label}"
        )
    known = {key: value for key, value in said.items() if value is not None}
    return known | {"retryUnlessExit": [int(code) for code in codes]}
