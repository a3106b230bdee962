"""Reads the inputs table, and judges single rows: saturated, mistyped, or with a jump of the bias level."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import ClassVar

from campaign.camera.model import Camera

#: Fraction of saturated pixels that hot pixels and cosmic rays cannot explain.
SATURATED = 0.005
#: A bias or dark above this many read noises, or a flat below, is another kind of frame.
LIT = 100.0
#: Largest deviation of an overscan from that of most exposures, in noises.
JUMP = 20.0
#: Noise of digitisation, ADU: the least noise of any amplifier.
DIGITISATION = 12**-0.5


@dataclass(frozen=True)
class Row:
    """Amplifier of one exposure, as described in ``docs/products.md``; levels and noises in ADU."""

    #: Columns with numbers.
    NUMBERS: ClassVar[tuple[str, ...]]

    exposure: int
    detector: int
    amplifier: str
    #: Above the overscan.
    level: float
    noise: float
    #: Fraction of the pixels; so are `rejected` (as cosmic rays) and `blank` (without a value).
    saturated: float
    #: Level of the overscan.
    overscan: float = 0.0
    noise_error: float = 0.0
    #: Deviation from the shape of the others, and the noise of a cell.
    shape: float = 0.0
    shape_error: float = 0.0
    #: Fraction of the rows whose pixels have one value.
    constant: float = 0.0
    rejected: float = 0.0
    blank: float = 0.0
    #: An earlier exposure with the same pixels; 0 for none.
    same_as: int = 0


Row.NUMBERS = tuple(f.name for f in fields(Row) if f.name not in ("exposure", "detector", "amplifier"))


@dataclass(frozen=True)
class Finding:
    """Finding for the operator about one exposure or, without one, about all."""

    exposure: int | None
    detectors: tuple[int, ...]
    why: str
    #: Affected amplifiers; empty for whole detectors.
    amplifiers: tuple[str, ...] = ()
    #: Whether the combine would refuse the exposure.
    refused: bool = False

    @property
    def subject(self) -> str:
        """Exposure, or all exposures, for a message."""
        if self.exposure is not None:
            return f"exposure {self.exposure}"
        return "all exposures"

    @property
    def where(self) -> str:
        """Detectors, for a message."""
        many = len(self.detectors)
        return f"{many} detectors" if many != 1 else f"detector {self.detectors[0]}"


def read(folder: Path) -> list[Row]:
    """Read every detector's table of a run."""
    rows = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            rows += [_row(r) for r in csv.DictReader(file)]
    return rows


def _row(cells: Mapping[str, str]) -> Row:
    """Parse a line of the table; columns missing from older versions are 0."""
    numbers = {name: float(cells[name]) for name in Row.NUMBERS if name in cells}
    numbers["same_as"] = int(numbers.get("same_as", 0))
    return Row(int(cells["exposure"]), int(cells["detector"]), cells["amplifier"], **numbers)  # type: ignore[arg-type]


def write(rows: Iterable[Row], path: Path) -> None:
    """Write one table of all detectors, by exposure."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(f.name for f in fields(Row))
        writer.writerows(vars(r).values() for r in sorted(rows, key=lambda r: (r.exposure, r.detector, r.amplifier)))


def _grouped(rows: Iterable[Row], key: Sequence[str]) -> dict[tuple[object, ...], list[Row]]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, k) for k in key), []).append(row)
    return groups


def at_one_time(rows: Sequence[Row], times: Mapping[int, float]) -> list[Row]:
    """Bring the levels of darks of unlike exposure times to the usual one.

    Each amplifier follows its Theil-Sen line (the median of the slopes between
    all pairs). The line's zero is free: without an overscan a level includes
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


def nights(dates: Mapping[int, str]) -> dict[int, str]:
    """Give the night of each exposure from its begin (ISO-8601); a night begins at noon."""
    return {e: str((datetime.fromisoformat(t) - timedelta(hours=12)).date()) for e, t in dates.items()}


def jumps(rows: Sequence[Row], night: Mapping[int, str]) -> list[Finding]:
    """Find exposures whose overscans are far from those of the night with the most exposures."""
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


def _has_overscan(camera: Camera) -> bool:
    return all(a.serial_overscan is not None for kind in camera.types.values() for a in kind.amplifiers)


def saturated(rows: Sequence[Row]) -> list[Finding]:
    """Find exposures with more saturated pixels than hot pixels and cosmic rays can explain."""
    found = []
    for (exposure,), some in _grouped(rows, ("exposure",)).items():
        for value in ("saturated", "blank"):
            full = [r for r in some if getattr(r, value) > SATURATED]
            if full:
                worst = max(full, key=lambda r: float(getattr(r, value)))
                why = f"{100 * getattr(worst, value):.1f} % of amplifier {worst.amplifier} {value}"
                found.append(Finding(int(str(exposure)), tuple(sorted({r.detector for r in full})), why))
    return found


def mistyped(rows: Sequence[Row], product: str, camera: Camera) -> list[Finding]:
    """Find lit darks and biases, and dark flats, by the level where an overscan gives its zero."""
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
