"""Noise of an amplifier's frames: modelled by the camera file, and measured in a band of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.isr.channel import Channel, Exposures
from kernels.isr.framenoise import frame_noise
from kernels.isr.reader import Reader
from kernels.statistics import clip
from kernels.statistics.estimator import table
from kernels.statistics.network import workspace
from kernels.statistics.sample import clipped_mean

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Number of pixels of an amplifier that are measured before the frames are combined.
BAND: int = 1 << 15
#: Variance of Gaussian values within 3 sigma, relative to that of all.
_WITHIN = 0.9733
#: Smallest variance of a pixel, relative to that without light: noise may make signals negative.
_LEAST = 0.25


@dataclass(frozen=True)
class Noise:
    """Variance of a corrected pixel of one frame, in the square of the job's unit."""

    #: Variance without light: read noise, rounding, errors of the overscan levels.
    still: float
    #: Its part from the converter: a twelfth of a step's square.
    rounding: float
    #: Shot noise of a unit of signal; 0 where the frames have none (a bias).
    per_unit: float
    #: Signal of the electronics, not of light.
    offset: float = 0.0

    @classmethod
    def of(cls, channel: Channel, shot: bool = True) -> Noise:
        """Model the noise by the camera file (or the ptc) and the subtracted overscans.

        Parameters
        ----------
        shot : `bool`
            Whether signals are light; those of a bias are not.
        """
        amplifier = channel.amplifier
        frame = frame_noise(amplifier, amplifier.gain, amplifier.read_noise, channel.config)
        per_electron = channel.gain / amplifier.gain
        return cls(frame.total * per_electron**2, channel.gain**2 / 12, per_electron if shot else 0.0)

    def steps(self, signal: float) -> float:
        """Compute the noise of a frame's pixel at a signal, without its rounding, in steps of the converter."""
        shot = self.per_unit * max(signal - self.offset, 0.0)
        return float(np.sqrt(max(self.still - self.rounding + shot, 0.0) / (12 * self.rounding)))

    def variance(self, signal: F32) -> F32:
        """Compute the variance of pixels by their corrected signal, in the job's unit; never 0."""
        shot = np.float32(self.per_unit) * (signal - np.float32(self.offset))
        return np.maximum(shot + np.float32(self.still), np.float32(_LEAST * self.still))


@dataclass(frozen=True)
class Look:
    """Levels and noise of an amplifier's frames, measured in a band of its rows."""

    #: Median of the scaled pixels; 0 where none is good.
    typical: float
    #: [frame], float64: Median of the unscaled pixels, job's unit.
    levels: F64
    #: [frame], float64: Variance of the unscaled pixels about the median of the other frames (in a single frame: about
    #: their neighbours), which is each frame's own noise; NaN where no pixel is good.
    variances: F64

    def offset(self, noise: Noise) -> float:
        """Estimate the signal without shot noise, where no subtraction has removed it; 0 without good pixels."""
        known = np.isfinite(self.variances)
        if not known.any() or not noise.per_unit:
            return 0.0
        light = np.maximum(self.variances[known] - noise.still, 0.0) / noise.per_unit
        return max(float(np.mean(self.levels[known] - light)), 0.0)

    def own(self, noise: Noise, n: int) -> Noise:
        """Return the noise of frame ``n`` as measured in the band, else as modelled."""
        if not np.isfinite(self.variances[n]) or not self.variances[n] > 0:
            return noise
        shot = noise.per_unit * max(self.levels[n] - noise.offset, 0.0)
        return replace(noise, still=max(self.variances[n] - shot, _LEAST * self.variances[n], noise.rounding))


def look(reader: Reader, exposures: Exposures) -> list[Look]:
    """Measure a band in the middle of the group's amplifiers, in all frames: a `Look` for each amplifier.

    The band depends on the camera alone, so that every rank gets the same.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    width = max(c.amplifier.data.nx for c in reader.channels)
    height = min(reader.height, -(-BAND // width))
    first, found = (reader.height - height) // 2, []
    rows = reader.rows(exposures, first, first + height)
    parts: list[list[F32]] = [[] for _ in reader.channels]
    for _, blocks in rows.blocks(first, first + height, reader.step(len(exposures.files))):
        for part, block in zip(parts, blocks, strict=True):
            part.append(block.pixels.copy())
    for channel, part in zip(reader.channels, parts, strict=True):
        found.append(_looked(np.concatenate(part, axis=1), exposures, channel.number))
    return found


def _looked(pixels: F32, exposures: Exposures, number: int) -> Look:
    """Measure scaled pixels [frame, row, column], +infinity where masked; see `look`."""
    scales, offsets = exposures.scales[:, number].astype(np.float64), exposures.offsets[:, number].astype(np.float64)
    levels, variances = np.full(len(pixels), np.nan), np.full(len(pixels), np.nan)
    for k, frame in enumerate(pixels):
        good = np.isfinite(frame)
        if good.any():
            levels[k] = np.median(frame[good]) * scales[k] + offsets[k]
            residual, share = _residual(pixels, scales, k)
            variances[k] = (clipped_mean(residual)[1] * scales[k]) ** 2 / (_WITHIN * share)
    centre = _median(pixels)
    some = np.isfinite(centre)
    return Look(float(np.median(centre[some])) if some.any() else 0.0, levels, variances)


def _median(pixels: F32) -> F32:
    """Compute the median [row, column] of frames; NaN where none is good."""
    n, size = len(pixels), pixels[0].size
    cube = workspace(n, size)
    cube[:n, :size] = pixels.reshape(n, -1)
    median = np.empty(cube.shape[1], np.float32)
    clip.median(cube, n, median)
    return median[:size].reshape(pixels.shape[1:])


def _residual(pixels: F32, scales: F64, k: int) -> tuple[F32, float]:
    """Subtract the median of the other frames; return also the variance over that of the frame alone, without light.

    From a single frame each pixel's neighbour is subtracted.
    """
    frame, others = np.where(np.isfinite(pixels[k]), pixels[k], np.float32(np.nan)), np.delete(scales, k)
    if not others.size:
        return np.ascontiguousarray(np.diff(frame)), 2.0
    n = others.size
    of_median = float(table(clip.Rule("MEDIAN"), n).spread[n])
    return frame - _median(np.delete(pixels, k, axis=0)), 1 + of_median * n * float((scales[k] / others.sum()) ** 2)


def weights_of(noise: Noise, seen: Look, exposures: Exposures, number: int) -> F64:
    """Weigh frames of unlike noise [frame], sum 1, by 1 / variance of a scaled pixel at the amplifier's level."""
    scales, offsets = exposures.scales[:, number].astype(np.float64), exposures.offsets[:, number].astype(np.float64)
    light = np.maximum(seen.typical * scales + offsets - noise.offset, 0.0)
    each = scales**2 / (noise.still + noise.per_unit * light)
    return np.asarray(each / each.sum())


def unlike(scales: NDArray[np.floating[Any]], more: float) -> bool:
    """Whether a plain mean of frames divided by ``scales`` has the variance of a weighted mean times 1 + ``more``."""
    s = np.asarray(scales, np.float64)
    return bool(np.mean(s**2) * np.mean(1 / s**2) > 1 + more)
