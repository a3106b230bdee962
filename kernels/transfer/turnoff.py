"""Turnoff and roll-off of the variance: the signals that a photon transfer curve describes.

The variance of one pixel follows

    v(mu) = [exp(2 a mu g) - 1] / (2 a g^2) + n / g^2

(Astier et al. 2019, A&A 629, A36, eq. 16) until charge is lost: at the turnoff it leaves the curve.  The rules, which
the turnoffs of real curves depend on, are those of cp_pipe's PhotonTransferCurveSolveTask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.transfer.leastsquares import minimise

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Bounds of the scale tau of a roll-off, and where its fit begins, ADU.
SHORTEST, LONGEST, BEGIN = 100.0, 10_000.0, 1200.0
#: Fewest points that determine three parameters.
FEWEST = 4


class NoTurnoff(ValueError):
    """A curve without a usable beginning, and why."""


@dataclass(frozen=True)
class Rule:
    """Settings of the turnoff."""

    #: Largest signal and variance of the first fit, electron; ADU unless ``scaled``.
    signal: float = 50_000.0
    #: Largest gap that rejected points may make between good ones, likewise.
    gap: float = 9_000.0
    #: ``signal`` and ``gap`` are electrons, which the median of mean / variance turns into ADU.
    scaled: bool = True
    #: Largest |v - model| of a good point, in units of sqrt(v), or of the scatter where that is known.
    cut: float = 5.0
    #: Times that points are chosen by the fit of the chosen ones.
    rounds: int = 2


@dataclass(frozen=True)
class Variance:
    """Curve of the variance, in ADU."""

    #: a g, 1/ADU: at most 0.
    slope: float
    #: 1 / g, ADU/electron.
    inverse_gain: float
    #: n / g^2, ADU^2.
    floor: float

    def __call__(self, mean: F64) -> F64:
        """Compute the variance, ADU^2, of signals in ADU."""
        return self.inverse_gain * _grown(self.slope, mean)[0] + self.floor


@dataclass(frozen=True)
class Turnoff:
    """End of a photon transfer curve."""

    #: Largest good mean, ADU.
    signal: float
    #: Half the distance of its neighbours, or the distance of the lower one where it is the last point, ADU.
    error: float
    #: [point], bool: The points that lie on the curve, in the order given.
    good: Bool
    #: Unweighted fit of these.
    curve: Variance


@dataclass(frozen=True)
class Rolloff:
    """Loss of variance near the turnoff: exp((mu - start) / scale) - 1 above the start."""

    #: Signal at which the loss exceeds the share that was asked for, ADU.
    signal: float
    #: ADU.
    start: float
    #: ADU.
    scale: float
    #: [point], bool: The good points below ``signal``.
    good: Bool


def _grown(slope: float, mean: F64) -> tuple[F64, F64]:
    """Compute ``[exp(2 x mu) - 1] / (2 x)`` and its derivative by x; by series where x mu is small."""
    t = 2 * slope * mean
    if np.abs(t).max(initial=0) < 1e-4:
        return mean * (1 + t / 2 + t**2 / 6), mean**2 * (1 + 2 * t / 3 + t**2 / 4)
    value = np.expm1(t) / (2 * slope)
    return value, (mean * np.exp(t) - value) / slope


def _fitted(mean: F64, variance: F64, weights: F64 | float = 1.0) -> Variance:
    """Fit the curve with a <= 0 and n >= 0 to points, ``weights`` being 1 / sigma."""

    def model(p: F64) -> tuple[F64, F64]:
        value, by_slope = _grown(p[0], mean)
        jacobian = np.stack([p[1] * by_slope, value, np.ones_like(mean)], axis=1)
        return (p[1] * value + p[2] - variance) * weights, jacobian * np.reshape(weights, (-1, 1))

    floor = max(float(variance.min()) / 2, 0.0)
    start = np.array([-1e-6, max(float(np.median((variance - floor) / mean)), 1e-6), floor])
    lower, upper = np.array([-1e-3, 1e-6, 0.0]), np.array([0.0, 1e3, np.inf])
    best, _ = minimise(model, np.clip(start, lower, upper), lower, upper)
    return Variance(*map(float, best))


def _beyond_gap(mean: F64, good: Bool, gap: float) -> Bool:
    """Find the points above a gap that rejected points make between good ones; ``mean`` ascends."""
    found = np.flatnonzero(good)
    wide = np.flatnonzero((np.diff(mean[found]) >= gap) & (np.diff(found) > 1))
    return mean > mean[found[wide[0]]] if wide.size else np.zeros(mean.shape, np.bool_)


def turnoff(mean: F64, variance: F64, rule: Rule | None = None, pixels: F64 | None = None) -> Turnoff:
    """Find the turnoff of a curve.

    Parameters
    ----------
    mean : `numpy.ndarray` [point], float64
        ADU, in any order; not finite where a pair could not be measured.
    variance : `numpy.ndarray` [point], float64
        ADU^2.
    rule : `Rule`, optional
        Settings.
    pixels : `numpy.ndarray` [point], float64, optional
        Pixels behind each variance.  With them the cut allows for the
        variance's own error, sqrt(2 / pixels) v, by which upstream's rule
        rejects good points of small amplifiers; it is upstream's without.

    Raises
    ------
    NoTurnoff
        Too few points at low signal, or none on the curve.
    """
    rule, usable = rule or Rule(), np.isfinite(mean) & np.isfinite(variance) & (mean > 0) & (variance > 0)
    order = np.flatnonzero(usable)[np.argsort(mean[usable], kind="stable")]
    x, v = mean[order], variance[order]
    scatter = np.sqrt(v if pixels is None else v * (1 + 2 * v / np.maximum(pixels[order], 1)))
    unit = float(np.median(x / v)) if rule.scaled and x.size else 1.0
    good = (x < rule.signal / unit) & (v < rule.signal / unit)
    for attempt in range(rule.rounds + 1):
        if good.sum() < FEWEST:
            where = "below" if attempt == 0 else "on the curve of those below"
            raise NoTurnoff(
                f"{good.sum()} of {mean.size} points lie {where} {rule.signal / unit:.6g} ADU, {FEWEST} needed"
            )
        curve = _fitted(x[good], v[good])
        if attempt == rule.rounds:
            break
        new = np.abs(v - curve(x)) < rule.cut * scatter
        new &= ~_beyond_gap(x, new, rule.gap / unit)
        if (new == good).all():
            break
        good = new
    last = int(np.flatnonzero(good)[-1])
    error = (x[last + 1] - x[last - 1]) / 2 if last + 1 < x.size else x[last] - x[last - 1]
    chosen = np.zeros(mean.shape, np.bool_)
    chosen[order[good]] = True
    return Turnoff(float(x[last]), float(error), chosen, curve)


def rolloff(mean: F64, variance: F64, found: Turnoff, share: float = 0.005, beyond: float = 5000.0) -> Rolloff:
    """Fit the loss of variance near a turnoff; the points that it spoils are not good.

    Parameters
    ----------
    mean, variance : `numpy.ndarray` [point], float64
        ADU and ADU^2, as for `turnoff`.
    found : `Turnoff`
        The curve's turnoff, which stays as it is.
    share : `float`
        Largest loss of a good point, relative to the curve.
    beyond : `float`
        Points up to this signal above the turnoff are fitted too, where their variance is not above that at the
        turnoff, ADU.

    Raises
    ------
    NoTurnoff
        Too few points.
    """
    at = int(np.flatnonzero(mean == found.signal)[0])
    with np.errstate(invalid="ignore"):
        more = (mean > found.signal) & (mean <= found.signal + beyond) & (variance <= variance[at])
    used = found.good | more
    if used.sum() <= 5:
        raise NoTurnoff(f"{used.sum()} points lie on the curve, a roll-off needs 6")
    x, v, first = mean[used], variance[used], found.curve
    weights = 1 / np.sqrt(v)

    def model(p: F64) -> tuple[F64, F64]:
        value, by_slope = _grown(p[0], x)
        above = x > p[3]
        loss = np.where(above, np.exp(np.minimum((x - p[3]) / p[4], 50.0)), 0.0)
        jacobian = np.stack(
            [p[1] * by_slope, value, np.ones_like(x), loss / p[4], loss * (x - p[3]) / p[4] ** 2], axis=1
        )
        return (p[1] * value + p[2] - np.where(above, loss - 1, 0.0) - v) * weights, jacobian * weights[:, np.newaxis]

    lower = np.array([-1e-3, 1e-6, 0.0, 0.0, SHORTEST])
    upper = np.array([0.0, 1e3, np.inf, found.signal, LONGEST])
    plain = [first.slope, first.inverse_gain, first.floor]
    begins = [
        minimise(model, np.array([*plain, found.signal * part, BEGIN]), lower, upper) for part in (0.8, 0.9, 0.99)
    ]
    best, _ = min(begins, key=lambda one: one[1])
    curve, start, scale = Variance(*map(float, best[:3])), float(best[3]), float(best[4])
    signal = _loss_reaches(curve, start, scale, share, found.signal)
    with np.errstate(invalid="ignore"):
        return Rolloff(signal, start, scale, found.good & (mean <= signal))


def _loss_reaches(curve: Variance, start: float, scale: float, share: float, end: float) -> float:
    """Find the signal, at most ``end``, where the loss is this share of the curve."""
    low, high = start, end
    for _ in range(60):
        middle = (low + high) / 2
        if math.expm1((middle - start) / scale) > share * float(curve(np.array([middle]))[0]):
            high = middle
        else:
            low = middle
    return high
