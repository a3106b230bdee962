"""The photon transfer curve of each amplifier of a detector, from raw flats in pairs, in upstream's layout."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles, ptc
from kernels.calibrations.applied import Calibrations
from kernels.calibrations.isrcalib import AXES
from kernels.errors import JobError
from kernels.isr.channel import Channel
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.response.flatpairs import Measured, PairedFlats
from kernels.response.ratios import Adjusted, Settings, adjust, of_flat
from kernels.transfer import curve
from kernels.transfer import warm as transfer
from kernels.transfer.covariance import Pair
from kernels.transfer.gainratios import Ratios

KERNEL: Final = "ptc"

F64 = NDArray[np.float64]

#: Rejection of bins of a flat, standard deviations.
NSIGMA: Final = 5.0


@dataclass(frozen=True)
class Asked:
    """Settings of the adjustment of gains."""

    #: Range of the means of flats, ADU, and largest number of them.
    least: float
    most: float
    flats: int
    settings: Settings

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Asked | None:
        """Check and freeze; `None` where a job asks for no adjustment.

        Raises
        ------
        JobError
            A setting is missing or unknown.
        """
        if "ratio_flats" not in plain:
            return None
        try:
            least, most, flats = float(plain["ratio_least"]), float(plain["ratio_most"]), int(plain["ratio_flats"])
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"settings of the gain ratios: {error}") from error
        return cls(least, most, flats, Settings.from_plain(plain, NSIGMA))


#: Names of our models in upstream's PTC_FIT_TYPE.
UPSTREAM: Final = {curve.Model.EXACT: "FULLCOVARIANCE_NO_B"}


@dataclass(frozen=True)
class Looked:
    """A pair that was measured, and the ratios of its first flat where that is asked for."""

    pairs: list[Pair | str]
    ratios: Ratios | None


class TransferCurve(PairedFlats):
    """The gang kernel; output ``ptc``, or another type of curves: ``linearizerPtc``, ``bfkPtc``."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._asked = Asked.from_plain(job.config)
        self._images: dict[int, NDArray[np.float32]] = {}
        self._flats: dict[str, list[Ratios]] = {}

    def inspect(self, channel: Channel, image: NDArray[np.float32], flags: Calibrations) -> None:
        """Keep an amplifier for the ratios of gains."""
        if self._asked:
            kept = image / np.float32(channel.gain)
            if flags.flags:
                kept[flags.flagged(channel.amplifier.target)] = np.nan
            self._images[channel.number] = kept

    def compute(self, task: Task, piece: int) -> Looked:
        """Measure a pair, and the steps between amplifiers in its first flat."""
        self._images = {}
        pairs = self.measure(task, piece)
        known = [one.mean for one in pairs if isinstance(one, Pair)]
        if self._asked is None or not known or not self._asked.least < np.mean(known) < self._asked.most:
            return Looked(pairs, None)
        lit = {number: image for number, image in self._images.items() if isinstance(pairs[number], Pair)}
        return Looked(pairs, of_flat(lit, self.detector(task), self._asked.settings))

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Fit each amplifier, adjust the ratios of gains, and publish; see `PairedFlats.finish`."""
        looked = list(results)
        self._flats[task.task] = [one.ratios for one in looked if one.ratios]
        return super().finish(task, [one.pairs for one in looked])

    def _adjusted(self, task: Task, solution: curve.Solution) -> Adjusted | None:
        """Adjust the gains, if the pipeline asks for it."""
        if self._asked is None:
            return None
        names = [a.name for a in self.detector(task).amplifiers]
        return adjust(solution, names, self._flats[task.task], self._asked.flats, self._asked.settings)

    def published(self, task: Task, measured: Measured, solution: curve.Solution) -> dict[str, Any]:
        """Write and publish the curves."""
        adjusted = self._adjusted(task, solution)
        write = partial(self.write_curves, task=task, measured=measured, solution=solution, adjusted=adjusted)
        (kind,) = task.outputs
        output = publish(task.outputs[kind], write, self.stamp, self.job.config["permissions"])
        why = f"ratios of gains are not adjusted: {adjusted.why}" if adjusted and adjusted.why else ""
        return {kind: output, **({"look_at": [why]} if why else {})}

    def write_curves(
        self, path: str, task: Task, measured: Measured, solution: curve.Solution, adjusted: Adjusted | None = None
    ) -> None:
        """Write a detector's curves."""
        matched, detector = self.matched(task), self.calibrations(task).detector
        exposures, times = task.parameters["exposures"], task.parameters["exposure_times"]
        common = {
            "INPUT_EXP_ID_PAIRS": np.array([[exposures[n] for n in pair] for pair in matched.pairs], np.int64),
            "RAW_EXP_TIMES": np.array([times[pair[0]] for pair in matched.pairs], np.float64),
        }
        rows = [
            {**common, **row(a.name, [pairs[k] for pairs in measured], solution, self.settings.fit.side)}
            for k, a in enumerate(detector.amplifiers)
        ]
        gains = adjusted.gains if adjusted else {}
        for one in rows:
            if one["AMPLIFIER_NAME"] in gains:
                one["GAIN"], one["GAIN_ERR"] = gains[one["AMPLIFIER_NAME"]]
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        name = UPSTREAM.get(self.settings.fit.model, str(self.settings.fit.model))
        columns["PTC_FIT_TYPE"] = np.array([name] * len(rows))
        isrfiles.save(
            path,
            ptc.KIND,
            self.camera,
            detector,
            columns,
            [*self.cards(task, solution), *(adjusted.cards if adjusted else [])],
            {"PTC_FIT_TYPE": name, AXES: "xy"},
        )


