"""Expected value and variance of a combined calibration, given the truth.

A product is linear in frames: P = sum_i a_i F_i - sum_c b_c C, with
a_i = 1 / (N s_i) for N frames divided by scales s_i, and C the subtracted
calibrations.  A dark (s = dark time t) holds the bias B with coefficient
-sum a; a flat (s = light L) holds the dark's own frames with -sum a t, and B
with -(sum a - sum a t * beta), beta being the dark's coefficient of B: the
same B was subtracted from the darks, and that part of its error cancels.

A frame's variance is that of `kernels.isr.framenoise` plus Poisson noise.

The clipped mean multiplies this by f(N)^2 / N.  The common part r of two
pixels' variance passes through the clip as through a plain mean: by Basu's
theorem a clipped mean is the mean plus an independent part, so that the
covariance of two pixels is r / N, without f (to third order in the
correlation).

With w = 1 / sigma of the good pixels, and T the whole variance of the
product, the mean z of an amplifier of n good pixels has the variance
( sum w^2 (T - R - C) + R sum_rows (sum_x w)^2 + (C - M) sum_columns (sum_y w)^2
+ M (sum w)^2 ) / n^2, R, C and M being the product's row, column and common
variances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.isr.framenoise import FrameNoise, inefficiency

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Pixels:
    """Truth of an amplifier's imaging area, [y, x]."""

    #: electron.
    structure: F64
    #: electron/second.
    dark: F64
    #: Relative; all 0 for products without light.
    response: F64


@dataclass(frozen=True)
class Expected:
    """Value and variance of a product over an amplifier."""

    #: [y, x]: In the product's unit, and its square.
    value: F64
    variance: F64
    #: Parts of the variance that the pixels of a row, of a column and of the amplifier share; ``column`` includes
    #: ``common``.
    row: float
    column: float
    common: float

    def minus(self, coefficient: float, other: Expected) -> Expected:
        """Subtract another, independent product, times a coefficient."""
        square = coefficient**2
        return Expected(
            self.value - coefficient * other.value,
            self.variance + square * other.variance,
            self.row + square * other.row,
            self.column + square * other.column,
            self.common + square * other.common,
        )

    def mean_error(self, good: NDArray[np.bool_]) -> float:
        """Compute the standard deviation of the mean z over the good pixels."""
        w = good / np.sqrt(self.variance)
        own = np.sum(w**2 * (self.variance - self.row - self.column))
        rows = self.row * np.sum(w.sum(axis=1) ** 2)
        columns = (self.column - self.common) * np.sum(w.sum(axis=0) ** 2)
        return float(np.sqrt(own + rows + columns + self.common * w.sum() ** 2) / np.count_nonzero(good))


def _column(exposures: Sequence[Any], name: str) -> F64:
    return np.array([row[name] for row in exposures], dtype=np.float64)


def combined(pixels: Pixels, noise: FrameNoise, exposures: Sequence[Any], scales: F64) -> Expected:
    """Compute the clipped mean of frames, each divided by its scale, with only overscans subtracted.

    Parameters
    ----------
    exposures : sequence of rows
        Rows with ``dark_time`` (second) and ``light`` (electron).
    scales : `numpy.ndarray` [exposure]
        Seconds, or electrons of light.
    """
    n = len(exposures)
    a, t, light = 1 / (n * scales), _column(exposures, "dark_time"), _column(exposures, "light")
    square = np.sum(a**2)
    poisson = pixels.dark * np.sum(a**2 * t) + pixels.response * np.sum(a**2 * light)
    frames = noise.total * square + poisson
    return Expected(
        value=pixels.structure * a.sum() + pixels.dark * np.sum(a * t) + pixels.response * np.sum(a * light),
        variance=inefficiency(n) ** 2 * frames,
        row=noise.row * square,
        column=noise.column * square,
        common=noise.common * square,
    )


@dataclass(frozen=True)
class Inputs:
    """Exposures of a product and of the subtracted bias and dark; empty: not subtracted."""

    frames: Sequence[Any]
    bias: Sequence[Any]
    dark: Sequence[Any]


def expected(kind: str, pixels: Pixels, noise: FrameNoise, inputs: Inputs) -> Expected:
    """Compute the expected value of a product.

    Parameters
    ----------
    kind : `str`
        ``bias`` (electron), ``dark`` (electron/second) or ``flat``
        (relative, on the scale of the truth's response).
    """
    t = _column(inputs.frames, "dark_time")
    scales = {"bias": np.ones(len(t)), "dark": t, "flat": _column(inputs.frames, "light")}[kind]
    result = combined(pixels, noise, inputs.frames, scales)
    of_bias = float(np.mean(1 / scales))
    if inputs.dark:
        times, of_dark = _column(inputs.dark, "dark_time"), float(np.mean(t / scales))
        result = result.minus(of_dark, combined(pixels, noise, inputs.dark, times))
        of_bias -= of_dark * float(np.mean(1 / times))
    if inputs.bias:
        result = result.minus(of_bias, combined(pixels, noise, inputs.bias, np.ones(len(inputs.bias))))
    return result
