"""Compiles every numba function for the types that jobs call it with."""

from __future__ import annotations

import numpy as np

from kernels import clip, cosmic, rice, tiles


def compile_all() -> None:
    """Call each compiled function once on a few pixels; numba keeps the result on disk."""
    cube, variances = np.ones((5, 4), np.float32), np.ones((5, 4), np.float32)
    image, variance, count = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.int16)
    for spread in (variances, np.empty((0, 0), np.float32)):
        clip.combine(cube, spread, 0, 3.0, 3, image, variance, count)
    clip.clipped_mean(np.arange(9, dtype=np.float32))
    cosmic.cosmic_rays(np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32), cosmic.CosmicConfig())
    one, spare = np.ones(1, np.int64), np.zeros(rice.SPARE + 64, np.uint8)
    for pixel in tiles.PIXELS.values():
        rice.decode(spare, one, one, 32, np.empty((1, 4), pixel))
    tiles.ones_complement_sum(spare)
