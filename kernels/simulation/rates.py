"""Settings of the simulator's model, and its random streams."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any, Final

import numpy as np

from kernels.errors import JobError

#: Largest number of columns, pixels, or steps.
MOST: Final = 100_000


class Stream(IntEnum):
    """Purposes of random streams; the numbers define the simulated bits."""

    LEVEL = 1
    STRUCTURE = 2
    DARK = 3
    DEFECTS = 4
    QE = 5
    RESPONSE = 6
    LAMP = 7
    COSMIC = 8
    FRAME = 9
    CROSSTALK = 10
    LINEARITY = 11
    DEFERRED = 12
    NIGHT = 13
    COLUMNS = 14
    SCENE = 15
    WELLS = 16
    ROWS = 17
    DIODE = 18
    SKY = 31


def generator(seed: int, stream: Stream, *ids: int) -> np.random.Generator:
    """Make the generator of one array; the same seed, stream and ids give the same numbers."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, stream, *ids])))


@dataclass(frozen=True)
class Rates:
    """Settings of the model."""

    #: Range of the amplifiers' bias levels, ADU.
    level: tuple[float, float] = (15000.0, 30000.0)
    #: Standard deviation of an amplifier's level from frame to frame, and amplitude of the slow drift along its rows,
    #: ADU.
    level_drift: float = 2.0
    row_drift: float = 1.0
    #: Scale of the bias structure, ADU: a gradient of up to 10, columns of 0.5 and a corner glow of 1.5 to 4.5 times
    #: it.
    structure: float = 2.0
    #: Dark current by the first three letters of the detector's type, electron/second.
    dark_current: Mapping[str, float] = field(default_factory=lambda: {"E2V": 0.023, "ITL": 0.021})
    #: Gradient of the dark current, relative.
    dark_gradient: float = 0.03
    #: Fraction of the pixels that are hot, or dead.
    hot: float = 2e-4
    dead: float = 1e-4
    #: Range of the hot pixels' dark current, electron/second.
    hot_rate: tuple[float, float] = (5.0, 200.0)
    #: Largest response of a dead pixel, relative.
    dead_response: float = 0.3
    #: Scatter of the response from pixel to pixel (the same in all filters), of the amplifiers and of the detectors,
    #: relative.
    qe: float = 0.01
    amplifier_step: float = 0.01
    detector_step: float = 0.03
    #: Amplitude of the lamp's gradient over 350 mm, and depth of a detector's "coffee stain" rings, relative.
    lamp_gradient: float = 0.02
    stain: float = 0.02
    #: Radii in the focal plane where vignetting begins and ends.
    vignetting_mm: tuple[float, float] = (317.0, 350.0)
    #: Response at the end of the vignetting, relative.
    vignetting: float = 0.4
    #: Light in a pixel of response 1, electron/second; a filter passes 0.8 to 1.2 of it.
    lamp: float = 4000.0
    #: Scatter of the lamp from exposure to exposure, relative.
    lamp_jitter: float = 0.01
    #: Hits per second and cm^2 of silicon. A scaled camera has less silicon, not larger pixels: multiply by the scale
    #: to get as many hits on a line across a detector as at full size.
    cosmic_rays: float = 0.05
    #: Range of a track's length, pixels.
    track_px: tuple[int, int] = (1, 15)
    #: Range of a track's charge, electron/pixel.
    track_charge: tuple[float, float] = (200.0, 2000.0)
    #: Fraction of the hits that are spots of 1 to 4 pixels.
    spots: float = 0.3
    #: Time after the dark time during which cosmic rays still hit, second (its dark current is neglected).
    readout_time: float = 2.0
    #: Full well where the camera file has no saturation, electron.
    saturation: float = 1.2e5
    #: Full well in units of the camera file's saturation; above 1, since read noise would bring half of the saturated
    #: pixels below it otherwise.
    overfull: float = 1.05
    #: Crosstalk of adjacent amplifiers, relative to the source; the LSST camera has 2e-4. 0: none.
    crosstalk: float = 0.0
    #: Largest deviation from a straight line, relative; 0: none.
    nonlinearity: float = 0.0
    #: Charge that a serial transfer leaves behind, relative; an amplifier has 0.9 to 1.1 of it. 0: none.
    cti: float = 0.0
    #: Offset of the output amplifier, relative to the charge that causes it; an amplifier has 0.5 to 1.5 of it. 0:
    #: none.
    output_drift: float = 0.0
    #: Range of the offset's decay length, columns.
    output_decay: tuple[float, float] = (1.5, 3.0)
    #: Bad columns of a detector, each a stretch of an amplifier's column.
    hot_columns: int = 0
    dead_columns: int = 0
    #: Fraction of bad pixels in such a stretch.
    column_fill: float = 0.9
    #: Pixels of a detector that draw the charge of their neighbours.
    vampires: int = 0
    #: Range of the response of such pixels, relative.
    vampire_response: tuple[float, float] = (2.2, 3.0)
    #: Decay length of the loss of response at the detector's edges, pixels, and its size at the very edge, relative.
    edge_px: float = 2.0
    edge_depth: float = 0.0
    #: Standard deviation of an amplifier's level from night to night, ADU.
    night_drift: float = 0.0
    #: By detector, the name of an amplifier that reads only its level and noise.
    dead_amplifiers: Mapping[str, str] = field(default_factory=dict)
    #: Strength of the brighter-fatter effect, in units of LSSTCam R22_S11's, and steps of its simulation. 0: none.
    brighter_fatter: float = 0.0
    brighter_fatter_steps: int = 8
    #: Scatter of the full well from pixel to pixel, relative; charge above it runs along the column. 0: cut off at
    #: the amplifier's full well.
    well_spread: float = 0.0
    #: Standard deviation of the level from row to row, overscans included, ADU.
    row_noise: float = 0.0
    #: Factors of gains from a night on, by amplifier: {R22_S11_C10: [20241215, 1.002]}.
    gain_steps: Mapping[str, Any] = field(default_factory=dict)
    #: The same of read noises.
    noise_steps: Mapping[str, Any] = field(default_factory=dict)
    #: Spots in one amplifier: range of the peak, electron, and sigma, pixels.
    spot_peak: tuple[float, float] = (30e3, 150e3)
    spot_sigma: float = 3.0
    #: Stars: range of the peak (drawn evenly in its logarithm), electron, and sigma, pixels.
    star_peak: tuple[float, float] = (1e3, 1e5)
    star_sigma: float = 1.9
    #: Night sky, relative: scatter of an exposure's gradient over 350 mm, size of the camera's pattern, step between
    #: sensor types. Fringes across a detector.
    sky_gradient: float = 0.02
    sky_pattern: float = 0.005
    sky_type_step: float = 0.01
    fringe_waves: float = 40.0
    #: Photodiode: noise of the integral, relative, and charge for a lamp of 1 electron, coulomb. Noise 0: none.
    diode_noise: float = 0.0
    diode_charge: float = 1e-15

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Rates:
        """Check and freeze a job's ``rates``.

        Raises
        ------
        JobError
            A key is unknown, or a value is of another kind than the default.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(plain) - set(known))
        if unknown:
            raise JobError(f"rates: unknown key {unknown[0]!r}; known are {', '.join(known)}")
        for f in fields(cls):
            if f.name in plain and not _fits(plain[f.name], getattr(cls(), f.name)):
                raise JobError(
                    f"rates.{f.name}: {plain[f.name]!r} does not fit, the default is {getattr(cls(), f.name)}"
                )
        return cls(**plain)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the default's kind: a number from 0, a range of two that ascends, or a mapping."""
    if isinstance(default, tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(_fits(v, d) for v, d in zip(value, default, strict=True))
            and value[0] <= value[1]
        )
    if isinstance(default, float):
        return type(value) in (int, float) and 0 <= value < math.inf
    if isinstance(default, int):
        return type(value) is int and 0 <= value <= MOST
    return isinstance(value, Mapping if isinstance(default, Mapping) else type(default))
