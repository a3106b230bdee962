"""Ranks of a gang: by the operator, else by the work, the cores, the tasks and the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaign.jobs.launch import START_SECONDS, START_SHARE, cores, worthwhile
from campaign.planning import allocation
from campaign.planning.allocation import at_site, gang_ranks
from campaign.schedulers.slurm import SlurmScheduler
from campaign.sites.model import Site
from tests.campaign import plans

HOURS = 1e5  # CPU s of work


def site(**settings: object) -> Site:
    """A site with a queue."""
    return Site(name="here", scheduler=SlurmScheduler.model_validate(settings))


@pytest.mark.parametrize("seconds", [0, 1, 10.9, 11, 22, 33.1, 1000, HOURS])
def test_the_start_of_ranks_costs_a_tenth_of_their_work_at_most(seconds: float) -> None:
    ranks = worthwhile(seconds)
    assert ranks == 1 or ranks * START_SECONDS <= START_SHARE * seconds
    assert (ranks + 1) * START_SECONDS > START_SHARE * seconds


@pytest.mark.parametrize(
    ("settings", "asked", "seconds", "wanted"),
    [
        ({"node_cores": 64}, None, HOURS, (64, "cores")),
        ({"node_cores": 512}, None, HOURS, (189, "tasks")),
        ({"node_cores": 64}, None, 55, (5, "work")),
        ({"node_cores": 64}, None, 0, (1, "work")),
        ({"node_cores": 64, "ranks": 7}, None, 0, (7, "site file")),
        ({"ranks": 500}, None, 0, (189, "tasks")),
        ({"node_cores": 64, "ranks": 7}, 300, 0, (300, "--ranks")),
    ],
)
def test_what_decides_at_a_site(
    settings: dict[str, int], asked: int | None, seconds: float, wanted: tuple[int, str]
) -> None:
    assert gang_ranks(site(**settings), asked, 189, seconds) == wanted


def test_what_decides_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "available_mib", lambda: 2500)
    assert gang_ranks(None, None, 1, HOURS) == (cores(), "cores")
    assert gang_ranks(None, None, 1, HOURS, rank_mib=2000) == (1, "memory" if cores() > 1 else "cores")
    assert gang_ranks(None, 3, 1, 0, rank_mib=2000) == (3, "--ranks")


def test_a_part_of_a_plan_has_the_ranks_of_its_own_work(tmp_path: Path) -> None:
    gang = plans.gang(tmp_path, 4, 3, 2)
    (mine,) = at_site([gang], plans.camera(3), site(node_cores=64), None)
    assert (mine.ranks, mine.ranks_by, mine.tasks) == (1, "work", gang.tasks)
    (asked,) = at_site([gang], plans.camera(3), site(node_cores=64), 2)
    assert (asked.ranks, asked.ranks_by) == (2, "--ranks")
