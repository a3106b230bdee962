"""Linearity: deviation of each amplifier's signal from proportion to the light.

Product: upstream's LINEARIZER, one row an amplifier: AMPLIFIER_NAME, TYPE and
COEFFS (LINEARITY_UNITS, adu).  Corrected = signal - S(signal), by type:

============ ======================= ==========================================
Spline       nodes, values           S is the spline through them
DoubleSpline n1, n2, nodes 1,        S(x) = S1(x) + S2(x - S1(x))
             values 1, nodes 2,
             values 2
Squared      c0                      S(x) = - c0 x^2
Polynomial   c0, c1, ...             S(x) = - (c0 x^2 + c1 x^3 + ...)
LookupTable  row, offset             S(x) = - LOOKUP_VALUES[row, int(x +
                                     offset)]; the second table has the values
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

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles
from kernels.calibrations.curves import Curve, curve
from kernels.calibrations.isrcalib import IsrCalib
from kernels.camera.geometry import Camera, Detector
from kernels.compiled import njit
from kernels.errors import DataError
from kernels.fits.product import Card

KIND = "linearizer"
#: Largest error of linear interpolation on the even grid, ADU; float32 has the rest of 1e-3.
TOLERANCE = 5e-4
#: Longest grid of an amplifier: 512 KiB.
MAX_ENTRIES = 1 << 17
#: Longest look-up table.
MAX_STEPS = 1 << 20
#: Largest part of a signal from `FAINT` ADU on that can be a deviation; CCDs reach a few percent.
MOST, FAINT = 0.5, 1000.0
#: Part of an amplifier's saturation up to which a linearity should reach: beyond its end S is constant.
REACH = 0.5


@dataclass(frozen=True)
class Grid:
    """S on an even grid, for `apply`."""

    #: [amplifier, entry], float32: ADU; entry n is S(first + n x step), the last one S where it becomes constant.
    values: NDArray[np.float32]
    #: [amplifier], float64: ADU.
    step: NDArray[np.float64]
    #: [amplifier], float64: ADU.
    first: NDArray[np.float64]
    #: [amplifier], bool: Whether S is interpolated between entries; otherwise that of the entry below holds.
    smooth: NDArray[np.bool_]


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
            detector's, a type cannot be applied, nodes do not ascend from 0, S(0) is not 0, or S is as large as the
            signal.
        """
        found = isrfiles.read(path)
        found.require(KIND, camera, detector)
        if found.denies("HAS_LINEARITY"):
            raise DataError(path, "HAS_LINEARITY is false: it holds no linearity")
        unit = found.said("LINEARITY_UNITS").lower() or "adu"
        if unit not in ("adu", "electron"):
            raise DataError(path, f"is in {unit} (LINEARITY_UNITS), adu or electron is wanted")
        types, coefficients, curves = found.column("TYPE"), found.column("COEFFS"), list[Curve]()
        if coefficients.dtype.kind not in "fi":
            raise DataError(path, f"column COEFFS holds {coefficients.dtype}, no numbers")
        table = _lookups(found)
        for amplifier, row in zip(detector.amplifiers, found.order(detector), strict=True):
            per_adu = amplifier.gain if unit == "electron" else 1.0
            numbers = np.asarray(coefficients[row], np.float64).ravel()
            try:
                with np.errstate(over="ignore", invalid="ignore"):  # refused below
                    curves.append(curve(str(types[row]).strip(), numbers, per_adu, table))
                    _require_credible(curves[-1], float(detector.adc_max))
            except (ValueError, OverflowError) as error:
                raise DataError(path, f"amplifier {amplifier.name}: {error}") from error
        return cls(path, curves)

    def short(self, detector: Detector) -> list[str]:
        """Name the amplifiers whose curve ends far below their saturation."""
        said = []
        for amplifier, one in zip(detector.amplifiers, self.curves, strict=True):
            full = amplifier.saturation / amplifier.gain
            if one.bend and one.end < REACH * full < math.inf:
                said.append(f"linearity of {amplifier.name}: ends at {one.end:.0f} of {full:.0f} ADU")
        return said

    def tables(self) -> Grid:
        """Evaluate the curves on grids fine enough for linear interpolation within 1e-3 ADU.

        A straight line is within h^2/8 max|S''| of a curve without kinks; the
        last node, where S becomes constant, is an entry.  Where one of two
        splines ends before the other, S has a kink; the grid is made as fine as
        may be, and within one step of the kink the error is at most h/4 of the change of slope.
        A look-up table is taken as it is.

        Raises
        ------
        DataError
            A curve bends too sharply to be tabulated, or a look-up table is too long.
        """
        first, ends = np.array([c.first for c in self.curves]), np.array([c.end for c in self.curves])
        bends, kinks = np.array([c.bend for c in self.curves]), np.array([c.kink for c in self.curves])
        spans, steps = ends - first, np.array([c.steps for c in self.curves])
        entries = 1 + max(1, *(math.ceil(n) for n in spans * np.sqrt(bends / (8 * TOLERANCE))))
        if entries > MAX_ENTRIES:
            raise DataError(self.path, f"a curve bends by {bends.max():.2g} per ADU: too sharply to be tabulated")
        if steps.max() > MAX_STEPS:
            raise DataError(self.path, f"a look-up table has {steps.max()} entries, {MAX_STEPS} are possible")
        entries = max(entries, min(MAX_ENTRIES, math.ceil(float((spans * kinks).max()) / (4 * TOLERANCE))))
        entries = max(entries, 1 + int(steps.max()))
        step = np.where(steps > 0, 1.0, spans / (entries - 1))
        at = [
            start + np.arange(entries) if c.steps else np.linspace(start, end, entries)
            for c, start, end in zip(self.curves, first, ends, strict=True)
        ]
        values = np.array([s(x) for s, x in zip(self.curves, at, strict=True)], np.float32)
        return Grid(values, step, first, steps == 0)


