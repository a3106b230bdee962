"""Linearity of a detector: turnoffs, reference amplifier, nodes, the fit of all amplifiers, and its uncertainty.

The steps are those of cp_pipe's LinearitySolveTask and LinearityDoubleSplineSolveTask; the fit is
`kernels.transfer.linearfit`'s, twice: the first one tells the noise of the monitor, which weights the second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.transfer import linearfit, linearmodel
from kernels.transfer.commonlight import QUIET
from kernels.transfer.linearmodel import MAD, Amplifier, Light, Unlinear
from kernels.transfer.nonlinearity import LinearTurnoff, NoLine, linear_turnoff
from kernels.transfer.splines import coarse_nodes, even_nodes, fine_nodes, supported

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Fewest points of an amplifier.
FEWEST = 12
#: Types that one polynomial an amplifier describes.
POLYNOMIALS = ("Squared", "Polynomial", "LookupTable")
TYPES = ("Spline", "DoubleSpline", *POLYNOMIALS)


@dataclass(frozen=True)
class Rule:
    """Settings."""

    #: One of `TYPES`.
    kind: str
    #: Nodes of a ``Spline``, evenly from 0 to the turnoff.
    knots: int
    #: Distance of the nodes of a ``DoubleSpline`` against the light, ADU.
    size: float
    #: Largest deviation from a line up to the turnoff, relative.
    deviation: float
    #: Largest read noise of the reference amplifier, electron.
    noise: float
    fit: linearmodel.Rule
    #: Order of a ``Polynomial``.
    order: int = 3


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


@dataclass(frozen=True)
class Prepared:
    """A detector's amplifiers with their turnoffs, ready for a fit; arrays are in the order of ``order``."""

    #: Numbers of the amplifiers, the reference first.
    order: Sequence[int]
    #: By number; amplifiers without, and why.
    turnoffs: Mapping[int, LinearTurnoff]
    bad: Mapping[int, str]
    #: [amplifier, exposure], float64 and bool.
    signals: F64
    used: Bool
    #: [amplifier], float64: Where the splines are 0 on average, ADU.
    limits: F64
    #: Nodes of the deviation from the light, or the number of its coefficients; of one for each amplifier, or of the
    #: common one and then the others' own.
    nodes: Sequence[F64 | int]
    #: Whether there is a common one.
    common: bool

    def parts(self) -> list[tuple[slice, F64 | int, Sequence[F64]]]:
        """Give what is fitted together: amplifiers, nodes of the deviation from the light, own nodes."""
        if self.common:
            return [(slice(0, len(self.order)), self.nodes[0], [n for n in self.nodes[1:] if not isinstance(n, int)])]
        return [(slice(k, k + 1), nodes, ()) for k, nodes in enumerate(self.nodes)]

    def models(self, light: Light, rule: linearmodel.Rule) -> list[linearmodel.Model]:
        """Make a model of each part."""
        return [
            linearfit.prepare(self.signals[some], self.used[some], light, self.limits[some], nodes, own, rule)
            for some, nodes, own in self.parts()
        ]


def prepare(signals: F64, light: Light, ptc: F64, noises: Sequence[float], rule: Rule) -> Prepared:
    """Find turnoffs, reference amplifier and nodes; parameters and errors are those of `solve`."""
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
    used = np.array([found[k].good for k in order])
    nodes = _nodes(limits, ends, rule)
    return Prepared(order, found, bad, signals[order], used, limits, nodes, rule.kind == "DoubleSpline")


def solve(
    signals: F64, light: Light, ptc: F64, noises: Sequence[float], photon: float, rule: Rule, common: float = 0.0
) -> Solution:
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
    common : `float`, optional
        Uncertainty of the light, relative, where the focal plane has corrected it.

    Raises
    ------
    Unlinear
        No amplifier has a linearity, or the fit fails.
    """
    ready = prepare(signals, light, ptc, noises, rule)
    settings, made, monitor = replace(rule.fit, photon=photon), list[Amplifier](), 0.0
    for _ in range(2):
        made = []
        for some, nodes, own in ready.parts():
            part = ready.signals[some], ready.used[some], light, ready.limits[some]
            made += linearfit.fit(*part, nodes, own, settings)
        monitor = _monitor(made, ready.signals, settings)
        settings = replace(settings, monitor=max(monitor, QUIET))
    fitted = zip(ready.order, made, strict=True)
    each = {k: Linear(ready.turnoffs[k], one, np.isfinite(one.residuals)) for k, one in fitted}
    reference = ready.order[0]
    points, pieces = int(each[reference].used.sum()), made[0].absolute.pieces
    signal = float(np.hypot(monitor * np.sqrt(pieces / max(points, 1)), common))
    return Solution(dict(sorted(each.items())), ready.bad, reference, monitor, signal, signal * pieces)


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


def _nodes(limits: F64, ends: F64, rule: Rule) -> list[F64 | int]:
    """Give the nodes of each amplifier's deviation; with a common one, its nodes and those of the others' own."""
    if rule.kind in POLYNOMIALS:
        return [1 if rule.kind == "Squared" else rule.order - 1] * len(ends)
    if rule.kind == "Spline":
        return [even_nodes(rule.knots, end) for end in ends]
    own = [fine_nodes(float(limit), float(end)) for limit, end in zip(limits[1:], ends[1:], strict=True)]
    return [coarse_nodes(ends[0], rule.size), *own]


def _monitor(made: Sequence[Amplifier], signals: F64, rule: linearmodel.Rule) -> float:
    """Estimate the noise that all amplifiers share, relative: their median residual's scatter less their own noise."""
    residuals = np.array([one.residuals for one in made])
    seen = np.isfinite(residuals).any(axis=0)
    common = np.nanmedian(residuals[:, seen], axis=0)
    own = rule.photon**2 / np.nanmedian(signals[:, seen], axis=0)
    bright = own <= np.median(own)
    scatter = MAD * float(np.median(np.abs(common[bright] - np.median(common[bright]))))
    less = (float(np.median(own[bright])) * (np.pi / 2 if len(made) > 2 else 1.0)) / len(made)
    return float(np.sqrt(max(scatter**2 - less, 0.0)))
