"""Cosmic rays on single frames, which are sharper than any point source.

The criterion is that of the SDSS photometric pipeline (Lupton et al. 2001,
ASP Conf. 238, 269): a pixel well above the noise whose neighbours, in at least
one direction, are fainter than the point spread function would make them.  It
is applied to the difference from the median of the frames, so that a hot pixel,
which all frames share, is not flagged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit


@dataclass(frozen=True)
class CosmicConfig:
    """Settings of the search for cosmic rays."""

    #: Width of the Gaussian point spread function, pixel.
    fwhm: float = 3.0
    #: Least height above the noise, in units of it.
    nsigma: float = 6.0
    #: Pixels that a hit is grown by, in x and y.
    grow: int = 2

    @property
    def halo(self) -> int:
        """Number of rows that a row block needs beyond its own."""
        return self.grow + 1


@njit
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


def cosmic_rays(excess: NDArray[np.float32], sigma: NDArray[np.float32], config: CosmicConfig) -> NDArray[np.bool_]:
    """Flag cosmic rays.

    Parameters
    ----------
    excess : `numpy.ndarray` [y, x], float32
        The frame less the median of the frames.
    sigma : `numpy.ndarray` [y, x], float32
        Its noise, in the same unit.

    Returns
    -------
    flags : `numpy.ndarray` [y, x], bool
        Valid except in ``config.halo`` rows at the edges of a cut block.
    """
    width = config.fwhm / 2.3548
    side, corner = math.exp(-0.5 / width**2), math.exp(-1.0 / width**2)
    flags = np.zeros(excess.shape, np.bool_)
    _flag(excess, sigma, side, corner, config.nsigma, config.grow, flags)
    return flags
