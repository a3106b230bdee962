"""Non-linear least squares by Levenberg and Marquardt, within bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
#: Gives residuals [k] and their derivatives [k, parameter] at the parameters.
Model = Callable[[F64], tuple[F64, F64]]

ROUNDS = 200
#: Relative gain of chi^2, and relative change of the parameters, at which the fit ends.
GAIN, CHANGE = 1e-12, 1e-10


def _free(values: F64, gradient: F64, lower: F64, upper: F64) -> NDArray[np.bool_]:
    """Find the parameters that are not held by a bound."""
    return ~(((values <= lower) & (gradient > 0)) | ((values >= upper) & (gradient < 0)))


def minimise(model: Model, start: F64, lower: F64 | None = None, upper: F64 | None = None) -> tuple[F64, float]:
    """Minimise the sum of squared residuals (Marquardt 1963, SIAM J. Appl. Math. 11, 431).

    Parameters
    ----------
    model : callable
        Residuals and their derivatives.
    start : `numpy.ndarray` [parameter], float64
        Within the bounds.
    lower, upper : `numpy.ndarray` [parameter], float64, optional
        Bounds.

    Returns
    -------
    values : `numpy.ndarray` [parameter], float64
        Best parameters.
    chi2 : `float`
        Sum of squared residuals.

    Raises
    ------
    ArithmeticError
        Residuals at the start are not finite, or the fit does not converge.
    """
    lower = np.full(start.shape, -np.inf) if lower is None else lower
    upper = np.full(start.shape, np.inf) if upper is None else upper
    values, damping = start.astype(np.float64), 1e-3
    residuals, jacobian = model(values)
    chi2 = float(residuals @ residuals)
    if not np.isfinite(chi2):
        raise ArithmeticError("a fit begins with values that are not finite")
    for _ in range(ROUNDS):
        gradient = jacobian.T @ residuals
        free = _free(values, gradient, lower, upper)
        scale = np.maximum(np.sqrt((jacobian**2).sum(axis=0)), 1e-300)
        normal = (jacobian / scale).T @ (jacobian / scale)
        while True:
            step = np.zeros_like(values)
            matrix = normal[np.ix_(free, free)] + damping * np.eye(int(free.sum()))
            step[free] = -np.linalg.lstsq(matrix, (gradient / scale)[free], rcond=None)[0] / scale[free]
            there = np.clip(values + step, lower, upper)
            new, slopes = model(there)
            better = float(new @ new)
            if better <= chi2 or damping > 1e12:
                break
            damping *= 4
        if not better <= chi2:
            return values, chi2
        small = bool((np.abs(there - values) * scale <= CHANGE * np.abs(there) * scale + 1e-300).all())
        ended = chi2 - better <= GAIN * chi2 and damping < 1
        values, residuals, jacobian, chi2, damping = there, new, slopes, better, damping / 8
        if small or ended:
            return values, chi2
    raise ArithmeticError(f"a fit did not converge in {ROUNDS} rounds")
