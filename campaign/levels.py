"""The inputs table, judged: which exposures are not like the others."""

from __future__ import annotations

import csv
import itertools
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from types import MappingProxyType

from campaign.camera import Camera

NSIGMA = 5.0
#: More saturated pixels than hot pixels and cosmic rays could make.
SATURATED = 0.005
#: A bias or dark above, a flat below this many read noises is another kind of frame.
LIT = 100.0
#: Noises that an overscan may be off from those of most exposures.
JUMP = 20.0
#: Precision of a level, in noises: medians of 64 rows.
PRECISION = 0.05
#: Noise of digitisation, ADU: an amplifier that says nothing has no less.
DIGITISATION = 12**-0.5


@dataclass(frozen=True)
class Row:
    """One amplifier of one exposure: level above overscan, noise, overscan in ADU; saturated and blank fraction."""

    exposure: int
    detector: int
    amplifier: str
    level: float
    noise: float
    saturated: float
    overscan: float = 0.0
    blank: float = 0.0


@dataclass(frozen=True)
class Finding:
    """An exposure that an operator should look at, and why."""

    exposure: int
    detectors: tuple[int, ...]
    why: str


def read(folder: Path) -> list[Row]:
    """Read every detector's table of a run."""
    rows = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            rows += [
                Row(
                    int(r["exposure"]),
                    int(r["detector"]),
                    r["amplifier"],
                    float(r["level"]),
                    float(r["noise"]),
                    float(r["saturated"]),
                    float(r.get("overscan", 0.0)),
                    float(r.get("blank", 0.0)),
                )
                for r in csv.DictReader(file)
            ]
    return rows


def write(rows: Iterable[Row], path: Path) -> None:
    """Write one table of all detectors, by exposure."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row.__dataclass_fields__)
        writer.writerows(vars(r).values() for r in sorted(rows, key=lambda r: (r.exposure, r.detector, r.amplifier)))


def _grouped(rows: Iterable[Row], key: Sequence[str]) -> dict[tuple[object, ...], list[Row]]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, k) for k in key), []).append(row)
    return groups


def at_one_time(rows: Sequence[Row], times: Mapping[int, float]) -> list[Row]:
    """Bring the levels of darks of unlike exposure times to the usual one.

    By the Theil-Sen line of each amplifier (the median of the slopes between
    all pairs), whose zero may be anything: without an overscan a level holds
    the bias.

    Parameters
    ----------
    times : `dict`
        Exposure time of each exposure, second.
    """
    usual, moved = median(times.values()), []
    for peers in _grouped(rows, ("detector", "amplifier")).values():
        points = [(times[r.exposure], r.level) for r in peers]
        slopes = [(b - a) / (t - s) for (s, a), (t, b) in itertools.combinations(points, 2) if s != t]
        slope = median(slopes) if slopes else 0.0
        moved += [replace(r, level=r.level - slope * (times[r.exposure] - usual)) for r in peers]
    return moved


def deviations(rows: Sequence[Row], value: str) -> dict[tuple[int, int], float]:
    """How far each (exposure, detector) is from its peers, in their own scatter.

    Each amplifier is compared with the same one of the other exposures, about
    their median and by their median absolute deviation (with a floor, so that
    equal peers do not make everything an outlier); a detector's deviation is
    the median of its amplifiers'.

    Parameters
    ----------
    value : `str`
        ``level`` or ``noise``.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for peers in _grouped(rows, ("detector", "amplifier")).values():
        values = [getattr(r, value) for r in peers]
        centre = median(values)
        spread = 1.4826 * median(abs(v - centre) for v in values)
        for row, v in zip(peers, values, strict=True):
            far = (v - centre) / max(spread, PRECISION * max(row.noise, DIGITISATION))
            found.setdefault((row.exposure, row.detector), []).append(far)
    return {key: median(several) for key, several in found.items()}


def nights(dates: Mapping[int, str]) -> dict[int, str]:
    """The night of each exposure, from when it began (ISO-8601): a night begins at noon."""
    return {e: str((datetime.fromisoformat(t) - timedelta(hours=12)).date()) for e, t in dates.items()}


