"""Fused instrument signature removal: raw rows to corrected pixels, in memory.

The order is that of IsrTaskLSST: serial overscan, saturation, gain, parallel
overscan, trim, flip to the detector's orientation, bias, dark.  Every step
looks at one row, or at one column's parallel overscan, so that the result does
not depend on how an amplifier is cut into row blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.geometry import Amplifier, Box, Detector
from kernels.isrconfig import IsrConfig
from kernels.job import File
from kernels.overscan import parallel_levels, serial_levels, serial_region
from kernels.product import Product
from kernels.raw import Frames

SAMPLED_ROWS = 64


@dataclass(frozen=True)
class Window:
    """Data rows ``[first, last)`` of an amplifier, read with a halo, and the calibrations there.

    Parameters
    ----------
    first, last : `int`
        Data rows of the raw frame that count.
    top, bottom : `int`
        Data rows of the raw frame that are read.
    box : `Box`
        Where the rows read lie on the assembled detector.
    inner : `Box`
        Where the rows that count lie.
    bias, dark : `numpy.ndarray` [y, x], float32, or `None`
        In the job's unit; the dark per second.
    """

    first: int
    last: int
    bottom: int
    top: int
    box: Box
    inner: Box
    bias: NDArray[np.float32] | None
    dark: NDArray[np.float32] | None

    @property
    def core(self) -> slice:
        """Rows of a block that are not halo."""
        return slice(self.inner.y0 - self.box.y0, self.inner.y1 - self.box.y0)


@dataclass(frozen=True)
class Block:
    """Corrected rows of one amplifier of one frame.

    Parameters
    ----------
    pixels : `numpy.ndarray` [y, x], float32
        The window's box, in the job's unit; NaN where saturated.
    samples : `numpy.ndarray` [sampled row, 2], float64
        Median signal and noise variance of every n-th row that counts (ADU,
        ADU^2), in the order of the raw rows.
    saturated : `int`
        Number of saturated pixels in the rows that count.
    """

    pixels: NDArray[np.float32]
    samples: NDArray[np.float64]
    saturated: int


def target(amplifier: Amplifier, first: int, last: int) -> Box:
    """Where data rows ``[first, last)`` lie on the assembled detector."""
    box = amplifier.target
    y0 = amplifier.data.ny - last if amplifier.flip_y else first
    return Box(box.x0, box.y0 + y0, box.nx, last - first)


class Reader:
    """Reads and corrects one amplifier of many frames.

    Parameters
    ----------
    frames : `Frames`
        The open files.
    detector, amplifier
        What to read.
    config : `IsrConfig`
        What to correct.
    unit : `str`
        ``electron`` or ``adu``.
    bias, dark : `Product`
        The calibrations that ``config`` asks for.
    """

    def __init__(
        self,
        frames: Frames,
        detector: Detector,
        amplifier: Amplifier,
        config: IsrConfig,
        unit: str,
        bias: Product | None,
        dark: Product | None,
    ) -> None:
        self._frames = frames
        self._amplifier = amplifier
        self._config = config
        self._bias, self._dark = bias, dark
        self._adc_max = detector.adc_max
        self._gain = amplifier.gain if unit == "electron" else 1.0
        self._step = max(1, amplifier.data.ny // SAMPLED_ROWS)
        self._parallel: dict[str, NDArray[np.float64]] = {}

    def window(self, first: int, last: int, halo: int) -> Window:
        """Prepare to read data rows ``[first, last)`` with ``halo`` more on both sides where there are any."""
        bottom, top = max(0, first - halo), min(self._amplifier.data.ny, last + halo)
        box, inner = target(self._amplifier, bottom, top), target(self._amplifier, first, last)
        bias = self._bias.read(box) if self._bias else None
        dark = self._dark.read(box) if self._dark else None
        return Window(first, last, bottom, top, box, inner, bias, dark)

    def _column_levels(self, file: File) -> NDArray[np.float64]:
        """Column levels of the parallel overscan (ADU), once a file."""
        box = self._amplifier.parallel_overscan
        if box is None or not self._config.parallel:
            return np.zeros(self._amplifier.data.nx)
        if file.path not in self._parallel:
            rows = self._frames.rows(file, self._amplifier, box.y0, box.y1)
            self._parallel[file.path] = parallel_levels(rows, self._amplifier, self._config)
        return self._parallel[file.path]

    def _samples(self, rows: NDArray[np.int32], levels: NDArray[np.float64], first: int) -> NDArray[np.float64]:
        picked = np.flatnonzero((first + np.arange(rows.shape[0])) % self._step == self._step // 2)
        data, region = self._amplifier.data, serial_region(self._amplifier, self._config)
        some = rows[picked]
        signal = np.median(some[:, data.x0 : data.x1], axis=1) - levels[picked]
        if region is None:  # no overscan: neighbours differ by noise, and by little else
            steps = np.diff(some[:, data.x0 : data.x1].astype(np.float64), axis=1)
            noise = (1.4826 * np.median(np.abs(steps), axis=1)) ** 2 / 2
        else:
            noise = some[:, region.x0 : region.x1].var(axis=1, ddof=1)
        return np.column_stack([signal, noise])

    def read(self, file: File, dark_time: float, window: Window) -> Block:
        """Read and correct a window of a frame.

        Parameters
        ----------
        file : `File`
            The raw frame.
        dark_time : `float`
            second; what the dark is multiplied by.
        window : `Window`
            From `window`.

        Raises
        ------
        DataError
            The file cannot be read.
        """
        amplifier, data = self._amplifier, self._amplifier.data
        rows = self._frames.rows(file, amplifier, data.y0 + window.bottom, data.y0 + window.top)
        levels = serial_levels(rows, amplifier, self._config)
        raw = rows[:, data.x0 : data.x1]
        signal = raw - levels[:, np.newaxis]
        saturated = (raw >= self._adc_max) | (signal * amplifier.gain >= amplifier.saturation)
        pixels = ((signal - self._column_levels(file)) * self._gain).astype(np.float32)
        if self._config.saturation:
            pixels[saturated] = np.nan
        pixels = pixels[:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]
        if window.bias is not None:
            pixels = pixels - window.bias
        if window.dark is not None:
            pixels = pixels - window.dark * np.float32(dark_time)
        core = slice(window.first - window.bottom, window.last - window.bottom)
        samples = self._samples(rows[core], levels[core], window.first)
        return Block(np.ascontiguousarray(pixels), samples, int(saturated[core].sum()))

    def variance(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Variance of corrected pixels: signal / g + (read noise / g)^2, with g = 1 in electrons.

        Where neither overscan nor bias was subtracted the pixels still hold the
        electronics' offset, which has no shot noise: the read noise alone counts.

        Parameters
        ----------
        signal : `numpy.ndarray`, float32
            In the job's unit.
        """
        amplifier = self._amplifier
        per_electron = self._gain / amplifier.gain
        noise = np.float32((amplifier.read_noise * per_electron) ** 2)
        if amplifier.serial_overscan is None and self._bias is None:
            return np.full_like(signal, noise)
        return np.maximum(signal, 0) * np.float32(per_electron) + noise
