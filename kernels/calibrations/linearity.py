"""Linearity: deviation of each amplifier's signal from proportion to the light.

Product: upstream's LINEARIZER, one row an amplifier: AMPLIFIER_NAME, TYPE and
COEFFS (LINEARITY_UNITS, adu).  Corrected = signal - S(signal), by type:

============ ======================= ==========================================
Spline       nodes, values           S is the spline through them
DoubleSpline n1, n2, nodes 1,        S(x) = S1(x) + S2(x - S1(x))
             values 1, nodes 2,
             values 2
None,                                S is 0
Proportional
============ ======================= ==========================================

A spline is Akima's (J. ACM 17, 589, 1970) through its nodes and S(0) = 0; it is 0 below 0
and constant beyond the last node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles
from kernels.camera.geometry import Camera, Detector
from kernels.compiled import njit
from kernels.errors import DataError
from kernels.fits.product import Card

if TYPE_CHECKING:  # the import takes half a second and 40 MiB: only to linearise
    from scipy.interpolate import Akima1DInterpolator

F64 = NDArray[np.float64]

KIND = "linearizer"
#: Largest error of linear interpolation on the even grid, ADU; float32 has the rest of 1e-3.
TOLERANCE = 5e-4
#: Longest grid of an amplifier: 512 KiB.
MAX_ENTRIES = 1 << 17
#: Types that correct nothing.
NOTHING = ("None", "Proportional")


@dataclass(frozen=True)
class Grid:
    """S on an even grid, for `apply`."""

    #: [amplifier, entry], float32: ADU; entry n is S(n x step), the last one S at the last node.
    values: NDArray[np.float32]
    #: [amplifier], float64: ADU.
    step: NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """S of one amplifier: a spline, and for a double spline a second one for what the first has corrected."""

    first: Akima1DInterpolator
    second: Akima1DInterpolator | None = None

    def __call__(self, signal: F64) -> F64:
        """Evaluate S, ADU, from 0 to `end`."""
        if self.second is None:
            return np.asarray(self.first(signal))
        one = self.first(np.minimum(signal, self.first.x[-1]))
        return np.asarray(one + self.second(np.clip(signal - one, 0, self.second.x[-1])))

    @property
    def end(self) -> float:
        """Signal from which S is constant, ADU."""
        last = float(self.first.x[-1])
        return last if self.second is None else max(last, float(self.second.x[-1] + self.first(last)))

    @property
    def bend(self) -> float:
        """Bound of |S''| between its ends, 1/ADU."""
        if self.second is None:
            return _bend(self.first)
        one, two = _slope(self.first), _slope(self.second)
        return _bend(self.first) * (1 + two) + _bend(self.second) * (1 + one) ** 2

    @property
    def kink(self) -> float:
        """Bound of the change of slope where one of two splines ends before the other."""
        return 0.0 if self.second is None else _slope(self.first) + _slope(self.second)


@dataclass(frozen=True)
class Linearizer:
    """A detector's curves, in the order of its amplifiers."""

    #: Path of the file, for messages.
    path: str
    curves: Sequence[Curve]

    @classmethod
    def open(cls, path: str, camera: Camera, detector: Detector) -> Linearizer:
        """Read a detector's linearizer.

        Parameters
        ----------
        detector : `Detector`
            With the gains by which the frames were multiplied.

        Raises
        ------
        DataError
            See `kernels.calibrations.isrfiles.read` and `IsrCalib.require`; or the amplifiers are not the
            detector's, a type cannot be applied, nodes do not ascend from 0, or S(0) is not 0.
        """
        found = isrfiles.read(path)
        found.require(KIND, camera, detector)
        if found.denies("HAS_LINEARITY"):
            raise DataError(path, "HAS_LINEARITY is false: it holds no linearity")
        unit = found.said("LINEARITY_UNITS").lower() or "adu"
        if unit not in ("adu", "electron"):
            raise DataError(path, f"is in {unit} (LINEARITY_UNITS), adu or electron is wanted")
        types, coefficients, curves = found.column("TYPE"), found.column("COEFFS"), []
        if coefficients.dtype.kind not in "fi":
            raise DataError(path, f"column COEFFS holds {coefficients.dtype}, no numbers")
        for amplifier, row in zip(detector.amplifiers, found.order(detector), strict=True):
            per_adu = amplifier.gain if unit == "electron" else 1.0
            numbers = np.asarray(coefficients[row], np.float64).ravel()
            try:
                curves.append(curve(str(types[row]).strip(), numbers, per_adu))
            except ValueError as error:
                raise DataError(path, f"amplifier {amplifier.name}: {error}") from error
        return cls(path, curves)

    def tables(self) -> Grid:
        """Evaluate the curves on grids fine enough for linear interpolation within 1e-3 ADU.

        A straight line is within h^2/8 max|S''| of a curve without kinks; the
        last node, where S becomes constant, is an entry.  Where one of two
        splines ends before the other, S has a kink; the grid is made as fine as
        may be, and within one step of the kink the error is at most h/4 of the change of slope.

        Raises
        ------
        DataError
            A spline bends too sharply to be tabulated.
        """
        ends = np.array([c.end for c in self.curves])
        bends, kinks = np.array([c.bend for c in self.curves]), np.array([c.kink for c in self.curves])
        entries = 1 + max(1, *(math.ceil(n) for n in ends * np.sqrt(bends / (8 * TOLERANCE))))
        if entries > MAX_ENTRIES:
            raise DataError(self.path, f"a spline bends by {bends.max():.2g} per ADU: too sharply to be tabulated")
        entries = max(entries, min(MAX_ENTRIES, math.ceil(float((ends * kinks).max()) / (4 * TOLERANCE))))
        at = [np.linspace(0, end, entries) for end in ends]
        values = np.array([s(x) for s, x in zip(self.curves, at, strict=True)], np.float32)
        return Grid(values, ends / (entries - 1))


