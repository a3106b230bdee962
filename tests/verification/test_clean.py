"""Frames without a fault pass, those of the products' inputs and others; warnings are as many as chance makes."""

from __future__ import annotations

from collections import Counter

import pytest

from campaign.verification import derive, judging, limits, lines
from campaign.verification.lines import Line, Verdict
from campaign.verification.rows import join
from tests.conftest import soak
from tests.verification.darkroom import Darkroom
from tests.verification.nights import KINDS, Night
from tests.verification.test_faults import headed, pictured, ptc

#: Tests of frames with limits, whose lines must be there: what has no line cannot fail.
WANTED = 3000


def judged(seed: int, detectors: tuple[int, ...] = (3, 4, 5)) -> list[Line]:
    night = Night(Darkroom(seed=seed, detectors=detectors))
    header = headed(UNIT=("electron", "electron"), DETECTOR=("4", "4"))
    parts, planned = [], {}
    for kind in KINDS:
        exposures = [*night.ids(kind), *night.later(kind, 20)]
        parts.append(night.rows(kind, exposures, header=header))
        planned[kind] = [(e, d) for e in exposures for d in detectors]
        parts.append(pictured(night, kind, getattr(night.products, kind)[4], 20))
    return night.judge(*parts, ptc(night), planned=planned)


@pytest.mark.soak
def test_without_allowances_alarms_are_as_many_as_promised() -> None:
    total = warned = failed = 0
    for seed in range(31, 35):
        night = Night(Darkroom(seed=seed, detectors=(3, 4, 5)))
        rows = join([night.rows(kind, [*night.ids(kind), *night.later(kind, 20)]) for kind in KINDS])
        file = night.limits.model_copy(update={
            "false_alarms": limits.Probabilities(fail=1e-3, warn=1e-2),
            "tests": {
                test: tuple(one.model_copy(update={"allowance": 0.0}) for one in each if one.sigma and one.allowance)
                for test, each in night.limits.tests.items()
            },
        })  # fmt: skip
        found = judging.judge(join([rows, derive.derive(rows)]), file, night.room.model)
        total += len(found)
        warned += sum(line.verdict is not Verdict.PASS for line in found)
        failed += sum(line.verdict is Verdict.FAIL for line in found)
    assert total > 15_000
    assert 0.3 < warned / (1e-2 * total) < 1.1 and failed < 1e-3 * total + 4 * (1e-3 * total) ** 0.5


def test_upstreams_thresholds_pass_the_inputs_and_fail_other_frames() -> None:
    night = Night(Darkroom(seed=3, detectors=(4,)))
    file, shares = limits.load("upstream", night.room.model), dict[tuple[str, str], float]()
    for kind, test in (("bias", "NOISE_RATIO"), ("flat", "NOISE_SHOT")):
        rows = join([night.rows(kind, night.ids(kind)), night.rows(kind, night.later(kind, 20))])
        found = [line for line in judging.judge(rows, file, night.room.model) if line.test == test]
        for role in ("construction", "independent"):
            some = [line.value > line.high for line in found if line.role == role]
            assert len(some) == 16
            shares[test, role] = sum(some) / len(some)
    assert shares["NOISE_RATIO", "construction"] == shares["NOISE_SHOT", "construction"] == 0
    assert shares["NOISE_RATIO", "independent"] > 0.9 and shares["NOISE_SHOT", "independent"] == 1


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
    assert roles["construction"] > WANTED // 3 and roles["independent"] > WANTED // 3
