"""Judge rows by limits: one verdict line a test, detector and amplifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from campaign.camera.model import Camera
from campaign.verification import quantiles
from campaign.verification.known import TESTS, Model
from campaign.verification.limits import LEVELS, Limit, Limits, Scope
from campaign.verification.lines import Line, Verdict
from campaign.verification.rows import CAMERA, F64, I64, Bool, Groups, Rows, Text, join, made

#: Least variance of a mean whose exposures cancel, over the exposures' own.
_FLOOR: Final = 0.05
#: Least expected value of a relative limit: an open one stays open at 0.
_TINY: Final = 1e-300


def judge(rows: Rows, limits: Limits, camera: Camera) -> list[Line]:
    """Judge rows.

    Parameters
    ----------
    rows : `Rows`
        Of any tests and exposures, those of `campaign.verification.derive` included; tests without a limit are left
        out.
    limits : `Limits`
        Of the camera.
    camera : `Camera`
        Names and types of its detectors.

    Returns
    -------
    lines : `list` [`Line`]
        Test by test and level by level; within these by kind, role, detector and amplifier.
    """
    lines: list[Line] = []
    for test, each in sorted(limits.tests.items()):
        of_test, model = rows.named(test), TESTS[test].model  # one test at a time: rows are many
        for level in LEVELS if len(of_test) else ():
            if any(level in one.levels for one in each):
                lines += _judged(at_level(of_test, level, model), model, level, limits, camera)
    return lines


def without_limits(rows: Rows, limits: Limits) -> list[str]:
    """Name the metrics of rows that no limit is for: they are told, not judged."""
    return sorted(
        name
        for k, name in enumerate(rows.metric.names)
        if not limits.tests.get(name) and (rows.metric.codes == k).any()
    )


def at_level(rows: Rows, level: str, model: Model) -> Rows:
    """Select a test's rows of a level; amplifiers are averaged for their detector, and detectors for the camera."""
    of_detector, of_camera = rows.amplifier.is_(""), rows.detector == CAMERA
    if level == "amplifier":
        return rows.where(~of_detector)
    own = rows.where(of_detector & ~of_camera)
    if model not in ("maximum", "exact"):
        pairs = rows.amplifier.is_(*(name for name in rows.amplifier.names if " " in name))
        own = join([own, _averaged(rows.where(~of_detector & ~pairs), model, lambda r: r.detector)])
        if level == "camera":
            own = _averaged(own, model, lambda r: np.full(len(r), CAMERA))
    return own if level == "detector" else join([rows.where(of_camera), own.where(own.detector == CAMERA)])


def _averaged(rows: Rows, model: Model, detector_of: Callable[[Rows], I64]) -> Rows:
    """Average the rows of an exposure over amplifiers or detectors; sums of squares and counts are added."""
    good = np.isfinite(rows.value) & np.isfinite(rows.variance)
    rows = rows.where(good)
    if not len(rows):
        return rows
    detector = detector_of(rows)
    groups = Groups.by(rows.kind.codes, rows.role.codes, detector, rows.exposure)
    n, some = groups.sizes.astype(np.float64), rows.where(groups.firsts)
    by, square = (n, n**2) if model == "normal" else (1.0, n)
    parts = {name: groups.sum(getattr(rows, name)) / by for name in ("value", "expected", "size")}
    parts |= {name: groups.sum(getattr(rows, name)) / square for name in ("variance", "shared")}
    places = {"amplifier": Text.all("", len(some)), "detector": detector[groups.firsts], "metric": some.metric}
    return made(rows, "", groups.firsts, {**parts, **places})


@dataclass(frozen=True)
class _Bounds:
    """Limits of lines, [line]."""

    low: F64
    high: F64
    relative: Bool
    sigma: Bool
    inflation: F64


@dataclass(frozen=True)
class _Found:
    """Results of one model and severity, [line]: limits, and distances beyond them of mean and worst exposure."""

    low: F64
    high: F64
    by_mean: F64
    by_worst: F64
    worst: I64
    beyond: I64


