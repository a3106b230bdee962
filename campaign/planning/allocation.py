"""Where a step runs, and what its jobs ask a site's scheduler for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.jobs.launch import cores
from campaign.journal.plan import Group, Plan
from campaign.planning.cost import Cost, estimate
from campaign.planning.usage import Expected
from campaign.schedulers.protocol import MEMORY_MIB, MINUTES
from campaign.template.resolve import StepConfig

if TYPE_CHECKING:
    from campaign.planning.step import Step
    from campaign.sites.model import Site

#: What is asked for at least where it goes by what was seen; and how much more time than that.
LEAST_MIB, LEAST_MINUTES, WALL_MARGIN = 256, 10, 3.0


def site_of(step: Step) -> tuple[Site | None, list[str]]:
    """The site that a step runs at, `None` for this machine, and what the operator should know of it.

    A template may come from elsewhere and name a site of another system; the
    command line may not.

    Raises
    ------
    UsageError
        The command line names a site that there is not.
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
    """See that a site has this release; say so where a difference is overridden.

    Raises
    ------
    SubmissionRefused
        It has another.
    """
    from campaign.sites.model import check_release

    return check_release([site], override)


def slots(site: Site | None, asked: int | None) -> int:
    """Processes that a run may keep busy at a site, workers of quanta among them.

    Parameters
    ----------
    asked : `int` or `None`
        ``--ranks``; without it the site's file says, else the size of its nodes, else this machine.
    """
    return asked or (site and (site.scheduler.ranks or site.scheduler.node_cores)) or cores()


def gang_ranks(site: Site | None, asked: int | None, tasks: int) -> int:
    """MPI ranks of a gang: at a site with a scheduler, where nobody asked for more, no more than it has tasks."""
    many = slots(site, asked)
    return many if asked or site is None or not site.scheduler.queued else min(many, tasks)


def available_mib() -> int:
    """Memory of this machine that nobody uses, MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) >> 10


def with_ranks(
    plan: Plan, site: Site | None, asked: int | None, seen: Mapping[str, Expected] = MappingProxyType({})
) -> Plan:
    """The plan with its gangs as large as they are at a site; here no larger than there is memory for."""

    def ranks(group: Group) -> int:
        many = gang_ranks(site, asked, len(group.tasks))
        if asked or (site and site.scheduler.queued) or group.label not in seen:
            return many
        return max(1, min(many, available_mib() // seen[group.label].rank_mib))

    groups = [replace(group, ranks=ranks(group)) if group.kind == "gang" else group for group in plan.groups]
    return replace(plan, groups=groups)


def resources(config: StepConfig, group: Group, cost: Cost) -> dict[str, int]:
    """What a group's jobs ask for: as the template says, else by what earlier runs took, else by the estimate.

    Raises
    ------
    SubmissionRefused
        A rank will take more memory than the template's limit.
    """
    asked = int(config.resource(group.label, "requestMemory") or MEMORY_MIB)
    if cost.seen and not config.chosen("requestMemory"):
        memory = max(LEAST_MIB, math.ceil(cost.rank_mib))
    else:
        memory = asked if cost.seen else max(asked, math.ceil(cost.rank_mib))
    limit = int(config.resource(group.label, "memoryLimit") or memory)
    if memory > limit:
        raise SubmissionRefused(
            f"{group.label}: a rank takes {memory} MiB, memoryLimit is {limit} MiB", where=config.path, do="raise it"
        )
    cores, minutes = (config.resource(group.label, key) for key in ("requestCpus", "requestWalltime"))
    if not minutes and cost.wall_seconds is not None:
        minutes = max(LEAST_MINUTES, math.ceil(WALL_MARGIN * cost.wall_seconds / 60))
    return {"memory_mib": memory, "cores": int(cores or 1), "minutes": int(minutes or MINUTES)}


def policy(config: StepConfig, group: Group) -> dict[str, Any]:
    """What is tried again of a group, as the template says.

    Raises
    ------
    ConfigurationError
        ``retryUnlessExit`` is no exit code, and no list of them.
    """
    said = {key: config.resource(group.label, key) for key in ("numberOfRetries", "memoryMultiplier", "memoryLimit")}
    unless = config.resource(group.label, "retryUnlessExit")
    codes = unless if isinstance(unless, list) else [unless] if unless is not None else []
    if not all(str(code).isdecimal() for code in codes):
        raise ConfigurationError(
            f"retryUnlessExit {unless!r} is no exit code, and no list of them", where=f"{config.path}: {group.label}"
        )
    known = {key: value for key, value in said.items() if value is not None}
    return known | {"retryUnlessExit": [int(code) for code in codes]}


def with_resources(config: StepConfig, plan: Plan, seen: Mapping[str, Expected] = MappingProxyType({})) -> Plan:
    """The plan with what its jobs ask for.

    Parameters
    ----------
    seen : `dict`
        By label, what earlier runs took.
    """
    groups = [
        replace(group, resources=resources(config, group, cost), policy=policy(config, group))
        for group, cost in zip(plan.groups, estimate(plan, seen), strict=True)
    ]
    return replace(plan, groups=groups)
