"""The photon transfer curve of each amplifier of a detector, from raw flats in pairs.

A piece is one pair: both frames are corrected in memory, and each amplifier's
mean, variance and covariances are measured (`kernels.transfer.covariance`).
Then each amplifier's curve is fitted (`kernels.transfer.curve`), and the table is
published in upstream's layout.  Signals are in ADU: corrections that need
electrons use the camera file's gains, which the curve does not depend on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import isrfiles, ptc
from kernels.calibrations.isrcalib import AXES
from kernels.camera.geometry import Amplifier, Box, Detector
from kernels.errors import DataError, JobError
from kernels.fits.identity import number_of
from kernels.fits.product import Card
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.transfer import covariance, curve, turnoff
from kernels.transfer import warm as transfer
from kernels.transfer.covariance import Pair, Unusable
from kernels.transfer.matching import Matched, match

KERNEL: Final = "ptc"

F64 = NDArray[np.float64]

#: Largest differences within a pair: exposure time, second; flux, relative to nothing: upstream's 5e-3 too.
TOLERANCE: Final[Mapping[str, float]] = {"TIME": 5e-3, "EXPID": 0.0, "FLUX": 5e-3}
#: Names of our models in upstream's PTC_FIT_TYPE.
UPSTREAM: Final = {curve.Model.EXACT: "FULLCOVARIANCE_NO_B"}
#: Largest part of an amplifier's pixels that may be saturated: what is cut off the top is missing from the variance.
SATURATED: Final = 1e-3
#: Fewest pairs from which a curve is fitted.
LEAST_PAIRS: Final = 4


@dataclass(frozen=True)
class Settings:
    """Settings of a job, besides the signature removal's."""

    #: ``TIME``, ``EXPID`` or ``FLUX``, and the card with the flux.
    matching: str
    flux: str
    #: Pixels at the edge of the detector that are left out.
    edge: int
    measure: covariance.Rule
    fit: curve.Rule

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Settings:
        """Check and freeze.

        Raises
        ------
        JobError
            A setting is missing or unknown.
        """
        try:
            side = int(plain["side"])
            outliers = turnoff.Rule(
                signal=float(plain["outlier_signal"]), gap=float(plain["outlier_gap"]),
                scaled=bool(plain["outlier_scaled"]), cut=float(plain["outlier_cut"]),
                rounds=int(plain["outlier_rounds"]),
            )  # fmt: skip
            return cls(
                str(plain["matching"]),
                str(plain["flux"]),
                int(plain["edge"]),
                covariance.Rule(side, float(plain["nsigma"]), int(plain["passes"]), int(plain["least_pixels"])),
                curve.Rule(
                    curve.Model(plain["model"]), side, float(plain["least_mean"]), float(plain["most_mean"]), outliers,
                    float(plain["rolloff_share"]) if plain["rolloff"] else None,
                ),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"settings of the photon transfer curve: {error}") from error


def _region(amplifier: Amplifier, detector: Detector, edge: int) -> Box:
    """Give the part of an amplifier that is not at the detector's edge, relative to the amplifier's target."""
    box, (width, height) = amplifier.target, detector.size
    x0, y0 = max(box.x0, edge), max(box.y0, edge)
    x1, y1 = min(box.x1, width - edge), min(box.y1, height - edge)
    return Box(x0 - box.x0, y0 - box.y0, max(0, x1 - x0), max(0, y1 - y0))


