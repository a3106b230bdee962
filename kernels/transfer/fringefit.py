"""The amplitude of fringes in a frame, by least squares over apertures at random places.

The scheme is that of ip_isr's FringeTask: at each place the level in a small aperture, less that in a large one about
it, is compared between the frame and the fringe frame.  Ours besides: levels are means without detections, which
scatter less than medians; the noise of the fringe frame, which would pull the amplitude towards 0, is taken out of the
sum of squares; and the error is propagated pixel by pixel, so that apertures may overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Places = NDArray[np.int64]

#: Inter-quartile range to sigma, as upstream has it.
IQR: Final = 0.74
#: Least fraction of good pixels of an aperture.
ENOUGH: Final = 0.5
#: Fewest places of a fit.
FEWEST: Final = 100
#: Least share of the fringe frame's sum of squares that is not noise.
SIGNAL: Final = 0.1


@dataclass(frozen=True)
class Rule:
    """Rule of the fit; lengths in pixels."""

    #: Number of places, and the seed of their choice.
    places: int = 30_000
    seed: int = 0
    #: Half the sides of the apertures.
    small: int = 3
    large: int = 30
    #: Clipping of the residuals.
    rounds: int = 20
    nsigma: float = 3.0


@dataclass(frozen=True)
class Fitted:
    """Fringes of a frame."""

    #: In units of the fringe frame, and its standard error; the unit of the frame.
    amplitude: float
    error: float
    #: Places that were used, and scatter of their residuals, the unit of the frame.
    used: int
    scatter: float
    #: Why there is no amplitude; empty if there is one.
    why: str = ""


@njit
def _measure(image, fringe, good, places, small, large, least, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` [place, 4]: differences of frame and fringe frame, good pixels of both apertures; NaN if few."""
    for n in range(places.shape[0]):
        x, y = places[n, 0], places[n, 1]
        totals = np.zeros((2, 3))
        for k, half in enumerate((small, large)):
            for v in range(y - half, y + half):
                for u in range(x - half, x + half):
                    if good[v, u]:
                        totals[k, 0] += image[v, u]
                        totals[k, 1] += fringe[v, u]
                        totals[k, 2] += 1
        inner, outer = totals[0, 2], totals[1, 2]
        if inner < least * 4 * small * small or outer < least * 4 * large * large:
            out[n, :] = np.nan
            continue
        out[n, 0] = totals[0, 0] / inner - totals[1, 0] / outer
        out[n, 1] = totals[0, 1] / inner - totals[1, 1] / outer
        out[n, 2], out[n, 3] = inner, outer


@njit
def _influence(good, places, weights, counts, small, large, out):  # type: ignore[no-untyped-def]
    """Add to ``out`` [y, x] the weight with which each pixel enters the amplitude."""
    for n in range(places.shape[0]):
        x, y = places[n, 0], places[n, 1]
        for k, half in enumerate((small, large)):
            share = weights[n] / counts[n, k] * (1 - 2 * k)
            for v in range(y - half, y + half):
                for u in range(x - half, x + half):
                    if good[v, u]:
                        out[v, u] += share


@njit
def _propagated(influence, variance, fringe_variance, square):  # type: ignore[no-untyped-def]
    total = 0.0
    for y in range(influence.shape[0]):
        for x in range(influence.shape[1]):
            total += influence[y, x] ** 2 * (variance[y, x] + square * fringe_variance[y, x])
    return total


def choose(shape: tuple[int, int], rule: Rule) -> Places:
    """Draw places [n, (x, y)] whose large apertures lie on the image."""
    rng = np.random.Generator(np.random.PCG64(rule.seed))
    ends = [(rule.large, n - rule.large + 1) for n in shape[::-1]]
    return np.stack([rng.integers(low, high, rule.places) for low, high in ends], axis=1)


def _within(values: F64, nsigma: float) -> NDArray[np.bool_]:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return np.asarray(np.abs(values - middle) <= nsigma * IQR * (high - low))


def fit(image: F32, variance: F32, good: NDArray[np.bool_], fringe: F32, fringe_variance: F32, rule: Rule) -> Fitted:
    """Fit the amplitude.

    Parameters
    ----------
    image, variance : `numpy.ndarray` [y, x], float32
        The frame, and the variances of its pixels; finite where good.
    good : `numpy.ndarray` [y, x], bool
        Pixels without defects and detections.
    fringe, fringe_variance : `numpy.ndarray` [y, x], float32
        The fringe frame; finite where good.

    Returns
    -------
    fitted : `Fitted`
        With ``why`` where the frame or the fringe frame does not allow a fit.
    """
    if min(image.shape) < 2 * rule.large:
        return Fitted(0.0, math.inf, 0, math.nan, f"the detector is smaller than apertures of {2 * rule.large} pixels")
    places = choose((image.shape[0], image.shape[1]), rule)
    found = np.empty((len(places), 4))
    _measure(image, fringe, good, places, rule.small, rule.large, ENOUGH, found)
    at = np.flatnonzero(np.isfinite(found[:, 0]))
    if at.size < FEWEST:
        return Fitted(0.0, math.inf, at.size, math.nan, f"{at.size} of {len(places)} places have enough good pixels")
    at = at[_within(found[at, 0], rule.nsigma) & _within(found[at, 1], rule.nsigma)]
    typical = float(fringe_variance[good].mean(dtype=np.float64))
    amplitude, scatter, square = 0.0, math.nan, 0.0
    for _ in range(rule.rounds + 1):
        science, pattern, inner, outer = found[at].T
        whole = float(pattern @ pattern)
        square = whole - typical * float((1 / inner - 1 / outer).sum())
        if at.size < FEWEST or not square > SIGNAL * whole:
            why = "hardly any place is left" if at.size < FEWEST else "the fringe frame holds noise alone"
            return Fitted(0.0, math.inf, at.size, scatter, why)
        amplitude = float(science @ pattern) / square
        rest = science - amplitude * pattern
        low, high = np.percentile(rest, (25, 75))
        scatter = IQR * float(high - low)
        keep = np.abs(rest) <= rule.nsigma * scatter
        if keep.all():
            break
        at = at[keep]
    influence = np.zeros(image.shape)
    _influence(good, places[at], found[at, 1] / square, found[at, 2:], rule.small, rule.large, influence)
    total = _propagated(influence, variance, fringe_variance, amplitude**2)
    return Fitted(amplitude, math.sqrt(total), at.size, scatter)
