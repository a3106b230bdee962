"""Verdict lines: one a test, detector and amplifier, and the few words that name a fault."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

from campaign.verification.rows import CAMERA
from campaign.wording import count


class Verdict(StrEnum):
    """Outcome of a line, from the best to the worst."""

    PASS = "pass"
    WARN = "warn"
    #: No exposure has a value: a dead amplifier, for example.
    NO_VALUE = "no value"
    FAIL = "fail"


ORDER: Final = tuple(Verdict)
#: Share of a detector's amplifiers, and of a camera's detectors, that makes a fault common to it.
MOST: Final = 0.6
MOST_DETECTORS: Final = 0.8


@dataclass(frozen=True)
class Line:
    """Verdict on one test of one amplifier, detector or camera, over all exposures of a role."""

    test: str
    kind: str
    #: ``construction``: exposures among the product's inputs; ``independent``; ``product``, ``table``; or empty.
    role: str
    #: ``amplifier``, ``detector`` or ``camera``; of the latter the detector is -1, and its name empty.
    level: str
    detector: int
    detector_name: str
    amplifier: str
    verdict: Verdict
    unit: str
    #: Mean over the exposures, that expected, and its limits of ``fail``; infinite where open.
    value: float
    expected: float
    low: float
    high: float
    #: Statistical error of the mean.
    sigma: float
    #: Exposures with a value, those without, and those beyond their own limit of ``fail``.
    exposures: int
    missing: int
    beyond: int
    #: Exposure that is farthest beyond its limits, or nearest to them (0: of a product), and its value.
    worst: int
    worst_value: float
    #: Distance beyond the nearer limit of ``fail``, of the mean or of the worst exposure; below 0: within.
    by: float

    @property
    def where(self) -> str:
        """Place, for people."""
        if self.detector == CAMERA:
            return "camera"
        return f"{self.detector_name} {self.amplifier}".strip()

    def plain(self) -> dict[str, str | int | float | None]:
        """Give it as plain data for JSON: `None` for what has no value, and where a limit is open."""
        values = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values}

    def __str__(self) -> str:
        """Say it in a line."""
        what = f"{self.verdict}: {self.test} {self.kind}{f' ({self.role})' if self.role else ''}, {self.where}"
        if self.verdict is Verdict.NO_VALUE:
            return f"{what}: no value in {count(self.missing, 'exposure')}"
        unit = f" {self.unit}" if self.unit else ""
        limits = f"{_bound(self.low)} to {_bound(self.high)}"
        text = f"{what}: {self.value:.4g}{unit}, limits {limits}, {self.beyond} of {count(self.exposures, 'exposure')}"
        if self.worst:
            text += f", worst {self.worst} with {self.worst_value:.4g}"
        if self.by > 0:
            text += f", by {self.by:.2g}{unit}"
        return f"{text}; {self.missing} without a value" if self.missing else text


def _bound(value: float) -> str:
    return "open" if math.isinf(value) else f"{value:.4g}"


def worst_first(lines: Iterable[Line]) -> list[Line]:
    """Order lines by verdict, then by their distance beyond the limits in standard deviations."""

    def far(line: Line) -> float:
        return line.by / line.sigma if line.sigma > 0 else line.by * 1e9

    return sorted(lines, key=lambda line: (-ORDER.index(line.verdict), -far(line) if math.isfinite(far(line)) else 0.0))


def days_left(level: Line, drift: Line) -> float:
    """Compute the days from the middle of a series until its mean reaches a limit of ``fail``, at its present drift.

    Parameters
    ----------
    level, drift : `Line`
        Lines of one place: of the value, and of its slope with the date (``MEAN`` and ``MEAN_DRIFT``).

    Returns
    -------
    days : `float`
        0 where the limit is behind; infinite without a drift, or where that side is open.
    """
    if not drift.value:
        return math.inf
    room = (level.high if drift.value > 0 else level.low) - level.value
    return max(room / drift.value, 0.0)


@dataclass(frozen=True)
class Finding:
    """Lines of one test that fail together, at the largest place that they share."""

    test: str
    kind: str
    role: str
    #: ``camera``, a detector's name, or ``<detector> <amplifier>``.
    where: str
    #: The worst of them.
    line: Line
    lines: int


def findings(lines: Sequence[Line], verdicts: Iterable[Verdict] = (Verdict.FAIL, Verdict.NO_VALUE)) -> list[Finding]:
    """Name what fails: amplifiers, or their detector where most of its amplifiers do, or the camera.

    Parameters
    ----------
    lines : sequence of `Line`
        All lines, those that pass included.
    verdicts : iterable of `Verdict`, optional
        Verdicts that count.
    """
    wanted, tests = set(verdicts), defaultdict[tuple[str, str, str], list[Line]](list)
    for line in lines:
        tests[line.test, line.kind, line.role].append(line)
    found = []
    for (test, kind, role), each in tests.items():
        if any(line.verdict in wanted for line in each):
            places = _places(each, wanted)
            found += [Finding(test, kind, role, where, worst_first(some)[0], len(some)) for where, some in places]
    by_line = {id(finding.line): finding for finding in found}
    return [by_line[id(line)] for line in worst_first([finding.line for finding in found])]


def _places(lines: Sequence[Line], wanted: set[Verdict]) -> list[tuple[str, list[Line]]]:
    """Give the places of one test's failing lines, each with its lines."""
    by_detector = defaultdict[str, list[Line]](list)
    for line in lines:
        if line.level != "camera":
            by_detector[line.detector_name].append(line)
    whole: dict[str, list[Line]] = {}
    single: list[tuple[str, list[Line]]] = []
    for name, each in by_detector.items():
        amplifiers = [line for line in each if line.level == "amplifier"]
        odd = _odd(amplifiers, [line for line in each if line.level == "detector"], wanted)
        if odd is None:
            whole[name] = [line for line in each if line.verdict in wanted]
        else:
            single += [(line.where, [line]) for line in odd]
    camera = [line for line in lines if line.level == "camera" and line.verdict in wanted]
    detectors = [line for line in lines if line.level == "detector"]
    everywhere = bool(whole) and len(whole) > MOST_DETECTORS * len(by_detector)
    if len(by_detector) > 1 and (everywhere or (camera and _odd(detectors, camera, wanted) is None)):
        return [("camera", [*camera, *(line for some in whole.values() for line in some)])]
    return [*whole.items(), *single] or [("camera", camera)]


def _odd(below: Sequence[Line], above: Sequence[Line], wanted: set[Verdict]) -> list[Line] | None:
    """List the lines that fail by themselves; `None`: the fault is common to all, as the line above them says.

    It is common if most lines fail, or have the same worst exposure, or if none fails without the median deviation.
    """
    odd = [line for line in below if line.verdict in wanted]
    if len(below) > 1 and len(odd) > MOST * len(below):
        return None
    live = [line for line in below if line.verdict is not Verdict.NO_VALUE]
    for line in (one for one in above if one.verdict in wanted):
        if line.low <= line.value <= line.high:
            alike = [one for one in live if one.worst == line.worst]
            return None if len(alike) > MOST * len(live) else odd
        common = median(one.value - one.expected for one in live) if live else 0.0
        own = [one for one in odd if one not in live or not one.low < one.value - common < one.high]
        return own or None
    return odd
