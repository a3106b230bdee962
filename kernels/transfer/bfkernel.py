"""Kernel of the brighter-fatter effect from the coefficients a of a photon transfer curve.

The potential K of a pixel's charge obeys Lap5 K = -a, the five-point Laplacian, with K = 0 just outside the square that
it fills (Coulton et al. 2018, AJ 155, 258).  A sine transform of type I solves this exactly;
successive over-relaxation, as in cp_pipe, ends at the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Side of a kernel, pixel.
SIDE = 21
#: Largest value of a kernel, relative to its centre, and the errors by which its edge may differ from 0.
RISE, EDGE = 0.025, 5.0


class Invalid(ValueError):
    """Coefficients or a kernel that cannot be, and why."""


def tiled(a: F64, side: int = SIDE) -> F64:
    """Repeat a quadrant [i, j], i along x, in all four: [y, x], the centre in the middle, whose value makes the sum 0.

    Raises
    ------
    Invalid
        More lags than fit.
    """
    half = side // 2
    if side % 2 == 0 or max(a.shape) > half + 1:
        raise Invalid(f"{a.shape[0]} x {a.shape[1]} lags do not fit a kernel of {side} pixels")
    quadrant = np.zeros((half + 1, half + 1))
    quadrant[: a.shape[1], : a.shape[0]] = a.T
    upper = np.concatenate([quadrant[:0:-1], quadrant])
    whole = np.concatenate([upper[:, :0:-1], upper], axis=1)
    whole[half, half] -= whole.sum()
    return whole


def solve(source: F64) -> F64:
    """Solve Lap5 K = source on a square, K being 0 just outside; both [y, x]."""
    n = len(source)
    order = np.arange(1, n + 1)
    sines, wave = np.sin(np.pi * np.outer(order, order) / (n + 1)), 2 * np.cos(np.pi * order / (n + 1))
    spectrum = sines @ source @ sines / (wave[:, np.newaxis] + wave - 4)
    return np.asarray(sines @ spectrum @ sines * (2 / (n + 1)) ** 2)


def kernel(a: F64, side: int = SIDE) -> F64:
    """Make a kernel.

    Parameters
    ----------
    a : `numpy.ndarray` [i, j], float64
        Of one amplifier, or the mean of several; i along x, 1/electron.
    side : `int`
        Odd, pixel.

    Returns
    -------
    kernel : `numpy.ndarray` [y, x], float64
        1/electron; its centre is the minimum.

    Raises
    ------
    Invalid
        The coefficients do not fit, or the kernel has no minimum at its centre or rises above 2.5 % of it.
    """
    made = solve(-tiled(a, side))
    centre = float(made[side // 2, side // 2])
    if not (centre < 0 and centre == made.min()):
        raise Invalid(f"the kernel's centre, {centre:.3g}, is not its minimum, {float(made.min()):.3g}")
    if made.max() > RISE * abs(centre):
        # Short: a card of a header holds 68 characters, with the amplifier's name.
        raise Invalid(f"rises by {made.max() / -centre:.1%} of its depth, limit {RISE:.1%}")
    return made


def _places(shape: tuple[int, ...]) -> F64:
    """Count the places of each lag [i, j] in the four quadrants: 1, 2 or 4."""
    one, other = (np.where(np.arange(n) > 0, 2.0, 1.0) for n in shape)
    return np.outer(one, other)


def balanced(a: F64, error: F64) -> F64:
    """Make the sum of a [i, j] over all quadrants 0 at the least chi^2: each lag changes as its variance allows.

    No charge is lost, so that the sum is 0.  To put the whole difference into the centre, as cp_pipe does, gives the
    coefficient that is known best the noise of all others.
    """
    weight = _places(a.shape) * error**2
    return np.asarray(a - (_places(a.shape) * a).sum() / (_places(a.shape) * weight).sum() * weight)


def centre_error(error: F64, side: int = SIDE) -> float:
    """Compute the standard error of a kernel's centre, 1/electron, from those of a [i, j] before it was `balanced`.

    A potential adds up what many lags hold: it is known far less well than a itself, which alone moves charge.
    """
    centre, point = side // 2, np.zeros((side, side))
    point[centre, centre] = 1
    green = solve(point)[centre:, centre:].T[: error.shape[0], : error.shape[1]]  # of a source anywhere, in the centre
    variance = (_places(error.shape) * error) ** 2
    middle = (variance * green).sum() / variance.sum()
    return float(np.sqrt((variance * (green - middle) ** 2).sum()))


def mean_a(amplifiers: Mapping[str, tuple[F64, F64]]) -> tuple[F64, F64]:
    """Average a [i, j] of a detector's amplifiers, given with their errors, by inverse variances; with its error.

    Raises
    ------
    Invalid
        No amplifier.
    """
    if not amplifiers:
        raise Invalid("no amplifier has coefficients")
    weights = np.array([1 / error**2 for _, error in amplifiers.values()])
    mean = (weights * np.array([a for a, _ in amplifiers.values()])).sum(axis=0) / weights.sum(axis=0)
    return mean, 1 / np.sqrt(weights.sum(axis=0))
