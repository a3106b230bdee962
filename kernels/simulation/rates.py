"""Settings of the simulator's model, and its random streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np

from kernels.errors import JobError


class Stream(IntEnum):
    """Purposes of random streams; the numbers are part of the definition."""

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


def generator(seed: int, stream: Stream, *ids: int) -> np.random.Generator:
    """Random numbers of one array: (seed, stream, ids) -> always the same."""
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
    #: Scale of the bias structure, ADU: gradient, column pattern and three times as much of corner glow.
    structure: float = 2.0
    #: By the first three letters of the detector's type, electron/second.
    dark_current: Mapping[str, float] = field(default_factory=lambda: {"E2V": 0.023, "ITL": 0.021})
    #: Relative.
    dark_gradient: float = 0.03
    #: Fraction of the pixels.
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
    #: Amplitude of the lamp's gradient over 350 mm, and depth of the "coffee stain" rings of a detector, relative.
    lamp_gradient: float = 0.02
    stain: float = 0.02
    #: Radii in the focal plane where vignetting begins, and is at its end.
    vignetting_mm: tuple[float, float] = (317.0, 350.0)
    #: Response that is left there, relative.
    vignetting: float = 0.4
    #: Electron/second in a pixel of response 1; a filter has 0.8 to 1.2 of it.
    lamp: float = 4000.0
    #: Scatter of the lamp from exposure to exposure, relative.
    lamp_jitter: float = 0.01
    #: Hits per cm^2 of silicon and second. A scaled camera is less silicon, not larger pixels: multiply by scale to
    #: have as many hits as there are on a line across the full detector.
    cosmic_rays: float = 0.05
    #: Range of a track's length, pixels.
    track_px: tuple[int, int] = (1, 15)
    #: Range of its charge, electron/pixel.
    track_charge: tuple[float, float] = (200.0, 2000.0)
    #: Fraction of the hits that are spots of 1 to 4 pixels.
    spots: float = 0.3
    #: Time during which cosmic rays go on hitting after the dark time, second (the dark current of this time is
    #: neglected).
    readout_time: float = 2.0
    #: Full well where the camera file has no saturation, electron.
    saturation: float = 1.2e5
    #: Full well in units of the camera file's saturation: above 1, or the read noise would hide half of the saturated
    #: pixels.
    overfull: float = 1.05
    #: Between amplifiers side by side, relative to the source; the LSST camera has 2e-4. 0 is none at all.
    crosstalk: float = 0.0
    #: Largest deviation from a straight line, relative; 0 is none at all.
    nonlinearity: float = 0.0
    #: Charge that a serial transfer leaves behind, relative; an amplifier has 0.9 to 1.1 of it. 0 is none at all.
    cti: float = 0.0
    #: Offset of the output amplifier, relative to the charge that makes it; an amplifier has 0.5 to 1.5 of it. 0 is
    #: none at all.
    output_drift: float = 0.0
    #: Range of that offset's decay, columns.
    output_decay: tuple[float, float] = (1.5, 3.0)
    #: Bad columns of a detector, each a stretch of an amplifier's column.
    hot_columns: int = 0
    dead_columns: int = 0
    #: Fraction of such a stretch's pixels that is bad.
    column_fill: float = 0.9
    #: Spots of a detector that draw the charge of what is around them.
    vampires: int = 0
    #: Range of the response at their cores, relative.
    vampire_response: tuple[float, float] = (2.2, 3.0)
    #: Decay length of the response towards the detector's edges, pixels, and how much of it is lost there, relative.
    edge_px: float = 2.0
    edge_depth: float = 0.0
    #: Standard deviation of an amplifier's level from night to night, ADU.
    night_drift: float = 0.0
    #: By detector, the name of an amplifier that answers nothing: level and noise are all that it has.
    dead_amplifiers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Rates:
        """Check and freeze a job's ``rates``.

        Raises
        ------
        JobError
            An unknown key; the message lists the known ones.  Or a value of
            another kind than the default's.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(plain) - set(known))
        if unknown:
            raise JobError(f"rates: unknown key {unknown[0]!r}; known are {', '.join(known)}")
        for f in fields(cls):
            if f.name in plain and not _fits(plain[f.name], getattr(cls(), f.name)):
                raise JobError(
                    f"rates.{f.name}: {plain[f.name]!r} is no value for it, the default is {getattr(cls(), f.name)}"
                )
        return cls(**plain)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the default's kind: a number, a range of two, or a mapping."""
    if isinstance(default, tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(_fits(v, d) for v, d in zip(value, default, strict=True))
        )
    if isinstance(default, float):
        return type(value) in (int, float)
    return isinstance(value, Mapping if isinstance(default, Mapping) else type(default))
