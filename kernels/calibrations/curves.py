"""Deviation S of an amplifier's signal from proportion to the light, by upstream's types; corrected = signal - S.

Splines and polynomials are tabulated for linear interpolation (`kernels.calibrations.linearity`), so each bounds its
second derivative; a look-up table is one of steps already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the import takes half a second and 40 MiB: only to linearise
    from scipy.interpolate import Akima1DInterpolator

F64 = NDArray[np.float64]

#: Types that correct nothing.
NOTHING: Final = ("None", "Proportional")
#: Types of polynomials, and the number of coefficients that each takes; 0: all.
POWERS: Final = {"Squared": 1, "Polynomial": 0}
#: Signals for which a polynomial is tabulated, ADU: upstream's maxLookupTableAdu, and noise below 0.
LOWEST, HIGHEST = -4096.0, 2.0**18


class Curve(Protocol):
    """S of one amplifier."""

    @property
    def first(self) -> float:
        """Signal below which S is constant, ADU."""

    @property
    def end(self) -> float:
        """Signal from which S is constant, ADU."""

    @property
    def bend(self) -> float:
        """Bound of |S''| between its ends, 1/ADU."""

    @property
    def kink(self) -> float:
        """Bound of a sudden change of slope."""

    @property
    def steps(self) -> int:
        """Number of steps of 1 ADU, if S consists of such; else 0."""

    def __call__(self, signal: F64) -> F64:
        """Evaluate S, ADU, from `first` to `end`."""


@dataclass(frozen=True)
class Splines:
    """A spline, and for a double spline a second one for what the first has corrected."""

    one: Akima1DInterpolator
    two: Akima1DInterpolator | None = None
    first: float = 0.0
    steps: int = 0

    def __call__(self, signal: F64) -> F64:
        """Evaluate S, ADU."""
        if self.two is None:
            return np.asarray(self.one(signal))
        one = self.one(np.minimum(signal, self.one.x[-1]))
        return np.asarray(one + self.two(np.clip(signal - one, 0, self.two.x[-1])))

    @property
    def end(self) -> float:
        """See `Curve`."""
        last = float(self.one.x[-1])
        return last if self.two is None else max(last, float(self.two.x[-1] + self.one(last)))

    @property
    def bend(self) -> float:
        """See `Curve`."""
        if self.two is None:
            return _bend(self.one)
        one, two = _slope(self.one), _slope(self.two)
        return _bend(self.one) * (1 + two) + _bend(self.two) * (1 + one) ** 2

    @property
    def kink(self) -> float:
        """See `Curve`; there is one where one of two splines ends before the other."""
        return 0.0 if self.two is None else _slope(self.one) + _slope(self.two)


@dataclass(frozen=True)
class Powers:
    """A polynomial: S = - sum_k c_k signal^(k + 2)."""

    #: [power], float64: c_k, ADU^-(k + 1).
    coefficients: F64
    first: float = LOWEST
    end: float = HIGHEST
    kink: float = 0.0
    steps: int = 0

    def __call__(self, signal: F64) -> F64:
        """Evaluate S, ADU."""
        return np.asarray(-(signal**2) * np.polynomial.polynomial.polyval(signal, self.coefficients))

    @property
    def bend(self) -> float:
        """See `Curve`."""
        power = np.arange(2, 2 + len(self.coefficients))
        return float((power * (power - 1) * np.abs(self.coefficients) * self.end ** (power - 2)).sum())


@dataclass(frozen=True)
class LookupTable:
    """A table of what upstream adds: S = - values[int(signal + offset)]; its ends hold beyond it."""

    #: [entry], float64: ADU.
    values: F64
    offset: float
    bend: float = 0.0
    kink: float = 0.0

    def __call__(self, signal: F64) -> F64:
        """Evaluate S, ADU."""
        at = np.clip(np.trunc(signal + self.offset), 0, len(self.values) - 1).astype(np.int64)
        return np.asarray(-self.values[at])

    @property
    def first(self) -> float:
        """See `Curve`."""
        return -self.offset

    @property
    def end(self) -> float:
        """See `Curve`."""
        return len(self.values) - self.offset

    @property
    def steps(self) -> int:
        """See `Curve`."""
        return len(self.values)


def curve(kind: str, numbers: F64, per_adu: float = 1.0, table: F64 | None = None) -> Curve:
    """Make S of one amplifier of upstream's type and coefficients.

    Parameters
    ----------
    kind : `str`
        TYPE.
    numbers : `numpy.ndarray`, float64
        COEFFS; NaN at the end fills up.
    per_adu : `float`, optional
        Unit of the numbers per ADU, by which they are divided.
    table : `numpy.ndarray` [row, entry], float64, optional
        LOOKUP_VALUES.

    Raises
    ------
    ValueError
        The type cannot be applied, or its numbers describe none; see `spline`.
    """
    if kind in NOTHING:
        return Splines(spline(np.array([0.0, 1.0, 2.0]), np.zeros(3)))
    numbers = numbers[: len(numbers) - int(np.argmin(np.isnan(numbers[::-1])))] if len(numbers) else numbers
    if not np.isfinite(numbers).all():
        raise ValueError("column COEFFS holds a value that is no number")
    if kind in POWERS and len(numbers):
        some = numbers[: POWERS[kind] or None]
        return Powers(some * per_adu ** np.arange(1.0, 1 + len(some)))
    if kind == "LookupTable" and len(numbers) > 1:
        return _table(numbers, per_adu, table)
    if kind == "Spline" and len(numbers) % 2 == 0:
        return Splines(spline(*np.split(numbers / per_adu, 2)))
    if kind == "DoubleSpline" and len(numbers) > 2:
        lengths, numbers = numbers[:2].astype(int), numbers[2:] / per_adu
        if (lengths > 1).all() and 2 * lengths.sum() <= len(numbers):
            parts = np.split(numbers, np.cumsum(np.repeat(lengths, 2)))
            return Splines(spline(parts[0], parts[1]), spline(parts[2], parts[3]))
    known = ("Spline", "DoubleSpline", *POWERS, "LookupTable")
    if kind in known:
        raise ValueError(f"COEFFS of a {kind} cannot be {len(numbers)} numbers")
    raise ValueError(f"a linearity of TYPE {kind} cannot be applied; {', '.join(known)} and None can")


def _table(numbers: F64, per_adu: float, table: F64 | None) -> LookupTable:
    """Take an amplifier's row of the table."""
    if table is None:
        raise ValueError("a LookupTable needs the second table, LOOKUP_VALUES, and there is none")
    if per_adu != 1:
        raise ValueError("a LookupTable in electron cannot be applied: its entries are steps of 1 ADU")
    row = int(numbers[0])
    if not 0 <= row < len(table):
        raise ValueError(f"COEFFS name row {row} of LOOKUP_VALUES, which has {len(table)}")
    if not np.isfinite(table[row]).all():
        raise ValueError(f"row {row} of LOOKUP_VALUES holds a value that is no number")
    return LookupTable(table[row], float(numbers[1]))


