"""Light of each exposure, from all amplifiers of the focal plane at once.

The linearity of all amplifiers (`kernels.transfer.linearmodel`) and the noise e_j of the monitor in each exposure are
one weighted linear least squares: every amplifier of an exposure sees the same e_j, whose prior is its scatter.
Each detector's parameters are few and its own, so they are eliminated (Schur complement): what is left is one
system of the size of the exposures, to which each detector adds a matrix; back substitution gives the parameters.  With
the light so found the fit of a detector alone is its part of the joint solution.

The frames cannot tell a deviation that all amplifiers share from light that follows the same curve: of that the
monitor alone decides, over as many exposures as there are.  What differs between amplifiers is free of its noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.transfer.linearfit import CLOSE, worst
from kernels.transfer.linearmodel import MAD, Model, Rule, Unlinear

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Least noise of a monitor that is believed.
QUIET = 1e-5
#: Change of the light, relative, below which points are judged by it.
SETTLED = 1e-3


@dataclass(frozen=True)
class CommonLight:
    """Light of the exposures as all amplifiers saw it."""

    #: [exposure], float64: By which the monitor's reading is multiplied; 1 where no amplifier has a signal.
    factor: F64
    #: [exposure], float64: Its error by the noise of the frames, relative; infinite where no amplifier has a signal.
    error: F64
    #: Scatter of the monitor, relative.
    monitor: float
    #: Uncertainty of the light but for a factor, relative: the deviation that all amplifiers may share.
    common: float
    #: [exposure], bool: The monitor is off by far; the frames alone decide.
    off: Bool
    #: Points in the fit, and those that it rejected.
    points: int
    rejected: int
    #: Of the points, reduced; by the assumed noise of the frames.
    chi2: float


@dataclass(frozen=True)
class _Eliminated:
    """A detector without its parameters."""

    #: [exposure, exposure] and [exposure]: Its part of the system.
    matrix: F64
    right: F64
    #: Parameters [parameter] for the light as it is, and their change by the light's [parameter, exposure].
    found: F64
    change: F64
    places: Sequence[slice]


def _noise(model: Model) -> F64:
    """Give the weights of the points, 1 / relative noise; 0: not used [amplifier, exposure]."""
    rule = model.rule
    own = np.sqrt(rule.floor**2 + rule.photon**2 / np.maximum(model.signals, 1.0))
    return np.where(model.used, 1 / own, 0.0)


def _eliminate(model: Model) -> _Eliminated:
    """Project a detector's parameters out of its rows."""
    design, places = model.design()
    amplifiers, exposures, number = design.shape
    weight = _noise(model)
    scale = np.where(model.signals > 0, model.signals, 1.0)
    rows = (design * (weight / scale)[:, :, np.newaxis]).reshape(-1, number)
    size = np.maximum(np.sqrt((rows**2).sum(axis=0)), 1e-300)
    basis, triangle = np.linalg.qr(rows / size)
    along = basis.T @ weight.ravel()
    rest = (weight.ravel() - basis @ along).reshape(weight.shape)
    shared = (basis.reshape(amplifiers, exposures, number) * weight[:, :, np.newaxis]).sum(axis=0)
    strength = np.abs(np.diag(triangle))
    if not strength.min() > 1e-7 * strength.max():
        raise Unlinear(f"{int(model.used.sum())} points do not determine {number} parameters: fewer nodes")
    solved = np.linalg.solve(triangle, np.column_stack([along, -shared.T])) / size[:, np.newaxis]
    matrix = np.diag((weight**2).sum(axis=0)) - shared @ shared.T
    return _Eliminated(matrix, (weight * rest).sum(axis=0), solved[:, 0], solved[:, 1:], places)


