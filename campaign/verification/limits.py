"""Files of limits: by test, camera, date, type and amplifier."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from campaign.camera import model as cameras
from campaign.camera.model import Camera
from campaign.camera.parts import Part, Real
from campaign.documents import Entry, parse, plain, read_text
from campaign.errors import ConfigurationError
from campaign.problems import Problem, Problems, suggest
from campaign.validation import line_of, sentences
from campaign.verification.known import KINDS, TESTS
from templates import ROOT

PACKAGED: Final = ROOT / "verification"
#: Modified Julian date of the first day of `datetime.date`'s count.
_MJD_OF_ORDINAL_0: Final = -678576
LEVELS: Final = ("amplifier", "detector", "camera")
Level = Literal["amplifier", "detector", "camera"]


def _day(value: Any) -> Any:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a day like 2025-06-01") from None


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


Bound = Annotated[float, BeforeValidator(_number)] | None
Probability = Annotated[float, BeforeValidator(_number), Field(gt=0, lt=0.1)]


class Limit(Part):
    """Limits of one test, for some lines."""

    #: First day for which it holds; `None`: always.
    since: Annotated[date | None, BeforeValidator(_day)] = None
    #: Names of cameras, types of detectors, amplifiers (``R22_S11_C10``), kinds and roles; empty: all.
    cameras: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    amplifiers: tuple[str, ...] = ()
    kinds: tuple[Literal[KINDS], ...] = ()  # type: ignore[valid-type]
    roles: tuple[Literal["construction", "independent", "product", "table", ""], ...] = ()
    levels: tuple[Level, ...] = ("amplifier",)
    #: Allowed deviation from the expected value, either way; or ranges of it, `None`: open.
    allowance: Annotated[float, BeforeValidator(_number), Field(ge=0)] | None = None
    fail: tuple[Bound, Bound] | None = None
    warn: tuple[Bound, Bound] | None = None
    #: Whether these are shares of the expected value.
    relative: bool = False
    #: Whether the statistical error widens them.
    sigma: bool = True
    #: Width of the statistic over that of its model: bins of a frame correlate, for example.
    inflation: Annotated[Real, Field(ge=1, le=10)] = 1.0
    #: Reason of the numbers.
    why: Annotated[str, StringConstraints(min_length=1, max_length=400)]

    @model_validator(mode="after")
    def _given(self) -> Limit:
        if (self.allowance is None) == (self.fail is None):
            raise ValueError("needs either allowance or fail")
        for low, high in filter(None, (self.fail, self.warn)):
            if low is not None and high is not None and low > high:
                raise ValueError(f"the range [{low:g}, {high:g}] is empty")
        return self

    def bounds(self, severity: str) -> tuple[float, float]:
        """Give the range of deviations without ``fail``, or without ``warn``; infinite where open."""
        chosen = self.warn if severity == "warn" and self.warn else self.fail
        if chosen is None:
            assert self.allowance is not None
            return -self.allowance, self.allowance
        low, high = chosen
        return -math.inf if low is None else low, math.inf if high is None else high

    def holds(self, line: Scope) -> bool:
        """Whether it is for a line."""
        given: list[tuple[tuple[str, ...], str]] = [
            (self.cameras, line.camera), (self.types, line.type), (self.amplifiers, line.amplifier),
            (self.kinds, line.kind), (self.roles, line.role),
        ]  # fmt: skip
        since = self.since is None or not line.mjd or mjd(self.since) <= line.mjd
        return since and line.level in self.levels and all(not wanted or value in wanted for wanted, value in given)


def mjd(day: date) -> float:
    """Convert a day to its Modified Julian date at 0 h."""
    return float(day.toordinal() + _MJD_OF_ORDINAL_0)


@dataclass(frozen=True)
class Scope:
    """Subject of a line, as far as limits depend on it."""

    test: str
    kind: str
    role: str
    level: str
    camera: str
    #: Type of the detector, and the amplifier with its detector's name; empty for the camera, for a detector.
    type: str = ""
    amplifier: str = ""
    #: Date of the line's first exposure; 0: unknown, the newest limits hold.
    mjd: float = 0.0


class Probabilities(Part):
    """False alarms a line, both sides together."""

    fail: Probability = 5e-8
    warn: Probability = 2e-6


class Limits(Part):
    """A file of limits, checked."""

    version: Literal[1]
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=32)]
    #: Subject and source of the numbers.
    about: str = ""
    #: Name of a packaged file whose limits come first; of those that hold, the last counts.
    based_on: str = ""
    false_alarms: Probabilities = Probabilities()
    tests: dict[str, tuple[Limit, ...]]

    def of(self, scope: Scope) -> Limit | None:
        """Find the limit of a line: the last that holds; `None`: the line is not judged."""
        return next((limit for limit in reversed(self.tests.get(scope.test, ())) if limit.holds(scope)), None)

    @cached_property
    def dates(self) -> tuple[float, ...]:
        """Dates on which limits change, ascending."""
        return tuple(sorted({mjd(one.since) for each in self.tests.values() for one in each if one.since}))

    def named(self, test: str) -> frozenset[str]:
        """List the amplifiers that limits of a test name."""
        return frozenset(name for one in self.tests.get(test, ()) for name in one.amplifiers)


def known() -> list[str]:
    """Names of the packaged files."""
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def load(name_or_path: str | Path, camera: Camera) -> Limits:
    """Load limits by the name of a packaged file, or from a file, for one camera.

    Parameters
    ----------
    camera : `Camera`
        Camera whose rows are judged: its types and amplifiers are those that limits can name.

    Raises
    ------
    ConfigurationError
        There is no such file, or it has problems; the error lists all, with their lines.
    """
    path = Path(name_or_path)
    if str(name_or_path) in known():
        path = PACKAGED / f"{name_or_path}.yaml"
    elif not path.is_file():
        do = f"{suggest(str(name_or_path), known())}, or give the path of a file"
        raise ConfigurationError(f"no limits {str(name_or_path)!r}", do=do)
    found: list[Problem] = []
    try:
        tree = parse(read_text(path), str(path), found)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(path)) from error
    if tree is None or found:
        raise Problems(str(path), found)
    values = plain(tree)
    try:
        limits = Limits.model_validate(values)
    except ValidationError as error:
        texts = sentences(error, values, Limits, tree)
        raise Problems(str(path), [_problem(text) for text in texts]) from error
    if found := list(_mistakes(limits, tree, camera)):
        raise Problems(str(path), found)
    return _on_base(limits, camera) if limits.based_on else limits


def _problem(text: str) -> Problem:
    """Take the place off the front of a sentence."""
    where, _, what = text.partition(": ")
    return Problem(what, where)


def _on_base(limits: Limits, camera: Camera) -> Limits:
    """Put the limits of the packaged file before these."""
    base = load(limits.based_on, camera)
    names = {**base.tests, **limits.tests}
    tests = {name: (*base.tests.get(name, ()), *limits.tests.get(name, ())) for name in names}
    return limits.model_copy(update={"tests": tests})


def _mistakes(limits: Limits, tree: Entry, camera: Camera) -> Iterator[Problem]:
    """Find names that nothing has: tests, cameras, types and amplifiers."""
    if limits.based_on and limits.based_on not in known():
        where, nearest = line_of(tree, ["based_on"]), suggest(limits.based_on, known())
        yield Problem(f"based_on: no limits {limits.based_on}", where, nearest)
    every = {*cameras.known(), camera.name}
    types = set(camera.types)
    amplifiers = {f"{d.name}_{a.name}" for d in camera.detectors for a in camera.types[d.type].amplifiers}
    for test, each in limits.tests.items():
        if test not in TESTS:
            yield Problem(f"unknown test {test}", line_of(tree, ["tests", test]), suggest(test, TESTS))
        for n, one in enumerate(each):
            yield from _unknown(tree, test, n, "cameras", one.cameras, every)
            if not one.cameras or camera.name in one.cameras:
                yield from _unknown(tree, test, n, "types", one.types, types)
                yield from _unknown(tree, test, n, "amplifiers", one.amplifiers, amplifiers)


def _unknown(tree: Entry, test: str, n: int, key: str, given: tuple[str, ...], every: set[str]) -> Iterator[Problem]:
    for k, name in enumerate(given):
        if name not in every:
            where = line_of(tree, ["tests", test, n, key, k])
            nearest = suggest(name, every) if len(every) < 40 or "did you" in suggest(name, every) else ""
            yield Problem(f"tests {test} {key}: unknown {key.removesuffix('s')} {name}", where, nearest)
