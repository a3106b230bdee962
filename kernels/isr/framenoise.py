"""Noise of a frame without light: of its pixels, and of the subtracted overscan levels.

Variance of a pixel (electron^2), with RN the read noise and g the gain:

- its own: q = RN^2 + g^2 / 12 (rounding of the converter);
- of its row's overscan level: r = (pi/2) q / (n + pi/2 - 1) + g^2 / 12 or
  / 24, for the median of n rounded pixels.  (The median of an odd number of
  integers is rounded itself; of an even number, half as badly.  By Monte Carlo
  good to 2 % of r for RN / g = 3.5 to 8.)
- of its column's parallel overscan level: c, the same with q + r for q; the
  part r / n_p of c is common to all columns, since they share the errors of
  the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Amplifier
from kernels.statistics.clip import Rule
from kernels.statistics.estimator import table


def inefficiency(n: int) -> float:
    """Interpolate f(N): error of a clipped mean (MEANCLIP, 3 sigma x 3) of N values over that of the plain mean."""
    return math.sqrt(float(table(Rule(), n).spread[n]))


@dataclass(frozen=True)
class FrameNoise:
    """Variances of a frame without light: pixel, row and column level, and the columns' common part; electron^2."""

    pixel: float
    row: float
    column: float
    common: float

    @property
    def total(self) -> float:
        """Variance of one pixel."""
        return self.pixel + self.row + self.column


def _median_variance(variance: float, n: int, lsb2: float) -> float:
    """Compute the variance of the median of ``n`` rounded values; ``lsb2`` is the square of the rounding's step."""
    return math.pi / 2 * variance / (n + math.pi / 2 - 1) + lsb2 / (12 if n % 2 else 24)


def frame_noise(amplifier: Amplifier, gain: float, read_noise: float, isr: IsrConfig) -> FrameNoise:
    """Compute the noise of a frame whose overscans were subtracted as ``isr`` says.

    Parameters
    ----------
    gain, read_noise : `float`
        True values, electron/ADU and electron.
    """
    lsb2 = gain**2
    pixel = read_noise**2 + lsb2 / 12
    row = column = common = 0.0
    if amplifier.serial_overscan and isr.serial != "none":
        n = amplifier.serial_overscan.nx - isr.skip_columns
        clipped = inefficiency(n) ** 2 * pixel / n
        row = _median_variance(pixel, n, lsb2) if isr.serial == "median" else clipped
    if amplifier.parallel_overscan and isr.parallel:
        n = amplifier.parallel_overscan.ny
        column, common = _median_variance(pixel + row, n, lsb2), row / n
    return FrameNoise(pixel, row, column, common)
