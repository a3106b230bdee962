"""Compile the numba functions of this room, by running them on small images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.transfer import brighterfatter, covariance, crosstalkfit, crosstalkpixels


def compile_all() -> None:
    """Run each compiled function once, for the types in use."""
    rng = np.random.default_rng(1)
    images = [rng.normal(1000, 30, (20, 40)).astype(np.float32) for _ in range(2)]
    _crosstalk(np.stack(images))
    covariance.measure((images[0], images[1]), None, covariance.Rule(least=1))
    for method in brighterfatter.Method:
        rule = brighterfatter.Rule(method, rounds=1, steps=1)
        brighterfatter.correct(images[0], images[0] > 950, np.full((3, 3), -1e-7), 1000.0, rule)


def _crosstalk(signals: NDArray[np.float32]) -> None:
    """Collect a spot in each of two amplifiers [amplifier, y, x], and fit."""
    for image, x in zip(signals, (10, 30), strict=True):
        image[8:12, x : x + 4] = np.linspace(4e4, 9e4, 16).reshape(4, 4)
    rule = crosstalkpixels.Rule(grow=2, box=10)
    lit = crosstalkpixels.collect(signals, np.ones(signals.shape, np.bool_), np.full(2, 5.0), rule)
    crosstalkfit.fit([lit], crosstalkfit.Rule(least=5))
