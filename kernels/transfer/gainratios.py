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


#: Fewest flats, and least ratio of the brightest one's level to the faintest one's, for a fit over the levels.
LEAST, SPAN = 4, 2.0


class NoRatios(ValueError):
    """Flats that determine no ratios, and why."""


@dataclass(frozen=True)
class Bins:
    """Means of bins of a flat, away from the edges of amplifiers."""

    #: [bin], float64: Electron, or relative to a reference flat; not a number where more than half is bad.
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
    #: [amplifier], float64: Errors against the mean of the amplifiers, which is known better than any of them.
    apart: F64


def binned(
    image: F64 | NDArray[np.float32], boxes: Sequence[tuple[int, int, int, int]], binning: int = 8, edge: int = 20
) -> Bins:
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
        mean = np.where(fine, shaped, 0.0).sum(axis=(1, 3)) / np.maximum(number, 1)
        mean[number < binning**2 / 2] = np.nan
        y, x = np.indices(mean.shape)
        at = (x.ravel() + 0.5) * binning + left, (y.ravel() + 0.5) * binning + low
        parts.append((mean.ravel(), *at, np.full(mean.size, k)))
    if not parts:
        raise NoRatios(f"no amplifier has a bin of {binning} pixels {edge} pixels from its edges")
    values, x, y, amplifier = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Bins(values, amplifier, x, y)


def _within(values: F64) -> Bool:
    """Find the values from 0.8 times the 5th to 1.2 times the 95th percentile of those that are numbers.

    Raises
    ------
    NoRatios
        None is a number above 0.
    """
    known = np.isfinite(values)
    if not (values[known] > 0).any():
        raise NoRatios("no bin has light")
    low, high = np.percentile(values[known], (5, 95))
    return np.asarray(known & (values >= 0.8 * low) & (values <= 1.2 * high) & (values > 0))


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


def ratios(bins: Bins, number: int, reference: int | None, rule: Rule | None = None) -> Ratios:
    """Fit the factors of a flat's amplifiers.

    Parameters
    ----------
    bins : `Bins`
        Of one flat, or of a flat over a reference flat.
    number : `int`
        Amplifiers of the detector.
    reference : `int` or `None`
        Amplifier whose factor is 1; `None`: the factors' mean logarithm is 0, and none is left out as far off.
    rule : `Rule`, optional
        Settings.

    Raises
    ------
    NoRatios
        No bin has light; the reference has no bins, or deviates too much from the others.
    """
    rule, keep = rule or Rule(), _within(bins.values)
    amplifiers = np.unique(bins.amplifier[keep])
    smooth, logs = _smooth(bins, rule), np.log(np.where(keep, bins.values, 1.0))
    steps = (bins.amplifier[:, np.newaxis] == amplifiers).astype(np.float64)
    design, middle = np.concatenate([steps, smooth], axis=1), float(np.median(logs[keep]))
    for _ in range(rule.rounds):
        # normal equations: columns are of one size, and bins many
        inverse = np.linalg.pinv(design[keep].T @ design[keep], hermitian=True)
        found = inverse @ (design[keep].T @ (logs[keep] - middle))
        residuals = logs - middle - design @ found
        sigma = MAD * float(np.median(np.abs(residuals[keep])))
        new = keep & (np.abs(residuals) <= rule.nsigma * max(sigma, 1e-12))
        if (new == keep).all():
            break
        keep = new
    variance = float((residuals[keep] ** 2).sum()) / max(int(keep.sum()) - len(found), 1)
    many = len(amplifiers)
    level, block = found[:many], inverse[:many, :many] * variance
    mean = np.full((many, many), 1.0 / many)
    factors, errors, apart = np.full((3, number), np.nan)
    factors[amplifiers] = np.exp(level - level.mean())
    apart[amplifiers] = factors[amplifiers] * _deviations(np.eye(many) - mean, block)
    if reference is None:
        return Ratios(factors, apart, apart)
    at = np.flatnonzero(amplifiers == reference)
    if at.size:
        one = np.broadcast_to(np.arange(many) == at[0], (many, many))
        errors[amplifiers] = factors[amplifiers] * _deviations(np.eye(many) - one, block)
    return referred(Ratios(factors, errors, apart), reference, rule.most)


