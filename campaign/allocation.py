"""Where a step runs, and what its jobs ask a site's scheduler for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from campaign.backend import backend_of
from campaign.cost import Cost, estimate
from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.plan import Group, Plan
from campaign.runner import Run, Runner
from campaign.template import StepConfig

if TYPE_CHECKING:
    from campaign.sites import Site
    from campaign.step import Step

#: Where a template says nothing: memory of a rank, MiB, and time of a job, minute.
MEMORY_MIB, MINUTES = 2048, 60


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
    from campaign.sites import find, load

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
    from campaign.sites import check_release

    return check_release([site], override)


def resources(config: StepConfig, group: Group, cost: Cost) -> dict[str, int]:
    """What a group's jobs ask for: as the template says, and no less memory than a rank will take.

    Raises
    ------
    SubmissionRefused
        A rank will take more memory than the template's limit.
    """
    memory = max(int(config.resource(group.label, "requestMemory") or MEMORY_MIB), math.ceil(cost.rank_mib))
    limit = int(config.resource(group.label, "memoryLimit") or memory)
    if memory > limit:
        raise SubmissionRefused(
            f"{group.label}: a rank takes {memory} MiB, memoryLimit is {limit} MiB", where=config.path, do="raise it"
        )
    cores, minutes = (config.resource(group.label, key) for key in ("requestCpus", "requestWalltime"))
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


def with_resources(config: StepConfig, plan: Plan) -> Plan:
    """The plan with what its jobs ask for."""
    groups = [
        replace(group, resources=resources(config, group, cost), policy=policy(config, group))
        for group, cost in zip(plan.groups, estimate(plan), strict=True)
    ]
    return replace(plan, groups=groups)


def run_at(site: Site | None, slots: int, probe: bool = True) -> Run:
    """How a plan is run at a site.

    Parameters
    ----------
    slots : `int`
        Workers that quanta may have there.
    probe : `bool`
        See first that the site's scheduler answers.

    Raises
    ------
    Refused
        It does not.
    """
    backend = backend_of(site, slots)
    if probe:
        backend.probe()
    return lambda plan, listener: Runner(plan, listener, backend).run()
