"""The backend of a site, and functions that try out and run a plan there."""

from __future__ import annotations

from collections.abc import Sequence

from campaign.journal.plan import Group
from campaign.running.runner import Run, Runner
from campaign.schedulers.local import Local
from campaign.schedulers.protocol import Backend, Resources
from campaign.sites.model import Site


def backend_of(site: Site | None, slots: int) -> Backend:
    """Make the backend of a site, of this machine without one; at a queue, quanta may have so many workers."""
    return site.backend(slots) if site else Local()


def run_at(site: Site | None, many: int) -> Run:
    """Prepare to run plans at a site, where quanta may have so many workers."""
    backend = backend_of(site, many)
    return lambda plan, listener: Runner(plan, listener, backend).run()


def probe(site: Site | None, groups: Sequence[Group]) -> None:
    """Check that a site would take the jobs of a plan's groups, before anything is claimed.

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
