"""Linearity of a detector's amplifiers as a linear model of its exposures.

The signal mu of an amplifier in an exposure of light D deviates from proportion by a spline that all amplifiers share,
in units of each one's slope, and by one of its own:

    mu = R(mu) + rho A((mu - R) / rho) + O + k_group D (1 + noise of the monitor)

Everything but the splines' arguments is linear.  The monitor's noise is common to all amplifiers of an exposure and the
rest is not: by the weights for both, the splines of the amplifiers relative to the reference are as good as the frames,
however noisy the monitor.

Gauges: R = 0 in the reference amplifier; R and A are 0 at 0, and their nodes up to the PTC's turnoff have a mean of 0.
In place of a spline A may be a polynomial without constant and slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.transfer.splines import basis

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Standard deviations per median absolute deviation, for Gaussian noise.
MAD = 1.4826
#: Least eigenvalue of the normal equations, relative to the largest: below, rounding decides.
SINGULAR = 1e-13
#: Round after which the weights of the splines' slopes stay as they are: they may jump between two solutions.
HELD = 15


class Unlinear(ValueError):
    """Measurements that determine no linearity, and why."""


@dataclass(frozen=True)
class Light:
    """Light of the exposures."""

    #: [exposure], float64: Exposure time, second, or charge of a diode, any unit.
    amount: F64
    #: [exposure], int64: Groups with a scale each; negative: left out.
    group: I64
    #: [exposure], float64: Temperature and date less typical ones, kelvin and day; none: the signal depends on neither.
    temperature: F64 | None = None
    date: F64 | None = None

    @classmethod
    def of(cls, amount: F64) -> Light:
        """Put all exposures into one group."""
        return cls(amount, np.zeros(amount.shape, np.int64))


@dataclass(frozen=True)
class Rule:
    """Settings of the fit."""

    #: Relative noise of the monitor, common to all amplifiers of an exposure.
    monitor: float = 1e-3
    #: Relative noise of an amplifier's mean: a constant, and electrons' square root, ADU^0.5.
    floor: float = 1e-4
    photon: float = 0.0
    #: Whether amplifiers have an offset O.
    offset: bool = True
    #: Residuals beyond this many standard deviations are rejected, at most `at_once` a round.
    nsigma: float = 5.0
    at_once: int = 5
    #: Most rounds.
    rounds: int = 40


@dataclass(frozen=True)
class Spline:
    """A spline of Akima's through S(0) = 0."""

    #: [node], float64: ADU.
    nodes: F64
    values: F64

    def __call__(self, signal: F64) -> F64:
        """Evaluate S, ADU; constant beyond the nodes."""
        return np.asarray(basis(self.nodes, self.values, signal) @ self.values)

    @property
    def pieces(self) -> int:
        """Number of pieces, each of which averages the light of its exposures."""
        return len(self.nodes) - 1

    def scaled(self, factor: float) -> Spline:
        """Stretch both axes."""
        return Spline(self.nodes * factor, self.values * factor)


@dataclass(frozen=True)
class Polynomial:
    """S = - sum_k c_k signal^(k + 2), upstream's c_k."""

    #: [power], float64: ADU^-(k + 1).
    values: F64

    def __call__(self, signal: F64) -> F64:
        """Evaluate S, ADU."""
        return np.asarray(powers(len(self.values), signal) @ self.values)

    @property
    def pieces(self) -> int:
        """Number of free numbers, like `Spline.pieces`."""
        return len(self.values)

    def scaled(self, factor: float) -> Polynomial:
        """Stretch both axes."""
        return Polynomial(self.values / factor ** np.arange(1.0, 1 + len(self.values)))


#: A deviation that all amplifiers may share.
Deviation = Spline | Polynomial


def powers(number: int, x: F64) -> F64:
    """Give - x^2, - x^3, ... [point, power]."""
    return -(np.asarray(x)[:, np.newaxis] ** np.arange(2.0, 2 + number))


@dataclass(frozen=True)
class Amplifier:
    """Linearity of one amplifier."""

    #: Deviation from the reference amplifier, subtracted first; none in the reference.
    relative: Spline | None
    #: Deviation from the light, subtracted next.
    absolute: Deviation
    #: ADU.
    offset: float
    offset_error: float
    #: By group, ADU per unit of light.
    slopes: dict[int, float]
    slope_errors: dict[int, float]
    #: Of the signal, 1/kelvin and 1/day; 0 where not fitted.
    temperature: float
    date: float
    #: [exposure], float64: mu / model - 1; not a number where rejected or not used.
    residuals: F64

    def correct(self, signal: F64) -> F64:
        """Subtract both splines, ADU."""
        there = signal if self.relative is None else signal - self.relative(signal)
        return there - self.absolute(there)

    @property
    def scatter(self) -> float:
        """Robust standard deviation of the residuals."""
        return MAD * float(np.nanmedian(np.abs(self.residuals - np.nanmedian(self.residuals))))


