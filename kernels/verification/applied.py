"""Expected noise of a corrected frame: its own, and that of the products subtracted from it or dividing it.

A product of N frames (clipped mean, of inefficiency f^2) adds f^2 V / N to a frame that is none of them.  A frame of
its own inputs is correlated with it: what remains is smaller by (2 - f^2) V / N.  That part is common to all frames of
a line of the report: it does not average down with the number of exposures.  Levels of rows and columns are hardly
clipped: V / N, either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Detector
from kernels.isr import framenoise
from kernels.statistics.sample import clipped_mean

F64 = NDArray[np.float64]

CONSTRUCTION, INDEPENDENT = "construction", "independent"
#: Least share of a frame's variance that is left in a frame of the inputs.
_LEAST = 1e-3


@lru_cache(maxsize=256)
def _square(n: int) -> float:
    """Return f^2 of a clipped mean of ``n`` values."""
    return framenoise.inefficiency(n) ** 2 if n > 1 else 1.0


@dataclass(frozen=True)
class Components:
    """Parts of a variance [amplifier]: of pixels, and of the levels of rows, columns and the whole amplifier.

    In the square of the frame's unit; a part that frames share may be negative.
    """

    pixel: F64
    row: F64
    column: F64
    common: F64

    def __add__(self, other: Components) -> Components:
        return Components(
            self.pixel + other.pixel, self.row + other.row, self.column + other.column, self.common + other.common
        )

    def times(self, pixel: float | F64, level: float | F64) -> Components:
        """Multiply the pixels' part, and those of the levels."""
        return Components(self.pixel * pixel, self.row * level, self.column * level, self.common * level)

    @property
    def total(self) -> F64:
        """Variance of one pixel."""
        return self.pixel + self.row + self.column + self.common

    def mean(self, height: float | F64, width: float | F64, number: float | F64) -> F64:
        """Compute the variance of the mean of ``number`` good pixels in a box; NaN without any."""
        some = np.where(np.asarray(number) > 0, number, np.nan)
        return self.pixel / some + self.row / height + self.column / width + self.common

    def within(self, height: float | F64, width: float | F64, number: float | F64) -> F64:
        """Compute the expected variance of pixels about the mean of their box."""
        return self.total - self.mean(height, width, number)

    def of_variance(self, height: float | F64, width: float | F64, number: float | F64) -> F64:
        """Compute the variance of the measured variance of Gaussian pixels of a box."""
        some = np.where(np.asarray(number) > 1, number, np.nan)
        both = 4 * self.pixel * (self.row + self.column) / some
        return 2 * (self.pixel**2 / some + self.row**2 / height + self.column**2 / width) + both


@dataclass(frozen=True)
class Applied:
    """A product that corrected a frame."""

    #: ``bias``, ``dark`` or ``flat``.
    kind: str
    #: Ids of the exposures that it is made of.
    inputs: tuple[int, ...]
    #: Their dark times (dark), second, or light (flat), electron; empty for a bias.
    scales: tuple[float, ...] = ()
    #: Whether the dark's own frames had the bias subtracted that is subtracted here, too.
    same_bias: bool = True

    def role(self, exposure: int) -> str:
        """Tell whether an exposure is one of the inputs."""
        return CONSTRUCTION if exposure in self.inputs else INDEPENDENT

    @classmethod
    def of(cls, kind: str, header: Mapping[str, Any], same_bias: bool = True) -> Applied:
        """Read the inputs from a product's header (`kernels.products.header`)."""
        number = int(header.get("NINPUTS", 0))
        inputs = tuple(int(header[f"CPP_INPUT_{n}"]) for n in range(number))
        scales = tuple(float(header.get(f"CPP_INPUT_SCALE_{n}", 1.0)) for n in range(number))
        return cls(kind, inputs, () if kind == "bias" else scales, same_bias)

    def adds(self, frame: Components, exposure: int) -> Components:
        """Compute what the product adds (of another frame) or takes away, its inputs having the noise ``frame``."""
        n = max(len(self.inputs), 1)
        if self.role(exposure) == CONSTRUCTION:
            return frame.times(-(2 - _square(n)) / n, -1 / n)
        return frame.times(_square(n) / n, 1 / n)


def per_electron(detector: Detector, unit: str) -> F64:
    """Return the units of an image by electron [amplifier]: 1, or 1 / gain where the unit is ``adu``."""
    return np.array([1.0 if unit == "electron" else 1 / a.gain for a in detector.amplifiers])


