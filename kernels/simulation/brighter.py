"""Brighter-fatter effect: charge that is collected already turns away charge that still drifts.

The light of an exposure comes in n steps.  In each step the collected charge
Q has the potential phi = K * Q (a convolution), by which flux moves over the
four edges of every pixel:

    e = (I + sum over the edges (I + I_neighbour) / 2 (phi_neighbour - phi)) / n,

and Q grows by Poisson(e).  What leaves a pixel arrives in its neighbour:
charge is conserved, and flats, spots and stars are treated alike.  For a flat
this is the model of Astier et al. (A&A 629, A36, 2019) without b,
e = I / n (1 + a * Q), with a = Lap K, the five-point Laplacian, so that the
sum of all a is 0.

With x = a~ mu / n (~: the Fourier transform) the covariances of a flat of mean
mu are exactly C~ = (mu / n) ((1 + x)^2n - 1) / ((1 + x)^2 - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Detector
from kernels.compiled import njit
from kernels.transfer.bfkernel import solve

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Farthest lag of the potential, pixels.
REACH = 4
#: Largest expected charge that is drawn from Poisson's distribution; above, the normal one differs by less than noise.
POISSON = 50.0
#: a [y lag, x lag] like that of LSSTCam R22_S11, an E2V sensor, 1e-6/electron: measured to lag 2, then falling as
#: fields do; lag (0, 0) is minus the sum of all others.
_E2V = (
    (0.0, 0.175, 0.059, 0.025, 0.012),
    (0.416, 0.126, 0.045, 0.020, 0.010),
    (0.062, 0.045, 0.025, 0.014, 0.0),
    (0.025, 0.020, 0.014, 0.009, 0.0),
    (0.012, 0.010, 0.0, 0.0, 0.0),
)
#: Proportions of GalSim 2.8's models of both makers' sensors.
_MAKERS = {"E2V": 1.0, "ITL": 0.5}


def coefficients(detector: Detector, strength: float) -> F64:
    """Compute the wanted coefficients a of a detector.

    Parameters
    ----------
    strength : `float`
        In units of the table's.

    Returns
    -------
    a : `numpy.ndarray` [y lag, x lag], float64
        First quadrant, 0 to `REACH`, 1/electron.  The sum over all quadrants is 0.
    """
    quadrant = np.array(_E2V) * (1e-6 * strength * _MAKERS.get(detector.type[:3], 1.0))
    quadrant[0, 0] = -whole(quadrant).sum()
    return quadrant


def whole(quadrant: F64) -> F64:
    """Mirror a first quadrant [y lag, x lag] to all four."""
    half = np.concatenate([quadrant[:0:-1], quadrant])
    return np.concatenate([half[:, :0:-1], half], axis=1)


def potential(quadrant: F64) -> F64:
    """Solve Lap K = a, K being 0 just outside, by the sine transform of type I.

    Parameters
    ----------
    quadrant : `numpy.ndarray` [y lag, x lag], float64
        First quadrant of a, 1/electron.

    Returns
    -------
    potential : `numpy.ndarray` [y lag, x lag], float64
        First quadrant of K, 1/electron.
    """
    solved = solve(whole(quadrant))
    middle = len(solved) // 2
    return np.asarray(solved[middle:, middle:])


def realised(quadrant: F64) -> F64:
    """Compute the coefficients a = Lap K that a potential has, [y lag, x lag]: one lag more than K, 1/electron.

    The ring outside K's reach gets what K has at its rim, a few 1e-9.
    """
    k = np.pad(whole(quadrant), 2)
    lap = k[2:, 1:-1] + k[:-2, 1:-1] + k[1:-1, 2:] + k[1:-1, :-2] - 4 * k[1:-1, 1:-1]
    n = len(lap) // 2
    return np.asarray(lap[n:, n:])


def covariances(quadrant: F64, mean: float, steps: int, side: int = 64) -> F64:
    """Compute the exact covariances of a flat, without read noise.

    Parameters
    ----------
    quadrant : `numpy.ndarray` [y lag, x lag], float64
        First quadrant of a as the truth has it, 1/electron.
    mean : `float`
        Mean of the flat, electron.
    steps : `int`
        Steps of the simulation; see the module's text.
    side : `int`
        Length of the Fourier transform, pixels.

    Returns
    -------
    covariances : `numpy.ndarray` [y lag, x lag], float64
        electron^2, as many lags as ``quadrant`` has.
    """
    image = np.zeros((side, side))
    lags = np.arange(1 - len(quadrant), len(quadrant))
    image[np.ix_(lags % side, lags % side)] = whole(quadrant)
    x = np.fft.fft2(image).real * mean * steps / (steps - 1) / steps
    small = np.abs(x) < 1e-9
    safe = np.where(small, 1.0, x)
    power = np.where(small, steps, ((1 + safe) ** (2 * steps) - 1) / ((1 + safe) ** 2 - 1)) * mean / steps
    return np.asarray(np.fft.ifft2(power).real[: len(quadrant), : len(quadrant)])


@lru_cache
def _stepped(detector: Detector, strength: float, steps: int) -> F32:
    """Compute K for charge that is collected in steps, and sees only that of the steps before."""
    return np.asarray(potential(coefficients(detector, strength)) * steps / (steps - 1), np.float32)


@njit
def _convolve(charge: F32, kernel: F32, row: F32, out: F32) -> None:
    """Convolve ``charge`` [y, x], padded by the kernel's reach, with a mirrored kernel into ``out`` [y, x]."""
    reach = kernel.shape[0] - 1
    height, width = out.shape
    for y in range(height):
        for x in range(width):
            out[y, x] = 0
        for v in range(reach + 1):
            if v == 0:
                for x in range(width + 2 * reach):
                    row[x] = charge[y + reach, x]
            else:
                for x in range(width + 2 * reach):
                    row[x] = charge[y + reach - v, x] + charge[y + reach + v, x]
            for x in range(width):
                out[y, x] += kernel[v, 0] * row[x + reach]
            for u in range(1, reach + 1):
                factor = kernel[v, u]
                for x in range(width):
                    out[y, x] += factor * (row[x + reach - u] + row[x + reach + u])


