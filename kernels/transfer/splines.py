"""Akima's splines as a weighted least squares needs them: by nodes, and linear in the values at the nodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Slopes that differ by less, relative to the largest difference, count as equal.
EQUAL = 1e-9


def _slopes(nodes: F64, values: F64) -> F64:
    """Give the slope of Akima's spline at each node as a linear form of the values [node, node]; weights are held."""
    n = len(nodes)
    between = np.zeros((n + 3, n))
    for k, width in enumerate(np.diff(nodes)):
        between[k + 2, k], between[k + 2, k + 1] = -1 / width, 1 / width
    between[1], between[n + 1] = 2 * between[2] - between[3], 2 * between[n] - between[n - 1]
    between[0], between[n + 2] = 2 * between[1] - between[2], 2 * between[n + 1] - between[n]
    slope = between @ values
    change = np.abs(np.diff(slope))
    left, right = change[2:], change[:-2]  # the weights of the slopes before and behind a node
    total = left + right
    equal = total <= EQUAL * max(float(total.max()), 1e-300)
    left, right, total = (np.where(equal, part, one) for part, one in ((0.5, left), (0.5, right), (1.0, total)))
    return np.asarray((left / total)[:, np.newaxis] * between[1:-2] + (right / total)[:, np.newaxis] * between[2:-1])


def basis(nodes: F64, values: F64, x: F64) -> F64:
    """Give Akima's spline (J. ACM 17, 589, 1970) at ``x`` as a linear form of the values at its nodes.

    The spline is linear in its values but for weights that depend on them: these are taken from ``values``.

    Parameters
    ----------
    nodes, values : `numpy.ndarray` [node], float64
        At least 3, ascending.
    x : `numpy.ndarray` [point], float64
        Clipped to the nodes.

    Returns
    -------
    form : `numpy.ndarray` [point, node], float64
        ``form @ values`` is the spline.
    """
    x = np.clip(x, nodes[0], nodes[-1])
    piece = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    width = np.diff(nodes)[piece]
    t, slopes, ones = (x - nodes[piece]) / width, _slopes(nodes, values), np.eye(len(nodes))
    square, cube = t**2, t**3
    return np.asarray(
        (2 * cube - 3 * square + 1)[:, np.newaxis] * ones[piece]
        + (3 * square - 2 * cube)[:, np.newaxis] * ones[piece + 1]
        + ((cube - 2 * square + t) * width)[:, np.newaxis] * slopes[piece]
        + ((cube - square) * width)[:, np.newaxis] * slopes[piece + 1]
    )


def even_nodes(number: int, end: float) -> F64:
    """Place ``number`` nodes evenly from 0 to ``end``."""
    return np.linspace(0.0, end, number)


def _between(start: float, end: float, size: float, least: int) -> F64:
    return np.linspace(start, end, max(int(np.ceil((end - start) / size)), least))


def fine_nodes(ptc: float, end: float, low: float = 5000.0, first: float = 100.0) -> F64:
    """Place the nodes of a spline between amplifiers: 0, 100, by 750 to 5000, by 5000, by 2000 above the PTC's turnoff.

    Parameters
    ----------
    ptc, end : `float`
        Turnoffs of variance and linearity, ADU.
    low, first : `float`
        End of the finest nodes, and the first one above 0, ADU.
    """
    parts = [np.zeros(1), _between(first, low, 750.0, 2)] if ptc > low else [np.zeros(1)]
    parts.append(_between(low if ptc > low else 0.0, ptc, 5000.0, 5))
    if end > ptc:
        parts.append(_between(ptc, end, 2000.0, 3))
    return np.unique(np.concatenate(parts))


def coarse_nodes(end: float, size: float = 3000.0) -> F64:
    """Place the nodes of a spline against a monitor of the light, ``size`` apart, ADU."""
    return _between(0.0, end, size, 5)


def supported(nodes: F64, signals: F64, least: int = 2) -> F64:
    """Leave out nodes with fewer than ``least`` signals between them and the one before; the ends stay."""
    kept, signals = [nodes[0]], np.sort(signals[np.isfinite(signals)])
    for node in nodes[1:-1]:
        if np.searchsorted(signals, node) - np.searchsorted(signals, kept[-1]) >= least:
            kept.append(node)
    while len(kept) > 1 and signals.size - np.searchsorted(signals, kept[-1]) < least:
        kept.pop()
    return np.array([*kept, nodes[-1]])
