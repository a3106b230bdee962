"""End a run, whether its driver lives or not, and leave nothing of it running."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign.errors import TransientError
from campaign.journal import claim, control
from campaign.journal.events import DriverJournal, EventName
from campaign.journal.outcome import last_state
from campaign.journal.plan import Plan, load
from campaign.planning import order as orders
from campaign.planning.allocation import site_of
from campaign.planning.standing import outcome_of
from campaign.running.placement import backend_of

#: Time for a driver to end everything that it has started, second.
PATIENCE_S = 90.0
POLL_S = 0.2
#: Written into the journal on behalf of a driver that is gone.
CANCELLED = {"state": "cancelled", "error": "cancelled"}


def cancel(folder: Path, drain: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """End a run.

    ``drain`` lets the running tasks end, however long that takes.

    Returns
    -------
    found : `dict`
        ``run``, ``state``, and the number of processes or jobs that were left without a driver (``ended``).

    Raises
    ------
    TransientError
        The driver, on another machine, does not answer.
    """
    plan, owner, ended = load(folder / "plan.json"), claim.read(folder), 0
    if owner is None or _gone(owner):
        with claim.held(folder):
            ended = _sweep(plan)
            if _state(plan) == "running":
                DriverJournal(plan.journal, plan.run).write(EventName.FAILED, CANCELLED)
        return {"run": plan.run, "state": _state(plan), "ended": ended}
    control.ask(folder, control.DRAIN if drain else control.CANCEL)
    say(f"asked {owner.text} to end it")
    until = time.monotonic() + PATIENCE_S
    while _state(plan) == "running" and claim.read(folder) == owner and not _gone(owner):
        if not drain and time.monotonic() > until:
            raise TransientError(
                f"{owner.text} has not ended the run in {PATIENCE_S:.0f} s",
                where=str(folder),
                do="the request stands; campaign status shows when the run has ended",
            )
        time.sleep(POLL_S)
    return {"run": plan.run, "state": _state(plan), "ended": ended}


def _gone(owner: claim.Claim) -> bool:
    return owner.alive is False


def _state(plan: Plan) -> str:
    return last_state(plan.folder) or "running"


def _sweep(plan: Plan) -> int:
    """End the processes and jobs that a dead driver has left, here and at the site."""
    order = orders.read(plan.folder)
    site, _ = site_of(order.step(plan.output_run, plan.submit_path)) if not order.sites else (None, ())
    known = outcome_of(plan)
    ended = backend_of(None, 1).sweep(plan.run, ())
    if site is not None and site.scheduler.queued and known.jobs:
        ended += backend_of(site, len(os.sched_getaffinity(0))).sweep(plan.run, ())
    return ended
