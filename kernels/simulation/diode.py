"""Readings of the photodiode that watches the lamp during an exposure.

The trace is negative, as a current that flows out of the diode is read, over a
baseline; while the lamp is on, the samples follow its light, with white noise.
The integral over the baseline (trapezoids; the first and the last sample are
dark) is the light times `Rates.diode_charge`, good to `Rates.diode_noise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.simulation.rates import Rates, Stream, generator

F64 = NDArray[np.float64]

#: Samples while the lamp is on, and before and after.
LIT, DARK = 200, 25
#: Baseline, in units of the current while the lamp is on.
BASELINE = 0.02
#: Noise of a sample without light, in units of one with light.
QUIET = 0.1


def trace(seed: int, parameters: Mapping[str, Any], light: float, rates: Rates) -> tuple[F64, F64]:
    """Make the readings of one exposure.

    Parameters
    ----------
    parameters : `dict`
        The exposure's, as `kernels.simulation.simulate` has them;
        ``diode_scale`` is a factor of the readings.
    light : `float`
        Light in a pixel of response 1, electron.

    Returns
    -------
    time, current : `numpy.ndarray` [sample], float64
        Second from the begin of the exposure, and ampere.
    """
    seconds = max(float(parameters["exposure_time"]), 1e-3)
    step = seconds / LIT
    time = (np.arange(LIT + 2 * DARK, dtype=np.float64) - DARK + 0.5) * step
    on = (time > 0) & (time < seconds)
    level = light * rates.diode_charge * float(parameters.get("diode_scale", 1.0)) / seconds
    noise = generator(seed, Stream.DIODE, parameters["exposure"]).standard_normal(len(time))
    noise *= rates.diode_noise * np.sqrt(LIT) * np.where(on, 1.0, QUIET)
    current = level * (on + BASELINE + noise)
    return time, np.asarray(-current, np.float64)


def text(time: F64, current: F64, parameters: Mapping[str, Any], instrument: str) -> bytes:
    """Write readings as ECSV, with the keywords that Rubin's PhotodiodeCalib has."""
    about = {
        "OBSTYPE": "PHOTODIODE",
        "PHOTODIODE_SCHEMA": "Photodiode",
        "PHOTODIODE_VERSION": 1.0,
        "INSTRUME": instrument,
        "day_obs": parameters["day_obs"],
        "seq_num": parameters["seq_num"],
        "exposure": parameters["exposure"],
    }
    lines = ["%ECSV 1.0", "---", "datatype:"]
    lines += [
        f"- {{name: {name}, unit: {unit}, datatype: float64}}" for name, unit in (("TIME", "s"), ("CURRENT", "A"))
    ]
    lines += ["meta: !!omap", *(f"- {{{key}: {value}}}" for key, value in about.items()), "schema: astropy-2.0"]
    rows = [f"{t!r} {c!r}" for t, c in zip(time.tolist(), current.tolist(), strict=True)]
    return "\n".join([*(f"# {line}" for line in lines), "TIME CURRENT", *rows, ""]).encode()