class _Focal:
    """The joint solution: detectors, and the light."""

    def __init__(self, models: Sequence[Model], rule: Rule) -> None:
        self.models, self.rule = models, rule
        self.raw = [model.light.amount for model in models]
        exposures = models[0].exposures
        self.excess = np.zeros(exposures)
        self.off = np.zeros(exposures, np.bool_)
        self.monitor, self.rejected, self.chi2 = rule.monitor, 0, np.nan
        self.matrix = np.zeros((exposures, exposures))

    @property
    def power(self) -> F64:
        """Sum of the points' weights [exposure], whose root is 1 / the frames' relative error."""
        return np.asarray(sum((_noise(model) ** 2).sum(axis=0) for model in self.models))

    def step(self) -> float:
        """Solve once; give the largest change of the light, relative."""
        exposures = len(self.excess)
        matrix, right, parts = np.zeros((exposures, exposures)), np.zeros(exposures), []
        for model, amount in zip(self.models, self.raw, strict=True):  # in this order: the same bits everywhere
            model.light = replace(model.light, amount=amount * (1 + self.excess))
            part = _eliminate(model)
            matrix += part.matrix
            right += part.right
            parts.append(part)
        prior = np.where(self.off, 0.0, 1 / max(self.monitor, QUIET) ** 2)
        unseen = self.power == 0
        matrix[np.diag_indices(exposures)] += np.where(unseen, 1.0, prior)
        self.matrix = matrix
        change = np.linalg.solve(matrix, np.where(unseen, 0.0, right - prior * self.excess))
        for model, part in zip(self.models, parts, strict=True):
            found = part.found + part.change @ change
            model.take(found, np.zeros(found.shape), part.places)
        self.excess = (1 + self.excess) * (1 + change) - 1
        return float(np.abs(change).max())

    def common(self) -> float:
        """Give the uncertainty of the light less its mean, over the exposures that were seen, relative."""
        seen = self.power > 0
        covariance = np.linalg.inv(self.matrix)[np.ix_(seen, seen)]
        covariance -= covariance.mean(axis=0)
        covariance -= covariance.mean(axis=1, keepdims=True)
        return float(np.sqrt(np.median(np.diag(covariance))))

    def look(self, change: float) -> bool:
        """Reject readings of the monitor, then points; tell whether any was.

        An exposure whose reading is off pulls its points away: these are judged when the light hardly changes any more.
        """
        seen = (self.power > 0) & ~self.off
        middle = float(np.median(self.excess[seen]))
        self.monitor = max(MAD * float(np.median(np.abs(self.excess[seen] - middle))), QUIET)
        more = worst(self.excess, seen, self.rule, np.zeros(seen.shape), self.monitor)
        self.off[more] = True
        if len(more) or change > SETTLED:
            return True
        return self._points(int(seen.sum()))

    def _points(self, exposures: int) -> bool:
        found, squares, points = False, 0.0, -exposures
        for model, amount in zip(self.models, self.raw, strict=True):
            model.light = replace(model.light, amount=amount * (1 + self.excess))
            residuals, weight = self._residuals(model), _noise(model)
            photons = self.rule.photon**2 / np.maximum(model.signals, 1.0)
            for k, used in enumerate(model.used):
                bad = worst(residuals[k], used, model.rule, photons[k])
                model.used[k, bad] = False
                self.rejected, found = self.rejected + len(bad), found or bool(len(bad))
            squares += float(((residuals * weight)[model.used] ** 2).sum())
            points += int(model.used.sum()) - sum(len(values) for values in model.values) - model.common.number
        self.chi2 = squares / max(points, 1)
        return found

    @staticmethod
    def _residuals(model: Model) -> F64:
        """Give 1 - model / signal [amplifier, exposure]."""
        design, places = model.design()
        both = np.zeros(design.shape[2])
        both[: model.common.number] = model.parameters
        for place, values in zip(places, model.values, strict=True):
            both[place] = values
        return np.asarray(1 - (design @ both) / np.where(model.signals > 0, model.signals, 1.0))


def solve(models: Sequence[Model], rule: Rule) -> CommonLight:
    """Find the light.

    Parameters
    ----------
    models : sequence of `Model`
        Those of the detectors (`kernels.transfer.linearfit.prepare`), of the same exposures.  Their parameters become
        the joint solution's, rejected points are no longer used.
    rule : `Rule`
        ``monitor`` is where the search for the monitor's scatter begins.

    Raises
    ------
    Unlinear
        No detector, too few points, or the fit does not converge.
    """
    if not models:
        raise Unlinear("no detector has a linearity")
    made = _Focal(models, rule)
    for _ in range(rule.rounds):
        change = made.step()
        again = made.look(change)
        if change < CLOSE and not again:
            power = made.power
            factor = np.where(power > 0, 1 + made.excess, 1.0)
            error = np.full(power.shape, np.inf)
            error[power > 0] = 1 / np.sqrt(power[power > 0])
            points = sum(int(model.used.sum()) for model in models)
            return CommonLight(factor, error, made.monitor, made.common(), made.off, points, made.rejected, made.chi2)
    raise Unlinear(f"the light of the focal plane does not converge in {rule.rounds} rounds")
