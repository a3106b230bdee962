"""The rows of a campaign's display: states, cost so far and to come, staleness."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from campaign.campaigns.document import Campaign
from campaign.campaigns.draw import Row
from campaign.campaigns.state import StepState, look
from campaign.errors import CampaignError
from campaign.home import Home
from campaign.journal.books import Books
from campaign.journal.events import EventName, Journals
from campaign.journal.plan import load

if TYPE_CHECKING:
    from campaign.butler.repository import Repository


def rows(campaign: Campaign, home: Home, books: Books, quick: bool) -> dict[str, Row]:
    """Make the row of every step; ``quick`` asks the repository neither for staleness nor for the cost to come."""
    states = look(campaign, home, books.lines())
    found = {name: Row(state, *_spent(state)) for name, state in states.items()}
    if quick:
        return found
    from campaign.butler.repository import open_repository

    with open_repository(campaign.environment["REPO"]) as repository:
        return {name: _asked(campaign, row, home, repository) for name, row in found.items()}


def _asked(campaign: Campaign, row: Row, home: Home, repository: Repository) -> Row:
    """Add a row's staleness, or its cost to come, from the repository."""
    from campaign.planning.outlook import outlook
    from campaign.planning.staleness import stale
    from campaign.planning.step import Step

    state = row.state
    if state.state in ("gate", "made", "done"):
        try:
            reasons = stale(load(Path(state.folder) / "plan.json"), repository)
        except CampaignError as error:  # the folder was cleared, or an input is gone
            return replace(row, problem=f"not known whether it is stale: {str(error).splitlines()[0]}")
        return replace(row, stale=tuple(reason.text for reason in reasons))
    if state.run:
        return row
    assert state.config is not None
    try:
        ahead = outlook(Step(state.config, campaign.environment, home), repository)
    except CampaignError as error:
        return replace(row, ahead=True, problem=str(error).splitlines()[0])
    row = replace(row, ahead=True, ranks=ahead.ranks, ranks_by=ahead.ranks_by)
    return replace(row, cpu_seconds=ahead.cpu_seconds, wall_seconds=ahead.wall_seconds)


def _spent(state: StepState) -> tuple[float | None, float | None]:
    """Sum up the CPU and wall time of a step's run, second; `None` where it has no run."""
    first, last, cpu = "", "", 0.0
    for event in Journals(Path(state.folder) / "journal").new() if state.folder else ():
        first, last = min(first or event.t, event.t), max(last, event.t)
        if event.event == EventName.PUBLISHED:
            cpu += float(event.detail.get("cpu_s", 0.0))
    if not first:
        return None, None
    return cpu, (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
