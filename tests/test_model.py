"""The campaign model against values computed by hand."""

from __future__ import annotations

from dataclasses import replace

from tests.benchmarks import model
from tests.benchmarks.model import Costs, Step, campaign, shares

#: Numbers that are easy to reckon with: a raw is 1 GB, a product 2, a calibration 0.5.
COSTS = Costs(
    detectors=4, cores=2, raw_mb=1000, product_mb=2000, calibration_mb=500, start_s=1, step_s=10, task_s=0.5,
    file_system_gb_s=10, home_gb_s=1,
)  # fmt: skip
#: 10 exposures of 4 detectors, 2 s each: 80 s of work; 40 GB of raws.
BIAS, FLAT = Step(10, 2.0), Step(10, 2.0, passes=2, calibrations=2)


def test_a_step_on_one_node() -> None:
    total = campaign(COSTS, {"bias": BIAS}, {"here": 1.0}, 1)
    assert (total.work_s, total.start_cpu_s, total.read, total.written) == (80, 2, 40e9, 8e9)
    assert total.driver_s == 10 + 4 * 0.5
    assert total.wall_s == 12 + 1 + 80 / 2  # 48 GB would take 4.8 s


def test_a_gang_has_no_more_ranks_than_tasks_and_than_its_work_is_worth() -> None:
    total = campaign(COSTS, {"bias": BIAS}, {"here": 1.0}, 100)
    assert (total.work_s, total.start_cpu_s) == (80, 4)
    assert total.wall_s == 12 + 1 + 80 / 4
    few = campaign(COSTS, {"bias": Step(10, 0.5)}, {"here": 1.0}, 100)
    assert (few.work_s, few.start_cpu_s, few.wall_s) == (20, 2, 12 + 1 + 20 / 2)


def test_a_gang_ends_at_the_file_system() -> None:
    total = campaign(replace(COSTS, file_system_gb_s=1), {"bias": BIAS}, {"here": 1.0}, 4)
    assert total.wall_s == 12 + 1 + 48


def test_passes_read_again_and_so_do_calibrations() -> None:
    total = campaign(COSTS, {"flat": FLAT}, {"here": 1.0}, 4)
    assert total.read == 2 * (40e9 + 4 * 2 * 0.5e9)
    assert (total.work_s, total.written, total.start_cpu_s) == (80, 8e9, 8)
    assert total.driver_s == 10 + 2 * 2
    assert total.wall_s == 14 + 2 * (1 + 40 / 4)


def test_steps_follow_one_another() -> None:
    both, alone = ({name: BIAS for name in names} for names in (("a", "b"), ("a",)))
    for name in ("wall_s", "work_s", "read", "start_cpu_s"):
        twice, once = (getattr(campaign(COSTS, some, {"here": 1.0}, 1), name) for some in (both, alone))
        assert twice == 2 * once


def test_the_slowest_site_counts_and_products_travel() -> None:
    total = campaign(COSTS, {"bias": BIAS}, {"here": 0.5, "there": 0.5}, 1)
    assert (total.work_s, total.start_cpu_s, total.read, total.written) == (80, 4, 40e9, 8e9)
    assert total.home_s == 4  # two products of 2 GB
    assert total.wall_s == 12 + 1 + 20 + 4


def test_detectors_are_shared_whole() -> None:
    assert shares(189, {"usdf": 0.25, "frdf": 0.5, "ukdf": 0.25}) == {"usdf": 48, "frdf": 94, "ukdf": 47}


def test_the_packaged_inputs_are_the_campaign_of_the_page() -> None:
    first, *_, last = model.lines(model.INPUTS)
    assert first == "86940 raws, 13 steps, 20 gangs."
    assert last.endswith("92 CPU s a raw, 2222 core-hours for as many.")
