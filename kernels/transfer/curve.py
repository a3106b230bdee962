"""Photon transfer curves: gain, noise and the coefficients a of the brighter-fatter effect from covariances of flats.

Covariances in ADU^2 at a mean of mu ADU are those of `kernels.transfer.spectrum` at M = mu g electrons, divided by g^2,
plus n_ij / g^2.  All amplifiers are fitted alone.  The weights are those of the model, not of the measured variances,
which would bias the gain by -4 / pixels: var(C_ij) = C_00^2 / N_ij, twice that for C_00.  Errors are scaled by the
reduced chi^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from kernels.transfer import turnoff as ends
from kernels.transfer.covariance import Pair
from kernels.transfer.spectrum import Grid, Spectra, exact, series

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Levels within this factor are one level.
NARROW = 1.5
#: A read noise whose square is further below 0 than this many of its errors is none.
BELOW = 5.0
#: Range of gains that can be, electron/ADU.
GAINS = (0.1, 10.0)
#: Rounds of a fit, and the step, in errors of the parameters, at which it ends.
ROUNDS, CLOSE = 60, 1e-3
#: Rounds with whole steps, and the part of later ones: with b, whole steps may swing about the minimum.
WHOLE, DAMPED = 4, 0.6


class Model(StrEnum):
    """Models; all but EXACT by cp_pipe's names."""

    #: b = 0, to all orders.
    EXACT = "EXACT"
    FULLCOVARIANCE = "FULLCOVARIANCE"
    FULLCOVARIANCE_NO_B = "FULLCOVARIANCE_NO_B"
    #: C_00 alone, by its own a_00: it leaves out what neighbours do (1 % of a_00 at 90,000 electrons).
    EXPAPPROXIMATION = "EXPAPPROXIMATION"


class Bad(ValueError):
    """An amplifier without a usable curve, and why."""


@dataclass(frozen=True)
class Points:
    """Measurements of an amplifier; i is the lag along x, j along y."""

    #: [point], float64: ADU.
    means: F64
    #: [point, i, j], float64: ADU^2.
    covariances: F64
    #: [point, i, j], float64: Pairs of pixels behind each covariance.
    counts: F64

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Points:
        """Take the pairs of flats that could be measured."""
        means = np.array([pair.mean for pair in pairs])
        return cls(means, np.array([p.covariances for p in pairs]), np.array([p.counts for p in pairs], np.float64))

    def chosen(self, which: Bool, side: int) -> Points:
        """Take some of the points, and lags below ``side``."""
        return Points(self.means[which], self.covariances[which, :side, :side], self.counts[which, :side, :side])


@dataclass(frozen=True)
class Curve:
    """Result for one amplifier; matrices are [i, j], i along x, and float64."""

    model: Model
    #: Electron/ADU.
    gain: float
    gain_error: float
    #: Square root of |n_00|, electron.
    noise: float
    noise_error: float
    #: 1/electron.
    a: F64
    a_error: F64
    #: Of a, in the order of ``a.ravel()``, 1/electron^2.
    a_covariance: F64
    #: 1/electron; 0 in models without b.
    b: F64
    b_error: F64
    #: n, electron^2.
    noise_matrix: F64
    noise_matrix_error: F64
    #: Sum of squared residuals over their variances, and degrees of freedom.
    chi2: float
    freedom: int
    #: [point], bool: The points that were fitted.
    good: Bool
    #: [point, i, j], float64: Model at all points, ADU^2.
    fitted: F64
    turnoff: ends.Turnoff
    rolloff: ends.Rolloff | None = None

    @property
    def reduced(self) -> float:
        """Chi^2 per degree of freedom."""
        return self.chi2 / self.freedom


@dataclass(frozen=True)
class Rule:
    """Settings of the fit."""

    model: Model = Model.EXACT
    #: Lags per axis, 0 included.
    side: int = 10
    #: Range of means, ADU.
    least: float = 0.0
    most: float = 1e6
    turnoff: ends.Rule = field(default_factory=ends.Rule)
    #: Share of the variance whose loss ends the curve below the turnoff; none: the curve ends at the turnoff.
    rolloff: float | None = None


@dataclass(frozen=True)
class Solution:
    """Curves of a detector."""

    #: By amplifier.
    curves: Mapping[str, Curve]
    #: Reason by amplifier that has no curve.
    bad: Mapping[str, str]


@dataclass(frozen=True)
class _State:
    """Parameters of a fit: gain, a, c = a b, and the constant terms in ADU^2."""

    gain: float
    a: F64
    c: F64
    floor: F64