def spline(nodes: F64, values: F64) -> Akima1DInterpolator:
    """Make a spline, from 0 to its last node.

    Raises
    ------
    ValueError
        The nodes do not ascend from 0, or S(0) is not 0.
    """
    from scipy.interpolate import Akima1DInterpolator

    if not (len(nodes) and nodes[0] >= 0 and (np.diff(nodes) > 0).all()):
        raise ValueError("its nodes do not ascend from 0")
    if nodes[0] > 0:
        nodes, values = np.insert(nodes, 0, 0.0), np.insert(values, 0, 0.0)
    if values[0] != 0:
        raise ValueError(f"S(0) is {values[0]:g} ADU, it must be 0")
    if len(nodes) < 2:
        raise ValueError("it has no node above 0")
    return Akima1DInterpolator(nodes, values)


def _slope(s: Akima1DInterpolator) -> float:
    """Bound |S'|, by the sum of its terms in each piece."""
    cubic, square, line = np.abs(s.c[:3])
    length = np.diff(s.x)
    return float((line + 2 * square * length + 3 * cubic * length**2).max())


def _bend(s: Akima1DInterpolator) -> float:
    """Compute the largest |S''|, 1/ADU, which is linear in each piece and so largest at an end."""
    cubic, square = s.c[0], s.c[1]
    return float(np.abs([2 * square, 2 * square + 6 * cubic * np.diff(s.x)]).max())