@dataclass(frozen=True)
class _Block:
    """Rows with values of one error model, in groups that are lines."""

    model: Model
    rows: Rows
    groups: Groups

    @property
    def number(self) -> F64:
        """Exposures [line]."""
        return self.groups.sizes.astype(np.float64)

    def means(self) -> tuple[F64, F64, F64]:
        """Average value, expected value and error over the exposures [line]."""
        rows, groups = self.rows, self.groups
        if self.model in ("chi2", "poisson"):
            n = groups.sum(rows.size) if self.model == "chi2" else self.number
            n = np.where(n > 0, n, np.nan)
            sigma = np.sqrt(2 / n) if self.model == "chi2" else np.sqrt(groups.sum(rows.expected)) / n
            return groups.sum(rows.value) / n, groups.sum(rows.expected) / n, sigma
        weight = np.where(rows.variance > 0, 1 / np.where(rows.variance > 0, rows.variance, 1.0), 1.0)
        total = groups.sum(weight)
        own = groups.sum(weight**2 * rows.variance) / total**2
        both = np.maximum(own + groups.sum(weight * rows.shared) / total, _FLOOR * own)
        return groups.sum(weight * rows.value) / total, groups.sum(weight * rows.expected) / total, np.sqrt(both)

    def judge(self, bounds: _Bounds, p: float) -> _Found:
        """Compare the mean and each exposure with limits that a clean line passes but for a share ``p``."""
        share = np.where(self.number > 1, p / 2, p)  # the mean and the worst are two chances
        low, high, by_mean = self._mean(bounds, share)
        each = self._each(bounds, self.groups.spread(share / self.number))
        order = self.groups.order
        last = np.lexsort((each[order], np.repeat(np.arange(len(self.groups.starts)), self.groups.sizes)))
        worst = order[last[np.append(self.groups.starts[1:], len(order)) - 1]]
        beyond = self.groups.sum((each > 0).astype(np.float64)).astype(np.int64)
        by_worst = each[worst]
        if self.model == "maximum":
            by_mean, low, high = by_worst, np.full(len(low), -np.inf), self.rows.value[worst] - by_worst
        return _Found(low, high, by_mean, by_worst, worst, beyond)

    def _mean(self, bounds: _Bounds, p: F64) -> tuple[F64, F64, F64]:
        """Give limits of the mean [line], and its distance beyond them."""
        value, expected, sigma = self.means()
        rows, groups, nothing = self.rows, self.groups, np.full(len(value), -np.inf)
        if self.model == "chi2":
            freedom, common = groups.sum(rows.size), groups.sum(rows.shared) / self.number
            wide = bounds.inflation * np.sqrt(1 + self.number * common**2)
            high = 1 + bounds.high + wide * (quantiles.chi2(freedom, p) / np.where(freedom > 0, freedom, 1.0) - 1)
            return nothing, high, value - high
        if self.model == "poisson":
            high = (quantiles.poisson(groups.sum(rows.expected) + bounds.high, p) + 0.5) / self.number
            return nothing, high, value - high
        k = np.where(bounds.sigma, quantiles.sigmas(p), 0.0) * bounds.inflation
        size = np.where(bounds.relative, np.maximum(np.abs(expected), _TINY), 1.0)
        low, high = expected + bounds.low * size - k * sigma, expected + bounds.high * size + k * sigma
        return low, high, np.maximum(value - high, low - value)

    def _each(self, bounds: _Bounds, p: F64) -> F64:
        """Give the distance of each exposure [row] beyond its own limits."""
        rows, spread = self.rows, self.groups.spread
        low, high, inflation = (spread(getattr(bounds, name)) for name in ("low", "high", "inflation"))
        if self.model == "chi2":
            wide = inflation * np.sqrt(1 + rows.shared**2)
            limit = rows.size * (1 + high) + wide * (quantiles.chi2(rows.size, p) - rows.size)
            return (rows.value - limit) / np.maximum(rows.size, 1.0)
        if self.model == "poisson":
            return rows.value - quantiles.poisson(rows.expected + high, p) - 0.5
        if self.model == "maximum":
            p = p / np.maximum(rows.size, 1.0)
        k = np.where(spread(bounds.sigma), quantiles.sigmas(p), 0.0) * inflation
        sigma = np.sqrt(np.maximum(rows.variance + rows.shared, _FLOOR * rows.variance))
        size = np.where(spread(bounds.relative), np.maximum(np.abs(rows.expected), _TINY), 1.0)
        away = rows.value - rows.expected
        return np.maximum(away - high * size - k * sigma, low * size - k * sigma - away)


def _lines_of(rows: Rows) -> Groups:
    """Group a test's rows by line."""
    return Groups.by(rows.kind.codes, rows.role.codes, rows.detector, rows.amplifier.codes)


def _judged(rows: Rows, model: Model, level: str, limits: Limits, camera: Camera) -> Iterator[Line]:
    """Judge a test's rows of one level."""
    groups = _lines_of(rows)
    chosen = _limits_of(rows.where(groups.firsts), level, limits, camera)
    inside = groups.spread(np.array([one is not None for one in chosen], bool))
    yield from _lines(rows.where(inside), model, level, [one for one in chosen if one], limits, camera)