def _jumps(rows: Sequence[Row], night: Mapping[int, str]) -> list[Finding]:
    """Exposures whose overscans are far from those of the night with the most exposures."""
    by_night = Counter(night[e] for e in {row.exposure for row in rows} if e in night)
    if not by_night:
        return []
    usual, off = by_night.most_common(1)[0][0], dict[tuple[int, int], list[float]]()
    for peers in _grouped([r for r in rows if r.exposure in night], ("detector", "amplifier")).values():
        known = [r.overscan for r in peers if night[r.exposure] == usual]
        centre, noise = median(known or [r.overscan for r in peers]), median(r.noise for r in peers)
        for r in peers:
            off.setdefault((r.exposure, r.detector), []).append((r.overscan - centre) / max(noise, DIGITISATION))
    far = {key: median(several) for key, several in off.items() if abs(median(several)) > JUMP}
    findings = []
    for exposure in sorted({e for e, _ in far}):
        of_it = {d: far[e, d] for e, d in far if e == exposure}
        worst = max(of_it.values(), key=abs)
        what = f"its bias level, of the night {night[exposure]}, is {worst:+.0f} noises from that of {usual}"
        findings.append(Finding(exposure, tuple(sorted(of_it)), what))
    return findings


def judge(
    rows: Sequence[Row],
    product: str,
    times: Mapping[int, float],
    camera: Camera,
    night: Mapping[int, str] = MappingProxyType({}),
) -> list[Finding]:
    """Name the exposures that are saturated or blank, of another kind, or far from their peers.

    Parameters
    ----------
    rows : sequence of `Row`
    product : `str`
        ``bias``, ``dark`` or ``flat``.
    times : `dict`
        Exposure time of each exposure, second.
    camera : `Camera`
        Tells which amplifiers have an overscan: without, a level holds the bias.
    night : `dict`, optional
        Of each exposure; with it, those whose bias level has jumped are told.
    """
    findings = _saturated(rows) + _mistyped(rows, product, camera) + _jumps(rows, night)
    named = {f.exposure for f in findings}
    comparable = at_one_time(rows, times) if product == "dark" else rows
    alike: dict[float, list[Row]] = {}  # a noise grows with the exposure time, and not in any simple way
    for row in rows:
        alike.setdefault(times[row.exposure], []).append(row)
    noises = [deviations(some, "noise") for some in alike.values()]
    for value, all_of_it in (("level", deviations(comparable, "level")), ("noise", dict(ChainMap(*noises)))):
        far = {k: d for k, d in all_of_it.items() if abs(d) > NSIGMA and k[0] not in named}
        for exposure in sorted({e for e, _ in far}):
            of_it = {d: far[e, d] for e, d in far if e == exposure}
            worst = max(of_it.values(), key=abs)
            findings.append(Finding(exposure, tuple(sorted(of_it)), f"{value} {worst:+.0f} sigma from its peers"))
    return sorted(findings, key=lambda f: f.exposure)


def _has_overscan(camera: Camera) -> bool:
    return all(a.serial_overscan is not None for kind in camera.types.values() for a in kind.amplifiers)


def _saturated(rows: Sequence[Row]) -> list[Finding]:
    found = []
    for (exposure,), some in _grouped(rows, ("exposure",)).items():
        for value in ("saturated", "blank"):
            full = [r for r in some if getattr(r, value) > SATURATED]
            if full:
                worst = max(full, key=lambda r: float(getattr(r, value)))
                why = f"{100 * getattr(worst, value):.1f} % of amplifier {worst.amplifier} {value}"
                found.append(Finding(int(str(exposure)), tuple(sorted({r.detector for r in full})), why))
    return found


def _mistyped(rows: Sequence[Row], product: str, camera: Camera) -> list[Finding]:
    """A lit dark or bias, a dark flat: told by the level alone, where an overscan gives it a zero."""
    if not _has_overscan(camera):
        return []
    found = []
    for (exposure,), some in _grouped(rows, ("exposure",)).items():
        noises = median(r.level / max(r.noise, DIGITISATION) for r in some)
        lit = noises > LIT
        if lit != (product == "flat"):
            what = "lit" if lit else "dark"
            level = median(r.level for r in some)
            why = f"a {what} {product}: its level is {level:.0f} ADU, {noises:.0f} times the noise"
            found.append(Finding(int(str(exposure)), tuple(sorted({r.detector for r in some})), why))
    return found
