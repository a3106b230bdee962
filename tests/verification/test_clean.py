"""Frames without a fault pass, those of the products' inputs and others; alarms are as many as chance makes."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import pytest

from campaign.verification import derive, judging, limits, lines, quantiles
from campaign.verification.lines import Line, Verdict
from campaign.verification.rows import Rows, join
from tests.conftest import soak
from tests.verification.darkroom import Darkroom
from tests.verification.nights import KINDS, Night
from tests.verification.test_faults import headed, pictured, ptc

DETECTORS = (3, 4, 5)
#: Lines of frames with limits: what has no line cannot fail.
WANTED = 3000


def exposures(night: Night, kind: str) -> list[int]:
    return [*night.ids(kind), *night.later(kind, 20)]


@lru_cache(maxsize=1)
def measured(seed: int) -> tuple[Night, Rows]:
    """A night of three detectors, and the rows of its frames, those of the inputs and as many others."""
    night = Night(Darkroom(seed=seed, detectors=DETECTORS))
    header = headed(UNIT=("electron", "electron"), DETECTOR=("4", "4"))
    return night, join([night.rows(kind, exposures(night, kind), header=header) for kind in KINDS])


def judged(seed: int) -> list[Line]:
    night, rows = measured(seed)
    planned = {kind: [(e, d) for e in exposures(night, kind) for d in DETECTORS] for kind in KINDS}
    products = [pictured(night, kind, getattr(night.products, kind)[4], 20) for kind in KINDS]
    return night.judge(rows, *products, ptc(night), planned=planned)


@pytest.mark.parametrize("seeds", [(1,), soak(tuple(range(2, 22)))])
def test_clean_frames_pass(seeds: tuple[int, ...]) -> None:
    found: list[Line] = []
    for seed in seeds:
        found += judged(seed)
    assert len(found) > WANTED * len(seeds)
    bad = [str(line) for line in lines.worst_first(found) if line.verdict in (Verdict.FAIL, Verdict.NO_VALUE)]
    assert bad == []
    expected = 2e-6 * len(found)
    warned = [str(line) for line in found if line.verdict is Verdict.WARN]
    assert len(warned) <= expected + 5 * expected**0.5 + 1, warned
    roles = Counter(line.role for line in found)
    assert roles["construction"] > WANTED // 3 * len(seeds) and roles["independent"] > WANTED // 3 * len(seeds)


def without_allowances(file: limits.Limits, p: float) -> limits.Limits:
    """Keep the limits that follow statistical errors, with these alone."""
    tests = {
        test: tuple(one.model_copy(update={"allowance": 0.0}) for one in each if one.sigma and one.allowance)
        for test, each in file.tests.items()
    }
    return file.model_copy(update={"false_alarms": limits.Probabilities(fail=p, warn=p), "tests": tests})


@pytest.mark.parametrize("seeds", [(1,), soak(tuple(range(31, 37)))])
def test_without_allowances_alarms_are_as_many_as_promised(seeds: tuple[int, ...]) -> None:
    lines_of, failed = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for seed in seeds:
        night, rows = measured(seed)
        file = without_allowances(night.limits, 0.01)
        for line in judging.judge(join([rows, derive.derive(rows)]), file, night.room.model):
            key = line.test, line.kind, line.role, line.level
            lines_of[key] += 1
            failed[key] += line.verdict is Verdict.FAIL
    assert lines_of.total() > WANTED * len(seeds)
    assert 0.3 < failed.total() / (0.01 * lines_of.total()) < 1.1
    many = {key: (n, lines_of[key]) for key, n in failed.items() if n > quantiles.poisson(0.01 * lines_of[key], 1e-5)}
    assert many == {}


def test_upstreams_thresholds_pass_the_inputs_and_fail_other_frames() -> None:
    night, rows = measured(1)
    found, shares = judging.judge(rows, limits.load("upstream", night.room.model), night.room.model), {}
    for test, kind in (("NOISE_RATIO", "bias"), ("NOISE_SHOT", "flat")):
        for role in ("construction", "independent"):
            some = [line.value > line.high for line in found if (line.test, line.kind, line.role) == (test, kind, role)]
            assert len(some) == 48
            shares[test, role] = sum(some) / len(some)
    assert max(shares[test, "construction"] for test in ("NOISE_RATIO", "NOISE_SHOT")) < 0.1
    assert min(shares[test, "independent"] for test in ("NOISE_RATIO", "NOISE_SHOT")) > 0.9