class TransferCurve(FrameKernel):
    """The gang kernel: a piece is a pair of flats of one detector; output ``ptc``."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._settings = Settings.from_plain(job.config)
        self._matched: dict[str, Matched] = {}

    def matched(self, task: Task) -> Matched:
        """Pair the task's flats, once.

        Raises
        ------
        DataError
            A frame has no card of the flux.
        """
        if task.task not in self._matched:
            self._matched[task.task] = match(self._values(task), TOLERANCE[self._settings.matching])
        return self._matched[task.task]

    def _values(self, task: Task) -> list[float]:
        by = self._settings.matching
        if by == "EXPID":
            return [float(e // 2) for e in task.parameters["exposures"]]
        if by == "TIME":
            return [float(t) for t in task.parameters["exposure_times"]]
        return [number_of(file.path, self._settings.flux) for file in self.raws(task)]

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each pair by the bytes read for it; flats that cannot be paired fail later, and their task alone."""
        sizes = [float(file.bytes or 1) for file in self.raws(task)]
        try:
            pairs = self.matched(task).pairs
        except DataError:
            pairs = ()
        return [sizes[one] + sizes[other] for one, other in pairs] or [1.0]

    def compute(self, task: Task, piece: int) -> list[Pair | str]:
        """Measure each amplifier in one pair; a text tells why one cannot be measured."""
        if not self.matched(task).pairs:
            return []
        files = [self.raws(task)[n] for n in self.matched(task).pairs[piece]]
        flags, detector = self.calibrations(task), self.detector(task)
        found: dict[int, Pair | str] = {}
        for reader in self.readers(task):
            first = [(frame.pixels.copy(), int(frame.saturated[0])) for frame in reader.frame(files[0], 0.0)]
            for (one, saturated), frame in zip(first, reader.frame(files[1], 0.0), strict=True):
                amplifier, unit = frame.channel.amplifier, np.float32(frame.channel.gain)
                saturated = max(saturated, int(frame.saturated[0]))
                if saturated > SATURATED * one.size:
                    found[frame.channel.number] = f"{saturated} of {one.size} pixels are saturated"
                    continue
                box = _region(amplifier, detector, self._settings.edge)
                images = [image[box.slices] / unit for image in (one, frame.pixels)]
                good = ~flags.flagged(amplifier.target)[box.slices] if flags.flags else None
                try:
                    found[frame.channel.number] = covariance.measure(
                        (images[0], images[1]), good, self._settings.measure
                    )
                except Unusable as error:
                    found[frame.channel.number] = str(error)
        return [found[k] for k in sorted(found)]

    def finish(self, task: Task, results: Iterable[list[Pair | str]]) -> dict[str, Any]:
        """Fit each amplifier and publish.

        Raises
        ------
        DataError
            Too few pairs, no amplifier with a curve, or a frame of another detector.
        """
        self.require_inputs(task)
        matched, detector, raws = self.matched(task), self.calibrations(task).detector, self.raws(task)
        if len(matched.pairs) < LEAST_PAIRS:
            many = f"{len(raws)} flats make {len(matched.pairs)} pairs of equal {self._settings.matching}"
            raise DataError(raws[0].path, f"{many}; {LEAST_PAIRS} are needed: see expTime and order of the exposures")
        measured = list(results)
        solution = curve.solve(
            {a.name: _points([pairs[k] for pairs in measured]) for k, a in enumerate(detector.amplifiers)},
            self._settings.fit,
        )
        if not solution.curves:
            name, why = next(iter(solution.bad.items()))
            said = next((one for pairs in measured for one in pairs if isinstance(one, str)), "")
            raise DataError(
                raws[0].path, f"no amplifier has a photon transfer curve; {name}: {why}; {said}".rstrip("; ")
            )
        output = publish(
            task.outputs[ptc.KIND],
            lambda path: self._write(path, task, detector, measured, solution),
            self.stamp,
            self.job.config["permissions"],
        )
        singles = [task.parameters["exposures"][n] for n in matched.singles]
        about = {"inputs_used": 2 * len(matched.pairs), "single": singles, "bad_amplifiers": dict(solution.bad)}
        return {ptc.KIND: output, **about}

    def _write(
        self, path: str, task: Task, detector: Detector, measured: Sequence[list[Pair | str]], solution: curve.Solution
    ) -> None:
        matched, model = self.matched(task), self._settings.fit.model
        exposures, times = task.parameters["exposures"], task.parameters["exposure_times"]
        common = {
            "INPUT_EXP_ID_PAIRS": np.array([[exposures[n] for n in pair] for pair in matched.pairs], np.int64),
            "RAW_EXP_TIMES": np.array([times[pair[0]] for pair in matched.pairs], np.float64),
        }
        amplifiers = detector.amplifiers
        rows = [
            {**common, **_row(a.name, [pairs[k] for pairs in measured], solution, self._settings.fit.side)}
            for k, a in enumerate(amplifiers)
        ]
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        name = UPSTREAM.get(model, str(model))
        columns["PTC_FIT_TYPE"] = np.array([name] * len(rows))
        cards: list[Card] = [
            ("FITMODEL", str(model), "model of the covariances"),
            ("NEXPOSUR", 2 * len(matched.pairs), "flats in pairs"),
            ("NSINGLE", len(matched.singles), "flats without a partner, left out"),
            ("NBADAMP", len(solution.bad), "amplifiers without a curve: BADAMPn"),
        ]
        cards += [(f"BADAMP{n}", f"{a}: {why}"[:60], "") for n, (a, why) in enumerate(solution.bad.items(), 1)]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        isrfiles.save(path, ptc.KIND, self.camera, detector, columns, cards, {"PTC_FIT_TYPE": name, AXES: "xy"})


def _points(pairs: Sequence[Pair | str]) -> curve.Points:
    """Take the pairs in which an amplifier could be measured; the others have means that are no numbers."""
    good = [pair for pair in pairs if isinstance(pair, Pair)]
    if not good:
        return curve.Points(np.empty(0), np.empty((0, 1, 1)), np.empty((0, 1, 1)))
    return curve.Points.of(good)


def _row(name: str, pairs: Sequence[Pair | str], solution: curve.Solution, side: int) -> dict[str, Any]:
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

    row: dict[str, Any] = {
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
        return row | _fitted(solution.curves[name], good, spread, side)
    return row | _unfitted(len(pairs), side)


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
