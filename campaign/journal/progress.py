"""Progress of one run, by label: tasks by state, resources used, and an estimate of the time left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from campaign.home import Home, now
from campaign.journal import claim
from campaign.journal.events import ENDED, EventName
from campaign.journal.index import Index, asked
from campaign.journal.status import state_of

STATES = ("waiting", "running", EventName.PUBLISHED.value, EventName.FAILED.value, EventName.LOST.value)


@dataclass(frozen=True)
class Progress:
    """Progress of a run."""

    run: str
    output_run: str
    submit_path: str
    #: running, done, failed, cancelled, drained, or lost (its driver vanished).
    state: str
    #: Owner of the run, while it lives.
    made_by: str | None
    #: By label: ``tasks``, a number for each of `STATES`, ``tries`` beyond the first of each, ``began`` and ``ended``
    #: (ISO-8601, UTC), ``wall_s`` between them, ``cpu_s`` and ``rss_mib`` (peak of a rank) of published tasks,
    #: ``efficiency`` (CPU over wall times ranks) and ``left_s`` (estimate of the time left; `None` where nothing is
    #: known).
    groups: list[dict[str, Any]]


def _seconds(begin: str, end: str) -> float:
    """Seconds between two times of events."""
    parse = datetime.fromisoformat
    return max(0.0, (parse(end) - parse(begin)).total_seconds()) if begin and end else 0.0


def _group(row: Mapping[str, Any], over: bool) -> dict[str, Any]:
    """Sum up one label from the index's rows."""
    states = {name: 0 for name in STATES} | {s["state"]: s["many"] for s in row["states"]}
    seen = sum(states.values())
    states["waiting"] += max(0, row["tasks"] - seen)
    began = min((s["began"] for s in row["states"] if s["began"]), default="")
    ended = max((s["ended"] for s in row["states"] if s["ended"]), default="")
    wall = _seconds(began, ended if over or not states["running"] else now())
    cpu = sum(s["cpu_s"] or 0.0 for s in row["states"])
    done = sum(states[name] for name in ENDED)
    left = states["waiting"] + states["running"]
    return {
        "label": row["label"],
        "tasks": row["tasks"],
        **states,
        "tries": max(0, sum(s["tries"] or 0 for s in row["states"]) - seen),
        "began": began,
        "ended": ended,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "rss_mib": max((s["rss_mib"] or 0 for s in row["states"]), default=0),
        "efficiency": round(cpu / (wall * row["ranks"]), 3) if wall > 0 else None,
        "left_s": 0.0 if not left else round(left * wall / done, 1) if done and wall else None,
    }


def progress(home: Home, entry: Mapping[str, Any]) -> Progress:
    """Sum up the progress of a run; bring the index up to date first."""
    folder = Path(entry["submit_path"])
    state, owner = state_of(folder), claim.holder(folder)

    def ask(index: Index) -> list[dict[str, Any]]:
        index.refresh(entry["run"])
        return index.groups(entry["run"])

    rows = asked(home, ask)
    groups = [_group(row, state != "running") for row in rows]
    return Progress(
        entry["run"], entry["output_run"], entry["submit_path"], state, owner.text if owner else None, groups
    )
