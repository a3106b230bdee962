"""The truth on disk: one FITS file a detector.

HDUs: STRUCTURE (float32, ADU), DARK (float32, electron/second), DEFECTS
(uint8; 1 hot, 2 dead, 4 drawing others' charge, 8 dim at the edge) and
RESPONSE_<physical filter> (float32, relative), all on the assembled detector; tables
AMPLIFIERS (gain in electron/ADU, read noise in
electron, level in ADU, saturation in electron; cti, drift and decay as in
`kernels.calibrations.deferred`), EXPOSURES (times in second, light in electron in a pixel of
response 1) and COSMIC_RAYS (charge in electron).

Where the simulation has them: WELLS (float32, electron); A and POTENTIAL
(float64, 1/electron, first quadrant [y lag, x lag]: brighter-fatter
coefficients and their potential, see `kernels.simulation.brighter`; STEPS in
the header); LINEARITY (float64, ADU,
[value, amplifier, node], nodes and then their excess); CROSSTALK (float64,
[power, target, source], of the source's ADU); SKY_<physical filter> and
FRINGE_<physical filter> (float32, relative) and the table SKIES: see
`kernels.simulation.skies`; GAIN_STEPS (amplifier, the night
from which its gain has a factor, and the factor).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from kernels.errors import DataError
from kernels.fits.fitsfile import opened
from kernels.fits.seal import written
from kernels.simulation.brighter import coefficients, potential, realised
from kernels.simulation.rates import Rates
from kernels.simulation.skies import table as skies_table
from kernels.simulation.truth import F32, Truth, cosmic_rays

HOT, DEAD, VAMPIRE, EDGE = 1, 2, 4, 8


def _amplifiers(truth: Truth, rates: Rates) -> NDArray[Any]:
    rows = [
        (a.name, a.gain, a.read_noise, level, min(a.saturation, rates.saturation), d.cti, d.drift, d.decay)
        for a, level, d in zip(truth.detector.amplifiers, truth.levels, truth.electronics.deferrals, strict=True)
    ]
    names = ("gain", "read_noise", "level", "saturation", "cti", "drift", "decay")
    return np.array(rows, dtype=[("name", "S8"), *((name, "f8") for name in names)])


def _exposures(exposures: Sequence[Mapping[str, Any]], light: Mapping[int, float]) -> NDArray[Any]:
    rows = []
    for p in exposures:
        times = (p["exposure_time"], p["dark_time"], light[p["exposure"]])
        rows.append((p["exposure"], p["observation_type"], p["physical_filter"] or "", *times))
    names = [("exposure", "i8"), ("type", "S16"), ("physical_filter", "S32")]
    return np.array(rows, dtype=[*names, *((name, "f8") for name in ("exposure_time", "dark_time", "light"))])


def _rays(seed: int, truth: Truth, scale: int, exposures: Sequence[Mapping[str, Any]], rates: Rates) -> NDArray[Any]:
    parts = []
    for p in exposures:
        rays = cosmic_rays(seed, p["exposure"], truth.detector, scale, p["dark_time"], rates)
        part = np.empty(len(rays.x), dtype=[("exposure", "i8"), ("x", "i4"), ("y", "i4"), ("charge", "f4")])
        part["exposure"], part["x"], part["y"], part["charge"] = p["exposure"], rays.x, rays.y, rays.charge
        parts.append(part)
    return np.concatenate(parts)


def truth_bytes(
    seed: int,
    truth: Truth,
    scale: int,
    exposures: Sequence[Mapping[str, Any]],
    light: Mapping[int, float],
    rates: Rates,
) -> bytes:
    """Make a truth file.

    Parameters
    ----------
    exposures : sequence of `dict`
        Parameters of the raw frames, as `kernels.simulation.simulate` has them.
    light : `dict` [`int`, `float`]
        Light by exposure, electron in a pixel of response 1.
    """
    defects = truth.hot * np.uint8(HOT) + truth.dead * np.uint8(DEAD)
    defects |= truth.vampire * np.uint8(VAMPIRE) | truth.edge * np.uint8(EDGE)

    def write(fits: fitsio.FITS) -> None:
        fits.write(None, header={"SEED": seed, "DETECTOR": truth.detector.id, "DETNAME": truth.detector.name})
        fits.write(truth.structure, extname="STRUCTURE", header={"BUNIT": "adu"})
        fits.write(truth.dark, extname="DARK", header={"BUNIT": "electron/s"})
        fits.write(defects.astype(np.uint8), extname="DEFECTS")
        for physical_filter, image in truth.response.items():
            fits.write(image, extname=f"RESPONSE_{physical_filter}")
        fits.write(_amplifiers(truth, rates), extname="AMPLIFIERS")
        fits.write(_exposures(exposures, light), extname="EXPOSURES")
        fits.write(_rays(seed, truth, scale, exposures, rates), extname="COSMIC_RAYS")
        _write_electronics(fits, truth, rates)
        for physical_filter, sky in truth.skies.items():
            fits.write(sky.pattern, extname=f"SKY_{physical_filter}")
            fits.write(sky.fringes, extname=f"FRINGE_{physical_filter}")
        if truth.skies:
            fits.write(skies_table(seed, exposures, rates), extname="SKIES")

    return written(write)


def _write_electronics(fits: fitsio.FITS, truth: Truth, rates: Rates) -> None:
    """Write what a simulation has only where it is asked for."""
    made, detector = truth.electronics, truth.detector
    if truth.wells is not None:
        fits.write(truth.wells, extname="WELLS", header={"BUNIT": "electron"})
    if rates.brighter_fatter:
        kernel = potential(coefficients(detector, rates.brighter_fatter))
        header = {"BUNIT": "1/electron", "STEPS": rates.brighter_fatter_steps}
        fits.write(realised(kernel), extname="A", header=header)
        fits.write(kernel, extname="POTENTIAL", header=header)
    if rates.nonlinearity:
        fits.write(np.stack([made.nodes, made.values]), extname="LINEARITY", header={"BUNIT": "adu"})
    if rates.crosstalk:
        fits.write(np.stack([made.c0, made.c1]), extname="CROSSTALK")
    steps = [(a.name, *rates.gain_steps[f"{detector.name}_{a.name}"]) for a in detector.amplifiers
             if f"{detector.name}_{a.name}" in rates.gain_steps]  # fmt: skip
    if steps:
        fits.write(np.array(steps, [("name", "S8"), ("day_obs", "i8"), ("factor", "f8")]), extname="GAIN_STEPS")


@dataclass(frozen=True)
class Recorded:
    """Contents of a truth file for a comparison; see the module's text for units."""

    #: [y, x], float32
    structure: F32
    dark: F32
    #: [y, x], float32, or `None`: Response in the filter that was asked for.
    response: F32 | None
    #: [y, x], bool: Hot or dead.
    defects: NDArray[np.bool_]
    #: [amplifier], float64
    gain: NDArray[np.float64]
    read_noise: NDArray[np.float64]
    #: `dict` [`int`, structured row]: Rows of EXPOSURES.
    exposures: Mapping[int, Any]
    #: structured: COSMIC_RAYS.
    rays: NDArray[Any]


def read(path: str, physical_filter: str | None) -> Recorded:
    """Read a truth file.

    Raises
    ------
    DataError
        The file cannot be read, or has no response in this filter.
    """
    try:
        with opened(path) as fits:
            amplifiers, exposures = fits["AMPLIFIERS"].read(), fits["EXPOSURES"].read()
            return Recorded(
                structure=fits["STRUCTURE"].read(),
                dark=fits["DARK"].read(),
                response=fits[f"RESPONSE_{physical_filter}"].read() if physical_filter else None,
                defects=fits["DEFECTS"].read() > 0,
                gain=amplifiers["gain"],
                read_noise=amplifiers["read_noise"],
                exposures={int(row["exposure"]): row for row in exposures},
                rays=fits["COSMIC_RAYS"].read(),
            )
    except OSError as error:
        raise DataError(path, f"is no truth of filter {physical_filter}: {str(error).splitlines()[0]}") from error
