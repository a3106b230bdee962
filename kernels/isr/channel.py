"""One amplifier of many frames: the corrections of its rows, and blocks of corrected rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import linearity
from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.calibrations.deferred import restore, restoring
from kernels.camera.geometry import Amplifier, Box
from kernels.fits.rowbytes import BLANK
from kernels.isr import load
from kernels.isr.blanks import oriented
from kernels.isr.overscan import serial_levels, serial_region
from kernels.jobs.job import File

F32 = NDArray[np.float32]

SAMPLED_ROWS = 64
_NOTHING: F32 = np.empty((0, 0), np.float32)


def target(amplifier: Amplifier, first: int, last: int) -> Box:
    """Return the box of data rows ``[first, last)`` on the assembled detector."""
    box = amplifier.target
    y0 = amplifier.data.ny - last if amplifier.flip_y else first
    return Box(box.x0, box.y0 + y0, box.nx, last - first)


@dataclass(frozen=True)
class Exposures:
    """The frames of one detector, with their dark times and scales."""

    #: The raw frames.
    files: Sequence[File]
    #: [exposure], float32: Factors of the dark, second.
    dark_times: F32
    #: [exposure, amplifier], float32: Corrected pixels become (pixel - offset) / scale.
    scales: F32
    offsets: F32

    @classmethod
    def plain(cls, files: Sequence[File], dark_times: Sequence[float], amplifiers: int) -> Exposures:
        """Make exposures that are neither scaled nor offset."""
        shape = (len(files), amplifiers)
        times = np.asarray(dark_times, np.float32)
        return cls(files, times, np.ones(shape, np.float32), np.zeros(shape, np.float32))


@dataclass(frozen=True)
class Block:
    """Corrected rows of one amplifier of all frames."""

    #: [row, width], float32: From `kernels.statistics.network.workspace`: pixels of each frame row by row, in read-out
    #: orientation and the job's unit; +infinity where masked. The next block reuses it.
    cube: F32
    #: Part of the cube that holds pixels.
    frames: int
    rows: int
    columns: int
    #: The rows that are not halo.
    core: slice

    @property
    def pixels(self) -> F32:
        """View of the cube: [frame, row, column]."""
        return self.cube[: self.frames, : self.rows * self.columns].reshape(self.frames, self.rows, self.columns)

    def image(self, flat: NDArray[Any]) -> NDArray[Any]:
        """Reshape the result of a cube [width] to [row, column], without halo."""
        return flat[: self.rows * self.columns].reshape(self.rows, self.columns)[self.core]


class Channel:
    """Corrects and samples the rows of one amplifier.

    Parameters
    ----------
    number : `int`
        Number of the amplifier in the detector.
    """

    def __init__(self, number: int, config: IsrConfig, unit: str, calibrations: Calibrations) -> None:
        self.number = number
        self.amplifier = calibrations.detector.amplifiers[number]
        self.gain = self.amplifier.gain if unit == "electron" else 1.0
        self.config, self._calibrations = config, calibrations
        self._step = max(1, self.amplifier.data.ny // SAMPLED_ROWS)
        self._kept: tuple[tuple[int, int], F32, F32] | None = None
        region, data = serial_region(self.amplifier, config), self.amplifier.data
        self._columns = np.array([data.x0, data.x1])
        self._deferral = calibrations.deferrals[number] if calibrations.deferrals else None
        if self._deferral:
            self._factors = restoring(self._deferral, self.amplifier.read_order(data).x0, data.nx)
        self._overscan = np.array([region.x0, region.x1] if region else [0, 0])
        self._floor = np.float32(self._level())
        self.suspect = float("nan") if calibrations.suspects is None else float(calibrations.suspects[number])

    @property
    def zeroed(self) -> bool:
        """Whether an overscan or the bias removes the electronics' offset, so that only light remains."""
        parallel = self.config.parallel and self.amplifier.parallel_overscan is not None
        return bool(self._overscan.any()) or parallel or self._calibrations.bias is not None

    @property
    def darkened(self) -> bool:
        """Whether a dark is subtracted."""
        return self._calibrations.dark is not None

    def _level(self) -> float:
        """Take the level from the bias where there is no overscan: light must begin at 0 before it is straightened.

        A whole number, ADU, which keeps later differences exact; 0 where nothing needs it.
        """
        of = self._calibrations
        straight = of.linearity is None and of.crosstalk is None and of.deferrals is None
        if straight or of.bias is None or any(self.level_pixels):
            return 0.0
        pixels = of.bias.read(self.amplifier.target)
        return float(np.rint(np.median(pixels[np.isfinite(pixels)]) / self.gain))

    @property
    def whole(self) -> bool:
        """Whether corrected pixels of a frame lie whole converter steps apart."""
        of = self._calibrations
        straight = of.linearity is None and of.crosstalk is None and of.deferrals is None
        return straight and self.config.serial != "meanclip"

    @property
    def straight(self) -> bool:
        """Whether `straighten` has nothing to do."""
        return self._calibrations.linearity is None and not self._deferral

    @property
    def level_pixels(self) -> tuple[int, int]:
        """Numbers of pixels in the medians of serial and parallel overscan; 0 without."""
        parallel = self.amplifier.parallel_overscan if self.config.parallel else None
        return int(np.ptp(self._overscan)), parallel.ny if parallel else 0

    def levels(self, rows: NDArray[np.int32], blanks: Sequence[int]) -> tuple[F32, F32]:
        """Measure the serial overscan of each row; without any, take the bias's level.

        See `kernels.isr.overscan.serial_levels`.

        In the frames ``blanks``, rows without any overscan become blank.
        """
        base, rest = serial_levels(rows, self.amplifier, self.config)
        base += self._floor
        for k in blanks:
            lost = np.isnan(base[k])
            rows[k, lost], base[k, lost], rest[k, lost] = BLANK, 0, 0
        return base, rest

    def suspects(self, rows: NDArray[np.int32], base: F32, rest: F32) -> NDArray[np.bool_]:
        """Flag the data pixels [frame, row, column] at or above the suspect level over the overscan's."""
        data = rows[:, :, self.amplifier.data.x0 : self.amplifier.data.x1]
        limits = base.astype(np.float64) + rest + self.suspect
        return (data >= limits[:, :, np.newaxis]) & (data != BLANK)

    def calibration(self, first: int, last: int) -> tuple[F32, F32]:
        """Read bias and dark of data rows ``[first, last)`` in read-out orientation; empty without.  Keeps the last."""
        if self._kept is None or self._kept[0] != (first, last):
            box, of = target(self.amplifier, first, last), self._calibrations
            self._keep((first, last), *(None if p is None else p.read(box) for p in (of.bias, of.dark)))
        assert self._kept is not None
        return self._kept[1:]

    def _keep(self, rows: tuple[int, int], bias: NDArray[Any] | None, dark: NDArray[Any] | None) -> None:
        def as_read(pixels: NDArray[Any] | None) -> F32:
            return _NOTHING if pixels is None else np.ascontiguousarray(oriented(pixels, self.amplifier), np.float32)

        level = as_read(bias)
        if self._floor:  # of the levels already
            level -= self._floor * np.float32(self.gain)
        self._kept = rows, level, as_read(dark)

    @staticmethod
    def calibrate(channels: Sequence[Channel]) -> None:
        """Read bias and dark of all rows of a detector's amplifiers, which keep them; files are read in order."""
        whole = [(0, channel.amplifier.data.ny) for channel in channels]
        if all(c._kept is not None and c._kept[0] == rows for c, rows in zip(channels, whole, strict=True)):
            return
        of, boxes = channels[0]._calibrations, [channel.amplifier.target for channel in channels]
        bias, dark = (iter([None] * len(boxes)) if p is None else p.parts(boxes) for p in (of.bias, of.dark))
        for channel, rows in zip(channels, whole, strict=True):
            channel._keep(rows, next(bias), next(dark))

    def straighten(self, pixels: F32) -> None:
        """Correct pixels [frame, row, column] for non-linearity and deferred charge, in place."""
        grid = self._calibrations.linearity
        if grid is not None:
            k = self.number
            for frame in pixels:
                linearity.apply(
                    frame, grid.values[k], float(grid.step[k]), self.gain, float(grid.first[k]), bool(grid.smooth[k])
                )
        deferral = self._deferral
        if deferral:
            for frame in pixels:
                restore(self.as_read(frame), self._factors, deferral.drift, deferral.kept)

    def as_read(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Convert columns [..., x] to read-out order, or back."""
        return rows[..., ::-1] if self.amplifier.leftwards else rows

    def samples(self, rows: NDArray[np.int32], base: F32, rest: F32, first: int, core: slice) -> NDArray[np.float64]:
        """Sample every n-th row of a core from row ``first`` on [frame, row, SAMPLED]: `kernels.isr.load.sample`."""
        picked = core.start + np.arange((self._step // 2 - first) % self._step, core.stop - core.start, self._step)
        out = np.empty((len(rows), picked.size, load.SAMPLED))
        if picked.size:
            level = base.astype(np.float64) + rest
            load.sample(rows, picked, self._columns, self._overscan, level, out)
        return out


@dataclass(frozen=True)
class Canvas:
    """Image of a detector, into which amplifiers of a frame are put, and flags of its pixels."""

    #: [y, x], float32, in the job's unit; NaN where masked or flagged.  `None`: each amplifier has an image of its own.
    image: F32 | None
    #: [y, x], bool: Flags of its pixels; [0, 0] without.
    flags: NDArray[np.bool_]


@dataclass(frozen=True)
class Frame:
    """Corrected rows of one amplifier of one frame."""

    #: The amplifier.
    channel: Channel
    #: [y, x], float32: In detector orientation and the job's unit; NaN where masked.
    pixels: F32
    #: [1, sampled row, SAMPLED], float64: Result of `kernels.isr.load.sample` for every n-th row, in the order of the
    #: raw rows.
    samples: NDArray[np.float64]
    #: [1], int64: Numbers of saturated pixels, and of pixels that hold no value.
    saturated: NDArray[np.int64]
    blank: NDArray[np.int64]
    #: [y, x], bool, or `None`: Flags of pixels that hold no value; `None`: there are none.
    empty: NDArray[np.bool_] | None = None
    #: Number of masked pixels that the canvas does not flag.
    lacking: int = 0
    #: [y, x], bool, or `None`: Flags of pixels at or above the suspect level; `None`: there are none.
    suspect: NDArray[np.bool_] | None = None
