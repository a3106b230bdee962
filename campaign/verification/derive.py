"""Derive rows from rows: levels against peers, drifts, stability, halves, and what is absent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from campaign.verification.rows import CAMERA, F64, I64, Groups, Rows, Text, join, made

#: Fewest detectors whose median is a reference, and fewest exposures for a slope or a scatter.
PEERS, SERIES = 3, 4
DRIFTS: Final = MappingProxyType({"MEAN": "MEAN_DRIFT", "RATE": "RATE_DRIFT", "GAIN_FROM_FLAT_PAIR": "GAIN_DRIFT"})
STABILITY: Final = MappingProxyType({"MEAN": "MEAN_STABILITY", "LEVEL": "GAIN_STABILITY"})
HALVES: Final = MappingProxyType({"MEAN": "MEAN_HALVES", "RATE": "RATE_HALVES"})


def derive(
    rows: Rows,
    planned: Mapping[str, Collection[tuple[int, int]]] = MappingProxyType({}),
    nominal: Mapping[int, float] = MappingProxyType({}),
) -> Rows:
    """Derive all rows that others allow.

    Parameters
    ----------
    rows : `Rows`
        Of frames and pairs.
    planned : `dict`, optional
        By kind of frame, the (exposure, detector) that should have rows.
    nominal : `dict`, optional
        Light of each exposure relative to the others; by default all have the same.

    Returns
    -------
    derived : `Rows`
        Without ``rows``.
    """
    good = rows.where(np.isfinite(rows.value) & np.isfinite(rows.variance))
    parts = [*_levels(good.named("FLUX"), nominal), jumps(good.named("OVERSCAN_LEVEL")), absent(rows, planned)]
    parts += [drift(good.named(metric), name) for metric, name in DRIFTS.items()]
    parts += [stability(good.named(metric), name) for metric, name in STABILITY.items()]
    parts += [halves(good.named(metric), name) for metric, name in HALVES.items()]
    return join(parts)


def _levels(flux: Rows, nominal: Mapping[int, float]) -> list[Rows]:
    """Compare the light of detectors within an exposure, and of exposures."""
    if not len(flux):
        return []
    groups = Groups.by(flux.kind.codes, flux.exposure)
    middle, enough = groups.median(flux.value), groups.sizes >= PEERS
    level, several = groups.spread(middle), groups.spread(enough)
    zero = np.zeros(len(flux))
    more = (1 + np.pi / 2 / groups.spread(groups.sizes.astype(np.float64))) / level**2
    every = np.arange(len(flux))
    columns = {"value": flux.value / level - 1, "variance": flux.variance * more, "shared": flux.shared * more}
    detectors = made(flux, "DETECTOR_LEVEL", every, {**columns, "expected": zero}).where(several)
    at_camera = {"detector": np.full(len(middle), CAMERA), "role": Text.all("", len(middle))}
    light = middle / np.array([nominal.get(int(e), 1.0) for e in flux.exposure[groups.firsts]])
    kinds = Groups.by(flux.kind.codes[groups.firsts])
    exposures = made(
        flux, "EXPOSURE_LEVEL", groups.firsts, {**at_camera, "value": light / kinds.spread(kinds.median(light)) - 1}
    )
    n = groups.sizes.astype(np.float64)
    mean = groups.sum(flux.value) / n
    squares = groups.sum((flux.value - groups.spread(mean)) ** 2) / np.maximum(n - 1, 1)
    noise2 = groups.sum(flux.variance + np.maximum(flux.shared, 0)) / n
    scatter = {
        "value": np.sqrt(squares) / mean,
        "expected": np.sqrt(noise2) / mean,
        "variance": noise2 / mean**2 / (2 * np.maximum(n - 1, 1)),
    }
    return [detectors, exposures, made(flux, "EXPOSURE_SCATTER", groups.firsts, {**at_camera, **scatter}).where(enough)]


def jumps(levels: Rows) -> Rows:
    """Compare the raw bias level of each exposure with the amplifier's median over all exposures."""
    groups = Groups.by(levels.kind.codes, levels.detector, levels.amplifier.codes)
    columns = {"value": levels.value - groups.spread(groups.median(levels.value))}
    return made(levels, "OVERSCAN_JUMP", np.arange(len(levels)), columns) if len(levels) else levels


