"""Random kills of every command, and the same command again: the same bits, nothing lost, nothing left.

CAMPAIGN_SOAK_KILLS is the number of all kills.  A failure names the seed of its try; with that as CAMPAIGN_SOAK_SEED
and CAMPAIGN_SOAK_KILLS=1 the same command, chosen with ``-k``, is hurt in the same way.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from slurm import development
from tests.campaign import loopback
from tests.conftest import guarded
from tests.soak import invariants, scenarios, world
from tests.soak.kills import Kill, draw, hurt
from tests.soak.scenarios import SCENARIOS, Scenario
from tests.soak.world import Answer, World

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("CAMPAIGN_SOAK_KILLS", "100"))
SEED = int(os.environ.get("CAMPAIGN_SOAK_SEED") or time.time_ns() % 1_000_000)
#: Before this nothing is done by any command but to import.
IDLE_S = 0.3


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world, with sshd and Slurm if installed."""
    made = world.make(tmp_path_factory.mktemp("kills"))
    with ExitStack() as servers:
        if not loopback.lacking():
            world.over_ssh(made, servers.enter_context(loopback.server(made.base / "sshd")))
        if not development.missing():
            servers.enter_context(guarded(made.base / "cluster"))
            world.by_slurm(made, development.up(made.base / "cluster", "soak", nodes=1, cpus=2))
        yield made


@pytest.fixture(scope="module")
def truth(here: World) -> invariants.Pixels:
    """Pixels of undisturbed runs."""
    scenarios.ingested(here)
    scenarios.done(here.run(*scenarios.SUBMIT, *scenarios.FRAMES))
    scenarios.done(here.run("certify", "bps_bias"))
    scenarios.done(here.run("submit", "bps_dark", "--ranks", "2"))
    return invariants.pixels(here)


def tried(
    here: World, one: Scenario, kill: Kill, truth: invariants.Pixels, wanted: dict[str, Any]
) -> tuple[str, list[str]]:
    """Damage a command, then act as its operator; give victims and violated invariants."""
    one.stage(here)
    before = invariants.certified(here) if (here.repo / "gen3.sqlite3").exists() else {}
    words, more = one.words(here), one.variables(here)
    process = here.start(*words, **more, **({"CAMPAIGN_KILL_AT": kill.point} if kill.point else {}))
    hit = hurt(here, process, kill)
    first = here.ended(process, *words)
    answers, wrong = [first], invariants.nonsense(first)
    for again in one.again(here, first):
        answers.append(here.run(*again, **more))
        wrong += invariants.nonsense(answers[-1])
        wrong += [f"exit {answers[-1].code}"] if answers[-1].code else []
    wrong += invariants.broken(here, truth, before)
    if not wrong and (state := invariants.state(here)) != wanted:
        wrong.append(f"{state} in place of {wanted}")
    here.quieten()
    return hit, [*wrong, *map(str, answers)] if wrong else []


def measured(here: World, one: Scenario, truth: invariants.Pixels) -> tuple[float, dict[str, Any]]:
    """Measure time and result of an undisturbed command, after which all invariants hold."""
    one.stage(here)
    begun = time.monotonic()
    answer: Answer = here.run(*one.words(here), **one.variables(here))
    seconds = time.monotonic() - begun
    assert answer.code == 0, answer
    for again in one.again(here, answer):
        scenarios.done(here.run(*again, **one.variables(here)))
    assert invariants.broken(here, truth, {}) == []
    return seconds, invariants.state(here)


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.name)
def test_kills(here: World, one: Scenario, truth: invariants.Pixels) -> None:
    if one.sites and not (here.base / f"sites-{one.sites}").exists():
        pytest.skip(f"no {one.sites} on this machine (make {one.sites}-deps)")
    seconds, wanted = measured(here, one, truth)
    tries, failures = -(-KILLS * one.weight // sum(s.weight for s in SCENARIOS)), list[str]()
    print(f"\n{one.name}: {seconds:.1f} s; {tries} kills from seed {SEED}")
    for seed in range(SEED, SEED + tries):
        kill = draw(random.Random(f"{one.name} {seed}"), one.victims, one.points, seconds, IDLE_S)
        hit, wrong = tried(here, one, kill, truth, wanted)
        print(f"  seed {seed}: {kill}, hit {hit}: {'; '.join(wrong[:1]) or 'well'}", flush=True)
        if wrong:
            failures.append(f"seed {seed}, {kill}, hit {hit}\n  " + "\n  ".join(wrong))
    assert not failures, f"{len(failures)} of {tries} tries of {one.name}:\n" + "\n".join(failures)
