"""Results of the photon transfer curve: gains and read noises that replace the camera file's.

Product: OBSTYPE ``ptc``; extension PTC, one row an amplifier: AMPLIFIER,
GAIN (electron/adu), NOISE (electron), TURNOFF (adu: the largest signal whose
variance the curve describes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.product import Card
from kernels.fits.tables import Column, identity, order, read_table, write_table

KIND = "ptc"
UNITS = {"AMPLIFIER": "", "GAIN": "electron/adu", "NOISE": "electron", "TURNOFF": "adu"}


def apply(path: str, camera: Camera, detector: Detector) -> Detector:
    """Replace the detector's gains and read noises by those of a ptc.

    Raises
    ------
    DataError
        See `kernels.fits.tables.read_table`; or the amplifiers are not the
        detector's, a gain is not above 0, or a noise is below 0.
    """
    table = read_table(path, KIND, camera, detector, UNITS)
    rows = order(table, list(table.columns["AMPLIFIER"]), detector)
    amplifiers = []
    for amplifier, row in zip(detector.amplifiers, rows, strict=True):
        gain, noise = float(table.columns["GAIN"][row]), float(table.columns["NOISE"][row])
        if gain <= 0 or noise < 0:
            what = f"gain {gain:g} electron/ADU, noise {noise:g} electron"
            raise DataError(path, f"amplifier {amplifier.name}: {what} cannot be")
        amplifiers.append(replace(amplifier, gain=gain, read_noise=noise))
    return replace(detector, amplifiers=tuple(amplifiers))


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
    names = np.array([a.name for a in detector.amplifiers], "S")
    columns = [Column(n, v, UNITS[n]) for n, v in zip(UNITS, (names, gain, noise, turnoff), strict=True)]
    write_table(path, [*identity(KIND, camera, detector), *cards], columns)