def _require_credible(one: Curve, ceiling: float) -> None:
    """Require bends that are numbers, and deviations that are small parts of signals up to the converter's ceiling.

    Raises
    ------
    ValueError
        With the signal at which the deviation is largest.
    """
    if not (math.isfinite(one.bend) and math.isfinite(one.kink)):
        raise ValueError("its curve has no finite bend: too sharp to be tabulated")
    signals = np.geomspace(FAINT, max(ceiling, 2 * FAINT), 64)
    parts = np.abs(one(np.clip(signals, one.first, one.end)) / signals)
    if not (parts < MOST).all():
        at = int(np.argmax(np.where(np.isfinite(parts), parts, np.inf)))
        raise ValueError(f"its deviation at {signals[at]:.0f} ADU is {parts[at]:.3g} of the signal, which cannot be")


def _lookups(found: IsrCalib) -> NDArray[np.float64] | None:
    """Give the look-up tables of a file [row, entry], ADU; none without.

    Raises
    ------
    DataError
        They are no numbers.
    """
    values = found.tables[1].columns.get("LOOKUP_VALUES") if len(found.tables) > 1 else None
    if values is None:
        return None
    if values.dtype.kind not in "fi" or values.ndim != 2:
        raise DataError(found.path, f"column LOOKUP_VALUES holds {values.dtype} {values.shape}, no rows of numbers")
    return np.asarray(values, np.float64)


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
def apply(
    signal: NDArray[np.float32],
    values: NDArray[np.float32],
    step: float,
    gain: float,
    first: float = 0.0,
    smooth: bool = True,
) -> None:
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
    first : `float`, optional
        ``Grid.first`` of the amplifier, ADU.
    smooth : `bool`, optional
        ``Grid.smooth`` of the amplifier.
    """
    last = values.size - 1
    end, scale, factor = np.float32(last), np.float32(1 / (step * gain)), np.float32(gain)
    zero, begin, share = np.float32(0), np.float32(first / step), np.float32(1 if smooth else 0)
    rows, columns = signal.shape
    for row in range(rows):
        for column in range(columns):
            at = signal[row, column] * scale - begin
            at = at if at < end else end  # also for NaN, which the subtraction keeps
            at = at if at > zero else zero
            entry = min(np.int32(at), np.int32(last - 1))
            part = (at - np.float32(entry)) * share
            signal[row, column] -= factor * (values[entry] + part * (values[entry + 1] - values[entry]))