class _Fit:
    """One fit by Gauss and Newton, with weights from the model of the round before."""

    def __init__(self, points: Points, model: Model) -> None:
        self.points, self.model, self.side = points, model, points.covariances.shape[1]
        self.grid = Grid(self.side)
        self.with_b = model is Model.FULLCOVARIANCE
        self.relative = points.counts.copy()
        self.relative[:, 0, 0] /= 2  # of C_00 itself

    def spectra(self, state: _State, means: F64) -> Spectra:
        """Evaluate the model's spectrum."""
        a = self.grid.spectrum(state.a)
        if self.model in (Model.EXACT, Model.EXPAPPROXIMATION):
            return exact(a, means * state.gain)
        return series(a, self.grid.spectrum(state.c), means * state.gain, self.with_b)

    def values(self, state: _State, means: F64) -> F64:
        """Evaluate the model, ADU^2."""
        return self.grid.lags(self.spectra(state, means).value) / state.gain**2 + state.floor

    def linear(self, state: _State) -> tuple[F64, F64]:
        """Residuals [point, ij] and derivatives [point, ij, parameter] but those of the constant terms, which are 1."""
        g, found, grid = state.gain, self.spectra(state, self.points.means), self.grid
        value = grid.lags(found.value)
        by_signal = grid.lags(found.by_signal) * self.points.means[:, np.newaxis, np.newaxis]
        by_gain = by_signal / g**2 - 2 * value / g**3
        columns = [by_gain.reshape(len(value), -1, 1), grid.derivatives(found.by_a) / g**2]
        if found.by_c is not None:
            columns.append(grid.derivatives(found.by_c) / g**2)
        residuals = self.points.covariances - value / g**2 - state.floor
        return residuals.reshape(len(value), -1), np.concatenate(columns, axis=2)

    def weights(self, state: _State) -> F64:
        """Inverse variances [point, ij], by the model."""
        variance = np.maximum(self.values(state, self.points.means)[:, 0, 0], 1e-6)
        return (self.relative / variance[:, np.newaxis, np.newaxis] ** 2).reshape(len(variance), -1)

    def normal(self, state: _State) -> tuple[F64, F64]:
        """Matrix and right side of the normal equations; the constant terms are the last parameters."""
        residuals, jacobian = self.linear(state)
        weights, k = self.weights(state), jacobian.shape[2]
        weighted = jacobian * weights[:, :, np.newaxis]
        cross = weighted.sum(axis=0).T  # [parameter, constant term]
        inner = weighted.reshape(-1, k).T @ jacobian.reshape(-1, k)
        matrix = np.block([[inner, cross], [cross.T, np.diag(weights.sum(axis=0))]])
        right = np.einsum("pcn,pc->n", weighted, residuals)
        return matrix, np.concatenate([right, (weights * residuals).sum(axis=0)])

    def moved(self, state: _State, step: F64) -> _State:
        """Add a step to the parameters."""
        n, shape = self.side**2, (self.side, self.side)
        c = state.c + step[1 + n : 1 + 2 * n].reshape(shape) if self.with_b else state.c
        gain = state.gain * float(np.clip(1 + step[0] / state.gain, 0.5, 2.0))
        return _State(gain, state.a + step[1 : 1 + n].reshape(shape), c, state.floor + step[-n:].reshape(shape))

    def run(self, state: _State) -> tuple[_State, F64]:
        """Iterate to the end; also give the covariance of the parameters.

        Raises
        ------
        Bad
            The fit does not converge.
        """
        for attempt in range(ROUNDS):
            with np.errstate(over="ignore", invalid="ignore"):  # of a state that is far off
                matrix, right = self.normal(state)
            if not (np.isfinite(matrix).all() and (np.diag(matrix) > 0).all()):
                break
            scale = 1 / np.sqrt(np.diag(matrix))
            try:
                inverse = np.linalg.inv(matrix * np.outer(scale, scale)) * np.outer(scale, scale)
            except np.linalg.LinAlgError as error:
                raise Bad(self.unlike()) from error
            if not (np.diag(inverse) > 0).all():  # singular, but for rounding
                raise Bad(self.unlike())
            step = inverse @ right
            state = self.moved(state, step if attempt < WHOLE else DAMPED * step)
            if not np.isfinite(step).all():
                break
            if (np.abs(step) <= CLOSE * np.sqrt(np.abs(np.diag(inverse)))).all():
                return state, inverse
        alike = self.points.means.max() < NARROW * self.points.means.min()
        raise Bad(
            self.unlike() if alike else f"the {self.model} fit to {len(self.points.means)} points does not converge"
        )

    def unlike(self) -> str:
        """Say that the points' levels are too few, or too close, to tell the parameters apart."""
        means = self.points.means
        where = f"{len(means)} points between {means.min():.4g} and {means.max():.4g} ADU"
        return f"{where} do not determine the {self.model} model: take pairs at many levels, from noise to saturation"

    def chi2(self, state: _State) -> float:
        """Sum of squared residuals over their variances."""
        residuals = self.points.covariances - self.values(state, self.points.means)
        return float((self.weights(state) * residuals.reshape(len(residuals), -1) ** 2).sum())


