"""Choose where a plan runs, as the operator asked: on this machine, at one site, or at several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from campaign.planning.allocation import require_release, site_of, slots
from campaign.running.placement import probe as probe_site
from campaign.running.placement import run_at

if TYPE_CHECKING:
    from campaign.journal.plan import Plan
    from campaign.planning.order import Order
    from campaign.planning.step import Step
    from campaign.running.runner import Run


def overrides(step: Step, order: Order, probe: bool = True) -> list[str]:
    """Compare the releases of the sites with this one, before anything is planned; note what was overridden.

    ``probe`` asks the sites, if there are several.

    Raises
    ------
    CampaignError
        A site is unknown, cannot be used, or has another release.
    """
    if order.sites:
        from campaign.federation import participants

        return participants.overrides(step, order, probe)
    site, _ = site_of(step)
    return require_release(site, order.override) if site else []


def execution(
    step: Step, plan: Plan, order: Order, say: Callable[[str], None], probe: bool = True
) -> tuple[Run, Sequence[Mapping[str, Any]]]:
    """Decide how a plan is run.

    Parameters
    ----------
    probe : `bool`
        Check that schedulers answer, and would take the jobs.

    Returns
    -------
    run : callable
        Runs it; see `campaign.runs.drive.drive`.
    shares : sequence of `dict`
        The share of each of several sites; see `campaign.federation.driver.shares`.

    Raises
    ------
    CampaignError
        A site is unknown, or cannot be used.
    """
    if order.sites:
        from campaign.federation.participants import federate

        return federate(step, plan, order, say, probe)
    site, _ = site_of(step)
    if probe:
        probe_site(site, plan.groups)
    return run_at(site, slots(site, order.ranks)), ()
