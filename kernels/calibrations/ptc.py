"""Results of the photon transfer curve: gains and read noises that replace the camera file's.

Product: upstream's PTC, one row an amplifier, of which AMPLIFIER_NAME, GAIN
(electron/adu) and NOISE (electron) are applied, whatever curve was fitted.
PTC_TURNOFF (adu) is the largest signal whose variance the curve describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles
from kernels.calibrations.isrcalib import IsrCalib
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.product import Card

KIND = "ptc"
#: Range of gains, electron/ADU, and largest read noise, electron, that any camera can have.
GAINS = (1e-3, 1e3)
LARGEST_NOISE = 1e4
#: First version whose noise is in electron after a fit of all covariances; before, it was the square.
NOISE_IN_ELECTRON = 1.9


def apply(path: str, camera: Camera, detector: Detector) -> Detector:
    """Replace the detector's gains and read noises by those of a ptc; bad amplifiers keep the camera file's.

    Raises
    ------
    DataError
        See `kernels.calibrations.isrfiles.read` and `IsrCalib.require`; or the amplifiers are not the
        detector's, or a gain or a noise is not within `GAINS` and `LARGEST_NOISE`.
    """
    found, rows = _opened(path, camera, detector)
    good = [k for k, row in enumerate(rows) if not _is_bad(found, row)]
    gains, noises = (found.numbers(name, [rows[k] for k in good]) for name in ("GAIN", "NOISE"))
    types = found.tables[0].columns.get("PTC_FIT_TYPE", np.array([found.said("PTC_FIT_TYPE")] * len(rows)))
    if found.version is not None and found.version < NOISE_IN_ELECTRON and (types == "FULLCOVARIANCE").any():
        noises = np.sqrt(np.maximum(noises, 0))
    amplifiers = list(detector.amplifiers)
    for k, gain, noise in zip(good, gains.tolist(), noises.tolist(), strict=True):
        if not (GAINS[0] <= gain <= GAINS[1] and 0 <= noise <= LARGEST_NOISE):
            what = f"gain {gain:g} electron/ADU, noise {noise:g} electron"
            raise DataError(path, f"amplifier {amplifiers[k].name}: {what} cannot be")
        amplifiers[k] = replace(amplifiers[k], gain=gain, read_noise=noise)
    return replace(detector, amplifiers=tuple(amplifiers))


def bad(path: str, camera: Camera, detector: Detector) -> list[str]:
    """Name the amplifiers without a curve, whose pixels are not to be used.

    Raises
    ------
    DataError
        See `apply`.
    """
    found, rows = _opened(path, camera, detector)
    return [a.name for a, row in zip(detector.amplifiers, rows, strict=True) if _is_bad(found, row)]


def turnoffs(path: str, camera: Camera, detector: Detector) -> NDArray[np.float64]:
    """Give the largest signals [amplifier] whose variance the curves describe, ADU; NaN where unknown.

    Raises
    ------
    DataError
        See `apply`; or the file has no turnoffs.
    """
    found, rows = _opened(path, camera, detector)
    if "PTC_TURNOFF" not in found.tables[0].columns:
        raise DataError(path, "has no PTC_TURNOFF")
    values = np.array(found.tables[0].columns["PTC_TURNOFF"], np.float64)[rows]
    return np.where((values > 0) & np.isfinite(values), values, np.nan)


def a00(path: str, camera: Camera, detector: Detector) -> NDArray[np.float64] | None:
    """Give the brighter-fatter coefficients a00 [amplifier] of the curves, 1/electron; `None` where none was fitted.

    Raises
    ------
    DataError
        See `apply`.
    """
    found, rows = _opened(path, camera, detector)
    columns = found.tables[0].columns
    if "A_MATRIX" not in columns:
        return None
    values = np.array(columns["A_MATRIX"], np.float64).reshape(len(rows), -1)[rows, 0]
    return values if np.isfinite(values).any() else None


def _opened(path: str, camera: Camera, detector: Detector) -> tuple[IsrCalib, list[int]]:
    """Read a detector's ptc; also give the row of each amplifier."""
    found = isrfiles.read(path)
    found.require(KIND, camera, detector)
    return found, found.order(detector)


def _is_bad(found: IsrCalib, row: int) -> bool:
    """Whether the file lists an amplifier as bad: one without a curve."""
    columns = found.tables[0].columns
    listed = {str(name).strip() for name in np.ravel(columns.get("BAD_AMPS", np.array([""])))} - {""}
    return str(columns["AMPLIFIER_NAME"][row]).strip() in listed


def write(
    path: str,
    camera: Camera,
    detector: Detector,
    gain: NDArray[np.float64],
    noise: NDArray[np.float64],
    turnoff: NDArray[np.float64],
    cards: Sequence[Card] = (),
) -> None:
    """Write a detector's ptc: ``gain`` (electron/ADU), ``noise`` (electron), ``turnoff`` (ADU), each [amplifier]."""
    columns = {
        "AMPLIFIER_NAME": np.array([a.name for a in detector.amplifiers]),
        "GAIN": gain,
        "GAIN_UNADJUSTED": gain,
        "NOISE": noise,
        "PTC_TURNOFF": turnoff,
    }
    isrfiles.save(path, KIND, camera, detector, columns, cards, {"PTC_FIT_TYPE": "EXPAPPROXIMATION"})