def still(detector: Detector, isr: IsrConfig) -> Components:
    """Model the noise of a frame without light, electron^2, by the detector's gains and read noises."""
    each = [framenoise.frame_noise(a, a.gain, a.read_noise, isr) for a in detector.amplifiers]
    column = np.array([one.column - one.common for one in each])
    pixel, row, common = (np.array([getattr(one, name) for one in each]) for name in ("pixel", "row", "common"))
    return Components(pixel, row, column, common)


def shot(light: F64, a00: F64 | None = None) -> F64:
    """Compute the variance of light [amplifier], electron^2; less than its mean by the brighter-fatter effect.

    Parameters
    ----------
    light : `numpy.ndarray` [amplifier], float64
        Mean charge, electron.
    a00 : `numpy.ndarray` [amplifier], float64, optional
        Of the photon transfer curve, 1/electron (below 0): C00 = (exp(2 a00 mu) - 1) / (2 a00) (Astier et al. 2019).
    """
    light = np.maximum(np.nan_to_num(light), 0.0)
    if a00 is None:
        return light
    power = 2 * np.where(np.isfinite(a00) & (a00 != 0), a00, -1e-12)
    return np.asarray(np.expm1(power * light) / power)


def means(detector: Detector, image: NDArray[np.float32], bad: NDArray[np.bool_]) -> F64:
    """Take clipped means of an image [y, x] by amplifier, without its bad pixels; NaN where all are bad.

    Of a flat it is the response of a `kernels.verification.frame.Frame`, of a dark its dark current, in which hot
    pixels must not count.
    """
    good = np.where(bad, np.float32(np.nan), image)
    return np.array([clipped_mean(good, amplifier.target)[0] for amplifier in detector.amplifiers])


@dataclass(frozen=True)
class Expectation:
    """Expected noise of one corrected frame."""

    #: The frame's own.
    own: Components
    #: That of the products, which all frames of a role share.
    shared: Components

    @property
    def whole(self) -> Components:
        """Both; at least a little of the own."""
        both = self.own + self.shared
        parts = ("pixel", "row", "column", "common")
        return Components(*(np.maximum(getattr(both, p), _LEAST * getattr(self.own, p)) for p in parts))


def charge(variance: F64) -> Components:
    """Make the noise of charge that pixels collect independently, electron^2."""
    nothing = np.zeros_like(variance)
    return Components(variance, nothing, nothing, nothing)


@dataclass(frozen=True)
class Light:
    """Light and dark current of one exposure."""

    #: [amplifier], float64: mean charge by light, and its variance (`shot`), electron and electron^2.
    mean: F64
    variance: F64
    #: [amplifier], float64: dark current, electron/second.
    dark: F64
    #: Dark time, second.
    seconds: float


def expectation(frame: Components, light: Light, exposure: int, applied: Sequence[Applied]) -> Expectation:
    """Model the noise of a corrected frame.

    Parameters
    ----------
    frame : `Components`
        That of a frame without light.
    light : `Light`
        Of the exposure.
    exposure : `int`
        Its id.
    applied : sequence of `Applied`
        Products that corrected it.
    """
    own, shared = frame + charge(light.variance + light.dark * light.seconds), frame.times(0.0, 0.0)
    by_kind, left = {one.kind: one for one in applied}, 1.0  # of the bias, after the dark has brought it back
    if "dark" in by_kind and by_kind["dark"].inputs:
        one = by_kind["dark"]
        shares = light.seconds / np.array(one.scales or (light.seconds,) * len(one.inputs))
        square = float(np.mean(shares**2))
        collected = charge(light.dark * light.seconds * float(np.mean(shares)))
        shared = shared + one.adds(frame.times(square, square) + collected, exposure)
        left = 1 - float(np.mean(shares)) if one.same_bias else 1.0
    if "bias" in by_kind and by_kind["bias"].inputs:
        shared = shared + by_kind["bias"].adds(frame.times(left**2, left**2), exposure)
    if "flat" in by_kind and by_kind["flat"].scales:
        one, levels = by_kind["flat"], np.array(by_kind["flat"].scales)
        ratio, squares = float(np.mean(1 / levels)), light.mean**2 * float(np.mean(1 / levels**2))
        shared = shared + one.adds(
            frame.times(squares, squares) + charge(light.mean * light.variance * ratio), exposure
        )
    return Expectation(own, shared)
