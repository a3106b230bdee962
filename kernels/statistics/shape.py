"""The shape of a frame's light over an amplifier: a few dozen cells, against the same cells of the other frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Cells along the columns of an amplifier.
BANDS = 8


def cells(pieces: F64) -> F64:
    """Measure the level of each cell: the median over a band of rows, unmoved by a cosmic ray or a hot pixel.

    Parameters
    ----------
    pieces : `numpy.ndarray` [frame, row, piece], float64
        Mean of each piece of each sampled row.

    Returns
    -------
    cells : `numpy.ndarray` [frame, band, piece], float64
    """
    bands = np.array_split(np.arange(pieces.shape[1]), min(BANDS, pieces.shape[1]))
    median = np.median if np.isfinite(pieces).all() else np.nanmedian
    return np.stack([median(pieces[:, band], axis=1) for band in bands], axis=1)


def line(x: F64, y: F64) -> tuple[float, float]:
    """Fit Theil's incomplete line: slope (median of those between lower and upper half; 0 for equal ``x``) and zero."""
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    half = len(x) // 2
    run, rise = x[half:] - x[: len(x) - half], y[half:] - y[: len(y) - half]
    apart = run > 1e-9 * np.abs(x).max(initial=0.0)
    slope = float(np.median(rise[apart] / run[apart])) if half and apart.any() else 0.0
    return slope, float(np.median(y - slope * x))


def factors(pattern: F64, typical: F64, light: F64, zero: bool) -> F64:
    """Compute the amplitude [frame] of the typical pattern that each frame should have.

    Parameters
    ----------
    pattern : `numpy.ndarray` [frame, cell], float64
        Cells less their mean.
    typical : `numpy.ndarray` [cell], float64
        Median of the patterns.
    light : `numpy.ndarray` [frame], float64
        Level or time, with which a pattern grows; all equal where it does not grow.
    zero : `bool`
        Whether the pattern vanishes without light.
    """
    middle = float(np.median(light))
    if np.ptp(light) <= 1e-9 * abs(middle):
        return np.ones(len(light))
    if zero and middle > 0:
        return light / middle
    power = float(typical @ typical)
    if power <= 0:
        return np.ones(len(light))
    own = pattern @ typical / power
    slope, offset = line(light, own)
    return slope * light + offset


def deviations(cells: F64, light: Sequence[float] | F64, zero: bool) -> tuple[F64, F64]:
    """Measure the distance of each frame's shape from the typical one.

    A frame's shape is its cells less their mean; the typical one is the median
    over the frames, which grows with the light (`factors`).

    Parameters
    ----------
    cells : `numpy.ndarray` [frame, band, piece], float64
    light, zero
        See `factors`.

    Returns
    -------
    deviation : `numpy.ndarray` [frame], float64
        Root mean square of the residual, less the part of noise; signed by the
        main pattern among the frames, so that two equal groups of frames get
        opposite signs.
    error : `numpy.ndarray` [frame], float64
        Noise of a cell, from the differences of neighbouring ones.
    """
    frames = len(cells)
    if not np.isfinite(cells).all():  # a cell has no pixel
        return np.zeros(frames), np.zeros(frames)
    flat = cells.reshape(frames, -1)
    pattern = flat - flat.mean(axis=1, keepdims=True)
    typical = np.median(pattern, axis=0)
    rest = pattern - factors(pattern, typical, np.asarray(light, np.float64), zero)[:, np.newaxis] * typical
    steps = np.diff(rest.reshape(cells.shape), axis=2)
    error = 1.4826 * np.median(np.abs(steps.reshape(frames, -1)), axis=1) / 2**0.5 if steps.size else np.zeros(frames)
    main = np.linalg.svd(rest, full_matrices=False)[2][0]
    size = np.sqrt(np.maximum((rest**2).mean(axis=1) - error**2, 0.0))
    return np.where((rest @ main < 0) & (size > 0), -size, size), error