def gauge(nodes: F64, ptc: float) -> F64:
    """Give the values that keep to the gauges as a linear form of free parameters [node, parameter]."""
    bounds = np.stack([np.eye(len(nodes))[0], np.where(nodes <= max(ptc, nodes[2]), 1.0, 0.0)])
    return np.linalg.qr(bounds.T, mode="complete")[0][:, 2:]


class Shape(Protocol):
    """A deviation of the fit: present values and free parameters."""

    @property
    def number(self) -> int:
        """Number of free parameters."""

    def columns(self, x: F64) -> F64:
        """Give the deviation at ``x`` as a linear form of the free parameters [point, parameter]."""

    def update(self, parameters: F64) -> None:
        """Take free parameters over."""

    def made(self) -> Deviation:
        """Give the present deviation."""


@dataclass
class SplineShape:
    """A spline, by its nodes."""

    nodes: F64
    #: [node, parameter]; see `gauge`.
    free: F64
    values: F64 = field(init=False)
    #: Values that give the slopes' weights.
    held: F64 = field(init=False)
    rounds: int = 0

    def __post_init__(self) -> None:
        self.values = self.held = np.zeros(len(self.nodes))

    @property
    def number(self) -> int:
        """See `Shape`."""
        return self.free.shape[1]

    def columns(self, x: F64) -> F64:
        """See `Shape`."""
        return np.asarray(basis(self.nodes, self.held, x) @ self.free)

    def update(self, parameters: F64) -> None:
        """See `Shape`."""
        self.values, self.rounds = self.free @ parameters, self.rounds + 1
        if self.rounds <= HELD:
            self.held = self.values if self.rounds < 3 else (self.held + self.values) / 2

    def made(self) -> Spline:
        """See `Shape`."""
        return Spline(self.nodes, self.values.copy())


@dataclass
class PolynomialShape:
    """A polynomial, by the number of its coefficients; ``values`` are upstream's."""

    number: int
    values: F64 = field(init=False)

    def __post_init__(self) -> None:
        self.values = np.zeros(self.number)

    def columns(self, x: F64) -> F64:
        """See `Shape`."""
        return powers(self.number, x)

    def update(self, parameters: F64) -> None:
        """See `Shape`."""
        self.values = np.asarray(parameters)

    def made(self) -> Polynomial:
        """See `Shape`."""
        return Polynomial(self.values.copy())


