"""Compile the numba functions of this room, by running them on small images."""

from __future__ import annotations

import numpy as np

from kernels.transfer import brighterfatter, covariance


def compile_all() -> None:
    """Run each compiled function once, for the types in use."""
    rng = np.random.default_rng(1)
    images = [rng.normal(1000, 30, (20, 40)).astype(np.float32) for _ in range(2)]
    covariance.measure((images[0], images[1]), None, covariance.Rule(least=1))
    for method in brighterfatter.Method:
        rule = brighterfatter.Rule(method, rounds=1, steps=1)
        brighterfatter.correct(images[0], images[0] > 950, np.full((3, 3), -1e-7), 1000.0, rule)
