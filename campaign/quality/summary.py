"""Summary of a run whose product is a table: amplifiers, their numbers, and what was left out."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from campaign.quality.tables import numbers
from campaign.wording import count, listed

#: File of the summary in a run's folder.
FILE: Final = "summary.json"
#: Numbered cards of what was left out, and their words.
LEFT: Final = {"UNEQUAL": "light changed", "DARK": "no light", "SINGLE": "no partner", "LEFTEXP": "no light"}
_MAD: Final = 1.4826


@dataclass(frozen=True)
class Number:
    """A number of all amplifiers."""

    name: str
    unit: str
    #: Median, scatter (1.4826 times the median absolute deviation), and median standard error; 0 if unknown.
    median: float
    scatter: float
    error: float
    #: Smallest and largest value, and their amplifiers.
    low: float
    low_at: str
    high: float
    high_at: str

    def __str__(self) -> str:
        unit, error = f" {self.unit}" if self.unit else "", f", error {self.error:.2g}" if self.error else ""
        ends = f"{self.low:.5g} ({self.low_at}) to {self.high:.5g} ({self.high_at})"
        # A median by construction 0 is what rounding leaves of it.
        median = 0.0 if abs(self.median) < 1e-5 * self.scatter else self.median
        return f"{self.name}: median {median:.5g}{unit}, scatter {self.scatter:.2g}{error}; {ends}"


@dataclass(frozen=True)
class Summary:
    """Numbers of a run."""

    #: Amplifiers that were measured, all amplifiers, and detectors.
    measured: int
    amplifiers: int
    detectors: int
    numbers: Sequence[Number]
    #: Reason by amplifier that was not measured, or is left out of a detector's mean.
    bad: Mapping[str, str]
    #: By exposures, and the reason: number of detectors that left them out.
    left_out: Mapping[str, int]

    @classmethod
    def of(cls, tables: Mapping[int, Any], detectors: Mapping[int, str]) -> Self | None:
        """Summarise the tables of a run; `None` for tables without numbers of amplifiers.

        Parameters
        ----------
        tables : mapping
            By detector, with ``rows`` and ``header`` (`campaign.formatter.CalibTable`).
        detectors : mapping
            Names of the detectors.
        """
        found = [(detectors[d], table, numbers(table.rows)) for d, table in sorted(tables.items())]
        known = [(name, table, one) for name, table, one in found if one is not None]
        if not known:
            return None
        good = {name: one.measured for name, _, one in known}
        labels = {name: one.names for name, _, one in known}
        made = [_number(label, known, good, labels) for label in known[0][2].values]
        bad: dict[str, str] = {}
        left_out: dict[str, int] = defaultdict(int)
        for name, table, _ in known:
            bad |= {f"{name} {amplifier}": why for amplifier, why in _named(table.header)}
            for text in _left_out(table.header):
                left_out[text] += 1
        many = int(sum(mask.sum() for mask in good.values()))
        total = sum(mask.size for mask in good.values())
        return cls(many, total, len(known), [one for one in made if one], bad, dict(left_out))

    @property
    def lines(self) -> list[str]:
        """Lines for the operator, each behind a word."""
        texts = [f"measured    {self.measured} of {self.amplifiers} amplifiers of {count(self.detectors, 'detector')}"]
        texts += [f"numbers     {number}" for number in self.numbers]
        texts += [f"BAD         {name}: {why}" for name, why in list(self.bad.items())[:20]]
        texts += [f"BAD         {len(self.bad) - 20} more; see {FILE}"] if len(self.bad) > 20 else []
        by: dict[tuple[str, int], list[str]] = defaultdict(list)
        for text, many in self.left_out.items():
            which, _, why = text.partition(": ")
            by[why, many].append(which)
        for (why, many), some in by.items():
            texts.append(f"left out    exposure {listed(some)}: {why}, of {count(many, 'detector')}")
        return texts

    def save(self, folder: Path) -> None:
        """Write it into a run's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read it from a run's folder; `None` if there is none that can be read."""
        try:
            plain = json.loads((folder / FILE).read_text())
            return cls(**{**plain, "numbers": [Number(**one) for one in plain["numbers"]]})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _number(
    label: str, known: Sequence[Any], good: Mapping[str, NDArray[np.bool_]], labels: Mapping[str, Sequence[str]]
) -> Number | None:
    """Summarise one number over all amplifiers that have it."""
    values, errors, places = [], [], []
    for name, _, one in known:
        value, error = one.values[label]
        fine = good[name] & np.isfinite(value)
        values += value[fine].tolist()
        errors += error[fine & np.isfinite(error)].tolist()
        places += [f"{name} {labels[name][k]}" for k in np.flatnonzero(fine).tolist()]
    if not values:
        return None
    array, (name, _, unit) = np.array(values), label.partition(", ")
    low, high = int(np.argmin(array)), int(np.argmax(array))
    median = float(np.median(array))
    scatter = _MAD * float(np.median(np.abs(array - median)))
    error = float(np.median(errors)) if errors else 0.0
    return Number(name, unit, median, scatter, error, values[low], places[low], values[high], places[high])


def _cards(header: Mapping[str, Any], key: str) -> Iterator[str]:
    """Give the values of numbered cards."""
    names = [name for name in header if re.fullmatch(rf"{key}\d+", str(name))]
    yield from (str(header[name]).strip() for name in sorted(names, key=lambda name: int(name[len(key) :])))


def _named(header: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the amplifiers that are bad or left out, and why."""
    for key in ("BADAMP", "LEFTAMP"):
        for text in _cards(header, key):
            amplifier, _, why = text.partition(": ")
            yield amplifier, why


def _left_out(header: Mapping[str, Any]) -> Iterator[str]:
    """Give the exposures that were left out, and why: ``1 and 2: no light``."""
    for key, why in LEFT.items():
        for text in _cards(header, key):
            exposures = " and ".join(word for word in text.split() if word.isdigit())
            yield f"{exposures}: {why}"
