"""Quantities of the inputs table that are compared over exposures: level, noise, shape, overscan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from campaign.camera.model import Camera
from campaign.quality.levels import DIGITISATION, Row
from campaign.quality.outlying import NSIGMA, follow, middle, straight

F64 = NDArray[np.float64]

#: Systematic errors: of a level, in noises; of a flat's level and of a noise, as fractions.
PRECISION, OF_FLAT, OF_NOISE = 0.05, 1e-3, 5e-3
#: Largest deviation of an overscan from that of most exposures, in noises.
JUMP = 20.0
#: Fraction by which a flat's level may change with its lamp.
LAMP = 0.05
#: Deviation from the common shape that may occur by chance, as a fraction of a cell's noise.
OF_CELL = 0.3
#: Cells of a shape along each axis, most rows sampled for them, and fewest pixels of a cell.
CELLS, SAMPLED_ROWS, CELL_PIXELS = 8, 64, 12


@dataclass(frozen=True)
class Table:
    """Rows as arrays."""

    exposures: list[int]
    #: Detector and amplifier.
    channels: list[tuple[int, str]]
    #: By column, [exposure, channel]; NaN where there is no row.
    values: Mapping[str, F64]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        """Arrange rows; see `Table`."""
        exposures = sorted({r.exposure for r in rows})
        channels = list(dict.fromkeys((r.detector, r.amplifier) for r in rows))
        row, column = ({key: n for n, key in enumerate(keys)} for keys in (exposures, channels))
        at = [row[r.exposure] for r in rows], [column[r.detector, r.amplifier] for r in rows]
        every = np.full((len(Row.NUMBERS), len(exposures), len(channels)), np.nan)
        every[:, *at] = np.array(list(map(attrgetter(*Row.NUMBERS), rows)), np.float64).T
        return cls(exposures, channels, dict(zip(Row.NUMBERS, every, strict=True)))

    @cached_property
    def detectors(self) -> dict[int, NDArray[np.intp]]:
        """Columns of each detector."""
        owner = np.array([d for d, _ in self.channels])
        return {int(d): np.flatnonzero(owner == d) for d in dict.fromkeys(owner)}

    def by_detector(self, values: F64) -> F64:
        """Take the median [exposure, detector] of the channels' values [exposure, channel] that are finite."""
        out, columns = np.empty((len(values), len(self.detectors))), list(self.detectors.values())
        for size in {len(some) for some in columns}:
            alike = [k for k, some in enumerate(columns) if len(some) == size]
            out[:, alike] = middle(values[:, np.array([columns[k] for k in alike])], 2)
        return out

    def some(self, keep: NDArray[np.bool_]) -> Table:
        """Select some exposures."""
        exposures = [e for e, kept in zip(self.exposures, keep, strict=True) if kept]
        return Table(exposures, self.channels, {name: v[keep] for name, v in self.values.items()})


@dataclass(frozen=True)
class Series:
    """Quantity that is compared over all exposures."""

    #: For messages.
    name: str
    #: Deviations from the channel's median, in its errors, [exposure, channel]; NaN where not to be compared.
    far: F64
    #: The same, less the part that a detector's channels share.
    own: F64
    #: Errors in the unit of the values, [channel].
    error: F64
    #: Least reported deviation shared by all detectors, in errors.
    least: float = NSIGMA
    #: Whether a split of the exposures into groups is reported.
    grouped: bool = True


def level_error(table: Table, camera: Camera, product: str) -> F64:
    """Estimate each channel's level error, ADU: medians of rows, overscans, light, and a systematic part."""
    noise = np.maximum(middle(table.values["noise"], 0), DIGITISATION)
    level = np.abs(middle(table.values["level"], 0))
    errors = []
    for (detector, name), n, light in zip(table.channels, noise, level, strict=True):
        d = camera.by_id.get(detector)
        known = {a.name: (a, g) for a, g in zip(camera.types[d.type].amplifiers, d.gains, strict=True)} if d else {}
        statistical = 0.0
        if name in known:
            a, gain = known[name]
            rows = min(SAMPLED_ROWS, a.data.ny)
            columns = 1 / (a.serial_overscan.nx - 3) if a.serial_overscan and a.serial_overscan.nx > 3 else 0.0
            shot = light / gain if product == "flat" or (product == "dark" and columns) else 0.0
            statistical = 2.46 * (n**2 * columns + (n**2 + shot) / a.data.nx) / rows
        floor = OF_FLAT * light if product == "flat" else 0.0
        errors.append(float(np.sqrt(statistical + (PRECISION * n) ** 2 + floor**2)))
    return np.array(errors)


