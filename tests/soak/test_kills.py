"""Random kills of every command, and the same command again: the same bits, nothing lost, nothing left.

A failure names the seed of its try: ``CAMPAIGN_SOAK_SEED=<seed> CAMPAIGN_SOAK_KILLS=1 pytest -m soak -k <command>``
repeats the first try of that seed.  CAMPAIGN_SOAK_KILLS is the number of all kills.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.soak import invariants, scenarios, world
from tests.soak.kills import Kill, draw, hurt
from tests.soak.scenarios import SCENARIOS, Scenario
from tests.soak.world import Answer, World

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("CAMPAIGN_SOAK_KILLS", "200"))
SEED = int(os.environ.get("CAMPAIGN_SOAK_SEED") or time.time_ns() % 1_000_000)
#: Before this nothing is done by any command but to import.
IDLE_S = 0.3


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world.make(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def truth(here: World) -> invariants.Pixels:
    """Pixels of runs that nobody disturbs."""
    scenarios.ingested(here)
    scenarios.done(here.run(*scenarios.SUBMIT))
    return invariants.pixels(here)


def tried(here: World, one: Scenario, kill: Kill, truth: invariants.Pixels) -> tuple[str, list[str]]:
    """Hurt a command, do what its operator would; who was hit, and what does not hold."""
    one.stage(here)
    before = invariants.certified(here) if (here.repo / "gen3.sqlite3").exists() else {}
    words = one.words(here)
    process = here.start(*words, **({"CAMPAIGN_KILL_AT": kill.point} if kill.point else {}))
    hit = hurt(here, process, kill)
    first = here.ended(process, *words)
    answers, wrong = [first], invariants.nonsense(first.out, first.err, first.code)
    for again in one.again(here, first):
        answers.append(here.run(*again))
        wrong += invariants.nonsense(answers[-1].out, answers[-1].err, answers[-1].code)
        wrong += [f"exit {answers[-1].code}"] if answers[-1].code else []
    wrong += invariants.broken(here, truth, before)
    here.quieten()
    return hit, [*wrong, *map(str, answers)] if wrong else []


def measured(here: World, one: Scenario, truth: invariants.Pixels) -> float:
    """How long a command takes that nobody hurts, after which all holds."""
    one.stage(here)
    begun = time.monotonic()
    answer: Answer = here.run(*one.words(here))
    seconds = time.monotonic() - begun
    assert answer.code == 0, answer
    assert invariants.broken(here, truth, {}) == []
    return seconds


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.name)
def test_kills(here: World, one: Scenario, truth: invariants.Pixels) -> None:
    seconds = measured(here, one, truth)
    tries, failures = -(-KILLS // len(SCENARIOS)), list[str]()
    print(f"{one.name}: {seconds:.1f} s; {tries} kills from seed {SEED}")
    for seed in range(SEED, SEED + tries):
        kill = draw(random.Random(f"{one.name} {seed}"), one.victims, one.points, seconds, IDLE_S)
        hit, wrong = tried(here, one, kill, truth)
        print(f"  seed {seed}: {kill}, hit {hit}: {'; '.join(wrong[:1]) or 'well'}", flush=True)
        if wrong:
            failures.append(f"seed {seed}, {kill}, hit {hit}\n  " + "\n  ".join(wrong))
    assert not failures, f"{len(failures)} of {tries} tries of {one.name}:\n" + "\n".join(failures)


