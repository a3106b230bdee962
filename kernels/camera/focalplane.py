"""Positions of a detector's pixels in the focal plane."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Detector

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def _on_plane(detector: Detector, u: NDArray[Any], v: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Turn and shift places relative to the detector's centre, mm, into the focal plane."""
    c, s = math.cos(math.radians(detector.yaw_deg)), math.sin(math.radians(detector.yaw_deg))
    return detector.position_mm[0] + c * u - s * v, detector.position_mm[1] + s * u + c * v


def places_mm(detector: Detector, columns: F64, rows: F64) -> tuple[F64, F64]:
    """Compute focal-plane x and y [row, column] of places on a detector, mm; pixel 0 is centred at place 0."""
    nx, ny = detector.size
    pitch = detector.pixel_um * 1e-3
    u, v = (columns - (nx - 1) / 2)[None, :] * pitch, (rows - (ny - 1) / 2)[:, None] * pitch
    return _on_plane(detector, u, v)


def radius_at(detector: Detector, x: F64, y: F64) -> F64:
    """Compute the distance to the optical axis, mm, of places on a detector (pixel, 0 at its lower left corner)."""
    u, v = ((at - n / 2) * detector.pixel_um * 1e-3 for at, n in zip((x, y), detector.size, strict=True))
    return np.hypot(*_on_plane(detector, u, v))


def radius_mm(detector: Detector) -> tuple[F32, F32, F32]:
    """Compute focal-plane x, y and radius of the pixels [y, x], mm."""
    nx, ny = detector.size
    v, u = (((np.arange(n) - (n - 1) / 2) * detector.pixel_um * 1e-3).astype(np.float32) for n in (ny, nx))
    x, y = _on_plane(detector, u[None, :], v[:, None])
    return x.astype(np.float32), y.astype(np.float32), np.hypot(x, y).astype(np.float32)
