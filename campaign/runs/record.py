"""The record of a run: its order, plan and standing, read without Butler and Dask."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.home import Home, home_of
from campaign.journal import claim
from campaign.journal.plan import Plan
from campaign.journal.plan import load as load_plan
from campaign.planning import order as orders
from campaign.planning.order import Order
from campaign.planning.standing import Standing, standing

PLAN = "plan.json"


@dataclass(frozen=True)
class RunRecord:
    """A run, and its standing."""

    plan: Plan
    #: The operator's order.
    order: Order
    #: The home that lists the run.
    home: Home

    standing: Standing
    #: Every product was read.
    verified: bool = False
    #: Size of each journal by name, byte, which shows whether another driver has resumed the run since.
    journals: Mapping[str, int] = field(default_factory=dict)

    def again(self) -> RunRecord:
        """Read the run again, unless nothing was written since; call this with its claim."""
        return self if self.journals == _sizes(self.plan.folder) else record_of(self.plan.folder, self.verified)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Number of tasks by label: all, done, failed, left."""
        known, again = self.standing.outcome, {**self.standing.damaged, **self.standing.stale}
        rows = []
        for group in self.plan.groups:
            names = [task.name for task in group.tasks]
            done = sum(name in known.published and name not in again for name in names)
            failed = sum(name in known.failed for name in names)
            rows.append({"label": group.label, "tasks": len(names), "done": done, "failed": failed})
            rows[-1]["left"] = len(names) - done
        return rows

    @property
    def plain(self) -> dict[str, Any]:
        """The record, for JSON."""
        owner = claim.holder(self.plan.folder)
        return {
            "run": self.plan.run,
            "output_run": self.plan.output_run,
            "submit_path": self.plan.submit_path,
            "made_by": owner.text if owner else None,
            "groups": self.groups,
            "damaged": dict(self.standing.damaged),
            "stale": dict(self.standing.stale),
            "reasons": list(self.standing.reasons),
        }


def folder_of(name: str, home: Home) -> Path:
    """Find the folder of a run, given its name or the folder itself.

    Raises
    ------
    UsageError
        There is no such run.
    """
    path = Path(name)
    if path.is_dir():
        return path.absolute()
    return Path(home.find_run(name)["submit_path"])


def record_of(folder: Path, verify: bool = False) -> RunRecord:
    """Read the record of a run.

    Raises
    ------
    ConfigurationError
        The folder holds no plan.
    """
    sizes = _sizes(folder)
    order, plan = orders.read(folder), load_plan(folder / PLAN)
    environment = {**os.environ, **order.variables}
    return RunRecord(plan, order, home_of(plan.repository, environment), standing(plan, order, verify), verify, sizes)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("journal/*.jsonl")}
