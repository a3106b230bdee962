"""Crosstalk between amplifiers by one joint fit of each target on all of its sources, linear and quadratic.

In pixels where a source is bright, the target has its background, and

    sum over sources s of  c0_s x_s + c1_s x_s^2,

x_s being the source's signal at the same place of the read-out.  Weights are those of the noise, so that errors are
those of the coefficients: cp_pipe's CrosstalkSolveTask takes the scatter of single ratios for the error of their mean,
and lets each source be disturbed by the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Least eigenvalue of the normal equations, relative to the largest.
SINGULAR = 1e-12


@dataclass(frozen=True)
class Rule:
    """Settings of the measurement."""

    #: Signal of a source's pixel, electron.
    bright: float = 30_000.0
    #: Signal above its background at which a target's pixel shows light of its own, more than any crosstalk, electron.
    own: float = 300.0
    #: Distance that the background keeps from bright pixels, and all that is used from the target's own light, pixel.
    grow: int = 20
    #: Side of the boxes whose medians are the background, pixel.
    box: int = 64
    #: Fewest bright pixels of a source.
    least: int = 20
    #: Residuals beyond this many standard deviations are rejected, so many times.
    nsigma: float = 5.0
    passes: int = 3
    #: Whether c1 is fitted.
    quadratic: bool = True
    #: Errors by which a valid coefficient exceeds 0.
    significant: float = 3.0


@dataclass(frozen=True)
class Rows:
    """Pixels of one target that bright sources reach."""

    #: [pixel, source], float64: Signals of all amplifiers above the bias, electron; the target's own is 0.
    sources: F64
    #: [pixel], float64: Target less its background, and the variance of that, electron and electron^2.
    target: F64
    variance: F64

    def __add__(self, other: Rows) -> Rows:
        pairs = ((getattr(self, n), getattr(other, n)) for n in ("sources", "target", "variance"))
        return Rows(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True)
class Crosstalk:
    """Coefficients [target, source], float64, for signals in electron; not a number where a source was never bright."""

    c0: F64
    c0_error: F64
    #: 1/electron; 0 where it was not fitted.
    c1: F64
    c1_error: F64
    #: int64: Bright pixels.
    counts: NDArray[np.int64]
    #: bool: Whether c0 is significant.
    valid: Bool
    #: [target], float64: Reduced chi^2, by which the errors are scaled.
    chi2: F64
    #: Reason by number of a target without coefficients.
    bad: dict[int, str]


def _grown(mask: Bool, by: int) -> Bool:
    """Grow a mask to a square around each pixel."""
    for axis in (0, 1):
        total = np.cumsum(np.insert(mask, 0, False, axis=axis), axis=axis, dtype=np.int64)
        n = mask.shape[axis]
        low, high = np.maximum(np.arange(n) - by, 0), np.minimum(np.arange(n) + by + 1, n)
        mask = np.take(total, high, axis) > np.take(total, low, axis)
    return mask


def background(image: F32, masked: Bool, box: int) -> F64:
    """Take medians of boxes without the masked pixels, and interpolate linearly between their centres; electron."""
    rows, columns = (max(round(n / box), 1) for n in image.shape)
    edges = [np.linspace(0, n, k + 1).astype(int) for n, k in zip(image.shape, (rows, columns), strict=True)]
    values = np.full((rows, columns), np.nan)
    for j in range(rows):
        for i in range(columns):
            place = slice(edges[0][j], edges[0][j + 1]), slice(edges[1][i], edges[1][i + 1])
            fine = image[place][~masked[place]]
            if fine.size >= box:
                values[j, i] = np.median(fine)
    known = np.isfinite(values)
    values[~known] = np.median(values[known]) if known.any() else 0.0
    centres = [(e[1:] + e[:-1] - 1) / 2 for e in edges]
    down = np.array([np.interp(np.arange(image.shape[0]), centres[0], column) for column in values.T]).T
    return np.array([np.interp(np.arange(image.shape[1]), centres[1], row) for row in down])


def gather(signals: F32, good: Bool, noise: F64, rule: Rule | None = None) -> list[Rows]:
    """Collect the pixels of one frame that tell crosstalk.

    Parameters
    ----------
    signals : `numpy.ndarray` [amplifier, y, x], float32
        In the order of the read-out, above the overscan, without correction of crosstalk, electron.
    good : `numpy.ndarray` [amplifier, y, x], bool
        Pixels that can be used.
    noise : `numpy.ndarray` [amplifier], float64
        Read noise, electron.
    rule : `Rule`, optional
        Settings.

    Returns
    -------
    rows : `list` [`Rows`]
        One a target.
    """
    rule = rule or Rule()
    good = np.asarray(good & np.isfinite(signals))
    bright = np.asarray(good & (signals > rule.bright))
    usable, found = np.asarray(good.all(axis=0)), []
    for k, image in enumerate(signals):
        others = bright.copy()
        others[k] = False
        lit = np.asarray(others.any(axis=0))
        around = _grown(lit, rule.grow) | ~good[k]
        first = background(image, around | _grown(bright[k], rule.grow), rule.box)
        own = _grown(good[k] & (np.abs(image - first) > rule.own), rule.grow)
        level = background(image, around | own, rule.box)
        rows = lit & usable & ~own
        sources = signals[:, rows].T.astype(np.float64)
        sources[:, k] = 0.0
        variance = noise[k] ** 2 + np.maximum(level[rows], 0.0)
        found.append(Rows(sources, image[rows] - level[rows], variance))
    return found


def _normal(design: F64, target: F64, weight: F64) -> tuple[F64, F64, float]:
    """Solve one weighted least squares: coefficients, covariance, reduced chi^2."""
    rows = design * np.sqrt(weight)[:, np.newaxis]
    size = np.sqrt((rows**2).sum(axis=0))
    strength, axes = np.linalg.eigh((rows / size).T @ (rows / size))
    if not strength[0] > SINGULAR * strength[-1]:
        raise np.linalg.LinAlgError(f"in {len(target)} pixels some sources only shine together")
    inverse = (axes / strength) @ axes.T / np.outer(size, size)
    found = inverse @ (rows.T @ (target * np.sqrt(weight)))
    residuals = target - design @ found
    return found, inverse, float((weight * residuals**2).sum() / max(len(target) - len(found), 1))


def _fit(rows: Rows, used: Bool, rule: Rule) -> tuple[F64, F64, float]:
    """Fit one target on the sources in use; reject pixels that nothing explains."""
    x = rows.sources[:, used]
    design = np.concatenate([x, x**2], axis=1) if rule.quadratic else x
    keep = np.ones(len(x), np.bool_)
    for attempt in range(rule.passes + 1):
        found, inverse, chi2 = _normal(design[keep], rows.target[keep], 1 / rows.variance[keep])
        pull = np.abs(rows.target - design @ found) / np.sqrt(rows.variance * max(chi2, 1.0))
        new = pull < rule.nsigma
        if attempt == rule.passes or (new == keep).all() or new.sum() <= design.shape[1]:
            break
        keep = new
    return found, inverse * chi2, chi2


def fit(targets: Sequence[Rows], rule: Rule | None = None) -> Crosstalk:
    """Fit all targets.

    Parameters
    ----------
    targets : sequence of `Rows`
        One a target, each the sum over frames, in the order of the amplifiers.
    rule : `Rule`, optional
        Settings.
    """
    rule, n = rule or Rule(), len(targets)
    c0, c1, error0, error1 = (np.full((n, n), np.nan) for _ in range(4))
    counts, chi2, bad = np.zeros((n, n), np.int64), np.full(n, np.nan), dict[int, str]()
    for k, rows in enumerate(targets):
        counts[k] = (rows.sources > rule.bright).sum(axis=0)
        used = counts[k] >= rule.least
        if not used.any() or len(rows.target) <= 2 * used.sum():
            bad[k] = f"{len(rows.target)} pixels beside bright ones, at most {counts[k].max()} of one source"
            continue
        try:
            found, covariance, chi2[k] = _fit(rows, used, rule)
        except np.linalg.LinAlgError as error:
            bad[k] = str(error)
            continue
        errors, m = np.sqrt(np.diag(covariance)), int(used.sum())
        c0[k, used], error0[k, used] = found[:m], errors[:m]
        c1[k, used], error1[k, used] = (found[m:], errors[m:]) if rule.quadratic else (0.0, 0.0)
    with np.errstate(invalid="ignore"):
        valid = np.abs(c0) > rule.significant * error0
    return Crosstalk(c0, error0, c1, error1, counts, valid, chi2, bad)
