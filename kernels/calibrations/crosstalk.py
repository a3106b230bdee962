"""Crosstalk: signal that pixels leave in the pixels of other amplifiers read at the same time.

Product: OBSTYPE ``crosstalk``, CALUNIT the unit of the frames, SOURCE<n> the
name of the n-th source amplifier; extension CROSSTALK, one row a target
amplifier:

======== ============ ===========================================
AMPLIFIER             name of the target
C0[n]                 signal left, relative to the n-th source
C1[n]    1/<CALUNIT>  the same, per unit of the n-th source
======== ============ ===========================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Camera, Detector
from kernels.compiled import njit
from kernels.errors import DataError
from kernels.fits.product import Card
from kernels.fits.tables import Column, identity, order, read_table, write_table

KIND = "crosstalk"


@dataclass(frozen=True)
class Crosstalk:
    """A detector's coefficients, in the order of its amplifiers."""

    #: [target, source], float32: Dimensionless.
    c0: NDArray[np.float32]
    #: [target, source], float32: Per unit of the frames (electron or ADU).
    c1: NDArray[np.float32]

    @classmethod
    def open(cls, path: str, camera: Camera, detector: Detector, quadratic: bool) -> Crosstalk:
        """Read a detector's crosstalk.

        Parameters
        ----------
        quadratic : `bool`
            Read ``C1``; otherwise it is 0.

        Raises
        ------
        DataError
            See `kernels.fits.tables.read_table`; or the unit is not that of the
            camera's frames, the amplifiers are not the detector's, or one is its own source.
        """
        units = {"AMPLIFIER": "", "C0": "", "C1": f"1/{camera.unit}"}
        table = read_table(path, KIND, camera, detector, units, camera.unit)
        number = len(detector.amplifiers)
        names = [str(table.header.get(f"SOURCE{n}", "")).strip() for n in range(number)]
        targets, sources = order(table, list(table.columns["AMPLIFIER"]), detector), order(table, names, detector)
        matrices = []
        for name in ("C0", "C1"):
            if table.columns[name].shape != (number, number):
                raise DataError(path, f"column {name} is {table.columns[name].shape}, not {number} x {number}")
            matrix = np.ascontiguousarray(table.columns[name][np.ix_(targets, sources)], np.float32)
            if np.diagonal(matrix).any():
                own = detector.amplifiers[int(np.flatnonzero(np.diagonal(matrix))[0])].name
                raise DataError(path, f"{name}: amplifier {own} is a source of its own")
            matrices.append(matrix)
        return cls(matrices[0], matrices[1] if quadratic else np.zeros_like(matrices[1]))


def write(
    path: str,
    camera: Camera,
    detector: Detector,
    c0: NDArray[np.floating],
    c1: NDArray[np.floating],
    cards: Sequence[Card] = (),
) -> None:
    """Write a detector's crosstalk; ``c0`` and ``c1`` [target, source] for frames in the camera's unit."""
    names = [a.name for a in detector.amplifiers]
    primary: list[Card] = [*identity(KIND, camera, detector), ("CALUNIT", camera.unit, "unit of the frames")]
    primary += [(f"SOURCE{n}", name, "amplifier") for n, name in enumerate(names)]
    columns = [
        Column("AMPLIFIER", np.array(names, "S")),
        Column("C0", np.asarray(c0, np.float32)),
        Column("C1", np.asarray(c1, np.float32), f"1/{camera.unit}"),
    ]
    write_table(path, [*primary, *cards], columns)


@njit
def correct(signal: NDArray[np.float32], c0: NDArray[np.float32], c1: NDArray[np.float32]) -> None:
    """Subtract from each amplifier the crosstalk of the others, in place.

    target -= sum over sources of c0 x + c1 x^2, x being the measured source: the
    correction of IsrTaskLSST, for pixels that are read at the same time. Each
    pixel's sum runs over the sources in the amplifiers' order, whatever rows the
    block has.  A NaN spreads to all of its targets, so saturated pixels must be
    made NaN only afterwards.

    Parameters
    ----------
    signal : `numpy.ndarray` [amplifier, row, column], float32
        Rows in read-out order, prescan and overscan included, after the
        serial overscan's subtraction, in the unit of the coefficients.
    c0, c1 : `numpy.ndarray` [target, source], float32
        From `Crosstalk`.
    """
    amplifiers, rows, columns = signal.shape
    source = np.empty((amplifiers, columns), np.float32)
    for row in range(rows):
        for s in range(amplifiers):
            for x in range(columns):
                source[s, x] = signal[s, row, x]
        for t in range(amplifiers):
            for s in range(amplifiers):
                linear, square = c0[t, s], c1[t, s]
                if linear != 0 or square != 0:
                    for x in range(columns):
                        signal[t, row, x] -= (linear + square * source[s, x]) * source[s, x]