def _deviations(contrasts: F64, covariance: F64) -> F64:
    """Compute the standard deviations of linear combinations, one a row."""
    return np.asarray(np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", contrasts, covariance, contrasts), 0)))


def referred(found: Ratios, reference: int, most: float = 0.05) -> Ratios:
    """Refer factors to an amplifier, and leave out those that are more than ``most`` off their median.

    Raises
    ------
    NoRatios
        The reference has no factor, or is left out itself.
    """
    off = np.abs(np.log(found.factors / np.nanmedian(found.factors)))
    near = np.nan_to_num(off, nan=np.inf) <= most
    if not near[reference]:
        raise NoRatios(f"amplifier {reference}, the reference, has no bins within {most:.0%} of the others")
    parts = (np.where(near, part / found.factors[reference], np.nan) for part in vars(found).values())
    return Ratios(*parts)


def scaled(found: Ratios, by: F64) -> Ratios:
    """Give the ratios of flats in electrons by gains that are ``by`` [amplifier] times those of the fit."""
    return Ratios(*(part * by for part in vars(found).values()))


@dataclass(frozen=True)
class Stack:
    """Means over flats of their bins."""

    #: [bin], float64: Relative; not a number where no flat has the bin.
    values: F64
    #: [flat], int64: Bins that were left out as outliers.
    rejected: I64
    #: [flat, amplifier], float64: Brightness of an amplifier in a flat over that in all, relative to the flat's median.
    drifts: F64
    #: [flat, amplifier], float64: Its standard error.
    errors: F64


def stacked(flats: NDArray[np.float32], amplifier: I64, number: int, nsigma: float = 5.0) -> Stack:
    """Average each bin over flats; a value far from the bin's median, as of a cosmic ray, is left out.

    Parameters
    ----------
    flats : `numpy.ndarray` [flat, bin], float32
        Each over its median, so that a lamp's changes count for nothing; NaN where bad.
    amplifier : `numpy.ndarray` [bin], int64
        Number of each bin's amplifier.
    number : `int`
        Amplifiers of the detector.
    nsigma : `float`
        Rejection, in standard deviations of the flat's bins from the medians.  Two flats tell no outlier.
    """
    known = np.isfinite(flats).any(axis=0)
    rejected = np.zeros(len(flats), np.int64)
    good = flats.copy()
    if len(flats) > 2:
        middle = np.full(flats.shape[1], np.nan, np.float32)
        middle[known] = np.nanmedian(flats[:, known], axis=0)
        for k, flat in enumerate(flats):
            off = np.abs(flat - middle)
            limit = nsigma * MAD * float(np.nanmedian(off)) if np.isfinite(off).any() else 0.0
            far = off > max(limit * np.sqrt(len(flats) / (len(flats) - 1)), 1e-12)
            good[k, far], rejected[k] = np.nan, int(far.sum())
    values = np.full(flats.shape[1], np.nan)
    known = np.isfinite(good).any(axis=0)
    values[known] = np.nanmean(good[:, known], axis=0, dtype=np.float64)
    drifts, errors = np.full((2, len(flats), number), np.nan)
    for k in range(number):
        part = good[:, amplifier == k] / values[amplifier == k]
        some = np.isfinite(part).any(axis=1)
        if part.size and some.any():
            drifts[some, k] = np.nanmedian(part[some], axis=1)
            counts = np.isfinite(part[some]).sum(axis=1)
            errors[some, k] = np.sqrt(np.pi / 2 / counts) * np.nanstd(part[some], axis=1)
    return Stack(values, rejected, drifts / np.nanmedian(drifts, axis=1, keepdims=True), errors)


def combined(flats: Sequence[Ratios]) -> Ratios:
    """Take medians over flats, with the standard errors of medians of Gaussian values."""
    factors = np.array([one.factors for one in flats])
    seen = np.isfinite(factors).any(axis=0)
    number = np.isfinite(factors).sum(axis=0)[seen]
    middle = np.full(seen.shape, np.nan)
    middle[seen] = np.nanmedian(factors[:, seen], axis=0)

    def error(each: Sequence[F64]) -> F64:
        out = np.full(seen.shape, np.nan)
        one = np.sqrt(np.nanmean(np.array(each)[:, seen] ** 2, axis=0))
        out[seen] = one * np.where(number > 2, np.sqrt(np.pi / 2), 1.0) / np.sqrt(number)
        return out

    return Ratios(middle, error([one.errors for one in flats]), error([one.apart for one in flats]))


def levelled(flats: Sequence[Ratios], levels: F64, nsigma: float = 5.0) -> Ratios:
    """Combine flats of unlike brightness, without what a remainder of the electronics' offset adds to the faint ones.

    An offset of s ADU in an amplifier makes its factor f (1 + s / level).  For each amplifier log f and s are fitted,
    weighted by the flats' errors, without outliers; errors are scaled by chi2 where that is above 1.  Pixels respond
    alike in all flats, so that no error is below that of the best flat.  Few flats, or flats of one brightness, are
    combined by medians (`combined`).

    Parameters
    ----------
    levels : `numpy.ndarray` [flat], float64
        Brightness of each flat, ADU.
    """
    if len(flats) < LEAST or levels.max() < SPAN * levels.min():
        return combined(flats)
    factors, apart = (np.array([getattr(one, name) for one in flats]) for name in ("factors", "apart"))
    design = np.stack([np.ones(len(levels)), levels.min() / levels], axis=1)
    made = np.full((2, factors.shape[1]), np.nan)
    for k in range(factors.shape[1]):
        keep = np.isfinite(factors[:, k]) & (apart[:, k] > 0)
        if keep.sum() < LEAST:
            continue
        logs, sigma = np.log(np.where(keep, factors[:, k], 1.0)), np.where(keep, apart[:, k] / factors[:, k], 1.0)
        for _ in range(3):
            weighted = design[keep] / sigma[keep, np.newaxis]
            inverse = np.linalg.inv(weighted.T @ weighted)
            found = inverse @ (weighted.T @ (logs[keep] / sigma[keep]))
            pulls = (logs - design @ found) / sigma
            scale = max(1.0, MAD * float(np.median(np.abs(pulls[keep]))))
            new = keep & (np.abs(pulls) <= nsigma * scale)
            if (new == keep).all() or new.sum() < LEAST:
                break
            keep = new
        chi2 = max(1.0, float((pulls[keep] ** 2).sum()) / (int(keep.sum()) - 2))
        error = np.hypot(np.sqrt(inverse[0, 0] * chi2), sigma[keep].min())
        made[:, k] = np.exp(found[0]), np.exp(found[0]) * error
    return Ratios(made[0], made[1], made[1])


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
