"""Linearity of a detector: turnoffs, reference amplifier, nodes, the fit of all amplifiers, and its uncertainty.

The steps are those of cp_pipe's LinearitySolveTask and LinearityDoubleSplineSolveTask; the fit is
`kernels.transfer.linearfit`'s, twice: the first one tells the noise of the monitor, which weights the second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kernels.transfer import linearfit
from kernels.transfer.linearfit import MAD, Amplifier, Light, Unlinear
from kernels.transfer.nonlinearity import LinearTurnoff, NoLine, linear_turnoff
from kernels.transfer.splines import coarse_nodes, even_nodes, fine_nodes, supported

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Fewest points of an amplifier.
FEWEST = 12
#: Least noise of a monitor that is believed.
QUIET = 1e-5


@dataclass(frozen=True)
class Rule:
    """Settings."""

    kind: Literal["Spline", "DoubleSpline"]
    #: Nodes of a ``Spline``, evenly from 0 to the turnoff.
    knots: int
    #: Distance of the nodes of a ``DoubleSpline`` against the light, ADU.
    size: float
    #: Largest deviation from a line up to the turnoff, relative.
    deviation: float
    #: Largest read noise of the reference amplifier, electron.
    noise: float
    fit: linearfit.Rule


@dataclass(frozen=True)
class Linear:
    """One amplifier's linearity."""

    turnoff: LinearTurnoff
    fitted: Amplifier
    #: [point], bool: Points of the last fit.
    used: Bool


@dataclass(frozen=True)
class Solution:
    """A detector's linearity."""

    #: By number of the amplifier.
    amplifiers: Mapping[int, Linear]
    #: Amplifiers without a linearity, and why.
    bad: Mapping[int, str]
    reference: int
    #: Scatter of the monitor about all amplifiers, relative.
    monitor: float
    #: Resulting uncertainty of a corrected signal and of its slope, relative, common to all amplifiers.
    error: float
    slope_error: float


def solve(signals: F64, light: Light, ptc: F64, noises: Sequence[float], photon: float, rule: Rule) -> Solution:
    """Fit all amplifiers of a detector.

    Parameters
    ----------
    signals : `numpy.ndarray` [amplifier, exposure], float64
        Means, ADU; not a number where an amplifier could not be measured.
    light : `Light`
        What illuminated the exposures; an amount that is no number leaves its exposure out.
    ptc : `numpy.ndarray` [amplifier], float64
        Turnoffs of the PTC, ADU; not a number where there is none: the amplifier's own turnoff takes its place.
    noises : sequence of `float`
        Read noises, electron.
    photon : `float`
        Noise of a mean, relative, times the root of the mean, ADU^0.5.

    Raises
    ------
    Unlinear
        No amplifier has a linearity, or the fit fails.
    """
    found: dict[int, LinearTurnoff] = {}
    bad: dict[int, str] = {}
    for k, (signal, limit) in enumerate(zip(signals, ptc, strict=True)):
        try:
            found[k] = _turnoff(signal, light, float(limit), rule)
        except (NoLine, Unlinear) as error:
            bad[k] = str(error)
    if not found:
        raise Unlinear(f"no amplifier has a linearity: {next(iter(bad.values()))}")
    quiet = [k for k in found if noises[k] <= rule.noise] or list(found)
    reference = max(quiet, key=lambda k: (found[k].signal, -k))
    order = [reference, *(k for k in found if k != reference)]
    ends = np.array([found[k].signal for k in order])
    limits = np.where(np.isfinite(ptc[order]), np.minimum(ptc[order], ends), ends)
    nodes, own = _nodes(limits, ends, rule)
    used = np.array([found[k].good for k in order])
    settings, made, monitor = replace(rule.fit, photon=photon), list[Amplifier](), 0.0
    for _ in range(2):
        made = _fitted(signals[order], used, light, limits, [nodes, *own], settings, rule)
        monitor = _monitor(made, signals[order], settings)
        settings = replace(settings, monitor=max(monitor, QUIET))
    each = {k: Linear(found[k], one, np.isfinite(one.residuals)) for k, one in zip(order, made, strict=True)}
    points, pieces = int(each[reference].used.sum()), len(made[0].absolute.nodes) - 1
    signal = float(monitor * np.sqrt(pieces / max(points, 1)))
    return Solution(dict(sorted(each.items())), bad, reference, monitor, signal, signal * pieces)


def _turnoff(signal: F64, light: Light, ptc: float, rule: Rule) -> LinearTurnoff:
    below = np.isfinite(signal) & (light.group >= 0) & np.isfinite(light.amount)
    limit = ptc if np.isfinite(ptc) else np.inf
    masked = np.where(below, signal, np.nan)
    end = linear_turnoff(light.amount, masked, below & (masked <= limit), light.group, limit, rule.deviation)
    good = below & (signal > 0) & (signal <= end.signal)
    if good.sum() < FEWEST:
        raise Unlinear(f"{int(good.sum())} flats below the turnoff of {end.signal:.6g} ADU, {FEWEST} are needed")
    if len(supported(even_nodes(rule.knots, end.signal), signal[good])) < 4:
        raise Unlinear(f"{int(good.sum())} flats lie too close together to support 4 nodes up to {end.signal:.6g} ADU")
    return replace(end, good=good)


def _nodes(limits: F64, ends: F64, rule: Rule) -> tuple[F64, list[F64]]:
    """Give the nodes of the common spline, and those of the other amplifiers' own."""
    if rule.kind == "Spline":
        return even_nodes(rule.knots, ends[0]), [even_nodes(rule.knots, end) for end in ends[1:]]
    own = [fine_nodes(float(limit), float(end)) for limit, end in zip(limits[1:], ends[1:], strict=True)]
    return coarse_nodes(ends[0], rule.size), own


def _fitted(
    signals: F64, used: Bool, light: Light, limits: F64, nodes: Sequence[F64], settings: linearfit.Rule, rule: Rule
) -> list[Amplifier]:
    """Fit the reference and the others: together where they share a spline, else each by itself."""
    if rule.kind == "DoubleSpline":
        return linearfit.fit(signals, used, light, limits, nodes[0], nodes[1:], settings)
    every = []
    for k, mine in enumerate(nodes):
        one = slice(k, k + 1)
        every += linearfit.fit(signals[one], used[one], light, limits[one], mine, (), settings)
    return every


def _monitor(made: Sequence[Amplifier], signals: F64, rule: linearfit.Rule) -> float:
    """Estimate the noise that all amplifiers share, relative: their median residual's scatter less their own noise."""
    residuals = np.array([one.residuals for one in made])
    seen = np.isfinite(residuals).any(axis=0)
    common = np.nanmedian(residuals[:, seen], axis=0)
    own = rule.photon**2 / np.nanmedian(signals[:, seen], axis=0)
    bright = own <= np.median(own)
    scatter = MAD * float(np.median(np.abs(common[bright] - np.median(common[bright]))))
    less = (float(np.median(own[bright])) * (np.pi / 2 if len(made) > 2 else 1.0)) / len(made)
    return float(np.sqrt(max(scatter**2 - less, 0.0)))
