"""One corrected frame of one detector, and all that its metrics share, each measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.config import IsrConfig
from kernels.calibrations.deferred import Deferral
from kernels.camera.geometry import Amplifier, Box, Detector
from kernels.isr.cosmic import CosmicConfig, cosmic_rays
from kernels.verification import measure
from kernels.verification.applied import Applied, Components, Expectation, Light, expectation, per_electron, shot, still
from kernels.verification.measure import Measured, Serial

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Side of a bin and of the readout corner at full size, pixel; a scaled camera divides them.
BIN, CORNER = 64, 200
#: Fewest rows of a parallel overscan for its metrics, and amplifiers for those that compare them.
ROWS, SEVERAL = 6, 4


@dataclass(frozen=True)
class Overscans:
    """Raw overscans of one amplifier, in the order of the read-out, and the last imaging column and row; ADU."""

    #: [row, column] beside the imaging rows.
    serial: NDArray[np.int32]
    #: [row, column] beyond the imaging columns; [0, 0] without.
    parallel: NDArray[np.int32]
    #: Medians of the last imaging column and row.
    last_column: float
    last_row: float


def overscans(raw: NDArray[np.int32], amplifier: Amplifier) -> Overscans:
    """Cut the overscans out of an amplifier's raw image [row, column], ADU; empty where it has none."""
    data, read = amplifier.data, raw[:, ::-1] if amplifier.leftwards else raw
    box, last = amplifier.read_order(data), amplifier.serial_overscan
    rows = slice(data.y0, data.y1)
    serial = np.empty((0, 0), np.int32)
    if last is not None:
        at = amplifier.read_order(last)
        serial = read[rows, at.x0 : at.x1]
    above = amplifier.parallel_overscan
    parallel = np.empty((0, 0), np.int32) if above is None else raw[above.slices]
    edge = float(np.median(read[rows, box.x1 - 1])), float(np.median(raw[data.y1 - 1, data.x0 : data.x1]))
    return Overscans(np.ascontiguousarray(serial), np.ascontiguousarray(parallel), *edge)