class Model:
    """All rows and columns: rows are the points in use, columns A, then each amplifier's own."""

    def __init__(
        self, signals: F64, used: Bool, light: Light, shapes: Sequence[SplineShape | None], common: Shape, rule: Rule
    ):
        self.signals, self.used, self.light, self.rule = signals, used, light, rule
        self.shapes, self.common = shapes, common
        self.number, self.exposures = signals.shape
        self.groups = [int(g) for g in np.unique(light.group[light.group >= 0])]
        self.terms = [term for term in (light.temperature, light.date) if term is not None]
        self.rho = np.ones(self.number)
        self.factor = np.ones(signals.shape)  # of temperature and date
        self.parameters = np.zeros(common.number)
        self.values: list[F64] = []
        self.errors: list[F64] = []

    def own(self, k: int) -> F64:
        """An amplifier's own columns at all exposures: R, offset, slopes, temperature, date."""
        signal, shape = self.signals[k], self.shapes[k]
        parts = [np.zeros((self.exposures, 0))]
        if shape is not None:
            parts.append(shape.columns(signal * self.factor[k]))
        if self.rule.offset:
            parts.append(np.ones((self.exposures, 1)))
        parts += [np.where(self.light.group == g, self.light.amount, 0.0)[:, np.newaxis] for g in self.groups]
        parts += [(-signal * term)[:, np.newaxis] for term in self.terms]
        return np.concatenate(parts, axis=1)

    def shared(self, k: int) -> F64:
        """Columns of A."""
        there, shape = self.signals[k] * self.factor[k], self.shapes[k]
        if shape is not None:
            there = there - shape.made()(there)
        return self.rho[k] * self.common.columns(there / self.rho[k])

    def design(self) -> tuple[F64, list[slice]]:
        """All columns [amplifier, exposure, column], and where each amplifier's own are."""
        own = [self.own(k) for k in range(self.number)]
        first = self.common.number
        ends = first + np.cumsum([0, *(one.shape[1] for one in own)])
        places = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        made = np.zeros((self.number, self.exposures, int(ends[-1])))
        for k, place in enumerate(places):
            made[k, :, :first], made[k, :, place] = self.shared(k), own[k]
        return made, places

    def whitened(self, rows: F64) -> F64:
        """Divide rows [amplifier, exposure, ...], relative to the signal, by their common noise and their own."""
        own = np.sqrt(self.rule.floor**2 + self.rule.photon**2 / np.maximum(self.signals, 1.0))
        weight = np.where(self.used, 1 / own, 0.0)
        power = (weight**2).sum(axis=0)
        share = (1 - 1 / np.sqrt(1 + self.rule.monitor**2 * power)) / np.maximum(power, 1e-300)
        extra = (1,) * (rows.ndim - 2)
        scaled = rows * weight.reshape(*weight.shape, *extra)
        mean = (scaled * weight.reshape(*weight.shape, *extra)).sum(axis=0) * share.reshape(-1, *extra)
        return np.asarray(scaled - weight.reshape(*weight.shape, *extra) * mean)

    def solve(self) -> F64:
        """Solve once; give the relative residuals [amplifier, exposure] of the new parameters."""
        design, places = self.design()
        scale = np.where(self.signals > 0, self.signals, 1.0)
        rows = self.whitened(design / scale[:, :, np.newaxis]).reshape(-1, design.shape[2])
        right = self.whitened(np.where(self.used, self.signals / scale, 0.0)).ravel()
        size = np.maximum(np.sqrt((rows**2).sum(axis=0)), 1e-300)
        rows /= size
        strength, axes = np.linalg.eigh(rows.T @ rows)
        if not strength[0] > SINGULAR * strength[-1]:
            raise Unlinear(f"{int(self.used.sum())} points do not determine {rows.shape[1]} parameters: fewer nodes")
        inverse = (axes / strength) @ axes.T
        found = inverse @ (rows.T @ right)
        found += inverse @ (rows.T @ (right - rows @ found))
        chi2 = float(((right - rows @ found) ** 2).sum()) / max(int(self.used.sum()) - rows.shape[1], 1)
        errors, found = np.sqrt(np.diag(inverse) * chi2) / size, found / size
        self.take(found, errors, places)
        return (self.signals - design @ found) / scale

    def take(self, found: F64, errors: F64, places: Sequence[slice]) -> None:
        """Take a solution over: A, then what `design` gives the places of."""
        self.parameters = found[: self.common.number]
        self.common.update(self.parameters)
        self.values, self.errors = [found[place] for place in places], [errors[place] for place in places]
        self.update()

    def update(self) -> None:
        """Take over what the next round's arguments need."""
        for k, shape in enumerate(self.shapes):
            if shape is not None:
                shape.update(self.values[k][: shape.number])
            slopes = self.slopes(k)[0]
            reference = self.slopes(0)[0]
            self.rho[k] = float(np.mean([slopes[g] / reference[g] for g in self.groups]))
            numbers = self.values[k][len(self.values[k]) - len(self.terms) :]
            self.factor[k] = 1 + sum((n * term for n, term in zip(numbers, self.terms, strict=True)), np.zeros(1))

    def _at(self, k: int) -> int:
        shape = self.shapes[k]
        return (0 if shape is None else shape.number) + self.rule.offset

    def slopes(self, k: int) -> tuple[dict[int, float], dict[int, float]]:
        """Slopes and their errors, by group."""
        at = self._at(k)
        pairs = (
            zip(self.groups, one[k][at : at + len(self.groups)], strict=True) for one in (self.values, self.errors)
        )
        first, second = ({g: float(v) for g, v in pair} for pair in pairs)
        return first, second

    def amplifier(self, k: int) -> Amplifier:
        """Put an amplifier's parameters together; the residuals are those of the splines as they will be applied."""
        values, errors, at, shape = self.values[k], self.errors[k], self._at(k), self.shapes[k]
        offset, error = (float(v[at - 1]) if self.rule.offset else 0.0 for v in (values, errors))
        rest = iter(values[len(values) - len(self.terms) :])
        temperature = float(next(rest)) if self.light.temperature is not None else 0.0
        date = float(next(rest)) if self.light.date is not None else 0.0
        slopes, slope_errors = self.slopes(k)
        made = Amplifier(
            None if shape is None else shape.made(), self.common.made().scaled(float(self.rho[k])),
            offset, error, slopes, slope_errors, temperature, date, np.full(self.exposures, np.nan),
        )  # fmt: skip
        model = np.array([slopes.get(int(g), np.nan) for g in self.light.group]) * self.light.amount
        corrected = made.correct(self.signals[k] * self.factor[k]) - offset
        made.residuals[self.used[k]] = corrected[self.used[k]] / model[self.used[k]] - 1
        return made
