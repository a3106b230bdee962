"""Light of each exposure, from all amplifiers of the focal plane at once.

The linearity of all amplifiers (`kernels.transfer.linearmodel`) and the noise e_j of the monitor in each exposure are
one weighted linear least squares: every amplifier of an exposure sees the same e_j, whose prior is its scatter.
Each detector's parameters are few and its own, so they are eliminated (Schur complement): what is left is one
system of the size of the exposures, to which each detector adds a matrix; back substitution gives the parameters.  With
the light so found the fit of a detector alone is its part of the joint solution.

The frames hardly tell a deviation that all amplifiers share from light that follows the same curve, and what they tell
is what their splines do not follow.  So the light has no part that is a spline of the signal: of that the monitor alone
decides, over all exposures, which least squares makes orthogonal to such parts.  The rest is the frames'.  What differs
between amplifiers is free of the monitor's noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.transfer.linearfit import CLOSE, worst
from kernels.transfer.linearmodel import MAD, Model, Rule, Unlinear
from kernels.transfer.splines import basis, even_nodes, supported

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Least noise of a monitor that is believed.
QUIET = 1e-5
#: Nodes of the splines of the signal that the light has no part of: so few that all amplifiers' splines follow them.
SMOOTH = 5
#: Part of the exposures whose reading may be off.
MOST_OFF = 0.2
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


def _lit(model: Model) -> F64:
    """Give the part of each signal that is light by the present parameters, ADU; the signal before there are some."""
    if not model.values:
        return model.signals
    slopes = [model.slopes(k)[0] for k in range(model.number)]
    return np.array([[s.get(int(g), 0.0) for g in model.light.group] for s in slopes]) * model.light.amount


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
    pull = weight * _lit(model) / scale  # of the light on each row
    shared = (basis.reshape(amplifiers, exposures, number) * pull[:, :, np.newaxis]).sum(axis=0)
    strength = np.abs(np.diag(triangle))
    if not strength.min() > 1e-7 * strength.max():
        raise Unlinear(f"{int(model.used.sum())} points do not determine {number} parameters: fewer nodes")
    solved = np.linalg.solve(triangle, np.column_stack([along, -shared.T])) / size[:, np.newaxis]
    matrix = np.diag((pull**2).sum(axis=0)) - shared @ shared.T
    return _Eliminated(matrix, (pull * rest).sum(axis=0), solved[:, 0], solved[:, 1:], places)


class _Focal:
    """The joint solution: detectors, and the light."""

    def __init__(self, models: Sequence[Model], rule: Rule) -> None:
        self.models, self.rule = models, rule
        self.raw = [model.light.amount for model in models]
        exposures = models[0].exposures
        #: Logarithm of what the monitor's readings are multiplied by.
        self.log = np.zeros(exposures)
        self.off = np.zeros(exposures, np.bool_)
        self.monitor, self.rejected, self.chi2 = rule.monitor, 0, np.nan
        self.bound = 0

    @property
    def power(self) -> F64:
        """Sum of the points' weights [exposure], whose root is 1 / the frames' relative error."""
        return np.asarray(sum((_noise(model) ** 2).sum(axis=0) for model in self.models))

    def _free(self, seen: Bool) -> F64:
        """Give the directions of the light that the frames decide [exposure, direction]: those that are no spline."""
        every = np.concatenate([np.where(m.used, m.signals, np.nan) for m in self.models])
        typical, group = np.ones(seen.shape), self.models[0].light.group
        typical[seen] = np.nanmedian(every[:, seen], axis=0)
        nodes = supported(even_nodes(SMOOTH, float(typical[seen].max())), typical[seen])
        smooth = [basis(nodes, np.zeros(len(nodes)), typical)[:, 1:] / typical[:, np.newaxis]]
        smooth += [(group == g)[:, np.newaxis] * 1.0 for g in np.unique(group[seen])]
        smooth += [1 / typical[:, np.newaxis]] if self.rule.offset else []
        parts = np.where(seen[:, np.newaxis], np.concatenate(smooth, axis=1), 0.0)
        axes, strength, _ = np.linalg.svd(parts / np.sqrt((parts**2).sum(axis=0)), full_matrices=True)
        self.bound = int((strength > CLOSE * strength[0]).sum())
        return np.asarray(axes[:, self.bound :])

    def step(self) -> float:
        """Solve once; give the largest change of the light, relative."""
        exposures, power = len(self.log), self.power
        matrix, right, parts = np.zeros((exposures, exposures)), np.zeros(exposures), []
        unseen = power == 0
        free = self._free(~unseen & ~self.off)
        self.log = free @ (free.T @ self.log)  # exposures may have come to be off since
        for model, amount in zip(self.models, self.raw, strict=True):  # in this order: the same bits everywhere
            model.light = replace(model.light, amount=amount * np.exp(self.log))
            part = _eliminate(model)
            matrix += part.matrix
            right += part.right
            parts.append(part)
        prior = np.where(self.off, 0.0, 1 / max(self.monitor, QUIET) ** 2)
        matrix[np.diag_indices(exposures)] += np.where(unseen, 1.0, prior)
        right = free.T @ np.where(unseen, 0.0, right - prior * self.log)
        change = free @ np.linalg.solve(free.T @ matrix @ free, right)
        for model, part in zip(self.models, parts, strict=True):
            found = part.found + part.change @ change
            model.take(found, np.zeros(found.shape), part.places)
        self.log += change
        return float(np.abs(change).max())

    def look(self, change: float) -> bool:
        """Reject readings of the monitor, then points; tell whether any was.

        An exposure whose reading is off pulls its points away: these are judged when the light hardly changes any more.
        """
        seen = (self.power > 0) & ~self.off
        scatter = MAD * float(np.median(np.abs(self.log[seen] - np.median(self.log[seen]))))
        self.monitor = max(scatter * float(np.sqrt(seen.sum() / max(seen.sum() - self.bound, 1))), QUIET)
        more = worst(self.log, seen, self.rule, np.zeros(seen.shape), self.monitor)
        self.off[more] = True
        if self.off.sum() > MOST_OFF * (self.power > 0).sum():
            many = f"{int(self.off.sum())} of {int((self.power > 0).sum())} exposures"
            raise Unlinear(f"the monitor is off by far in {many}: it does not follow the light, or groups differ")
        if len(more) or change > SETTLED:
            return True
        return self._points(int(seen.sum()))

    def _points(self, exposures: int) -> bool:
        found, squares, points = False, 0.0, -exposures
        for model, amount in zip(self.models, self.raw, strict=True):
            model.light = replace(model.light, amount=amount * np.exp(self.log))
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
        No detector, too few points, a monitor that does not follow the light, or the fit does not converge.
    """
    if not models:
        raise Unlinear("no detector has a linearity")
    made = _Focal(models, rule)
    for _ in range(rule.rounds):
        change = made.step()
        again = made.look(change)
        if change < CLOSE and not again:
            power = made.power
            factor = np.where(power > 0, np.exp(made.log), 1.0)
            error = np.full(power.shape, np.inf)
            error[power > 0] = 1 / np.sqrt(power[power > 0])
            points, seen = sum(int(model.used.sum()) for model in models), int((power > 0).sum())
            common = made.monitor * float(np.sqrt(made.bound / max(seen, 1)))
            return CommonLight(factor, error, made.monitor, common, made.off, points, made.rejected, made.chi2)
    raise Unlinear(f"the light of the focal plane does not converge in {rule.rounds} rounds")
