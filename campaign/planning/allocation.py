"""Decide where a step runs, and what its jobs request from a site's scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.jobs.launch import cores
from campaign.journal.plan import Group, PlanTask
from campaign.kinds.draft import GroupDraft
from campaign.planning.cost import Cost, cost_of, pixels_of, sizes_of
from campaign.planning.usage import Expected, expected, raw_pixels, work_of
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


def gang_ranks(site: Site | None, asked: int | None, tasks: int) -> int:
    """Give the MPI ranks of a gang; a scheduler is asked for at most one a task, unless ``asked`` says otherwise."""
    many = slots(site, asked)
    return many if asked or site is None or not site.scheduler.queued else min(many, tasks)


def available_mib() -> int:
    """Give the free memory of this machine, MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) >> 10


def at_site(groups: Sequence[Group], site: Site | None, asked: int | None) -> list[Group]:
    """Give the groups with their gangs sized for a site."""
    return [
        replace(group, ranks=gang_ranks(site, asked, len(group.tasks))) if group.kind == "gang" else group
        for group in groups
    ]


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
    raw, pixels, many = raw_pixels(camera), pixels_of(camera), slots(site, asked)
    jobs = {draft.label: [task.job for task in tasks] for draft, tasks in drafts}
    whole = {d.label: work_of(raw, jobs[d.label], many if d.kind == "gang" else 1) for d, _ in drafts}
    seen = expected(step.home, camera["name"], whole)
    groups = []
    for draft, tasks in drafts:
        known = seen.get(draft.label)
        ranks = _ranks(site, asked, len(tasks), known) if draft.kind == "gang" else 1
        one = work_of(raw, jobs[draft.label], ranks)
        cost = cost_of(draft.label, draft.kernel, one, sizes_of(pixels, tasks), known)
        groups.append(
            Group(
                label=draft.label,
                kernel=draft.kernel,
                kind=draft.kind,
                ranks=ranks,
                fused=draft.fused,
                config=draft.config,
                tasks=tasks,
                needs=draft.needs,
                resources=resources(step.config, cost),
                policy=policy(step.config, draft.label),
            )
        )
    return groups


def _ranks(site: Site | None, asked: int | None, tasks: int, seen: Expected | None) -> int:
    """Give the ranks of a gang; on this machine no more than fit in memory, by earlier runs."""
    many = gang_ranks(site, asked, tasks)
    if asked or (site and site.scheduler.queued) or seen is None:
        return many
    return max(1, min(many, available_mib() // seen.rank_mib))


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
