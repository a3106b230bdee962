"""The night sky of an exposure: a smooth gradient over the focal plane, the camera's pattern, and fringes.

The light in a pixel is ``response x level x gradient x (1 + pattern + fringe x fringes)``.  The gradient is that of one
exposure, a plane and a bowl.  Pattern and fringes are the same in all exposures of a filter: the pattern is what a
flat field does not show of the response to the sky, the fringes are the interference of narrow lines in the sensor.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.focalplane import radius_mm
from kernels.camera.geometry import Detector
from kernels.simulation.rates import Rates, Stream, generator

F32 = NDArray[np.float32]

#: Radius at which a gradient has its nominal size, mm.
EDGE_MM: Final = 350.0
#: Waves of the pattern, and the range of their number across a detector.
WAVES: Final = 4
CYCLES: Final = (1.0, 4.0)


@dataclass(frozen=True)
class Sky:
    """Pattern of a detector under the sky in one filter; images [y, x], float32, relative."""

    #: Mean near 0, but for the step of the sensor type.
    pattern: F32
    #: From -1 to 1.
    fringes: F32


def _axes(detector: Detector) -> tuple[F32, F32]:
    """Make coordinates from -1 to 1, [y, 1] and [1, x]."""
    v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in detector.size[::-1])
    return v[:, None], u[None, :]


def patterns(seed: int, detector: Detector, physical_filter: str, rates: Rates) -> Sky:
    """Draw pattern and fringes of a detector in a filter."""
    v, u = _axes(detector)
    name = zlib.crc32(physical_filter.encode())
    rng = generator(seed, Stream.SKY, name, detector.id)
    pattern = np.zeros((detector.size[1], detector.size[0]), np.float32)
    for _ in range(WAVES):
        cycles, angle, phase = rng.uniform(*CYCLES), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
        along = np.float32(np.pi * cycles) * (np.float32(np.cos(angle)) * u + np.float32(np.sin(angle)) * v)
        pattern += np.cos(along + np.float32(phase))
    pattern *= np.float32(rates.sky_pattern / np.sqrt(WAVES / 2))
    step = generator(seed, Stream.SKY, name, zlib.crc32(detector.type[:3].encode()))
    pattern += np.float32(rates.sky_type_step * step.standard_normal())
    angle, phase, (a, b, c) = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(-0.15, 0.15, 3)
    thickness = np.float32(0.5 * np.cos(angle)) * u + np.float32(0.5 * np.sin(angle)) * v
    thickness = thickness + np.float32(a) * u * u + np.float32(b) * v * v + np.float32(c) * u * v
    fringes = np.cos(np.float32(2 * np.pi * rates.fringe_waves) * thickness + np.float32(phase))
    return Sky(pattern, np.asarray(fringes, np.float32))


def gradient(seed: int, exposure: int, rates: Rates) -> tuple[float, float, float]:
    """Draw the slopes along x and y and the bowl of an exposure's sky, relative, at `EDGE_MM`."""
    slopes = rates.sky_gradient * generator(seed, Stream.SKY, exposure).standard_normal(3)
    return float(slopes[0]), float(slopes[1]), float(slopes[2])


def glow(seed: int, detector: Detector, sky: Sky, parameters: Mapping[str, Any], rates: Rates) -> F32:
    """Compute the sky's light in a pixel of response 1 [y, x], electron."""
    x, y, radius = radius_mm(detector)
    along_x, along_y, bowl = (np.float32(n) for n in gradient(seed, parameters["exposure"], rates))
    at = np.float32(1 / EDGE_MM)
    light = np.float32(parameters["sky"]) * (1 + along_x * at * x + along_y * at * y + bowl * (at * radius) ** 2)
    return np.asarray(light * (1 + sky.pattern + np.float32(parameters.get("fringe", 0.0)) * sky.fringes), np.float32)


def table(seed: int, exposures: Sequence[Mapping[str, Any]], rates: Rates) -> NDArray[Any]:
    """Tabulate the exposures with sky: level (electron), slopes and bowl, amplitude of the fringes (relative)."""
    rows = [
        (p["exposure"], p["physical_filter"], p["sky"], *gradient(seed, p["exposure"], rates), p.get("fringe", 0.0))
        for p in exposures
        if p.get("sky")
    ]
    names = [("exposure", "i8"), ("physical_filter", "S32")]
    return np.array(rows, [*names, *((name, "f8") for name in ("sky", "along_x", "along_y", "bowl", "fringe"))])
