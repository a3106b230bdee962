"""Places of tasks, and tasks that must wait for something to travel."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from campaign.errors import ConfigurationError
from campaign.federation.partition import ARCHIVE, part, rounds, split
from campaign.jobs.file import JobTask
from campaign.journal.plan import Group, Output, Plan, PlanTask
from tests.campaign import plans

SITES = {"usdf": 0.25, "frdf": 0.5, "ukdf": 0.25}


def make(folder: Path, *groups: Group, detectors: int) -> Plan:
    files = {f"{e}:{d}": {"path": f"raw {e} {d}", "bytes": 1} for e in range(8) for d in range(detectors)}
    return plans.plan(folder, groups, files, detectors)


def needing(group: Group, label: str, need: str) -> Group:
    """Copy a group under another label; each detector needs the same detector of another group."""
    tasks = [
        PlanTask(replace(t.job, task=f"{label}:{t.job.detector}"), t.outputs, [need.format(t.job.detector)])
        for t in group.tasks
    ]
    return replace(group, label=label, tasks=tasks, needs=[need.partition(":")[0]])


def serial(label: str, needs: list[str]) -> Group:
    task = PlanTask(JobTask(f"{label}:"), [Output(label, {}, label)], needs)
    return Group(label, "flat_normalise", "serial", 1, [], {}, [task], [needs[0].partition(":")[0]])


def flat(folder: Path) -> Plan:
    """The graph of a flat: measured, normalised over all detectors, combined."""
    measure = plans.gang(folder, 4, 8, 1, "measure")
    normalise = serial("normalise", [t.name for t in measure.tasks])
    return make(folder, measure, normalise, needing(measure, "combine", "normalise:"), detectors=8)


def test_gangs_go_by_detector_in_the_fractions(tmp_path: Path) -> None:
    plan = make(tmp_path, plans.gang(tmp_path, 4, 8, 1), detectors=8)
    assert Counter(split(plan, SITES, {}).values()) == {"usdf": 2, "frdf": 4, "ukdf": 2}


@pytest.mark.parametrize(("chosen", "which"), [({}, 0), ({"isr": "exposure"}, 0), ({"isr": "detector"}, 1)])
def test_quanta_go_by_exposure_unless_the_template_says_detector(
    tmp_path: Path, chosen: dict[str, str], which: int
) -> None:
    plan = make(tmp_path, plans.quanta(tmp_path, 8, 4), detectors=4)
    sites = defaultdict(set)
    places = split(plan, SITES, chosen)
    for name, site in places.items():
        sites[name.partition(":")[2].split(",")[which]].add(site)
    assert all(len(some) == 1 for some in sites.values())
    assert len(sites) == (8, 4)[which]
    assert Counter(places.values()) == {"usdf": 8, "frdf": 16, "ukdf": 8}


def test_another_key_is_refused(tmp_path: Path) -> None:
    plan = make(tmp_path, plans.quanta(tmp_path, 2, 2), detectors=2)
    with pytest.raises(ConfigurationError, match="partition 'raft' of isr.*\n.*exposure or detector"):
        split(plan, SITES, {"isr": "raft"})


def test_a_flat_travels_twice_and_a_detector_stays_where_it_was_measured(tmp_path: Path) -> None:
    plan = flat(tmp_path)
    places = split(plan, SITES, {})
    assert places["normalise:"] == ARCHIVE
    assert all(places[f"measure:{d}"] == places[f"combine:{d}"] for d in range(8))
    labels = [{n.partition(":")[0] for n in tasks} for tasks in rounds(plan, places)]
    assert labels == [{"measure"}, {"normalise"}, {"combine"}]


def test_what_follows_at_the_same_site_does_not_wait(tmp_path: Path) -> None:
    first = plans.gang(tmp_path, 4, 8, 1, "first")
    plan = make(tmp_path, first, needing(first, "second", "first:{}"), detectors=8)
    assert len(rounds(plan, split(plan, SITES, {}))) == 1
    moved = split(plan, SITES, {}) | {"second:0": "elsewhere"}
    assert len(rounds(plan, moved)) == 2


def test_a_part_needs_nothing_from_outside(tmp_path: Path) -> None:
    groups = part(flat(tmp_path), ["combine:1", "combine:5"])
    assert [(g.label, [t.name for t in g.tasks], g.needs) for g in groups] == [
        ("combine", ["combine:1", "combine:5"], [])
    ]
    assert [t.needs for t in groups[0].tasks] == [[], []]
