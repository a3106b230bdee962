"""Retries: causes, numbers and resources."""

from __future__ import annotations

import pytest

from campaign.running.retry import INFRASTRUCTURE, PAUSES_S, RETRIES, WALLTIME, Budget

RESOURCES = {"memory_mib": 1000, "cores": 2, "minutes": 30}


def tries(budget: Budget, cause: str, code: int | None = None) -> int:
    """How often a group is tried again that always fails alike."""
    for n in range(1000):
        if not budget.again(cause, code):
            return n
    raise AssertionError("for ever")


@pytest.mark.parametrize("cause", ["data", "configuration", "code", "cancelled", "killed", ""])
def test_what_would_end_alike_is_not_tried_again(cause: str) -> None:
    assert tries(Budget(RESOURCES, {}), cause) == 0


def test_memory_grows_to_its_limit() -> None:
    budget = Budget(RESOURCES, {"memoryMultiplier": 1.5, "memoryLimit": 3000})
    asked = []
    while budget.again("memory"):
        asked.append(budget.resources["memory_mib"])
    assert asked == [1500, 2250, 3000]
    assert budget.resources["cores"] == 2


def test_memory_that_may_not_grow_is_the_end() -> None:
    assert tries(Budget(RESOURCES, {"memoryLimit": 1000}), "memory") == 0
    assert tries(Budget(RESOURCES, {"memoryLimit": 500}), "memory") == 0
    assert tries(Budget(RESOURCES, {"memoryMultiplier": 1}), "memory") == 0


def test_time_is_doubled() -> None:
    budget = Budget(RESOURCES, {})
    assert tries(budget, "walltime") == WALLTIME
    assert budget.again("walltime") is False


def test_the_infrastructure_has_patience_of_its_own() -> None:
    budget = Budget(RESOURCES, {"numberOfRetries": 0})
    pauses = []
    while budget.again("infrastructure"):
        pauses.append(budget.pause_s)
    assert pauses == list(PAUSES_S)
    assert len(pauses) == INFRASTRUCTURE
    assert budget.resources == RESOURCES


def test_crashes_are_counted_as_the_template_says() -> None:
    assert tries(Budget(RESOURCES, {}), "failed", 134) == RETRIES
    assert tries(Budget(RESOURCES, {"numberOfRetries": 2}), "failed", 134) == 2
    assert tries(Budget(RESOURCES, {"numberOfRetries": 0}), "failed", 134) == 0
    assert tries(Budget(RESOURCES, {"retryUnlessExit": [134]}), "failed", 134) == 0
    assert tries(Budget(RESOURCES, {"retryUnlessExit": [135]}), "failed", 134) == RETRIES


def test_no_cause_is_charged_to_another() -> None:
    budget = Budget(RESOURCES, {"numberOfRetries": 1})
    assert all(budget.again("infrastructure") for _ in range(INFRASTRUCTURE))
    assert budget.again("failed", 1)
    assert budget.again("walltime")
    assert budget.again("memory")
    assert not budget.again("failed", 1)
