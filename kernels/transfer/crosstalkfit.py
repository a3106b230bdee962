"""Crosstalk between amplifiers by one joint fit of each target on all of its sources, linear and quadratic.

In pixels where a source is bright, the target exceeds its background by

    sum over sources s of  c0_s (x_s - b_s) + c1_s (x_s^2 - b_s^2),

x_s being the source's signal at the same place of the read-out and b_s its background: the crosstalk of backgrounds is
part of the target's own.  Weights are those of the noise of single pixels.  Errors are those of the coefficients: the
noise scaled by chi^2, and the errors of the background, which a box, a column or a row of pixels has in common (the
covariance of least squares with correlated noise: Seber and Lee 2003, Linear Regression Analysis, section 3.10).
cp_pipe's CrosstalkSolveTask takes the scatter of single ratios for the error of their mean, and lets each source be
disturbed by the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.transfer.crosstalkpixels import Lit

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Least eigenvalue of the normal equations, relative to the largest.
SINGULAR = 1e-12


@dataclass(frozen=True)
class Rule:
    """Settings of the fit."""

    #: Fewest bright pixels of a source.
    least: int = 20
    #: Residuals beyond this many standard deviations are rejected, so many times.
    nsigma: float = 5.0
    passes: int = 3
    #: Whether c1 is fitted.
    quadratic: bool = True
    #: Significance of a valid coefficient, in standard deviations of a normal value.
    significant: float = 3.0


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
    #: bool: Whether c0 and c1 together are significant.
    valid: Bool
    #: [target], float64: Reduced chi^2, by which the errors are scaled.
    chi2: F64
    #: [target], int64: Pixels that were rejected.
    rejected: NDArray[np.int64]
    #: Reason by number of a target without coefficients.
    bad: dict[int, str]


@njit
def _regressors(signals, excess, place, sources, quadratic, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with x - b of each source, and then with x^2 - b^2."""
    m = sources.size
    for k in range(m):
        d = np.float64(excess[sources[k], place])
        out[k] = d
        if quadratic:
            out[m + k] = d * (2.0 * np.float64(signals[sources[k], place]) - d)


@njit
def _accumulate(signals, excess, weight, target, sources, quadratic, normal, right):  # type: ignore[no-untyped-def]
    """Add the pixels of a frame to the normal equations; the order of the sums is that of the pixels."""
    n = normal.shape[0]
    x = np.empty(n)
    for place in range(weight.size):
        w = weight[place]
        if w > 0:
            _regressors(signals, excess, place, sources, quadratic, x)
            for i in range(n):
                wx = w * x[i]
                right[i] += wx * target[place]
                for j in range(n):
                    normal[i, j] += wx * x[j]


@njit
def _predict(signals, excess, sources, quadratic, found, out):  # type: ignore[no-untyped-def]
    """Compute the crosstalk of each place of a frame."""
    x = np.empty(found.size)
    for place in range(out.size):
        _regressors(signals, excess, place, sources, quadratic, x)
        total = 0.0
        for i in range(found.size):
            total += found[i] * x[i]
        out[place] = total


@njit
def _share(signals, excess, weight, group, variance, sources, quadratic, meat):  # type: ignore[no-untyped-def]
    """Add to ``meat`` what an error adds that all pixels of a group share; variances are by group."""
    n = meat.shape[0]
    x, sums = np.empty(n), np.zeros((variance.size, n))
    for place in range(weight.size):
        w = weight[place]
        if w > 0:
            _regressors(signals, excess, place, sources, quadratic, x)
            for i in range(n):
                sums[group[place], i] += w * x[i]
    for g in range(variance.size):
        v = variance[g]
        if v > 0:
            for i in range(n):
                if sums[g, i] != 0:
                    vx = v * sums[g, i]
                    for j in range(n):
                        meat[i, j] += vx * sums[g, j]


@dataclass(frozen=True)
class _Target:
    """One target in all frames: signals and excess [amplifier, place] of the frames, excess and variance [place]."""

    frames: Sequence[Lit]
    k: int
    sources: NDArray[np.int64]
    quadratic: bool

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return len(self.sources) * (2 if self.quadratic else 1)

    def of(self, frame: Lit) -> tuple[Any, ...]:
        """Give what the compiled functions read of a frame."""
        return frame.signals, frame.excess

    def solve(self, weights: Sequence[F64]) -> tuple[F64, F64]:
        """Solve the weighted least squares: coefficients, and the inverse of the normal equations.

        Raises
        ------
        numpy.linalg.LinAlgError
            Sources cannot be told apart.
        """
        normal, right = np.zeros((self.size, self.size)), np.zeros(self.size)
        for frame, weight in zip(self.frames, weights, strict=True):
            target = frame.excess[self.k].astype(np.float64)
            _accumulate(*self.of(frame), weight, target, self.sources, self.quadratic, normal, right)
        size = np.sqrt(np.diag(normal))
        if not (size > 0).all():
            raise np.linalg.LinAlgError("a source has no pixel left")
        strength, axes = np.linalg.eigh(normal / np.outer(size, size))
        if not strength[0] > SINGULAR * strength[-1]:
            many = sum(int((weight > 0).sum()) for weight in weights)
            raise np.linalg.LinAlgError(f"in {many} pixels some sources only shine together")
        inverse = np.asarray(np.einsum("ik,k,jk->ij", axes, 1 / strength, axes) / np.outer(size, size))
        return np.asarray(np.einsum("ij,j->i", inverse, right)), inverse

    def residuals(self, found: F64) -> list[F64]:
        """Give what the coefficients leave, by frame [place], electron."""
        left = []
        for frame in self.frames:
            out = np.empty(frame.signals.shape[1])
            _predict(*self.of(frame), self.sources, self.quadratic, found, out)
            left.append(frame.excess[self.k] - out)
        return left

    def shared(self, weights: Sequence[F64], inverse: F64) -> F64:
        """Give the covariance by the errors of the background."""
        meat = np.zeros((self.size, self.size))
        for frame, weight in zip(self.frames, weights, strict=True):
            for group, variance in (
                (frame.column, frame.column_variance),
                (frame.row, frame.row_variance),
                (frame.box, frame.box_variance),
            ):
                _share(*self.of(frame), weight, group, variance[self.k], self.sources, self.quadratic, meat)
        return np.asarray(np.einsum("ij,jk,kl->il", inverse, meat, inverse))


