"""Limits as files, and verdicts: false alarms as many as promised, and words for the operator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campaign.camera import model as cameras
from campaign.errors import ConfigurationError
from campaign.verification import derive, judging, limits, lines, quantiles
from campaign.verification.lines import Line, Verdict
from campaign.verification.rows import CAMERA, Groups, Rows, Text, join

COMCAM = cameras.load("LSSTComCam")
BEGIN = """
version: 1
name: mine
"""


def written(folder: Path, tests: str, begin: str = BEGIN) -> Path:
    path = folder / "limits.yaml"
    path.write_text(f"{begin}tests:\n{tests}")
    return path


def loaded(folder: Path, tests: str, begin: str = BEGIN) -> limits.Limits:
    return limits.load(written(folder, tests, begin), COMCAM)


def rows_of(n: int = 1, metric: str = "MEAN", **columns: Any) -> Rows:
    """Make ``n`` rows, each of an exposure, of one amplifier."""
    plain = {
        "metric": [metric] * n, "kind": ["bias"] * n, "amplifier": ["C10"] * n, "role": [""] * n, "detector": [4] * n,
        "exposure": np.arange(1, n + 1), "mjd": np.full(n, 60652.0), "value": np.zeros(n), "expected": np.zeros(n),
        "variance": np.ones(n), "shared": np.zeros(n), "size": np.zeros(n),
    }  # fmt: skip
    return Rows.of({**plain, **columns})


def judged(rows: Rows, file: limits.Limits) -> list[Line]:
    return judging.judge(rows, file, COMCAM)


# ---- files


@pytest.mark.parametrize("name", limits.known())
@pytest.mark.parametrize("camera", ["LSSTComCam", "LSSTCam", "LATISS"])
def test_packaged_limits_are_valid_for_each_camera(name: str, camera: str) -> None:
    found = limits.load(name, cameras.load(camera))
    assert found.name == name and found.false_alarms == limits.Probabilities()


@pytest.mark.parametrize(
    ("tests", "line", "words"),
    [
        ("  NOISEE: [{allowance: 1, why: x}]\n", 5, "unknown test NOISEE\n    -> did you mean NOISE?"),
        ("  MEAN: [{allowance: 1, cameras: [LSSTCom], why: x}]\n", 5, "unknown camera LSSTCom\n    -> did you mean"),
        ("  MEAN:\n    - allowance: 1\n      why: x\n      types: [ITLL]\n", 8, "unknown type ITLL"),
        ("  MEAN: [{allowance: 1, amplifiers: [R22_S11_C20], why: x}]\n", 5, "unknown amplifier R22_S11_C20"),
        ("  MEAN: [{allowance: 1, kinds: [bais], why: x}]\n", 5, "must be 'bias'"),
        ("  MEAN: [{alowance: 1, why: x}]\n", 5, "did you mean allowance?"),
        ("  MEAN: [{allowance: 1}]\n", 5, "why is missing"),
        ("  MEAN: [{allowance: yes, why: x}]\n", 5, "must be a number"),
        ("  MEAN: [{why: x}]\n", 5, "needs either allowance or fail"),
        ("  MEAN: [{fail: [2, 1], why: x}]\n", 5, "is empty"),
        ("  MEAN: [{allowance: -1, why: x}]\n", 5, "must be at least 0"),
        ("  MEAN: [{allowance: 1, since: 2025-13-01, why: x}]\n", 5, "must be a day like 2025-06-01"),
        ("  MEAN: []\n  MEAN: []\n", 6, "given twice"),
    ],
)  # fmt: skip
def test_a_mistake_in_limits_is_told_with_its_line(tmp_path: Path, tests: str, line: int, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        loaded(tmp_path, tests)
    assert f"limits.yaml:{line}: " in str(error.value) and words in str(error.value)


def test_limits_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean ours"):
        limits.load("our", COMCAM)
    with pytest.raises(ConfigurationError, match="no limits their"):
        loaded(tmp_path, "  MEAN: []\n", f"{BEGIN}based_on: their\n")


def test_of_the_limits_that_hold_the_last_counts(tmp_path: Path) -> None:
    file = loaded(
        tmp_path,
        "  MEAN:\n"
        "    - {allowance: 1, why: all}\n"
        "    - {allowance: 2, types: [ITL], why: type}\n"
        "    - {allowance: 3, amplifiers: [R22_S11_C05], why: one}\n"
        "    - {allowance: 4, since: 2025-01-01, roles: [independent], why: later}\n"
        "    - {allowance: 5, cameras: [LSSTCam], why: elsewhere}\n",
    )
    scope = limits.Scope("MEAN", "bias", "", "amplifier", "LSSTComCam")
    cases = {
        1.0: scope,
        2.0: replace(scope, type="ITL"),
        3.0: replace(scope, type="ITL", amplifier="R22_S11_C05"),
        4.0: replace(scope, role="independent", mjd=60676.0),
        5.0: replace(scope, camera="LSSTCam"),
    }
    for allowance, one in cases.items():
        found = file.of(one)
        assert found is not None and found.allowance == allowance
    early = file.of(replace(scope, role="independent", mjd=60675.9))
    assert early is not None and early.allowance == 1
    assert file.of(replace(scope, level="detector")) is None and file.of(replace(scope, test="NOISE")) is None


def test_an_amplifier_and_a_date_choose_the_limit_of_a_line(tmp_path: Path) -> None:
    file = loaded(
        tmp_path,
        "  MEAN:\n"
        "    - {allowance: 1, sigma: false, why: all}\n"
        "    - {allowance: 9, sigma: false, amplifiers: [R22_S11_C05], why: one}\n"
        "    - {allowance: 5, sigma: false, since: 2025-01-01, amplifiers: [R22_S11_C05], why: later}\n",
    )
    for amplifier, mjd, high in (("C10", 60652.0, 1), ("C05", 60652.0, 9), ("C05", 60700.0, 5)):
        (line,) = judged(rows_of(amplifier=[amplifier], mjd=[mjd]), file)
        assert (line.high, line.low) == (high, -high)


def test_limits_on_a_base_come_after_its_own(tmp_path: Path) -> None:
    begin = "version: 1\nname: mine\nbased_on: ours\nfalse_alarms: {fail: 1.0e-9, warn: 1.0e-7}\n"
    file = loaded(tmp_path, "  MEAN: [{allowance: 7, why: mine}]\n", begin)
    assert file.tests["MEAN"][-1].allowance == 7 and len(file.tests) > 40 and file.false_alarms.fail == 1e-9


# ---- error models


def test_quantiles_are_exceeded_as_often_as_they_say() -> None:
    rng, p, n = np.random.default_rng(1), 1e-3, 400_000
    assert np.mean(np.abs(rng.standard_normal(n)) > quantiles.sigmas(p)) == pytest.approx(p, rel=0.15)
    assert np.mean(rng.chisquare(7, n) > quantiles.chi2(7, p)) == pytest.approx(p, rel=0.15)
    for mean in (0.002, 0.5, 4.0, 90.0):
        limit = float(quantiles.poisson(mean, p))
        drawn = rng.poisson(mean, n)
        assert np.mean(drawn > limit) < 1.15 * p and (limit == 0 or np.mean(drawn > limit - 1) > p)


def many(model: str, rng: np.random.Generator, exposures: int, number: int) -> Rows:
    """Draw clean rows of an error model: ``number`` lines of some exposures."""
    n = number * exposures
    line, plain = np.repeat(np.arange(number), exposures), dict[str, Any]()
    if model == "normal":
        shared, own = rng.normal(0, 0.7, number)[line], rng.normal(0, 2.0, n)
        errors = {"variance": np.full(n, 4.0), "shared": np.full(n, 0.49)}
        plain = {"value": 5 + shared + own, "expected": np.full(n, 5.0), **errors}
    elif model == "chi2":
        size = rng.integers(5, 60, n).astype(float)
        plain = {"value": rng.chisquare(size), "expected": size, "size": size, "variance": np.zeros(n)}
    elif model == "poisson":
        plain = {"value": rng.poisson(1.5, n), "expected": np.full(n, 1.5), "variance": np.zeros(n)}
    else:
        value = np.abs(rng.normal(0, 3.0, (n, 30))).max(axis=1)
        plain = {"value": value, "variance": np.full(n, 9.0), "size": np.full(n, 30.0)}
    metric = {"normal": "MEAN", "chi2": "STRUCTURE", "poisson": "TAIL", "maximum": "BIAS_SHIFT"}[model]
    return rows_of(
        n, metric, **plain, exposure=np.tile(np.arange(1, exposures + 1), number), role=[f"{k}" for k in line]
    )


@pytest.mark.parametrize("exposures", [1, 8])
@pytest.mark.parametrize("model", ["normal", "chi2", "poisson", "maximum"])
def test_false_alarms_of_lines_are_as_many_as_promised(model: str, exposures: int, tmp_path: Path) -> None:
    begin = f"{BEGIN}false_alarms: {{fail: 0.01, warn: 0.05}}\n"
    tests = "".join(f"  {name}: [{{allowance: 0, why: x}}]\n" for name in ("MEAN", "STRUCTURE", "TAIL", "BIAS_SHIFT"))
    found = judged(many(model, np.random.default_rng(2), exposures, 4000), loaded(tmp_path, tests, begin))
    assert len(found) == 4000
    failed = np.mean([line.verdict is Verdict.FAIL for line in found])
    warned = np.mean([line.verdict is not Verdict.PASS for line in found])
    least = 0.1 if model == "poisson" else 0.4  # counts are whole, and the mean and the worst exposure are akin
    assert least * 0.01 < failed < 0.0155 and least * 0.05 < warned < 0.062


def test_a_fault_at_the_allowance_and_ten_errors_always_fails(tmp_path: Path) -> None:
    file, rng = loaded(tmp_path, "  MEAN: [{allowance: 0.5, why: x}]\n"), np.random.default_rng(3)
    for sign in (1, -1):
        value = sign * (0.5 + 10 * 2 / 20**0.5) + rng.normal(0, 2, 20)
        (line,) = judged(rows_of(20, value=value, variance=np.full(20, 4.0)), file)
        assert line.verdict is Verdict.FAIL and line.exposures == 20 and line.sigma == pytest.approx(2 / 20**0.5)
        (odd,) = judged(rows_of(20, value=[0.0] * 19 + [sign * 20.5], variance=np.full(20, 4.0)), file)
        assert odd.verdict is Verdict.FAIL and (odd.worst, odd.beyond, odd.worst_value) == (20, 1, sign * 20.5)


# ---- lines


def test_a_line_without_a_value_does_not_vanish(tmp_path: Path) -> None:
    file = loaded(tmp_path, "  MEAN: [{allowance: 1, why: x}]\n")
    (dead,) = judged(rows_of(3, value=[np.nan] * 3), file)
    assert dead.verdict is Verdict.NO_VALUE and (dead.exposures, dead.missing) == (0, 3)
    assert str(dead) == "no value: MEAN bias, R22_S11 C10: no value in 3 exposures"
    (partly,) = judged(rows_of(3, value=[0.0, np.nan, 0.0]), file)
    assert partly.verdict is Verdict.WARN and (partly.exposures, partly.missing) == (2, 1)
    assert [one.where for one in lines.findings([dead, partly])] == ["R22_S11 C10"]


def test_a_line_says_value_limit_worst_exposure_and_by_how_much(tmp_path: Path) -> None:
    file = loaded(tmp_path, "  MEAN: [{fail: [-1, 2], sigma: false, why: x}]\n")
    (line,) = judged(rows_of(4, value=[2.5, 1.0, 2.0, 6.0]), file)
    assert str(line) == (
        "fail: MEAN bias, R22_S11 C10: 2.875 electron, limits -1 to 2, 2 of 4 exposures, worst 4 with 6, by 4 electron"
    )
    assert (line.expected, line.low, line.high, line.by) == (0, -1, 2, 4)


def test_lines_are_plain_data_and_what_has_no_limit_is_named(tmp_path: Path) -> None:
    file = loaded(tmp_path, "  MEAN: [{fail: [null, 2], sigma: false, why: x}]\n")
    rows = join([rows_of(1), rows_of(1, "COSMIC")])
    (line,) = judged(rows, file)
    assert json.loads(json.dumps(line.plain(), allow_nan=False)) == {
        "test": "MEAN", "kind": "bias", "role": "", "level": "amplifier", "detector": 4, "detector_name": "R22_S11",
        "amplifier": "C10", "verdict": "pass", "unit": "electron", "value": 0, "expected": 0, "low": None, "high": 2,
        "sigma": 1, "exposures": 1, "missing": 0, "beyond": 0, "worst": 1, "worst_value": 0, "by": -2,
    }  # fmt: skip
    assert judging.without_limits(rows, file) == ["COSMIC"]


def test_relative_limits_are_shares_of_what_is_expected(tmp_path: Path) -> None:
    file = loaded(tmp_path, "  MEAN: [{allowance: 0.1, relative: true, sigma: false, why: x}]\n")
    (line,) = judged(rows_of(2, value=[21.0, 19.0], expected=[20.0, 20.0]), file)
    assert (line.low, line.high, line.verdict) == (18, 22, Verdict.PASS)
    open_ = loaded(tmp_path, "  MEAN: [{fail: [null, 0.1], relative: true, sigma: false, why: x}]\n")
    (zero,) = judged(rows_of(2, value=[-1.0, -2.0]), open_)
    assert (zero.low, zero.verdict) == (-np.inf, Verdict.PASS)


def test_detectors_and_the_camera_are_judged_by_the_means_of_their_amplifiers(tmp_path: Path) -> None:
    file = loaded(tmp_path, "  MEAN: [{allowance: 0, levels: [amplifier, detector, camera], why: x}]\n")
    amplifiers = [a.name for a in COMCAM.types["ITL"].amplifiers]
    parts = [
        rows_of(16, amplifier=amplifiers, exposure=np.full(16, e), detector=np.full(16, d), value=np.full(16, 0.9))
        for e in (1, 2)
        for d in range(3)
    ]
    found = judged(join(parts), file)
    by_level = {level: [line for line in found if line.level == level] for level in limits.LEVELS}
    assert [len(each) for each in by_level.values()] == [48, 3, 1]
    assert by_level["detector"][0].sigma == pytest.approx(1 / 32**0.5)
    assert by_level["camera"][0].sigma == pytest.approx(1 / 96**0.5) and by_level["camera"][0].detector == CAMERA
    assert {line.verdict for line in by_level["amplifier"]} == {Verdict.PASS}
    assert [(one.test, one.where) for one in lines.findings(found)] == [("MEAN", "camera")]


# ---- derived rows


def test_drifts_are_slopes_with_their_errors_and_dates_of_their_ends() -> None:
    rng, days, found = np.random.default_rng(4), np.arange(30.0), []
    for _ in range(300):
        value = 0.05 * days + rng.normal(0, 0.3, 30)
        found.append(derive.drift(rows_of(30, mjd=60652 + days, value=value, variance=np.full(30, 0.09)), "MEAN_DRIFT"))
    slopes = np.array([one.value[0] for one in found])
    assert slopes.mean() == pytest.approx(0.05, abs=4e-4)
    assert slopes.std() == pytest.approx(found[0].variance[0] ** 0.5, rel=0.15)
    assert len(derive.drift(rows_of(9), "MEAN_DRIFT")) == 0  # all at one moment


def test_a_drift_tells_when_its_limit_is_reached(tmp_path: Path) -> None:
    file = loaded(
        tmp_path,
        "  MEAN: [{allowance: 2, sigma: false, why: x}]\n  MEAN_DRIFT: [{allowance: 1, sigma: false, why: x}]\n",
    )
    days = np.arange(11.0)
    rows = rows_of(11, mjd=60652 + days, value=-0.1 * days)
    level, drift = judged(join([rows, derive.drift(rows, "MEAN_DRIFT")]), file)
    assert (level.test, drift.test) == ("MEAN", "MEAN_DRIFT")
    assert lines.days_left(level, drift) == pytest.approx(15)  # from the middle, -0.5, to -2
    assert lines.days_left(level, replace(drift, value=0.0)) == np.inf
    assert lines.days_left(replace(level, value=-3.0), drift) == 0


def test_stability_and_halves_find_what_changes_between_exposures() -> None:
    rng = np.random.default_rng(5)
    quiet = rng.normal(0, 1, 40)
    stable = derive.stability(rows_of(40, value=quiet), "MEAN_STABILITY")
    assert stable.value[0] == pytest.approx(quiet.var() * 40) and stable.size[0] == 39
    odd = derive.halves(rows_of(40, value=quiet + np.tile([3.0, 0.0], 20)), "MEAN_HALVES")
    assert odd.value[0] == pytest.approx(3.0, abs=4 * odd.variance[0] ** 0.5) and odd.variance[0] == pytest.approx(0.1)


def test_what_was_planned_and_has_no_row_is_absent() -> None:
    found = derive.absent(rows_of(2), {"bias": [(1, 4), (2, 4), (2, 5)]})
    assert list(zip(found.exposure, found.detector, found.value, strict=True)) == [(1, 4, 0), (2, 4, 0), (2, 5, 1)]


def test_groups_are_those_of_plain_python() -> None:
    rng = np.random.default_rng(6)
    key, other, values = rng.integers(0, 5, 200), rng.integers(0, 3, 200), rng.normal(size=200)
    groups = Groups.by(key, other)
    plain = {(k, o): values[(key == k) & (other == o)] for k in range(5) for o in range(3)}
    wanted = {pair: part for pair, part in sorted(plain.items()) if part.size}
    np.testing.assert_allclose(groups.sum(values), [part.sum() for part in wanted.values()])
    np.testing.assert_allclose(groups.median(values), [np.median(part) for part in wanted.values()])
    assert groups.sizes.tolist() == [part.size for part in wanted.values()]
    spread = groups.spread(groups.sum(values))
    assert all(spread[n] == pytest.approx(plain[key[n], other[n]].sum()) for n in range(200))


def test_joined_rows_keep_their_texts() -> None:
    one, other = rows_of(2), rows_of(2, "NOISE", role=["b", "a"])
    both = join([one, other])
    assert both.metric.list() == ["MEAN", "MEAN", "NOISE", "NOISE"] and both.role.list() == ["", "", "b", "a"]
    assert Text.of(["b", "a"]).is_("a").tolist() == [False, True] and len(join([])) == 0
