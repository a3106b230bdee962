"""A campaign as it stands, for showing: states, costs, staleness."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from campaign.events import read as read_events
from campaign.home import Home
from campaign.plan import load
from campaign.plans import Campaign
from campaign.plans_draw import Row
from campaign.plans_state import Books, StepState, look


def rows(campaign: Campaign, home: Home, books: Books, stale: bool) -> dict[str, Row]:
    """Every step as it is shown.

    Parameters
    ----------
    stale : `bool`
        Ask the repository what is stale.
    """
    states = look(campaign, home, books.lines())
    reasons = _stale(states) if stale else {}
    return {name: Row(state, *_spent(state), reasons.get(name, ())) for name, state in states.items()}


def _spent(state: StepState) -> tuple[float | None, float | None]:
    """CPU and wall time of a step's run, second; `None` where there is none."""
    events = read_events(Path(state.folder) / "journal") if state.folder else []
    if not events:
        return None, None
    wall = datetime.fromisoformat(events[-1].t) - datetime.fromisoformat(events[0].t)
    cpu = sum(float(e.detail.get("cpu_s", 0.0)) for e in events if e.event == "published")
    return cpu, wall.total_seconds()


def _stale(states: Mapping[str, StepState]) -> dict[str, tuple[str, ...]]:
    """Why what is made is stale, by step."""
    made = {name: Path(state.folder) for name, state in states.items() if state.state in ("gate", "made", "done")}
    if not made:
        return {}
    from campaign.repository import open_repository
    from campaign.staleness import stale

    plans = {name: load(folder / "plan.json") for name, folder in made.items()}
    (root,) = {plan.repository for plan in plans.values()}
    with open_repository(root) as repository:
        return {name: tuple(reason.text for reason in stale(plan, repository)) for name, plan in plans.items()}
