"""Quantiles of the error models, for false-alarm probabilities far out in the tails."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

F64 = NDArray[np.float64]


def sigmas(p: float | F64) -> F64:
    """Deviation that a Gaussian value exceeds, on either side, with probability ``p``, standard deviations."""
    return np.asarray(-special.ndtri(np.asarray(p, np.float64) / 2))


def chi2(freedom: Any, p: float | F64) -> F64:
    """Value that chi^2 exceeds with probability ``p``; 0 without a degree of freedom."""
    some = np.asarray(freedom, np.float64)
    return np.where(some > 0, special.chdtri(np.maximum(some, 1e-9), p), 0.0)


def poisson(mean: Any, p: float | F64) -> F64:
    """Least count that is exceeded with probability ``p`` at most."""
    mu, p = np.broadcast_arrays(np.maximum(np.asarray(mean, np.float64), 1e-12), np.asarray(p, np.float64))
    low = np.floor(np.maximum(mu - 1, 0.0))
    high = np.ceil(mu + 12 * np.sqrt(mu) + 30)
    while (low < high).any():  # bisection over whole numbers
        middle = np.floor((low + high) / 2)
        beyond = special.pdtrc(middle, mu) > p
        low, high = np.where(beyond, middle + 1, low), np.where(beyond, high, middle)
    return np.asarray(low)
