"""The entry of a run in the home's list, even if its submitter was killed before writing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.console import say
from campaign.errors import CampaignError
from campaign.home import Home
from campaign.journal import claim
from campaign.journal import plan as plans
from campaign.journal.plan import Plan
from campaign.lines import numbered
from campaign.planning import order as orders
from campaign.wording import command

if TYPE_CHECKING:
    from campaign.butler.repository import Repository


def entry_of(plan: Plan, template: str, nonce: str) -> dict[str, Any]:
    """Describe a run for the home's list: with the name of its template, and the nonce of its order."""
    return {
        "run": plan.run,
        "template": template,
        "ticket": plan.ticket,
        "output": plan.output,
        "output_run": plan.output_run,
        "product": plan.product,
        "detectors": [d["detector"] for d in plan.wanted(plan.product)],
        "submit_path": plan.submit_path,
        "nonce": nonce,
        "made_from": sorted(plan.made_from),
    }


def unlisted(home: Home, beside: Path) -> list[tuple[Plan, orders.Order]]:
    """Find this home's planned runs, in a folder of runs, whose submitters were killed before they listed them."""
    known = {line.get("run") for _, line in numbered(home.runs_file)}  # includes removed ones
    found = []
    for folder in sorted(beside.iterdir()) if beside.is_dir() else ():
        owner = claim.read(folder)
        if owner is None or owner.alive is not False or not (folder / "plan.json").is_file():
            continue
        try:
            plan, order = plans.load(folder / "plan.json"), orders.read(folder)
        except CampaignError:  # another release's, or damaged: it cannot be restarted
            continue
        if plan.run not in known and order.variables.get("CAMPAIGN_HOME") == str(home.path.absolute()):
            found.append((plan, order))
    return found


def list_unlisted(home: Home, repository: Repository, beside: Path) -> None:
    """List runs that own their output RUN and are in no list, so that they are shown, restarted and removed."""
    for plan, order in unlisted(home, beside):
        if repository.run_owner(plan.output_run).run == plan.run:
            home.add_run(entry_of(plan, Path(order.template).name, order.nonce))
            say(f"listed      {plan.run}, of a submission that was killed; {command('restart', plan.run)} resumes it")
