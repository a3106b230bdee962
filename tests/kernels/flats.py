"""Exact truth of flats with the brighter-fatter effect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.transfer.curve import Points

F64 = NDArray[np.float64]
SIZE = 64
#: a of a real E2V amplifier (R22_S11 of LSSTCam) [i, j], i along x, 1/electron; the centre makes the sum 0.
A = np.zeros((3, 3))
A[0, 1], A[1, 0], A[1, 1], A[0, 2], A[2, 0] = 4.16e-7, 1.75e-7, 1.26e-7, 6.2e-8, 5.9e-8
A[0, 0] = -(2 * A[0, 1:].sum() + 2 * A[1:, 0].sum() + 4 * A[1:, 1:].sum())
MIXED = np.concatenate([np.geomspace(100, 3000, 20), np.linspace(4000, 90000, 80)])


def whole(quadrant: F64, size: int = SIZE) -> F64:
    """Repeat a quadrant [i, j] in all four, as an image [y, x] whose origin is pixel 0."""
    image = np.zeros((size, size))
    for i in range(quadrant.shape[0]):
        for j in range(quadrant.shape[1]):
            image[[j, j, -j, -j], [i, -i, i, -i]] = quadrant[i, j]
    return image


def truth(electrons: F64, a: F64 = A, side: int = 10) -> F64:
    """Covariances [point, i, j] of flats of ascending ``electrons``, electron^2: dC/dM = 1 + 2 a * C in small steps."""
    spectrum, covariance, level, found = np.fft.fft2(whole(a)).real, np.zeros((SIZE, SIZE)), 0.0, []
    for signal in electrons:
        steps = int(np.ceil((signal - level) / 100))
        d = (signal - level) / steps
        for _ in range(steps):  # implicit midpoint
            covariance = (covariance * (1 + spectrum * d) + d) / (1 - spectrum * d)
        found.append(np.fft.ifft2(covariance).real[:side, :side].T)
        level = signal
    return np.array(found)


def drawn(rng: np.random.Generator, electrons: F64, clean: F64, gain: float, pixels: int) -> Points:
    """Draw measurements of the covariances ``clean`` [point, i, j], electron^2, with their Gaussian errors."""
    counts = np.full(clean.shape, 2.0 * pixels)
    counts[:, 0], counts[:, :, 0] = pixels, pixels
    errors = clean[:, :1, :1] / np.sqrt(counts)
    errors[:, 0, 0] *= 2**0.5
    return Points(electrons / gain, (clean + errors * rng.standard_normal(clean.shape)) / gain**2, counts)


def exposed(rng: np.random.Generator | None, light: F64, potential: F64, steps: int = 8) -> F64:
    """Expose a frame [y, x] with periodic edges to ``light``, electron, in steps; without ``rng`` there is no noise.

    Each step's charge is shared between neighbours by the potential [y, x] (origin in the middle) of what has gathered,
    which is that of the step's beginning, and so counts ``steps / (steps - 1)`` times.
    """
    reach = potential.shape[0] // 2
    spread = np.zeros(light.shape)
    spread[: 2 * reach + 1, : 2 * reach + 1] = potential * steps / (steps - 1)
    spectrum = np.fft.rfft2(np.roll(spread, (-reach, -reach), (0, 1)))
    gathered = np.zeros(light.shape)
    for _ in range(steps):
        phi = np.fft.irfft2(np.fft.rfft2(gathered) * spectrum, s=light.shape)
        arriving = light.copy()
        for axis in (0, 1):
            flow = (light + np.roll(light, -1, axis)) / 2 * (np.roll(phi, -1, axis) - phi)
            arriving += flow - np.roll(flow, 1, axis)
        arriving /= steps
        gathered += arriving if rng is None else arriving + np.sqrt(arriving) * rng.standard_normal(light.shape)
    return gathered
