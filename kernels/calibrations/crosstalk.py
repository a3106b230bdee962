"""Crosstalk: signal that pixels leave in the pixels of other amplifiers read at the same time.

Product: upstream's CROSSTALK, one row with matrices [source][target] in one
line: CT_COEFFS, relative to the source, and CT_COEFFS_SQR, the same per unit
of the source.  CROSSTALK_RATIOS_UNITS is the unit of the frames, AMPNAMES
names the amplifiers in the order of both axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles
from kernels.calibrations.isrcalib import AMPLIFIERS, IsrCalib
from kernels.camera.geometry import Camera, Detector
from kernels.compiled import njit
from kernels.errors import DataError
from kernels.fits.product import Card

KIND = "crosstalk"


@dataclass(frozen=True)
class Crosstalk:
    """A detector's coefficients, in the order of its amplifiers."""

    #: [target, source], float32: Dimensionless.
    c0: NDArray[np.float32]
    #: [target, source], float32: Per unit of the frames (electron or ADU).
    c1: NDArray[np.float32]
    #: Parts of the file that are not applied.
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str, camera: Camera, detector: Detector, quadratic: bool) -> Crosstalk:
        """Read a detector's crosstalk; a coefficient that is not valid, or no number, counts as 0.

        Parameters
        ----------
        quadratic : `bool`
            Read CT_COEFFS_SQR; otherwise it is 0.

        Raises
        ------
        DataError
            See `kernels.calibrations.isrfiles.read` and `IsrCalib.require`; or the amplifiers are not the
            detector's, or one is its own source.
        """
        found = isrfiles.read(path)
        found.require(KIND, camera, detector)
        rows, notes = found.order(detector), []
        zero = np.zeros((len(rows), len(rows)), np.float32)
        if found.denies("HAS_CROSSTALK"):
            return cls(zero, zero, ("crosstalk: HAS_CROSSTALK is false, nothing is subtracted",))
        if len(found.tables) > 1:
            notes.append("crosstalk: that of other detectors (IC_COEFFS) is not subtracted")
        c0, lost = _matrix(found, "CT_COEFFS", rows, detector)
        if lost:
            notes.append(f"crosstalk: {lost} coefficients are no numbers and count as 0")
        if not quadratic:
            return cls(c0, zero, tuple(notes))
        if "CT_COEFFS_SQR" not in found.tables[0].columns:
            return cls(c0, zero, (*notes, "crosstalk: the file has no part that grows with the square (CT_COEFFS_SQR)"))
        c1, lost = _matrix(found, "CT_COEFFS_SQR", rows, detector)
        full = detector.adc_max * max(a.gain if camera.unit == "electron" else 1.0 for a in detector.amplifiers)
        if (np.abs(c1) * np.float32(full) >= 1).any():
            what = f"a coefficient of {np.abs(c1).max():.4g} cannot be: a source of {full:.3g} {camera.unit}"
            raise DataError(path, f"column CT_COEFFS_SQR: {what} would leave more than itself")
        if lost:
            notes.append(f"crosstalk: {lost} coefficients of the square are no numbers and count as 0")
        return cls(c0, c1, tuple(notes))


def _matrix(found: IsrCalib, name: str, rows: Sequence[int], detector: Detector) -> tuple[NDArray[np.float32], int]:
    """Give a matrix [target, source] in the order of the detector's amplifiers, and its number of lost values."""
    number, flat = len(rows), found.column(name)
    valid = found.tables[0].columns.get("CT_VALID", np.ones(flat.shape, np.bool_))
    if flat.dtype.kind not in "fiu":
        raise DataError(found.path, f"column {name} holds {flat.dtype}, no numbers")
    if flat.size != number**2 or valid.size != flat.size:
        what = f"column {name} holds {flat.size} values, CT_VALID {valid.size}"
        raise DataError(found.path, f"{what}; {number} x {number} are wanted for the amplifiers of {detector.name}")
    if valid.dtype.kind not in "biu":
        raise DataError(found.path, f"column CT_VALID holds {valid.dtype}, no switches")
    flat, valid = flat.ravel(), valid.ravel().astype(np.bool_)
    finite = np.isfinite(flat)
    used = np.where(valid & finite, flat, 0).reshape(number, number)[np.ix_(rows, rows)].T
    if (np.abs(used) >= 1).any():
        raise DataError(found.path, f"column {name}: a coefficient of {np.abs(used).max():.4g} cannot be")
    matrix = np.ascontiguousarray(used, np.float32)
    if np.diagonal(matrix).any():
        own = detector.amplifiers[int(np.flatnonzero(np.diagonal(matrix))[0])].name
        raise DataError(found.path, f"{name}: amplifier {own} is a source of its own")
    return matrix, int((valid & ~finite).sum())


def write(
    path: str,
    camera: Camera,
    detector: Detector,
    c0: NDArray[np.floating],
    c1: NDArray[np.floating],
    cards: Sequence[Card] = (),
    measured: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write a detector's crosstalk; ``c0`` and ``c1`` [target, source] for frames in the camera's unit.

    Parameters
    ----------
    measured : mapping, optional
        Columns of a measurement: matrices [target, source], or CT_FIT_GAINS [amplifier].
    """
    number = len(detector.amplifiers)
    flat = [np.asarray(c, np.float32).astype(np.float64).T.reshape(1, -1) for c in (c0, c1)]
    unknown, none = np.full(flat[0].shape, np.nan), np.zeros(flat[0].shape)
    columns: dict[str, NDArray[Any]] = {
        "CT_COEFFS": flat[0],
        "CT_ERRORS": unknown,
        "CT_COUNTS": none.astype(np.int64),
        "CT_VALID": np.ones(none.shape, np.bool_),
        "CT_COEFFS_SQR": flat[1],
        "CT_ERRORS_SQR": unknown,
        "CT_AMP_GAIN_RATIOS": none,
        "CT_FIT_GAINS": np.zeros((1, number)),
    }
    columns |= {name: np.asarray(values).T.reshape(1, -1) for name, values in (measured or {}).items()}
    metadata = {
        "HAS_CROSSTALK": True,
        "NAMP": number,
        "CROSSTALK_SHAPE": [number, number],
        "CROSSTALK_RATIOS_UNITS": camera.unit,
        AMPLIFIERS: " ".join(a.name for a in detector.amplifiers),
    }
    isrfiles.save(path, KIND, camera, detector, columns, cards, metadata)


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
