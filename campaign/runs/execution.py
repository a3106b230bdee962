"""Choose what runs a plan, as the operator asked: this machine, one site, or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from campaign.planning.allocation import require_release, site_of, slots
from campaign.running.placement import probe as probe_site
from campaign.running.placement import run_at

if TYPE_CHECKING:
    from campaign.journal.plan import Plan
    from campaign.planning.order import Order
    from campaign.planning.step import Step
    from campaign.running.runner import Run


def execution(
    step: Step, plan: Plan, order: Order, say: Callable[[str], None], probe: bool = True
) -> tuple[Plan, Run, Sequence[Mapping[str, Any]]]:
    """Decide how a plan is run.

    Parameters
    ----------
    probe : `bool`
        See that schedulers answer, and would take the jobs; nobody is asked without.

    Returns
    -------
    plan : `Plan`
        With notes on what was overridden.
    run : callable
        Runs it; see `campaign.runs.drive.drive`.
    shares : sequence of `dict`
        What each of several sites will be given; see `campaign.federation.driver.shares`.

    Raises
    ------
    CampaignError
        A site that is none, cannot be used, or has another release.
    """
    if order.sites:
        from campaign.federation.participants import federate

        return federate(step, plan, order, say, probe)
    site, _ = site_of(step)
    notes = require_release(site, order.override) if site else []
    if probe:
        probe_site(site, plan)
    return replace(plan, notes=[*plan.notes, *notes]), run_at(site, slots(site, order.ranks)), ()