def own(table: Table, far: F64) -> F64:
    """Subtract the shared deviation of each detector from its channels."""
    out = np.empty_like(far)
    for shared, columns in zip(table.by_detector(far).T, table.detectors.values(), strict=True):
        out[:, columns] = follow(shared, far[:, columns])
    return out


def level(table: Table, camera: Camera, product: str, live: NDArray[np.bool_], error: F64) -> Series:
    """Compare levels above the overscan."""
    values = np.where(live, table.values["level"], np.nan)
    far = (values - middle(values, 0)) / error
    if product == "flat":  # a lamp's level may change
        return Series("level", far, own(table, far), error, LAMP / OF_FLAT, grouped=False)
    return Series("level", far, own(table, far), error)


def noise(table: Table, camera: Camera, product: str, live: NDArray[np.bool_]) -> Series:
    """Compare noises; without an overscan the light's part is removed along the level."""
    values = np.where(live, table.values["noise"], np.nan)
    if product != "bias":
        overscanned = scanned(table, camera)
        for k in np.flatnonzero(~overscanned):
            square = straight(table.values["level"][:, k], values[:, k] ** 2) + np.nanmedian(values[:, k]) ** 2
            values[:, k] = np.sqrt(np.maximum(square, 0.0))
    usual = middle(values, 0)
    # Tables of older versions have no error of the noise: take a twentieth.
    known = middle(np.where(live, table.values["noise_error"], np.nan), 0)
    error = np.hypot(np.where(known > 0, known, PRECISION * np.maximum(usual, DIGITISATION)), OF_NOISE * usual)
    far = (values - usual) / error
    return Series("noise", far, own(table, far), error)


def shape(table: Table, product: str, live: NDArray[np.bool_]) -> Series:
    """Compare the light's shapes."""
    values = np.where(live, table.values["shape"], np.nan)
    level = np.abs(middle(table.values["level"], 0))
    floor = OF_FLAT * level if product == "flat" else PRECISION * middle(table.values["noise"], 0)
    # The longest dark has the noisiest cells: each frame counts by its own error.
    cell = np.fmax(table.values["shape_error"], middle(table.values["shape_error"], 0))
    error = np.maximum(np.hypot(floor, OF_CELL * cell), PRECISION * DIGITISATION)
    far = (values - middle(values, 0)) / error
    return Series("shape", far, far, middle(error, 0))


def resolved(table: Table, camera: Camera) -> NDArray[np.bool_]:
    """Which channels have cells of enough pixels to tell a level from a hit or a hot column."""
    many = {
        (d.id, a.name): (a.data.nx // CELLS) * (min(a.data.ny, SAMPLED_ROWS) // CELLS)
        for d in camera.detectors
        for a in camera.types[d.type].amplifiers
    }
    return np.array([many.get(c, 0) >= CELL_PIXELS for c in table.channels])


def scanned(table: Table, camera: Camera) -> NDArray[np.bool_]:
    """Which channels have a serial overscan."""
    found = {(d.id, a.name) for d in camera.detectors for a in camera.types[d.type].amplifiers if a.serial_overscan}
    return np.array([c in found for c in table.channels])


def overscan(table: Table) -> Series:
    """Compare the electronics' level; overscan subtraction removes its drifts, so only a jump is reported."""
    values = table.values["overscan"]
    error = JUMP / NSIGMA * np.maximum(middle(table.values["noise"], 0), DIGITISATION)
    far = (values - middle(values, 0)) / error
    return Series("bias level", far, own(table, far), error)