@dataclass(frozen=True)
class _Fit:
    found: F64
    covariance: F64
    chi2: float
    rejected: int


def _fit(target: _Target, rule: Rule) -> _Fit:
    """Fit one target on its sources; reject pixels that nothing explains."""
    usable = [frame.usable[target.k] for frame in target.frames]
    variances = [frame.variance[target.k].astype(np.float64) for frame in target.frames]
    keep, first = usable, sum(int(some.sum()) for some in usable)
    for attempt in range(rule.passes + 1):
        weights = [np.where(k, 1 / np.where(k, v, 1.0), 0.0) for k, v in zip(keep, variances, strict=True)]
        found, inverse = target.solve(weights)
        left = target.residuals(found)
        used = sum(int(some.sum()) for some in keep)
        chi2 = math.fsum(float((w * r**2).sum()) for w, r in zip(weights, left, strict=True)) / max(
            used - target.size, 1
        )
        limit = rule.nsigma**2 * max(chi2, 1.0)
        new = [u & (r**2 < limit * v) for u, r, v in zip(usable, left, variances, strict=True)]
        same = all((a == b).all() for a, b in zip(new, keep, strict=True))
        if attempt == rule.passes or same or sum(int(some.sum()) for some in new) <= 2 * target.size:
            break
        keep = new
    return _Fit(found, inverse * chi2 + target.shared(weights, inverse), chi2, first - used)


def threshold(significant: float, quadratic: bool) -> float:
    """Give the chi^2 of one value, or of two, that is as improbable as a normal value beyond ``significant``."""
    return -2 * math.log(math.erfc(significant / math.sqrt(2))) if quadratic else significant**2


def _excess(found: F64, covariance: F64) -> float:
    """Compute chi^2 of values against 0."""
    return float(found @ np.linalg.solve(covariance, found))


def counted(frames: Sequence[Lit], k: int) -> NDArray[np.int64]:
    """Count the bright pixels of each source that reach usable pixels of a target."""
    total = np.zeros(len(frames[0].bright) if frames else 0, np.int64)
    for frame in frames:
        total += (frame.bright & frame.usable[k]).sum(axis=1)
    return total


def fit(frames: Sequence[Lit], rule: Rule | None = None) -> Crosstalk:
    """Fit all targets.

    Parameters
    ----------
    frames : sequence of `Lit`
        At least one; in an order that decides the last bits.
    rule : `Rule`, optional
        Settings.
    """
    rule, n = rule or Rule(), len(frames[0].signals)
    frames = [frame for frame in frames if frame.signals.shape[1]] or list(frames[:1])
    c0, c1, error0, error1 = (np.full((n, n), np.nan) for _ in range(4))
    counts, chi2, bad = np.zeros((n, n), np.int64), np.full(n, np.nan), dict[int, str]()
    valid, rejected = np.zeros((n, n), np.bool_), np.zeros(n, np.int64)
    for k in range(n):
        counts[k] = counted(frames, k)
        sources = np.flatnonzero(counts[k] >= rule.least)
        pixels = sum(int(frame.usable[k].sum()) for frame in frames)
        target = _Target(frames, k, sources, rule.quadratic)
        if not len(sources) or pixels <= 2 * target.size:
            bad[k] = f"{pixels} pixels beside bright ones, at most {counts[k].max()} of one source"
            continue
        try:
            one = _fit(target, rule)
        except np.linalg.LinAlgError as error:
            bad[k] = str(error)
            continue
        errors, m = np.sqrt(np.diag(one.covariance)), len(sources)
        c0[k, sources], error0[k, sources] = one.found[:m], errors[:m]
        c1[k, sources], error1[k, sources] = (one.found[m:], errors[m:]) if rule.quadratic else (0.0, 0.0)
        chi2[k], rejected[k] = one.chi2, one.rejected
        for place, s in enumerate(sources):
            own = np.arange(place, target.size, m)
            together = _excess(one.found[own], one.covariance[np.ix_(own, own)])
            valid[k, s] = together > threshold(rule.significant, rule.quadratic)
    return Crosstalk(c0, error0, c1, error1, counts, valid, chi2, rejected, bad)
