"""Linearity: deviation of each amplifier's signal from proportion to the light.

Product: OBSTYPE ``linearizer``; extension LINEARIZER, one row an amplifier:

========= ==== =======================================
AMPLIFIER      name
NODES[k]  adu  signals, ascending from 0 or more
VALUES[k] adu  S there: excess of the signal
========= ==== =======================================

S is Akima's spline (J. ACM 17, 589, 1970) through the nodes and S(0) = 0; it is 0 below 0
and constant beyond the last node.  Corrected = signal - S(signal).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Camera, Detector
from kernels.compiled import njit
from kernels.errors import DataError
from kernels.fits.product import Card
from kernels.fits.tables import Column, identity, order, read_table, write_table

if TYPE_CHECKING:  # the import takes half a second and 40 MiB: only to linearise
    from scipy.interpolate import Akima1DInterpolator

KIND = "linearizer"
#: Largest error of linear interpolation on the even grid, ADU; float32 has the rest of 1e-3.
TOLERANCE = 5e-4
#: Longest grid of an amplifier: 512 KiB.
MAX_ENTRIES = 1 << 17


@dataclass(frozen=True)
class Grid:
    """S on an even grid, for `apply`."""

    #: [amplifier, entry], float32: ADU; entry n is S(n x step), the last one S at the last node.
    values: NDArray[np.float32]
    #: [amplifier], float64: ADU.
    step: NDArray[np.float64]


@dataclass(frozen=True)
class Linearizer:
    """A detector's splines, in the order of its amplifiers."""

    #: Path of the file, for messages.
    path: str
    #: From 0 to the last node, ADU to ADU.
    splines: Sequence[Akima1DInterpolator]

    @classmethod
    def open(cls, path: str, camera: Camera, detector: Detector) -> Linearizer:
        """Read a detector's linearizer.

        Raises
        ------
        DataError
            See `kernels.fits.tables.read_table`; or the amplifiers are not the
            detector's, nodes do not ascend from 0, or S(0) is not 0.
        """
        table = read_table(path, KIND, camera, detector, {"AMPLIFIER": "", "NODES": "adu", "VALUES": "adu"})
        rows = order(table, list(table.columns["AMPLIFIER"]), detector)
        nodes, values = (np.asarray(table.columns[name], np.float64)[rows] for name in ("NODES", "VALUES"))
        if nodes.shape != values.shape or nodes.ndim != 2:
            raise DataError(path, f"NODES are {nodes.shape[1:]} an amplifier, VALUES {values.shape[1:]}")
        splines = []
        for amplifier, x, y in zip(detector.amplifiers, nodes, values, strict=True):
            try:
                splines.append(spline(x, y))
            except ValueError as error:
                raise DataError(path, f"amplifier {amplifier.name}: {error}") from error
        return cls(path, splines)

    def tables(self) -> Grid:
        """Evaluate the splines on grids fine enough for linear interpolation within 1e-3 ADU.

        A straight line is within h^2/8 max|S''| of a curve without kinks; the
        last node, where S becomes constant, is an entry.

        Raises
        ------
        DataError
            A spline bends too sharply to be tabulated.
        """
        ends = np.array([s.x[-1] for s in self.splines])
        bends = np.array([_bend(s) for s in self.splines])
        entries = 1 + max(1, *(math.ceil(n) for n in ends * np.sqrt(bends / (8 * TOLERANCE))))
        if entries > MAX_ENTRIES:
            raise DataError(self.path, f"a spline bends by {bends.max():.2g} per ADU: too sharply to be tabulated")
        at = [np.linspace(0, end, entries) for end in ends]
        values = np.array([s(x) for s, x in zip(self.splines, at, strict=True)], np.float32)
        return Grid(values, ends / (entries - 1))


def spline(nodes: NDArray[np.float64], values: NDArray[np.float64]) -> Akima1DInterpolator:
    """Make S of one amplifier, from 0 to its last node.

    Raises
    ------
    ValueError
        The nodes do not ascend from 0, or S(0) is not 0.
    """
    from scipy.interpolate import Akima1DInterpolator

    if not (nodes[0] >= 0 and (np.diff(nodes) > 0).all()):
        raise ValueError("its nodes do not ascend from 0")
    if nodes[0] > 0:
        nodes, values = np.insert(nodes, 0, 0.0), np.insert(values, 0, 0.0)
    if values[0] != 0:
        raise ValueError(f"S(0) is {values[0]:g} ADU, it must be 0")
    if len(nodes) < 2:
        raise ValueError("it has no node above 0")
    return Akima1DInterpolator(nodes, values)


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
    names = np.array([a.name for a in detector.amplifiers], "S")
    columns = [Column("AMPLIFIER", names), Column("NODES", nodes, "adu"), Column("VALUES", values, "adu")]
    write_table(path, [*identity(KIND, camera, detector), *cards], columns)


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