def _limits_of(firsts: Rows, level: str, limits: Limits, camera: Camera) -> list[Limit | None]:
    """Find the limit of each line by its first row."""
    found: dict[tuple[str, ...], Limit | None] = {}
    chosen: list[Limit | None] = []
    columns = (firsts.metric.list(), firsts.kind.list(), firsts.role.list(), firsts.amplifier.list())
    dates = np.searchsorted(limits.dates, firsts.mjd, side="right").tolist()
    named = {test: limits.named(test) for test in limits.tests}
    for k, (test, kind, role, amplifier) in enumerate(zip(*columns, strict=True)):
        detector = camera.by_id.get(int(firsts.detector[k]))
        full = f"{detector.name}_{amplifier}" if detector and amplifier else ""
        own, type_ = full if full in named[test] else "", detector.type if detector else ""
        key = test, kind, role, type_, own, str(dates[k])
        if key not in found:
            scope = Scope(test, kind, role, level, camera.name, type_, own, float(firsts.mjd[k]))
            found[key] = limits.of(scope)
        chosen.append(found[key])
    return chosen


def _bounds(chosen: list[Limit], severity: str) -> _Bounds:
    low, high = np.array([one.bounds(severity) for one in chosen]).T
    relative, sigma = (np.array([getattr(one, name) for one in chosen], bool) for name in ("relative", "sigma"))
    return _Bounds(low, high, relative, sigma, np.array([one.inflation for one in chosen]))


def _lines(rows: Rows, model: Model, level: str, chosen: list[Limit], limits: Limits, camera: Camera) -> Iterator[Line]:
    """Make the lines of one model; those without a value, too."""
    keys = _lines_of(rows)
    number = keys.spread(np.arange(len(keys.starts)))
    good = np.isfinite(rows.value) & np.isfinite(rows.variance) & np.isfinite(rows.expected)
    live = rows.where(good)
    block = _Block(model, live, Groups.by(number[good]))
    at = {int(n): k for k, n in enumerate(number[good][block.groups.firsts])} if len(live) else {}
    some = [one for n, one in enumerate(chosen) if n in at]
    results: dict[str, _Found] = {}
    if at:
        for severity in ("fail", "warn"):
            p = getattr(limits.false_alarms, severity)
            results[severity] = block.judge(_bounds(some, severity), p)
    middle = block.means() if at else None
    for n, first in enumerate(keys.firsts.tolist()):
        detector = camera.by_id.get(int(rows.detector[first]))
        about: Mapping[str, Any] = {
            "test": rows.metric.names[rows.metric.codes[first]],
            "kind": rows.kind.names[rows.kind.codes[first]],
            "role": rows.role.names[rows.role.codes[first]],
            "level": level,
            "detector": int(rows.detector[first]),
            "detector_name": detector.name if detector else "",
            "amplifier": rows.amplifier.names[rows.amplifier.codes[first]],
        }
        unit, total = TESTS[about["test"]].unit, int(keys.sizes[n])
        if n not in at or middle is None:
            nan = float("nan")
            yield Line(**about, verdict=Verdict.NO_VALUE, unit=unit, value=nan, expected=nan, low=nan, high=nan,
                       sigma=nan, exposures=0, missing=total, beyond=0, worst=0, worst_value=nan, by=nan)  # fmt: skip
            continue
        k = at[n]
        value, expected, sigma = (float(part[k]) for part in middle)
        yield _line(about, unit, (value, expected, sigma), total, results, k, block)


def _line(
    about: Mapping[str, Any], unit: str, means: tuple[float, float, float], total: int,
    results: Mapping[str, _Found], k: int, block: _Block,
) -> Line:  # fmt: skip
    """Make the line of a group ``k`` with values."""
    fail, warn, live = results["fail"], results["warn"], int(block.groups.sizes[k])
    by, by_warn = (max(float(one.by_mean[k]), float(one.by_worst[k])) for one in (fail, warn))
    verdict = Verdict.FAIL if by > 0 else Verdict.WARN if by_warn > 0 or live < total else Verdict.PASS
    worst = int(fail.worst[k])
    value, expected, sigma = means
    if block.model == "maximum":
        value = float(block.rows.value[worst])
    return Line(
        **about, verdict=verdict, unit=unit, value=value, expected=expected, low=float(fail.low[k]),
        high=float(fail.high[k]), sigma=sigma, exposures=live, missing=total - live, beyond=int(fail.beyond[k]),
        worst=int(block.rows.exposure[worst]), worst_value=float(block.rows.value[worst]), by=by,
    )  # fmt: skip
