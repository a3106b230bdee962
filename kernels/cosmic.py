"""Cosmic rays on single frames: sharper than any point source could be.

The criterion is that of the SDSS photometric pipeline (Lupton et al. 2001,
ASP Conf. 238, 269): a pixel well above the noise whose neighbours, in at least
one direction, are fainter than the point spread function would have them.  It
is applied to the difference from the median of the frames, so that a hot pixel,
which every frame shows alike, is not one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: A row's noise over the expected one, from which on the expectation is wrong: this, and five errors of the ratio.
MISTAKEN, ERRORS = 1.5, 5.0
#: Pixels of a row that its noise is taken from at most.
ENOUGH = 512


@dataclass(frozen=True)
class CosmicConfig:
    """Settings.

    Parameters
    ----------
    fwhm : `float`
        Of the Gaussian point spread function, pixel.
    nsigma : `float`
        Height above the noise.
    grow : `int`
        Pixels that a hit is grown by, in x and y.
    """

    fwhm: float = 3.0
    nsigma: float = 6.0
    grow: int = 2

    @property
    def halo(self) -> int:
        """Rows beyond its own that a row block needs."""
        return self.grow + 1


@njit(cache=True, nogil=True)
def _flag(
    excess: NDArray[np.float32],
    sigma: NDArray[np.float32],
    side: float,
    corner: float,
    nsigma: float,
    grow: int,
    flags: NDArray[np.bool_],
) -> None:
    ny, nx = excess.shape
    for y in range(ny):
        for x in range(nx):
            value = excess[y, x]
            if not value > nsigma * sigma[y, x]:
                continue
            sharp = False
            for dy, dx, ratio in ((0, 1, side), (1, 0, side), (1, 1, corner), (1, -1, corner)):
                total = 0.0
                for sign in (-1, 1):
                    j, i = y + sign * dy, x + sign * dx
                    if 0 <= j < ny and 0 <= i < nx and math.isfinite(excess[j, i]):
                        total += excess[j, i]
                if total / 2 < 0.6 * ratio * (value - 2.5 * sigma[y, x]):
                    sharp = True
            if sharp:
                for j in range(max(0, y - grow), min(ny, y + grow + 1)):
                    for i in range(max(0, x - grow), min(nx, x + grow + 1)):
                        flags[j, i] = True


@njit(cache=True, nogil=True)
def _believable(excess: NDArray[np.float32], sigma: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    ny, nx = excess.shape
    step = max(1, nx // ENOUGH)
    sizes = np.empty(-(-nx // step), np.float32)
    for y in range(ny):
        n = 0
        for x in range(0, nx, step):
            if math.isfinite(excess[y, x]):
                sizes[n] = abs(excess[y, x]) / sigma[y, x]
                n += 1
        ratio = 1.4826 * np.median(sizes[:n]) if n else 0.0
        factor = np.float32(ratio if n and ratio > MISTAKEN + ERRORS / math.sqrt(n) else 1.0)
        for x in range(nx):
            out[y, x] = sigma[y, x] * factor


def believable(excess: NDArray[np.float32], sigma: NDArray[np.float32]) -> NDArray[np.float32]:
    """The noise that is expected; in rows that have far more, what they have.

    The camera file's read noise may be far too low: then half of a dark would
    count as cosmic rays. A row's noise is the median size of its differences.

    Parameters
    ----------
    excess, sigma : `numpy.ndarray` [y, x], float32
        See `cosmic_rays`; the excess is no number where a pixel is masked.

    Returns
    -------
    sigma : `numpy.ndarray` [y, x], float32
    """
    out = np.empty_like(sigma)
    _believable(excess, sigma, out)
    return out


def cosmic_rays(excess: NDArray[np.float32], sigma: NDArray[np.float32], config: CosmicConfig) -> NDArray[np.bool_]:
    """Flag cosmic rays.

    Parameters
    ----------
    excess : `numpy.ndarray` [y, x], float32
        The frame less the median of the frames.
    sigma : `numpy.ndarray` [y, x], float32
        Its noise, same unit.

    Returns
    -------
    flags : `numpy.ndarray` [y, x], bool
        Good to the edge less ``config.halo`` rows of a cut block.
    """
    width = config.fwhm / 2.3548
    side, corner = math.exp(-0.5 / width**2), math.exp(-1.0 / width**2)
    flags = np.zeros(excess.shape, np.bool_)
    _flag(excess, sigma, side, corner, config.nsigma, config.grow, flags)
    return flags