@njit
def _move(light: F32, phi: F32, share: float, out: F32) -> None:
    """Move flux over the pixels' edges; none crosses the edge of the silicon.  All [y, x]."""
    height, width = light.shape
    part, half = np.float32(share), np.float32(share * 0.5)
    for y in range(height):
        for x in range(width):
            out[y, x] = part * light[y, x]
    for y in range(height):
        for x in range(width - 1):
            moved = half * (light[y, x] + light[y, x + 1]) * (phi[y, x + 1] - phi[y, x])
            out[y, x] += moved
            out[y, x + 1] -= moved
    for y in range(height - 1):
        for x in range(width):
            moved = half * (light[y, x] + light[y + 1, x]) * (phi[y + 1, x] - phi[y, x])
            out[y, x] += moved
            out[y + 1, x] -= moved


def _draw(expected: F32, rng: np.random.Generator) -> F32:
    """Draw whole numbers of electrons about the expected ones [y, x]."""
    drawn = rng.standard_normal(expected.shape, dtype=np.float32)
    np.multiply(drawn, np.sqrt(np.maximum(expected, 0)), out=drawn)
    drawn += expected
    np.rint(drawn, out=drawn)
    low = expected <= POISSON
    if low.any():
        drawn[low] = rng.poisson(np.maximum(expected[low], 0))
    return drawn


def collect(light: F32, detector: Detector, streams: Sequence[np.random.Generator], strength: float, steps: int) -> F32:
    """Draw the charge of one exposure.

    Parameters
    ----------
    light : `numpy.ndarray` [y, x], float32
        Expected charge without the effect, on the assembled detector, electron.
    streams : sequence of `numpy.random.Generator`
        Each amplifier's.
    strength : `float`
        See `coefficients`.
    steps : `int`
        Steps in which the charge is collected.

    Returns
    -------
    charge : `numpy.ndarray` [y, x], float32
        electron.
    """
    kernel = _stepped(detector, strength, steps)
    (height, width), reach = light.shape, len(kernel) - 1
    padded = np.zeros((height + 2 * reach, width + 2 * reach), np.float32)
    inner = padded[reach : reach + height, reach : reach + width]
    charge, phi, expected = (np.zeros_like(light) for _ in range(3))
    row = np.empty(padded.shape[1], np.float32)
    for step in range(steps):
        if step:
            np.subtract(charge, np.float32(charge.mean(dtype=np.float64)), out=inner)
            _convolve(padded, kernel, row, phi)
        _move(light, phi, 1 / steps, expected)
        for amplifier, rng in zip(detector.amplifiers, streams, strict=True):
            charge[amplifier.target.slices] += _draw(expected[amplifier.target.slices], rng)
    return charge
