"""Common parts of the benchmarks: alternating runs, medians, bars, and results as table, Markdown and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from tests.benchmarks.data import Data

T = TypeVar("T")
VERSION = 1
NOT_JUDGED = "not judged"
COLUMNS = ("benchmark", "measured", "bar", "verdict", "of")


class Skipped(Exception):
    """A benchmark that cannot be run here, and why."""


@dataclass(frozen=True)
class Bar:
    """Bar of a number, and the next bar.

    Parameters
    ----------
    limit, then : `float`
        The bar, and the one after it.
    least : `bool`
        The number must be at least ``limit``, instead of at most.
    """

    limit: float
    then: float | None = None
    least: bool = False

    def _reached(self, value: float, limit: float | None) -> bool:
        return limit is not None and (value >= limit if self.least else value <= limit)

    def verdict(self, value: float) -> str:
        """Give ``missed``, ``met``, or ``met, then met`` where the next bar is reached too."""
        if not self._reached(value, self.limit):
            return "missed"
        return "met, then met" if self._reached(value, self.then) else "met"

    def __str__(self) -> str:
        then = "" if self.then is None else f" (then {self.then:.4g})"
        return f"{'>=' if self.least else '<='} {self.limit:.4g}{then}"


@dataclass(frozen=True)
class Result:
    """One number.

    Parameters
    ----------
    what : `str`
        Compared quantities.
    value : `float`
        The number that the bar is for, in ``unit`` (a ratio has none).
    bar : `Bar`, optional
        None: for information.
    parts : `dict` [`str`, `list` [`float`]]
        Every sample behind the number, in ``parts_unit``.
    condition : `str`
        Condition of the comparison.
    """

    what: str
    value: float
    unit: str = ""
    bar: Bar | None = None
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    parts_unit: str = ""
    condition: str = ""


@dataclass(frozen=True)
class Bench:
    """Input of a subject: the data, the number of repetitions, and a function for progress."""

    data: Data
    repeat: int | None
    quick: bool
    say: Callable[[str], None]

    def rounds(self, usual: int) -> int:
        """How often A and B take turns."""
        return self.repeat or (1 if self.quick else usual)

    def alternate(self, usual: int, runs: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Run A B A B ...; give the results of each, in order."""
        samples: dict[str, list[T]] = {name: [] for name in runs}
        for turn in range(self.rounds(usual)):
            for name, run in runs.items():
                samples[name].append(run())
                last = samples[name][-1]
                self.say(f"  {turn + 1}: {name}: {number(last) if isinstance(last, float) else last}")
        return samples


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Ratio of two medians."""
    return statistics.median(above) / statistics.median(below)


def row(result: Result, quick: bool) -> dict[str, Any]:
    """Give a result for the JSON file; reduced data are not judged."""
    verdict = "information" if result.bar is None else NOT_JUDGED if quick else result.bar.verdict(result.value)
    medians = {name: statistics.median(samples) for name, samples in result.parts.items()}
    return {
        **asdict(result),
        "bar": str(result.bar) if result.bar else None,
        "limit": asdict(result.bar) if result.bar else None,
        "verdict": verdict,
        "medians": medians,
    }


def number(value: float) -> str:
    """Three digits that count, and all those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for state in {"skipped", "failed"} & entry.keys():
        yield name, "", "", state, entry[state].splitlines()[0]
    for one in entry.get("results", ()):
        parts = ", ".join(f"{part} {number(value)}" for part, value in one["medians"].items())
        unit = one["parts_unit"] if parts else ""
        measured = f"{number(one['value'])} {one['unit']}".strip()
        yield f"{name}: {one['what']}", measured, one["bar"] or "", one["verdict"], f"{parts} {unit}".strip()


def cells(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of a report's table, below `COLUMNS`."""
    return [line for name, entry in report["benchmarks"].items() for line in _cells(name, entry)]


def table(report: Mapping[str, Any]) -> str:
    """A report as aligned text."""
    lines = [COLUMNS, *cells(report)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _sentence(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['simd'][-1] if machine['simd'] else 'no SIMD'}, "
        f"{machine['memory_gib']} GiB, {machine['system']}; {versions}; load {machine['load'][0]} before"
    )


def markdown(report: Mapping[str, Any]) -> str:
    """A report for the documentation: machine, table, conditions."""
    lines = [f"{_sentence(report['machine'])}. Measured {report['date']}.", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in cells(report)]
    conditions = [
        f"{name}: {one['condition']}"
        for name, entry in report["benchmarks"].items()
        for one in entry.get("results", ())
        if one["condition"]
    ]
    return "\n".join([*lines, "", *(f"- {text}" for text in dict.fromkeys([*report["conditions"], *conditions]))])
