"""Linearity of a detector's amplifiers by one weighted linear least squares over all exposures.

See `kernels.transfer.linearmodel` for the model.  cp_pipe's LinearityDoubleSplineSolveTask makes three solutions, one
after another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.transfer.linearmodel import (
    MAD,
    Amplifier,
    Light,
    Model,
    PolynomialShape,
    Rule,
    Shape,
    SplineShape,
    Unlinear,
    gauge,
)
from kernels.transfer.splines import supported

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Change of the residuals, relative to the signal, at which the fit ends.
CLOSE = 1e-6


def worst(values: F64, used: Bool, rule: Rule, photons: F64, common: float = 0.0) -> I64:
    """Find the values furthest beyond the limit; lesser ones may be drawn by these, and wait for the next round.

    ``photons``: variances of the values by photon noise, which a faint signal has more of.
    """
    faint = np.sqrt(1 + photons / (common**2 + rule.floor**2))
    deviation = np.where(used, np.abs(values - np.median(values[used])) / faint, 0.0)
    excess = deviation / max(MAD * float(np.median(deviation[used])), rule.floor)
    worst = np.argsort(-excess, kind="stable")[: rule.at_once]
    return np.asarray(worst[(excess[worst] > rule.nsigma) & (excess[worst] > excess[worst[0]] / 2)])


def _rejected(residuals: F64, signals: F64, used: Bool, rule: Rule) -> Bool:
    """Find exposures whose residual is off in all amplifiers, and points that differ from their exposure's."""
    bad, seen = np.zeros(used.shape, np.bool_), np.asarray(used.any(axis=0))
    common = np.zeros(used.shape[1])
    common[seen] = np.nanmedian(np.where(used, residuals, np.nan)[:, seen], axis=0)
    photons = rule.photon**2 / np.maximum(signals, 1.0)
    bad[:, worst(common, seen, rule, photons.min(axis=0) / len(used), rule.monitor)] = True
    for k in range(len(used) if len(used) > 1 else 0):
        bad[k, worst(residuals[k] - common, used[k], rule, photons[k])] = True
    return bad & used


def _spline(nodes: F64, signals: F64, ptc: float) -> SplineShape:
    """Prepare a spline up to the largest signal, without nodes that no signals support."""
    end = min(float(nodes[-1]), float(signals.max(initial=nodes[2])))
    nodes = supported(np.append(nodes[nodes < end], end), signals)
    if len(nodes) < 3:
        raise Unlinear(f"{signals.size} points support fewer than 3 nodes")
    return SplineShape(nodes, gauge(nodes, ptc))


def prepare(
    signals: F64, used: Bool, light: Light, ptc: F64, nodes: F64 | int, own_nodes: Sequence[F64], rule: Rule
) -> Model:
    """Prepare the model of amplifiers that saw the same exposures; parameters and errors are those of `fit`."""
    finite = np.isfinite(signals) & (signals > 0) & np.isfinite(light.amount) & (light.amount > 0) & (light.group >= 0)
    used, signals = used & finite, np.where(finite, signals, 0.0)
    amount = np.where(np.isfinite(light.amount), light.amount, 0.0)
    light = Light(amount, light.group, light.temperature, light.date)
    chosen = [signal[mine] for signal, mine in zip(signals, used, strict=True)]
    common: Shape = PolynomialShape(nodes) if isinstance(nodes, int) else _spline(nodes, chosen[0], float(ptc[0]))
    own = zip(own_nodes, chosen[1:], ptc[1:], strict=True)
    shapes = [None, *(_spline(n, signal, float(end)) for n, signal, end in own)]
    return Model(signals, used, light, shapes, common, rule)


def fit(
    signals: F64,
    used: Bool,
    light: Light,
    ptc: F64,
    nodes: F64 | int,
    own_nodes: Sequence[F64] = (),
    rule: Rule | None = None,
) -> list[Amplifier]:
    """Fit the linearity of amplifiers that saw the same exposures.

    Parameters
    ----------
    signals : `numpy.ndarray` [amplifier, exposure], float64
        Means, ADU; the reference amplifier comes first.
    used : `numpy.ndarray` [amplifier, exposure], bool
        Points up to the turnoffs of linearity.
    light : `Light`
        What illuminated the exposures.
    ptc : `numpy.ndarray` [amplifier], float64
        Turnoffs of the PTC, ADU: the splines are 0 on average below.
    nodes : `numpy.ndarray` [node], float64, or `int`
        Of the common spline, from 0, ADU of the reference amplifier; or the number of a polynomial's coefficients.
    own_nodes : sequence of `numpy.ndarray`
        Nodes of each further amplifier's own spline, from 0, ADU.  Nodes without signals between are left out.
    rule : `Rule`, optional
        Settings.

    Returns
    -------
    amplifiers : `list` [`Amplifier`]
        In the order given.

    Raises
    ------
    Unlinear
        Fewer points than parameters, or the fit does not converge.
    """
    rule = rule or Rule()
    made = prepare(signals, used, light, ptc, nodes, own_nodes, rule)
    before = np.zeros(signals.shape)
    for _ in range(rule.rounds):
        residuals = made.solve()
        bad = _rejected(residuals, made.signals, made.used, rule)
        made.used = made.used & ~bad
        if not bad.any() and np.abs(residuals - before)[made.used].max() < CLOSE:
            return [made.amplifier(k) for k in range(made.number)]
        before = residuals
    raise Unlinear(f"the fit of linearity does not converge in {rule.rounds} rounds")
