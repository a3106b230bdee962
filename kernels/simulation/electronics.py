"""The simulator's truth of the electronics: deferred charge, non-linearity and crosstalk.

Charge is deferred along each row (`kernels.calibrations.deferred`).  Then the
ideal signal, charge / gain + bias structure in ADU, is bent: the amplifier
reads x where x - S(x) is the ideal signal, S being a spline through S(0) = 0.
Then every amplifier gets c0 x + c1 x^2 of each other amplifier's measured x.
`kernels.calibrations.crosstalk`, `kernels.calibrations.linearity` and then
`kernels.calibrations.deferred.restore`, with these coefficients, are the exact inverse.
Levels, drifts and read noise are added last.

Proportions are those of the LSST camera: adjacent amplifiers have most of the
crosstalk, and c1 x is about a tenth of c0 at full well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.curves import spline
from kernels.calibrations.deferred import Deferral
from kernels.camera.geometry import Amplifier, Camera, Detector
from kernels.errors import JobError
from kernels.simulation.rates import Rates, Stream, generator

F32 = NDArray[np.float32]

#: Decrease of the crosstalk with each amplifier in between.
DECAY = 0.2
#: Largest |c1 / c0|, 1/ADU.
QUADRATIC = 2e-6
NODES = 14
#: Passes that solve for crosstalk in proportion to the measured signals: the error is of third order.
PASSES = 2


@dataclass(frozen=True)
class Electronics:
    """One detector's coefficients, in ADU."""

    #: [target, source], float64: Crosstalk: relative to the source's signal, and the same per ADU of it.
    c0: NDArray[np.float64]
    c1: NDArray[np.float64]
    #: [amplifier, node], float64: Signals as measured, and their excess.
    nodes: NDArray[np.float64]
    values: NDArray[np.float64]
    #: By amplifier.
    deferrals: Sequence[Deferral]


def full_well(amplifier: Amplifier, rates: Rates) -> float:
    """Return the largest charge that an amplifier reads, electron."""
    return rates.saturation if np.isinf(amplifier.saturation) else rates.overfull * amplifier.saturation


def make(seed: int, detector: Detector, rates: Rates) -> Electronics:
    """Make the electronics of one detector.

    Raises
    ------
    JobError
        Crosstalk is asked for between amplifiers of unlike shape.
    """
    number = len(detector.amplifiers)
    if rates.crosstalk and len({(a.raw, a.data) for a in detector.amplifiers}) > 1:
        raise JobError(f"rates.crosstalk: detector {detector.name} has amplifiers of unlike shape")
    distance = np.abs(np.subtract.outer(np.arange(number), np.arange(number)))
    rng = generator(seed, Stream.CROSSTALK, detector.id)
    c0 = rates.crosstalk * rng.uniform(0.7, 1.3, distance.shape) * np.where(distance, DECAY ** (distance - 1.0), 0)
    c1 = c0 * rng.uniform(-QUADRATIC, QUADRATIC, distance.shape)
    rng = generator(seed, Stream.LINEARITY, detector.id)
    wells = np.array([full_well(a, rates) / a.gain for a in detector.amplifiers])
    nodes = np.linspace(0, 1.05 * wells, NODES, axis=1)  # S is constant beyond: no signal gets there
    waves, phase = rng.uniform(0.5, 1.5, (2, number, 1))
    wave = np.sin(2 * np.pi * (waves * nodes / wells[:, np.newaxis] + phase))
    return Electronics(c0, c1, nodes, rates.nonlinearity * nodes * wave, _deferrals(seed, detector, rates))


def _deferrals(seed: int, detector: Detector, rates: Rates) -> list[Deferral]:
    rng = generator(seed, Stream.DEFERRED, detector.id)
    number = len(detector.amplifiers)
    cti = rates.cti * rng.uniform(0.9, 1.1, number)
    drift = rates.output_drift * rng.uniform(0.5, 1.5, number)
    decay = rng.uniform(*rates.output_decay, number)
    return [Deferral(*map(float, row)) for row in zip(cti, drift, decay, strict=True)]


def bend(signal: F32, nodes: NDArray[np.float64], values: NDArray[np.float64]) -> F32:
    """Bend ``signal`` (ADU, any shape) as a nonlinear amplifier does: x with x - S(x) = signal."""
    measured = np.linspace(0, nodes[-1], 200 * len(nodes))
    excess = spline(nodes, values)(measured)
    return np.asarray(signal + np.interp(signal, measured - excess, excess), np.float32)


def couple(signals: Sequence[F32], electronics: Electronics) -> list[F32]:
    """Add crosstalk to ``signals`` [amplifier][row, column], read-out order, ADU."""
    measured = list(signals)
    for _ in range(PASSES):
        before = measured
        measured = [
            signal + sum_of(before, c0, c1)
            for signal, c0, c1 in zip(signals, electronics.c0, electronics.c1, strict=True)
        ]
    return measured


def sum_of(sources: Sequence[F32], c0: NDArray[np.float64], c1: NDArray[np.float64]) -> F32:
    """Sum the crosstalk of all sources in one amplifier, ADU; ``c0`` and ``c1`` [source]."""
    total = np.zeros_like(sources[0])
    for source, linear, square in zip(sources, c0.astype(np.float32), c1.astype(np.float32), strict=True):
        if linear:
            total += (linear + square * source) * source
    return total


def in_unit(electronics: Electronics, camera: Camera, detector: Detector) -> tuple[NDArray[np.float64], ...]:
    """Convert the crosstalk's c0 and c1 to the camera's unit: target / source and target / source^2."""
    gains = np.array([a.gain if camera.unit == "electron" else 1.0 for a in detector.amplifiers])
    ratio = gains[:, np.newaxis] / gains
    return electronics.c0 * ratio, electronics.c1 * ratio / gains