def absent(rows: Rows, planned: Mapping[str, Collection[tuple[int, int]]]) -> Rows:
    """Make a row of value 1 for each (exposure, detector) that was planned and has none, and 0 for the others."""
    kinds, found = list[str](), list[tuple[int, int, int]]()
    for kind, pairs in planned.items():
        of_kind = rows.where(rows.kind.is_(kind))
        there = set(zip(of_kind.exposure.tolist(), of_kind.detector.tolist(), strict=True))
        found += [(exposure, detector, (exposure, detector) not in there) for exposure, detector in sorted(pairs)]
        kinds += [kind] * len(pairs)
    n, numbers = len(found), np.array(found, np.int64).reshape(-1, 3)
    plain = dict(zip(("exposure", "detector", "value"), numbers.T, strict=True))
    empty = {name: Text.all("", n) for name in ("amplifier", "role")}
    zero = {name: np.zeros(n) for name in ("mjd", "expected", "variance", "shared", "size")}
    return Rows.of({**plain, **empty, **zero, "kind": kinds, "metric": Text.all("ABSENT", n)})


def _series(rows: Rows) -> tuple[Rows, Groups]:
    """Group the rows by line, without the lines of few exposures."""
    if not len(rows):
        return rows, Groups(np.empty(0, np.int64), np.empty(0, np.int64))

    def grouped(some: Rows) -> Groups:
        return Groups.by(some.kind.codes, some.role.codes, some.detector, some.amplifier.codes)

    groups = grouped(rows)
    enough = rows.where(groups.spread(groups.sizes >= SERIES))
    return enough, grouped(enough)


def _about(groups: Groups, values: F64, weights: F64) -> F64:
    """Subtract each line's weighted mean from the values [row]."""
    return np.asarray(values - groups.spread(groups.sum(weights * values) / groups.sum(weights)))


def drift(rows: Rows, name: str) -> Rows:
    """Fit the slope of each line with the date; lines of a single moment have none."""
    rows, groups = _series(rows)
    if not len(rows):
        return rows
    weights = 1 / np.where(rows.variance > 0, rows.variance, 1.0)
    days, away = _about(groups, rows.mjd, weights), _about(groups, rows.value - rows.expected, weights)
    total = groups.sum(weights * days**2)
    some = total > 0
    sizes = np.where(some, total, 1.0)
    columns = {"value": groups.sum(weights * days * away) / sizes, "variance": 1 / sizes}
    return made(rows, name, groups.firsts, {**columns, "exposure": _none(groups)}).where(some)


def stability(rows: Rows, name: str) -> Rows:
    """Add the squares of each line's deviations from its mean over the exposures, over their variances."""
    rows, groups = _series(rows.where(rows.variance > 0))
    if not len(rows):
        return rows
    squares = groups.sum(_about(groups, rows.value - rows.expected, 1 / rows.variance) ** 2 / rows.variance)
    freedom = (groups.sizes - 1).astype(np.float64)
    columns = {"value": squares, "expected": freedom, "size": freedom, "exposure": _none(groups)}
    return made(rows, name, groups.firsts, columns)


def halves(rows: Rows, name: str) -> Rows:
    """Subtract the mean of each line's even exposures, in their order, from that of its odd ones (DMTN-101)."""
    rows, groups = _series(rows)
    if not len(rows):
        return rows
    order = Groups.by(rows.kind.codes, rows.role.codes, rows.detector, rows.amplifier.codes, rows.exposure).order
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - np.repeat(groups.starts, groups.sizes)
    odd = place % 2 == 0
    value, variance = np.zeros(len(groups.starts)), np.zeros(len(groups.starts))
    for half, sign in ((odd, 1), (~odd, -1)):
        n = groups.sum(half.astype(np.float64))
        value += sign * groups.sum(np.where(half, rows.value - rows.expected, 0.0)) / n
        variance += groups.sum(np.where(half, rows.variance, 0.0)) / n**2
    return made(rows, name, groups.firsts, {"value": value, "variance": variance, "exposure": _none(groups)})


def _none(groups: Groups) -> I64:
    return np.zeros(len(groups.starts), np.int64)