def curve(kind: str, numbers: F64, per_adu: float = 1.0) -> Curve:
    """Make S of one amplifier of upstream's type and coefficients.

    Parameters
    ----------
    kind : `str`
        TYPE.
    numbers : `numpy.ndarray`, float64
        COEFFS; NaN at the end fills up.
    per_adu : `float`, optional
        Divisor of the numbers: their unit per ADU.

    Raises
    ------
    ValueError
        The type cannot be applied; or see `spline`.
    """
    if kind in NOTHING:
        return Curve(spline(np.array([0.0, 1.0, 2.0]), np.zeros(3)))
    numbers = numbers[: len(numbers) - int(np.argmin(np.isnan(numbers[::-1])))] if len(numbers) else numbers
    if not np.isfinite(numbers).all():
        raise ValueError("column COEFFS holds a value that is no number")
    if kind == "Spline" and len(numbers) % 2 == 0:
        return Curve(spline(*np.split(numbers / per_adu, 2)))
    if kind == "DoubleSpline" and len(numbers) > 2:
        lengths, numbers = numbers[:2].astype(int), numbers[2:] / per_adu
        if (lengths > 1).all() and 2 * lengths.sum() <= len(numbers):
            parts = np.split(numbers, np.cumsum(np.repeat(lengths, 2)))
            return Curve(spline(parts[0], parts[1]), spline(parts[2], parts[3]))
    if kind in ("Spline", "DoubleSpline"):
        raise ValueError(f"COEFFS of a {kind} cannot be {len(numbers)} numbers")
    raise ValueError(f"a linearity of TYPE {kind} cannot be applied; Spline, DoubleSpline and None can")


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


def write(
    path: str,
    camera: Camera,
    detector: Detector,
    nodes: NDArray[np.float64],
    values: NDArray[np.float64],
    cards: Sequence[Card] = (),
) -> None:
    """Write a detector's linearizer; ``nodes`` and ``values`` [amplifier, k], ADU."""
    boxes = np.array([(a.target.x0, a.target.y0, a.target.nx, a.target.ny) for a in detector.amplifiers], np.int64)
    columns = {
        "AMPLIFIER_NAME": np.array([a.name for a in detector.amplifiers]),
        "TYPE": np.array(["Spline"] * len(nodes)),
        "COEFFS": np.concatenate([nodes, values], axis=1),
        **dict(zip(("BBOX_X0", "BBOX_Y0", "BBOX_DX", "BBOX_DY"), boxes.T, strict=True)),
    }
    metadata = {"HAS_LINEARITY": True, "OVERRIDE": True, "HAS_TABLE": False, "LINEARITY_UNITS": "adu"}
    isrfiles.save(path, KIND, camera, detector, columns, cards, metadata)


@njit
def apply(signal: NDArray[np.float32], values: NDArray[np.float32], step: float, gain: float) -> None:
    """Subtract S from one amplifier's signal, in place; NaN stays NaN.

    Parameters
    ----------
    signal : `numpy.ndarray` [row, column], float32
        After crosstalk and the overscans, electron or ADU.
    values : `numpy.ndarray` [entry], float32
        ``Grid.values`` of the amplifier, ADU.
    step : `float`
        ``Grid.step`` of the amplifier, ADU.
    gain : `float`
        electron/ADU for a signal in electron; 1 for a signal in ADU.
    """
    last = values.size - 1
    end, scale, factor = np.float32(last), np.float32(1 / (step * gain)), np.float32(gain)
    zero = np.float32(0)
    rows, columns = signal.shape
    for row in range(rows):
        for column in range(columns):
            at = signal[row, column] * scale
            at = at if at < end else end  # also for NaN, which the subtraction keeps
            at = at if at > zero else zero
            entry = min(np.int32(at), np.int32(last - 1))
            part = at - np.float32(entry)
            signal[row, column] -= factor * (values[entry] + part * (values[entry + 1] - values[entry]))
