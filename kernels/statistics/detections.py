"""Pixels of a frame that are not sky: stars, galaxies, trails, and whatever else stands out of it or is missing in it.

The frame less its smooth background is smoothed by a Gaussian and compared with its own noise, in several rounds.
Light and lack of light are masked alike: to mask the upper tail of the noise alone would shift the mean of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.compiled import njit
from kernels.statistics.binning import binned
from kernels.statistics.clip import IQR_TO_SIGMA
from kernels.statistics.percentiles import percentiles
from kernels.statistics.surface import Surface, filled

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Reach of the Gaussian, in its sigma.
REACH: Final = 3.0
#: Least good pixels of a cell from which its noise is known.
FEW: Final = 32
#: Pixels of a cell from which its level is known well enough.
MANY: Final = 4096


@dataclass(frozen=True)
class Rule:
    """Rule of the detection; lengths in pixels."""

    #: Threshold, in units of the smoothed frame's noise.
    nsigma: float = 3.0
    #: Sigma of the Gaussian.
    sigma: float = 5.0
    rounds: int = 3
    #: Growth of what is found.
    grow: int = 2
    #: Side of the cells in which background and noise are measured.
    cell: int = 256


@njit
def _across(image, taps, out):  # type: ignore[no-untyped-def]
    reach, width = taps.size - 1, image.shape[1]
    for y in range(image.shape[0]):
        for x in range(width):
            out[y, x] = taps[0] * image[y, x]
        for k in range(1, reach + 1):
            for x in range(k, width):
                out[y, x] += taps[k] * image[y, x - k]
            for x in range(width - k):
                out[y, x] += taps[k] * image[y, x + k]


@njit
def _along(image, taps, out):  # type: ignore[no-untyped-def]
    reach, height = taps.size - 1, image.shape[0]
    for y in range(height):
        for x in range(image.shape[1]):
            out[y, x] = taps[0] * image[y, x]
        for k in range(1, reach + 1):
            for other in (y - k, y + k):
                if 0 <= other < height:
                    for x in range(image.shape[1]):
                        out[y, x] += taps[k] * image[other, x]


def smoothed(image: F32, sigma: float) -> F32:
    """Smooth an image [y, x], float32, by a Gaussian; beyond its edges it is 0."""
    taps = np.exp(-0.5 * (np.arange(int(REACH * sigma + 0.5) + 1) / sigma) ** 2)
    taps = (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)
    half, whole = np.empty_like(image), np.empty_like(image)
    _across(image, taps, half)
    _along(half, taps, whole)
    return whole


@njit
def _reached(mask, reach, out):  # type: ignore[no-untyped-def]
    """Mark the pixels of each row that lie within reach of a marked one."""
    for y in range(mask.shape[0]):
        last = -reach - 1
        for x in range(mask.shape[1]):
            if mask[y, x]:
                last = x
            out[y, x] = x - last <= reach
        last = mask.shape[1] + reach
        for x in range(mask.shape[1] - 1, -1, -1):
            if mask[y, x]:
                last = x
            if last - x <= reach:
                out[y, x] = True


def grown(mask: Mask, reach: int) -> Mask:
    """Grow a mask [y, x] by a square of ``2 reach + 1`` pixels."""
    if reach < 1:
        return mask
    rows, both = np.empty_like(mask), np.empty(mask.shape[::-1], np.bool_)
    _reached(mask, reach, rows)
    _reached(np.ascontiguousarray(rows.T), reach, both)
    return np.ascontiguousarray(both.T)


def _noise(image: F32, surface: Surface) -> NDArray[np.float64]:
    """Measure the scatter of an image in each cell by its lower half, which stars hardly change."""
    rows, columns = surface.rows, surface.columns
    noise = np.full(surface.values.shape, np.nan)
    for j, i in np.ndindex(noise.shape):
        box = Box(int(columns[i]), int(rows[j]), int(columns[i + 1] - columns[i]), int(rows[j + 1] - rows[j]))
        (low, middle), good = percentiles(image, None, box, (25, 50))
        if good >= FEW:
            noise[j, i] = 2 * IQR_TO_SIGMA * (middle - low)
    return filled(noise)


@njit
def _beyond(image, rows, columns, limits, mask):  # type: ignore[no-untyped-def]
    for j in range(limits.shape[0]):
        for y in range(rows[j], rows[j + 1]):
            for i in range(limits.shape[1]):
                limit = limits[j, i]
                for x in range(columns[i], columns[i + 1]):
                    mask[y, x] = abs(image[y, x]) > limit


def thin(cell: int) -> int:
    """Compute the spacing of sampled rows that leaves a cell some thousand pixels, enough for its level."""
    return max(1, min(cell**2 // MANY, 8))


def find(image: F32, rule: Rule) -> Mask:
    """Mask the detections of a frame.

    The search is done in bins of up to half the Gaussian's sigma.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        Bad where not finite.

    Returns
    -------
    mask : `numpy.ndarray` [y, x], bool
        The detections, grown; bad pixels are masked only beside them.
    """
    every = max(1, int(rule.sigma / 2))
    small = binned(image, every) if every > 1 else image
    good, mask = np.isfinite(small), np.zeros(small.shape, np.bool_)
    cell = max(1, rule.cell // every)
    for _ in range(rule.rounds):
        sky = np.where(mask, np.float32(np.nan), small)
        surface, _ = Surface.of(sky, cell, every=thin(cell))
        rest = np.where(good, small, np.float32(0))
        surface.subtract(rest)
        rest[~good] = 0
        smooth = smoothed(rest, rule.sigma / every)
        noise = _noise(np.where(mask | ~good, np.float32(np.nan), smooth), surface)
        limits = rule.nsigma * np.where(noise > 0, noise, np.inf)
        _beyond(smooth, surface.rows, surface.columns, limits, mask)
    mask = grown(mask, -(-rule.grow // every))
    return mask.repeat(every, 0).repeat(every, 1)[: image.shape[0], : image.shape[1]] if every > 1 else mask
