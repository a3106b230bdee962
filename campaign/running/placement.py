"""The backend of a site, and how a plan is tried out and run there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from campaign.journal.plan import Group
from campaign.running.backend import Backend, Local, Resources
from campaign.running.runner import Run, Runner

if TYPE_CHECKING:
    from campaign.sites.model import Site


def backend_of(site: Site | None, slots: int) -> Backend:
    """The backend of a site; of this machine where there is none, or it has no scheduler.

    Parameters
    ----------
    site : `Site` or `None`
    slots : `int`
        Workers that quanta may have at a site with a scheduler.
    """
    if site is None:
        return Local()
    if site.scheduler is None:
        return Local(site.name)
    from campaign.running.slurm import Slurm

    return Slurm(site.name, site.scheduler, slots)


def run_at(site: Site | None, many: int) -> Run:
    """How a plan is run at a site.

    Parameters
    ----------
    many : `int`
        Workers that quanta may have there.
    """
    backend = backend_of(site, many)
    return lambda plan, listener: Runner(plan, listener, backend).run()


def probe(site: Site | None, groups: Sequence[Group]) -> None:
    """See that a site would take the jobs of a plan's groups, before anything is claimed.

    Raises
    ------
    Refused
        Its scheduler does not answer, or does not take them.
    """
    jobs: list[tuple[int, Resources]] = []
    for group in groups:
        job = group.ranks, group.resources
        if job not in jobs:
            jobs.append(job)
    backend_of(site, 1).probe(jobs)