def _start(points: Points, curve: ends.Variance) -> _State:
    """Begin with the gain and a_00 of the unweighted fit of C_00, and a parabola for each other lag."""
    gain, n = 1 / curve.inverse_gain, points.covariances.shape[1]
    weights = 1 / points.covariances[:, 0, 0]
    design = np.stack([np.ones_like(points.means), points.means**2], axis=1)
    right = (points.covariances * weights[:, np.newaxis, np.newaxis]).reshape(len(weights), -1)
    found = np.linalg.lstsq(design * weights[:, np.newaxis], right, rcond=None)[0]
    a, floor = found[1].reshape(n, n).copy(), found[0].reshape(n, n).copy()
    a[0, 0], floor[0, 0] = curve.slope * curve.inverse_gain, curve.floor
    return _State(gain, a, np.zeros((n, n)), floor)


def _curve(fit: _Fit, state: _State, covariance: F64, every: Points, good: Bool, end: ends.Turnoff) -> Curve:
    """Put a fit's result into units of electrons, with errors."""
    n, shape, g = fit.side**2, (fit.side, fit.side), state.gain
    freedom = fit.points.covariances.size - len(covariance)
    chi2 = fit.chi2(state)
    covariance = covariance * (chi2 / freedom)
    errors = np.sqrt(np.diag(covariance))
    of_a = slice(1, 1 + n)
    b, b_error = np.zeros(shape), np.zeros(shape)
    if fit.with_b:
        of_c = slice(1 + n, 1 + 2 * n)
        b, cross = state.c / state.a, np.diag(covariance[of_a, of_c]).reshape(shape)
        square = errors[of_c].reshape(shape) ** 2 - 2 * b * cross + b**2 * errors[of_a].reshape(shape) ** 2
        b_error = np.sqrt(np.maximum(square, 0)) / np.abs(state.a)
    by_gain, by_floor = 2 * state.floor * g, g**2
    square = by_gain.ravel() ** 2 * covariance[0, 0] + by_floor**2 * errors[-n:] ** 2
    square += 2 * by_gain.ravel() * by_floor * covariance[0, -n:]
    noise, noise_error = state.floor * g**2, np.sqrt(np.maximum(square, 0)).reshape(shape)
    sigma = float(np.sqrt(abs(noise[0, 0])))
    return Curve(
        fit.model, g, float(errors[0]), sigma, float(noise_error[0, 0]) / (2 * sigma) if sigma else float("inf"),
        state.a, errors[of_a].reshape(shape), covariance[of_a, of_a], b, b_error, noise, noise_error,
        chi2, freedom, good, fit.values(state, every.means), end,
    )  # fmt: skip


def fit(points: Points, rule: Rule | None = None) -> Curve:
    """Fit one amplifier's curve.

    Raises
    ------
    Bad
        Too few points, no turnoff, a fit that does not converge, or a gain or a read noise that cannot be.
    """
    rule = rule or Rule()
    side = 1 if rule.model is Model.EXPAPPROXIMATION else min(rule.side, points.covariances.shape[1])
    means, variances = points.means, points.covariances[:, 0, 0]
    within = (means >= rule.least) & (means <= rule.most)
    try:
        end = ends.turnoff(np.where(within, means, np.nan), variances, rule.turnoff, points.counts[:, 0, 0])
        rolloff = None if rule.rolloff is None else ends.rolloff(means, variances, end, rule.rolloff)
    except (ends.NoTurnoff, ArithmeticError) as error:
        raise Bad(str(error)) from error
    good = end.good if rolloff is None else rolloff.good
    parameters = 3 if rule.model is not Model.FULLCOVARIANCE else 4  # of each lag, and the gain
    if good.sum() < parameters + 1:
        raise Bad(f"{good.sum()} points lie on the curve, the {rule.model} model needs {parameters + 1}")
    made = _Fit(points.chosen(good, side), rule.model)
    curve = _curve(made, *made.run(_start(made.points, end.curve)), points, good, end)
    if not GAINS[0] <= curve.gain <= GAINS[1]:
        raise Bad(f"a gain of {curve.gain:.4g} electron/ADU is not within {GAINS[0]:g} and {GAINS[1]:g}")
    square, sigma = curve.noise_matrix[0, 0], curve.noise_matrix_error[0, 0]
    if square < -BELOW * sigma:
        raise Bad(
            f"{square:.4g} +- {sigma:.2g} electron^2 for the square of the read noise: light does not begin at 0 ADU "
            f"but near {-square / curve.gain:.4g}, an offset stays in the frames"
        )
    return replace(curve, rolloff=rolloff)


def solve(detector: Mapping[str, Points], rule: Rule | None = None) -> Solution:
    """Fit each amplifier of a detector; those without a curve are named with the reason."""
    curves: dict[str, Curve] = {}
    bad: dict[str, str] = {}
    for name, points in detector.items():
        try:
            curves[name] = fit(points, rule)
        except Bad as error:
            bad[name] = str(error)
    return Solution(curves, bad)