@dataclass(frozen=True)
class Header:
    """Facts about a frame or product that must agree: value found, and the one that is wanted."""

    #: By name: ``UNIT``, ``DETECTOR``, ``FILTER``, ``VALIDITY``; empty where nothing is known.
    found: Mapping[str, str] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """A corrected frame."""

    exposure: int
    #: ``bias``, ``dark`` or ``flat``: the kind of verification.
    kind: str
    #: With the gains and read noises that are applied.
    detector: Detector
    #: [y, x], float32: Assembled, in the camera's unit; NaN where masked.
    image: F32
    isr: IsrConfig
    scale: int = 1
    #: ``electron`` or ``adu``; where metrics say electron, they mean this.
    unit: str = "electron"
    #: Dark time, second.
    seconds: float = 0.0
    #: Modified Julian date (TAI) of the beginning, for drifts.
    mjd: float = 0.0
    #: Products that corrected it.
    applied: Sequence[Applied] = ()
    #: By amplifier; `None`: not at hand.
    raw: Sequence[Overscans] | None = None
    #: [amplifier]: number of saturated pixels.
    saturated: Sequence[int] | None = None
    #: Expected dark current in the image's unit per second, before the dark was subtracted.
    dark: F64 | float = 0.0
    #: Mean [amplifier] of the flat that divided the frame, which has the charge ``image`` times this.
    response: F64 | float = 1.0
    #: [amplifier]: a00 of the photon transfer curve, 1/electron.
    a00: F64 | None = None
    deferrals: Sequence[Deferral] | None = None
    header: Header | None = None

    @property
    def there(self) -> set[str]:
        """Needs of metrics that it meets."""
        parts = {
            "overscans": self.raw is not None and all(one.serial.size for one in self.raw),
            "parallel overscans": self.raw is not None and all(len(one.parallel) >= ROWS for one in self.raw),
            "neighbours": any((b.x1, b.y0, b.ny) in {(c.x0, c.y0, c.ny) for c in self.boxes} for b in self.boxes),
            "several amplifiers": len(self.boxes) >= SEVERAL,
            "saturated": self.saturated is not None,
            "dark time": self.seconds > 0,
            "header": self.header is not None,
            "cti": self.deferrals is not None,
            "inputs": bool(self.applied),
        }
        return {"frame", *(name for name, has in parts.items() if has)}

    @property
    def role(self) -> str:
        """Tell whether the frame is among the inputs of the product of its own kind; empty if none is applied."""
        return next((one.role(self.exposure) for one in self.applied if one.kind == self.kind), "")

    @cached_property
    def boxes(self) -> list[Box]:
        """Boxes of the amplifiers on the assembled detector."""
        return [a.target for a in self.detector.amplifiers]

    @cached_property
    def height(self) -> F64:
        """Rows [amplifier]."""
        return np.array([box.ny for box in self.boxes], np.float64)

    @cached_property
    def width(self) -> F64:
        """Columns [amplifier]."""
        return np.array([box.nx for box in self.boxes], np.float64)

    @cached_property
    def serial(self) -> list[Serial]:
        """Statistics of the serial overscans by amplifier."""
        assert self.raw is not None
        return [measure.serial(one.serial, self.isr.skip_columns) for one in self.raw]

    @cached_property
    def rays(self) -> NDArray[np.bool_]:
        """Flags [y, x] of pixels that a cosmic ray hit."""
        sigma = np.empty(self.image.shape, np.float32)
        above = np.empty(self.image.shape, np.float32)
        first = measure.measure(self.image, self.boxes, self.bin)
        level = np.nan_to_num(first.of(measure.CLIPPED_MEAN)).astype(np.float32)
        noise = np.nan_to_num(first.of(measure.CLIPPED_SIGMA), nan=np.inf).astype(np.float32)
        for box, mean, spread in zip(self.boxes, level, noise, strict=True):
            np.subtract(self.image[box.slices], mean, out=above[box.slices])
            sigma[box.slices] = spread if spread > 0 else np.inf
        return cosmic_rays(above, sigma, CosmicConfig())

    @cached_property
    def clean(self) -> F32:
        """The image [y, x] without cosmic rays."""
        if not self.rays.any():
            return self.image
        return np.where(self.rays, np.float32(np.nan), self.image)

    @cached_property
    def measured(self) -> Measured:
        """Statistics of the clean image."""
        return measure.measure(self.clean, self.boxes, self.bin)

    def of(self, place: int) -> F64:
        """Return one of the statistics [amplifier] (`kernels.verification.measure`)."""
        return self.measured.of(place)

    @property
    def bin(self) -> int:
        """Side of a bin, pixel."""
        return max(1, BIN // self.scale)

    @property
    def corner(self) -> int:
        """Side of the readout corner, pixel."""
        return max(2, CORNER // self.scale)

    @cached_property
    def light(self) -> F64:
        """Mean charge by light [amplifier], electron; 0 in frames without."""
        return np.maximum(self.of(measure.CLIPPED_MEAN), 0.0) if self.kind == "flat" else np.zeros(len(self.boxes))

    @cached_property
    def electron(self) -> F64:
        """Signal of one electron [amplifier], in the unit of the image."""
        return per_electron(self.detector, self.unit) / np.asarray(self.response, np.float64)

    @cached_property
    def charge(self) -> F64:
        """Variance [amplifier] of the light, in the image's unit squared."""
        return shot(self.light / self.electron, self.a00) * self.electron**2

    @cached_property
    def still(self) -> Components:
        """Noise of a frame without light, in the image's unit squared."""
        square = self.electron**2
        return still(self.detector, self.isr).times(square, square)

    @cached_property
    def noise(self) -> Expectation:
        """Expected noise."""
        dark = np.broadcast_to(np.asarray(self.dark, np.float64), self.light.shape)
        light = Light(self.light, self.charge, dark * self.electron / np.asarray(self.response), self.seconds)
        return expectation(self.still, light, self.exposure, self.applied)
