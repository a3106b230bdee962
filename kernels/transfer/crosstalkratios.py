"""Crosstalk as cp_pipe's CrosstalkSolveTask estimates it: each pair of amplifiers by itself, from ratios of pixels.

Its coefficient errors are the scatter of single ratios.  Validity goes by that over the root of their number, as if
pixels were independent and other sources were dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.transfer.crosstalkfit import Crosstalk, Rule, counted
from kernels.transfer.crosstalkpixels import Lit

F64 = NDArray[np.float64]

#: Ratios from here on are no crosstalk.
MOST = 1.0
#: Standard deviation of normal values over the distance of their quartiles.
QUARTILES = 0.741


def spread(nsigma: float) -> float:
    """Give the standard deviation of normal values over that of those within ``nsigma``."""
    inside = math.erf(nsigma / math.sqrt(2))
    density = math.exp(-(nsigma**2) / 2) / math.sqrt(2 * math.pi)
    return 1 / math.sqrt(1 - 2 * nsigma * density / inside)


def _clipped(ratios: F64, fluxes: F64, rule: Rule) -> tuple[F64, F64]:
    """Keep the ratios near their median."""
    for _ in range(rule.passes):
        low, middle, high = np.percentile(ratios, [25.0, 50.0, 75.0])
        good = np.abs(ratios - middle) < rule.nsigma * QUARTILES * (high - low)
        if good.all() or not good.any():
            break
        ratios, fluxes = ratios[good], fluxes[good]
    return ratios, fluxes


def _pairs(frames: Sequence[Lit], target: int, source: int) -> tuple[F64, F64]:
    """Give the ratios of a target to a source, and the source's signals, electron."""
    ratios, fluxes = [np.zeros(0)], [np.zeros(0)]
    for frame in frames:
        here = frame.usable[target] & frame.bright[source]
        fluxes.append(frame.signals[source, here].astype(np.float64))
        ratios.append(frame.excess[target, here] / fluxes[-1])
    every, bright = np.concatenate(ratios), np.concatenate(fluxes)
    good = np.abs(every) < MOST
    return every[good], bright[good]


def fit(frames: Sequence[Lit], rule: Rule) -> Crosstalk:
    """Estimate all coefficients; parameters as of `kernels.transfer.crosstalkfit.fit`.

    ``rule.quadratic`` fits a straight line in the flux to the ratios, not weighted, whose slope is c1.
    """
    n = len(frames[0].signals)
    c0, c1, error = (np.full((n, n), np.nan) for _ in range(3))
    slope_error = np.full((n, n), np.nan)
    counts, rejected, bad = np.zeros((n, n), np.int64), np.zeros(n, np.int64), dict[int, str]()
    valid = np.zeros((n, n), np.bool_)
    for t, s in np.ndindex(n, n):
        ratios, fluxes = _pairs(frames, t, s)
        if s == t or len(ratios) < max(rule.least, 2):
            continue
        kept, at = _clipped(ratios, fluxes, rule)
        counts[t, s], rejected[t] = len(kept), rejected[t] + len(ratios) - len(kept)
        error[t, s] = kept.std() * spread(rule.nsigma)
        c0[t, s], c1[t, s] = kept.mean(), 0.0
        if rule.quadratic and np.ptp(at) > 0:
            c1[t, s], c0[t, s] = np.polyfit(at, kept, 1)
        valid[t, s] = abs(c0[t, s]) > rule.significant * error[t, s] / math.sqrt(len(kept))
    for t in np.flatnonzero(~np.isfinite(c0).any(axis=1)).tolist():
        pixels = sum(int(frame.usable[t].sum()) for frame in frames)
        bad[t] = f"{pixels} pixels beside bright ones, at most {counted(frames, t).max()} of one source"
    return Crosstalk(c0, error, c1, slope_error, counts, valid, np.full(n, np.nan), rejected, bad)
