"""Compile the numba functions of this room, by running them on a small image."""

from __future__ import annotations

import numpy as np

from kernels.camera.geometry import Box
from kernels.verification import measure


def compile_all() -> None:
    """Run each compiled function once, for the types in use."""
    image, box = np.ones((8, 8), np.float32), Box(0, 0, 8, 8)
    measure.measure(image, [box], 4)
    measure.box_mean(image, box)
    measure.serial(np.ones((4, 8), np.int32), 3)
