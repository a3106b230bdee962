"""Reads and writes the inputs table, and brings its levels to one exposure time."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

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
    rows: list[Row] = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            lines = csv.reader(file)
            rows += map(_row_of(next(lines, [])), lines)
    return rows


def _row_of(names: Sequence[str]) -> Callable[[Sequence[str]], Row]:
    """Give the function that parses a line; columns missing from older versions are 0."""
    kinds: dict[str, Callable[[str], Any]] = {
        "exposure": int,
        "detector": int,
        "amplifier": str,
        "same_as": lambda text: int(float(text)),
    }
    columns = [(names.index(f.name), f.name, kinds.get(f.name, float)) for f in fields(Row) if f.name in names]

    def parse(cells: Sequence[str]) -> Row:
        return Row(**{name: kind(cells[n]) for n, name, kind in columns})

    return parse


def write(rows: Iterable[Row], path: Path) -> None:
    """Write one table of all detectors, by exposure."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(f.name for f in fields(Row))
        writer.writerows(vars(r).values() for r in sorted(rows, key=attrgetter("exposure", "detector", "amplifier")))


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
    usual, moved, groups = median(times.values()), [], dict[tuple[int, str], list[Row]]()
    for row in rows:
        groups.setdefault((row.detector, row.amplifier), []).append(row)
    for peers in groups.values():
        points = [(times[r.exposure], r.level) for r in peers]
        slopes = [(b - a) / (t - s) for (s, a), (t, b) in itertools.combinations(points, 2) if s != t]
        slope = median(slopes) if slopes else 0.0
        moved += [replace(r, level=r.level - slope * (times[r.exposure] - usual)) for r in peers]
    return moved


def nights(dates: Mapping[int, str]) -> dict[int, str]:
    """Give the night of each exposure from its begin (ISO-8601); a night begins at noon."""
    return {e: str((datetime.fromisoformat(t) - timedelta(hours=12)).date()) for e, t in dates.items()}
