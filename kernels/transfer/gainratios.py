"""Ratios of the gains of a detector's amplifiers from the steps between them in a flat.

In a flat in electrons, or over a reference flat, light changes smoothly and a wrong gain makes a step.  In logarithms
one linear least squares has both: a spline of the distance to the optical axis, Chebyshev's polynomials of x and y, and
a factor of each amplifier.  (cp_pipe's PhotonTransferCurveAdjustGainRatiosTask takes medians of the three in turn.)

An amplifier whose gain, electron/ADU, is too large by a factor has a flat in electrons that is too bright by the same:
`adjusted` **divides** by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Standard deviations per median absolute deviation, for Gaussian noise.
MAD = 1.4826


class NoRatios(ValueError):
    """Flats that determine no ratios, and why."""


@dataclass(frozen=True)
class Bins:
    """Means of bins of a flat, away from the edges of amplifiers."""

    #: [bin], float64: Electron, or relative to a reference flat.
    values: F64
    #: [bin], int64: Number of the amplifier.
    amplifier: I64
    #: [bin], float64: Place on the detector, any unit.
    x: F64
    y: F64
    #: [bin], float64: Distance to the optical axis; none: no radial term.
    radius: F64 | None = None


@dataclass(frozen=True)
class Rule:
    """Settings of the fit."""

    #: Degree of the polynomials.
    order: int = 1
    #: Nodes of the radial spline.
    nodes: int = 20
    #: Rejection, standard deviations, and its rounds.
    nsigma: float = 5.0
    rounds: int = 10
    #: Largest deviation of an amplifier from the median one; those beyond are left out and get no ratio.
    most: float = 0.05


@dataclass(frozen=True)
class Ratios:
    """Brightness of each amplifier relative to the reference."""

    #: [amplifier], float64: Not a number where left out.
    factors: F64
    #: [amplifier], float64.
    errors: F64


def binned(image: F64, boxes: Sequence[tuple[int, int, int, int]], binning: int = 8, edge: int = 20) -> Bins:
    """Average bins of each amplifier of a detector's image.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float
        Electron, or relative to a reference flat; NaN where bad.
    boxes : sequence of (`int`, `int`, `int`, `int`)
        x0, y0, nx, ny of each amplifier, pixel.
    binning, edge : `int`
        Side of a bin and distance from the amplifier's edges, pixel.
    """
    parts: list[tuple[F64, F64, F64, I64]] = []
    for k, (x0, y0, nx, ny) in enumerate(boxes):
        columns, rows = (nx - 2 * edge) // binning, (ny - 2 * edge) // binning
        if columns < 1 or rows < 1:
            continue
        left, low = x0 + edge, y0 + edge
        inner = np.asarray(image[low : low + rows * binning, left : left + columns * binning], np.float64)
        shaped = inner.reshape(rows, binning, columns, binning)
        fine = np.isfinite(shaped)
        number = fine.sum(axis=(1, 3))
        good = number >= binning**2 / 2
        mean = np.where(fine, shaped, 0.0).sum(axis=(1, 3)) / np.maximum(number, 1)
        y, x = np.indices(mean.shape)
        at = (x[good] + 0.5) * binning + left, (y[good] + 0.5) * binning + low
        parts.append((mean[good], *at, np.full(int(good.sum()), k)))
    if not parts:
        raise NoRatios(f"no amplifier has a bin of {binning} pixels {edge} pixels from its edges")
    values, x, y, amplifier = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Bins(values, amplifier, x, y)


def _within(values: F64) -> Bool:
    """Find the values from 0.8 times the 5th to 1.2 times the 95th percentile."""
    low, high = np.percentile(values, (5, 95))
    return np.asarray((values >= 0.8 * low) & (values <= 1.2 * high) & (values > 0))


def _smooth(bins: Bins, rule: Rule) -> F64:
    """Columns of the light: polynomials but the constant, and a spline of the radius [bin, column]."""
    span = max(float(np.ptp(bins.x)), float(np.ptp(bins.y)), 1e-300)
    u, v = (2 * (c - (c.max() + c.min()) / 2) / span for c in (bins.x, bins.y))
    square = np.polynomial.chebyshev.chebvander2d(u, v, [rule.order, rule.order])
    degree = np.add.outer(np.arange(rule.order + 1), np.arange(rule.order + 1)).ravel()
    columns = [square[:, (degree > 0) & (degree <= rule.order)]]
    if bins.radius is not None and np.ptp(bins.radius) > 0:
        from scipy.interpolate import CubicSpline

        nodes = np.linspace(bins.radius.min(), bins.radius.max(), rule.nodes)
        columns.append(np.asarray(CubicSpline(nodes, np.eye(rule.nodes), bc_type="natural")(bins.radius))[:, 1:])
    return np.concatenate(columns, axis=1)


def ratios(bins: Bins, number: int, reference: int, rule: Rule | None = None) -> Ratios:
    """Fit the factors of a flat's amplifiers.

    Parameters
    ----------
    bins : `Bins`
        Of one flat, or of a flat over a reference flat.
    number : `int`
        Amplifiers of the detector.
    reference : `int`
        Amplifier whose factor is 1.
    rule : `Rule`, optional
        Settings.

    Raises
    ------
    NoRatios
        The reference has no bins, or deviates too much from the others.
    """
    rule, keep = rule or Rule(), _within(bins.values)
    amplifiers = np.unique(bins.amplifier[keep])
    smooth, logs = _smooth(bins, rule), np.log(np.where(keep, bins.values, 1.0))
    steps = (bins.amplifier[:, np.newaxis] == amplifiers).astype(np.float64)
    design = np.concatenate([steps, smooth], axis=1)
    for _ in range(rule.rounds):
        found = np.linalg.lstsq(design[keep], logs[keep], rcond=None)[0]
        residuals = logs - design @ found
        sigma = MAD * float(np.median(np.abs(residuals[keep])))
        new = keep & (np.abs(residuals) <= rule.nsigma * max(sigma, 1e-12))
        if (new == keep).all():
            break
        keep = new
    inverse = np.linalg.pinv(design[keep].T @ design[keep], hermitian=True)
    variance = float((residuals[keep] ** 2).sum()) / max(int(keep.sum()) - len(found), 1)
    level = found[: len(amplifiers)]
    near = np.abs(level - np.median(level)) <= rule.most
    at = np.flatnonzero(amplifiers == reference)
    if not at.size or not near[at[0]]:
        raise NoRatios(f"amplifier {reference}, the reference, has no bins within {rule.most:.0%} of the others")
    factors, errors = np.full(number, np.nan), np.full(number, np.nan)
    block = inverse[: len(amplifiers), : len(amplifiers)]
    spread = np.diag(block) + block[at[0], at[0]] - 2 * block[:, at[0]]
    factors[amplifiers[near]] = np.exp(level[near] - level[at[0]])
    errors[amplifiers[near]] = factors[amplifiers[near]] * np.sqrt(np.maximum(spread[near], 0) * variance)
    return Ratios(factors, errors)


def combined(flats: Sequence[Ratios]) -> Ratios:
    """Take medians over flats, with the standard errors of medians of Gaussian values."""
    factors = np.array([one.factors for one in flats])
    errors = np.array([one.errors for one in flats])
    seen = np.isfinite(factors).any(axis=0)
    middle, error = np.full(seen.shape, np.nan), np.full(seen.shape, np.nan)
    middle[seen] = np.nanmedian(factors[:, seen], axis=0)
    number = np.isfinite(factors).sum(axis=0)[seen]
    one = np.sqrt(np.nanmean(errors[:, seen] ** 2, axis=0))
    error[seen] = one * np.where(number > 2, np.sqrt(np.pi / 2), 1.0) / np.sqrt(number)
    return Ratios(middle, error)


def adjusted(gains: F64, found: Ratios) -> F64:
    """Divide gains [amplifier], electron/ADU, by the factors over the median factor; others stay as they are."""
    factors = found.factors / np.nanmedian(found.factors)
    return np.asarray(np.where(np.isfinite(factors), gains / factors, gains))


def reference(gains: F64, noises: F64, turnoffs: F64, most: float = 12.0, percentile: float = 25.0) -> int:
    """Choose the amplifier of the middle gain among those of low noise and a turnoff not below a percentile.

    Parameters
    ----------
    gains, noises, turnoffs : `numpy.ndarray` [amplifier], float64
        Electron/ADU, electron, ADU; not a number in bad amplifiers.
    most : `float`
        Largest noise, electron.

    Raises
    ------
    NoRatios
        No amplifier is good enough.
    """
    known = np.isfinite(gains) & np.isfinite(noises) & np.isfinite(turnoffs)
    if known.any():
        known &= np.nan_to_num(noises, nan=np.inf) <= most
        known &= np.nan_to_num(turnoffs) >= np.nanpercentile(turnoffs, percentile)
    chosen = np.flatnonzero(known)
    if not chosen.size:
        raise NoRatios(f"no amplifier has a gain, a noise of at most {most:g} electrons and a usual turnoff")
    return int(chosen[np.argsort(gains[chosen], kind="stable")[(chosen.size - 1) // 2]])