def row(name: str, pairs: Sequence[Pair | str], solution: curve.Solution, side: int) -> dict[str, Any]:
    """Make an amplifier's row, NaN where something is not known."""
    measured: NDArray[np.bool_] = np.array([isinstance(pair, Pair) for pair in pairs])
    good = [pair for pair in pairs if isinstance(pair, Pair)]

    def spread(values: Sequence[Any], of: type = float, missing: Any = math.nan) -> NDArray[Any]:
        """Put values of the measured pairs at their places [pair, ...]."""
        shape = np.shape(values[0]) if len(values) else ()
        out = np.full((len(pairs), *shape), missing, of)
        if len(values):
            out[measured] = values
        return out

    found: dict[str, Any] = {
        "AMPLIFIER_NAME": name,
        "COV_MATRIX_SIDE": side,
        "COV_MATRIX_SIDE_FULL_COV_FIT": side,
        "RAW_MEANS": spread([p.mean for p in good]),
        "RAW_VARS": spread([p.variance for p in good]),
        "RAW_DELTAS": spread([p.delta for p in good]),
        "ROW_MEAN_VARIANCE": spread([p.row_mean_variance for p in good]),
        "COVARIANCES": _flat(spread([p.covariances for p in good]), len(pairs) * side * side),
        "NPIXEL_COVARIANCES": spread([p.counts[0, 0] for p in good], int, 0),
        "BAD_AMPS": name if name in solution.bad else "",
    }
    if name in solution.curves:
        return found | _fitted(solution.curves[name], good, spread, side)
    return found | _unfitted(len(pairs), side)


def _flat(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Ravel; NaN where nothing was measured."""
    return values.ravel() if values.size == size else np.full(size, math.nan)


def _unfitted(pairs: int, side: int) -> dict[str, Any]:
    """Give the columns of the fit of an amplifier that has none: NaN."""
    numbers = (
        *("GAIN", "GAIN_ERR", "GAIN_UNADJUSTED", "NOISE", "NOISE_ERR", "PTC_FIT_CHI_SQ"),
        *("PTC_TURNOFF", "PTC_TURNOFF_SAMPLING_ERROR", "PTC_ROLLOFF", "PTC_ROLLOFF_TAU"),
    )
    lists = {
        **dict.fromkeys(("PTC_FIT_PARS", "PTC_FIT_PARS_ERROR"), 3),
        **dict.fromkeys(("A_MATRIX", "B_MATRIX", "NOISE_MATRIX"), side * side),
        **dict.fromkeys(("COVARIANCES_MODEL", "COVARIANCES_SQRT_WEIGHTS"), pairs * side * side),
        **dict.fromkeys(("FINAL_VARS", "FINAL_MODEL_VARS", "FINAL_MEANS"), pairs),
    }
    return {
        **dict.fromkeys(("EXP_ID_MASK", "EXP_ID_ROLLOFF_MASK"), np.zeros(pairs, np.bool_)),
        **dict.fromkeys(numbers, math.nan),
        **{name: np.full(size, math.nan) for name, size in lists.items()},
    }


def _fitted(found: curve.Curve, good: Sequence[Pair], spread: Any, side: int) -> dict[str, Any]:
    """Give the columns of the fit."""
    model, rolloff = _square(found.fitted, side), found.rolloff
    used = np.where(found.good, 1.0, math.nan)
    variances = np.maximum(model[:, :1, :1], 1e-6)
    weights = np.sqrt(np.array([p.counts[:side, :side] for p in good])) / variances
    weights[:, 0, 0] /= math.sqrt(2)
    return {
        "EXP_ID_MASK": spread(found.turnoff.good, bool, False),
        "EXP_ID_ROLLOFF_MASK": spread(found.good, bool, False),
        "GAIN": found.gain,
        "GAIN_ERR": found.gain_error,
        "GAIN_UNADJUSTED": found.gain,
        "NOISE": found.noise,
        "NOISE_ERR": found.noise_error,
        "PTC_FIT_PARS": np.array([found.a[0, 0], found.gain, found.noise_matrix[0, 0]]),
        "PTC_FIT_PARS_ERROR": np.array([found.a_error[0, 0], found.gain_error, found.noise_matrix_error[0, 0]]),
        "PTC_FIT_CHI_SQ": found.reduced,
        "PTC_TURNOFF": found.turnoff.signal,
        "PTC_TURNOFF_SAMPLING_ERROR": found.turnoff.error,
        "PTC_ROLLOFF": rolloff.signal if rolloff else math.nan,
        "PTC_ROLLOFF_TAU": rolloff.scale if rolloff else math.nan,
        "A_MATRIX": _square(found.a, side).ravel(),
        "B_MATRIX": _square(found.b, side).ravel(),
        "NOISE_MATRIX": _square(found.noise_matrix, side).ravel(),
        "COVARIANCES_MODEL": spread(model).ravel(),
        "COVARIANCES_SQRT_WEIGHTS": spread(weights).ravel(),
        "FINAL_VARS": spread(used * [p.covariances[0, 0] for p in good]),
        "FINAL_MODEL_VARS": spread(used * model[:, 0, 0]),
        "FINAL_MEANS": spread(used * [p.mean for p in good]),
    }


def _square(matrix: F64, side: int) -> F64:
    """Extend the lags [..., i, j] of a smaller fit to ``side``, NaN."""
    out = np.full((*matrix.shape[:-2], side, side), math.nan)
    n = matrix.shape[-1]
    out[..., :n, :n] = matrix
    return out


def warm(bench: Bench) -> None:
    """Measure a few pixels; six frames are too few pairs for a curve, so the rest is compiled by `compile_all`."""
    transfer.compile_all()


def execute(job: Job, comm: Any) -> int:
    """Measure every task's detector; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, TransferCurve(job))
