"""Corrections of gains from a date on, by factors of amplifiers that a flat of that date gives.

File: upstream's GainCorrection, a row an amplifier.  GAIN_ADJUSTMENT is the brightness of an amplifier in a new flat
over that in a reference flat, both in electron by the gains of then.  An amplifier whose gain, electron/ADU, has grown
gives fewer ADU, and so looks fainter: its gain is **divided** by the factor.  Upstream's task measures the same, but
its class multiplies, which doubles the error.  GAINSIGN says the sign in our files, ``divide``; a file that does not
say it is divided by.

Ours besides: GAIN_ADJUSTMENT_ERR, and INPUT_GAIN (electron/ADU), the gains that the factors belong to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.product import Card

KIND: Final = "gain_correction"
#: Entry of the metadata that says how the factors are applied, and its values (ours).
SIGN: Final = "GAINSIGN"
SIGNS: Final = ("divide", "multiply")
#: Largest credible factor, and its inverse the smallest.
MOST: Final = 1.25
#: Largest relative difference between the frames' gains and those that the factors belong to.
SAME: Final = 1e-6


def read(path: str, camera: Camera, detector: Detector) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Read the factors by which gains are multiplied, and the gains that they belong to, each [amplifier].

    The gains, electron/ADU, are `None` where the file does not say them.

    Raises
    ------
    DataError
        See `kernels.calibrations.isrfiles.read` and `IsrCalib.require`; or the frames are not in electron, a factor
        cannot be, or GAINSIGN is unknown.
    """
    found = isrfiles.read(path)
    found.require(KIND, camera, detector)
    if camera.unit != "electron":
        raise DataError(path, f"corrects gains, the frames are in {camera.unit}: set doCorrectGains: false")
    sign = found.said(SIGN) or SIGNS[0]
    if sign not in SIGNS:
        raise DataError(path, f"{SIGN} is {sign!r}, none of {', '.join(SIGNS)}")
    rows = found.order(detector)
    factors = found.numbers("GAIN_ADJUSTMENT", rows)
    for amplifier, factor in zip(detector.amplifiers, factors.tolist(), strict=True):
        if not 1 / MOST <= factor <= MOST:
            what = f"GAIN_ADJUSTMENT {factor:g} is not within {1 / MOST:g} to {MOST:g}"
            raise DataError(path, f"amplifier {amplifier.name}: {what}")
    gains = found.numbers("INPUT_GAIN", rows) if "INPUT_GAIN" in found.tables[0].columns else None
    return 1 / factors if sign == "divide" else factors, gains


def apply(path: str, camera: Camera, detector: Detector) -> Detector:
    """Correct the detector's gains, which are those of the ptc, or of the camera file without one.

    Raises
    ------
    DataError
        See `read`; or the factors belong to other gains: a new ptc has the change in its gains already.
    """
    factors, gains = read(path, camera, detector)
    amplifiers = list(detector.amplifiers)
    for k, amplifier in enumerate(amplifiers):
        if gains is not None and not abs(amplifier.gain / gains[k] - 1) <= SAME:
            what = f"belongs to other gains (INPUT_GAIN): amplifier {amplifier.name} {gains[k]:.6g} electron/ADU"
            do = "make a new gain_correction with this ptc, take the ptc of then, or set doCorrectGains: false"
            raise DataError(path, f"{what}, the frames have {amplifier.gain:.6g}; {do}")
        amplifiers[k] = replace(amplifier, gain=float(amplifier.gain * factors[k]))
    return replace(detector, amplifiers=tuple(amplifiers))


def write(
    path: str, camera: Camera, detector: Detector, columns: Mapping[str, Any], cards: Sequence[Card] = ()
) -> None:
    """Write a detector's correction.

    Parameters
    ----------
    columns : mapping
        By name, GAIN_ADJUSTMENT and GAIN_ADJUSTMENT_ERR [amplifier], float64.
    cards : sequence of (name, value, comment), optional
        Provenance.
    """
    names = {"AMP_NAME": np.array([a.name for a in detector.amplifiers])}
    gains = {"INPUT_GAIN": np.array([a.gain for a in detector.amplifiers])}
    sign: Card = (SIGN, SIGNS[0], "gains are divided by GAIN_ADJUSTMENT")
    isrfiles.save(path, KIND, camera, detector, {**names, **columns, **gains}, [sign, *cards])
