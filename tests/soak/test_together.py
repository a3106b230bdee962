"""Random commands at once on one repository: nothing is lost, and each has reported the truth.

CAMPAIGN_SOAK_PAIRS is the number of tries; CAMPAIGN_SOAK_SEED begins with another.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.soak import invariants, scenarios, world
from tests.soak.scenarios import BIAS, SUBMIT, Words
from tests.soak.world import CHAIN, NUMBERS, TICKET, Answer, World

pytestmark = pytest.mark.soak

PAIRS = int(os.environ.get("CAMPAIGN_SOAK_PAIRS", "50"))
SEED = int(os.environ.get("CAMPAIGN_SOAK_SEED") or time.time_ns() % 1_000_000)
#: Between the beginnings of two commands, second, at most.
APART_S = 2.5
#: Certified, and in no chain.
OTHER = f"{CHAIN}/demo/bias.20241208d"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world.make(tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def truth(here: World) -> invariants.Pixels:
    scenarios.ingested(here)
    scenarios.done(here.run(*SUBMIT))
    return invariants.pixels(here)


def rich(here: World) -> None:
    """A bias to certify, one in the middle, one to chain, and one at a gate."""

    def make() -> None:
        scenarios.gate(here)
        scenarios.done(here.run(*SUBMIT))
        scenarios.done(here.run(*SUBMIT, RERUN="20241208d"))
        scenarios.done(here.run("certify", "bps_bias", "--no-chain", RERUN="20241208d", CERT_RERUN="20241208d"))
        killed = here.run(*SUBMIT, RERUN="20241208b", CAMPAIGN_KILL_AT="job-ended")
        assert killed.code == -signal.SIGKILL, killed

    here.prepare("rich", make)


def _unfinished(here: World) -> str:
    return next(str(folder) for folder in here.folders() if "20241208b" in str(folder))


def _ingest(here: World) -> Words:
    return "ingest", str(here.repo), str(here.raws), "--camera", str(here.camera)


def _done_runs(here: World, answer: Answer) -> bool:
    """Whether the RUN exists that a command has reported as made."""
    said = [line.split()[-1] for line in answer.out.splitlines() if line.startswith("published")]
    return said[0] in {run["output_run"] for run in here.runs()}


COMMANDS: dict[str, Callable[[World], Words]] = {
    "submit": lambda w: SUBMIT,
    "restart": lambda w: ("restart", _unfinished(w)),
    "run": lambda w: ("run", str(w.one), "--yes", "--ranks", "2"),
    "accept": lambda w: ("accept", "bias", "--reason", "fine"),
    "certify": lambda w: ("certify", "bps_bias"),
    "chain": lambda w: ("chain", str(w.repo), CHAIN, OTHER),
    "clean": lambda w: ("clean", TICKET, "--yes"),
    "ingest": lambda w: (*_ingest(w), str(w.later)),
    "sites": lambda w: (*SUBMIT, "--sites", "usdf,frdf"),
}
#: Checks of commands that reported success; products that were not certified may be cleaned.
TRUE: dict[str, Callable[[World, Answer], bool]] = {
    "submit": _done_runs,
    "sites": _done_runs,
    "restart": _done_runs,
    "run": lambda w, a: f"{CHAIN}/plan/bias.20241208a" in invariants.chain(w),
    "ingest": lambda w, a: ("raw", 14) in invariants.counts(w),
    "accept": lambda w, a: "accepted" in scenarios.events(w),
    "certify": lambda w, a: BIAS in invariants.chain(w) and any(BIAS in one for one in invariants.certified(w)),
    "chain": lambda w, a: OTHER in invariants.chain(w),
}
CLEANED = ("submit", "sites", "restart")


def together(here: World, names: list[str], apart: list[float]) -> list[Answer]:
    """Start commands one after another, none waiting for another's end."""
    words = [COMMANDS[name](here) for name in names]
    processes = []
    for each, pause in zip(words, apart, strict=True):
        time.sleep(pause)
        processes.append(here.start(*each))
    return [here.ended(process, *each) for process, each in zip(processes, words, strict=True)]


def settled(here: World) -> list[str]:
    """Restart unfinished runs; list those that cannot be restarted."""
    wrong = []
    for folder in here.folders():
        if (folder / "claim.json").exists():
            answer = here.run("restart", str(folder))
            wrong += [str(answer)] if answer.code else []
    return wrong


def untrue(here: World, names: list[str], answers: list[Answer]) -> list[str]:
    """List false reports of a command."""
    found = [text for answer in answers for text in invariants.nonsense(answer)]
    for name, answer in zip(names, answers, strict=True):
        cleaned = "clean" in names and name in CLEANED
        if answer.code == 0 and name in TRUE and not cleaned and not TRUE[name](here, answer):
            found.append(f"{name} says that it is done")
        if answer.code and "error: " not in answer.err:
            found.append(f"{name} does not say why it ends with {answer.code}")
    return found


def test_commands_at_once(here: World, truth: invariants.Pixels) -> None:
    failures = []
    for seed in range(SEED, SEED + PAIRS):
        chance = random.Random(f"together {seed}")
        names = [chance.choice(list(COMMANDS)) for _ in range(chance.choice((2, 2, 2, 3)))]
        apart = [0.0, *(chance.uniform(0, APART_S) for _ in names[1:])]
        rich(here)
        before = invariants.certified(here)
        answers = together(here, names, apart)
        wrong = [*untrue(here, names, answers), *settled(here), *invariants.broken(here, truth, before)]
        here.quieten()
        codes = ", ".join(f"{name} {answer.code}" for name, answer in zip(names, answers, strict=True))
        print(f"  seed {seed}: {codes}: {'; '.join(wrong[:1]) or 'well'}", flush=True)
        if wrong:
            failures.append(f"seed {seed}: {names}, {apart}\n  " + "\n  ".join([*wrong, *map(str, answers)]))
    assert not failures, f"{len(failures)} of {PAIRS}:\n" + "\n".join(failures)


@pytest.mark.parametrize("many", [2, 3])
def test_a_new_repository_is_made_by_several_at_once(here: World, many: int) -> None:
    """All succeed, except those that give a reason; and another resumes the work."""
    for turn in range(3):
        scenarios.nothing(here)
        processes = [here.start(*_ingest(here)) for _ in range(many)]
        answers = [here.ended(process, "ingest") for process in processes]
        assert [text for answer in answers for text in invariants.nonsense(answer)] == [], (turn, *answers)
        assert any(answer.code == 0 for answer in answers), (turn, *answers)
        scenarios.done(here.run(*_ingest(here)))
        assert invariants.broken(here, {}, {}) == []


def test_a_simulation_is_made_by_two_at_once(here: World) -> None:
    """One learns that the folder is taken, and leaves it alone."""
    for turn in range(3):
        scenarios.nothing(here)
        words = ("simulate", str(here.repo), *NUMBERS)
        processes = []
        for _ in range(2):
            processes.append(here.start(*words))
            time.sleep(0.4 * turn)
        answers = [here.ended(process, *words) for process in processes]
        assert [text for answer in answers for text in invariants.nonsense(answer)] == [], (turn, *answers)
        assert any(answer.code == 0 for answer in answers), (turn, *answers)
        assert invariants.counts(here) == [("raw", 12)]
