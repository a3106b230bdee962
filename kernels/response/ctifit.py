"""Measure deferred charge by the signal of flats in the overscan behind their last column.

The n-th overscan column reads, relative to the last data column's signal S,

    drift exp(-n / decay)  +  shifts x cti  where n = 1,

to first order in cti, less the part of it in the rows' level, which is the mean
over the columns that the level is taken from.  The offset is fitted to the columns
behind the first (linearly for drift, by search for decay); cti is the remainder
in the first column.  Bright exposures count only in columns of pure offset,
because traps fill.  Every column of an exposure has the same error, read noise
/ sqrt(rows).  (Columns and signals are those of cp_pipe's CpCtiSolveTask; traps are not fitted.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import cti
from kernels.errors import DataError, JobError
from kernels.fits.product import Card
from kernels.isr.framekernel import FrameKernel
from kernels.isr.overscan import serial_region
from kernels.isr.reader import Reader
from kernels.isr.trailing import trailing
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.publish import publish
from kernels.statistics.sample import clipped_mean

KERNEL: Final = "cti"

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Range of the search for the decay, columns.
DECAYS = (0.5, 20.0)
#: Prior of the decay, where noise hides it: its logarithm, and the error of that.  Without it a fit of faint offsets
#: ends at a short decay and a large drift, which would be subtracted from every pixel.
USUAL, SPREAD = math.log(2.0), 0.35
#: Smallest significant offset, in standard errors.
SIGNIFICANT = 2.5
#: Least signal of a lit last column, electron: less may be structure of the bias.
LIT = 50.0


@dataclass(frozen=True)
class Ranges:
    """Exposures and columns that the fits use.

    Parameters
    ----------
    offset_signal, cti_signal : `float`
        Largest signal of an exposure, electron.
    offset_columns, cti_columns : `tuple` [`int`, `int`]
        First and last overscan column, counted from 1, in all exposures and in
        the faint ones.
    """

    offset_signal: float = 150000.0
    offset_columns: tuple[int, int] = (3, 13)
    cti_signal: float = 10000.0
    cti_columns: tuple[int, int] = (1, 2)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Ranges:
        """Check and freeze.

        Raises
        ------
        JobError
            A range of columns is empty, or too short to measure anything.
        """
        made = cls(**{f.name: plain[f.name] for f in fields(cls) if f.name in plain})
        for name, least, most in (("offset_columns", 2, 99), ("cti_columns", 1, 1)):
            columns = getattr(made, name)
            if len(columns) != 2 or not (least <= columns[0] <= most and columns[0] < columns[1]):
                raise JobError(f"{name}: {columns} is no range of columns, [first, last], from {least} on")
        return made

    @property
    def columns(self) -> int:
        """Number of overscan columns used."""
        return max(self.offset_columns[1], self.cti_columns[1])


@dataclass(frozen=True)
class Fit:
    """One amplifier's deferred charge; see `kernels.calibrations.cti`."""

    cti: float = 0.0
    cti_error: float = 0.0
    drift: float = 0.0
    drift_error: float = 0.0
    decay: float = 1.0
    eper: float = 0.0
    exposures: int = 0

    def row(self) -> list[float]:
        """Row of the product."""
        return [getattr(self, f.name) for f in fields(self)]


@dataclass(frozen=True)
class _Offset:
    """Relative offset of the output, its part in the first overscan column, and their errors."""

    drift: float = 0.0
    drift_error: float = 0.0
    decay: float = 1.0
    first: float = 0.0
    first_error: float = 0.0


def _tail(n: F64, level: F64, decay: float) -> F64:
    """Compute the signal that an offset of 1 leaves in columns ``n``, above its mean in the columns ``level``."""
    return np.asarray(np.exp(-n / decay) - (_sum(np.exp(-level / decay)) / level.size if level.size else 0.0))


def _steepness(n: F64, level: F64, decay: float) -> F64:
    """Compute the derivative of `_tail` by the decay."""
    of_level = _sum(level * np.exp(-level / decay)) / level.size if level.size else 0.0
    return np.asarray((n * np.exp(-n / decay) - of_level) / decay**2)


def _offset(n: F64, height: F64, power: F64, level: F64) -> _Offset:
    """Fit the offset to the relative ``height`` of columns ``n``, with variance 1 / ``power`` (each [column])."""
    from scipy.optimize import minimize_scalar

    def shape(log_decay: float) -> F64:
        return _tail(n, level, math.exp(log_decay))

    def gain(log_decay: float) -> float:
        """Compute the (negative) change of chi^2 by the fit, plus the penalty for an unusual decay."""
        model, unusual = shape(log_decay), ((log_decay - USUAL) / SPREAD) ** 2
        return unusual - max(_sum(power * height * model), 0.0) ** 2 / _sum(power * model * model)

    low, high = float(np.log(DECAYS[0])), float(np.log(DECAYS[1]))
    grid = np.linspace(low, high, 40)
    best, step = float(grid[int(np.argmin([gain(g) for g in grid]))]), (high - low) / 39
    found = float(minimize_scalar(gain, bounds=(best - step, best + step), method="bounded").x)
    model, decay = shape(found), float(np.exp(found))
    weight = _sum(power * model * model)
    drift, alone = _sum(power * height * model) / weight, weight**-0.5
    if drift < SIGNIFICANT * alone:
        return _Offset(drift_error=alone)
    slope = drift * _steepness(n, level, decay)
    cross, other = _sum(power * model * slope), _sum(power * slope * slope) + (SPREAD * decay) ** -2
    inverse = 1 / (weight * other - cross * cross)  # of the determinant of the parameters' matrix
    one = np.ones(1)
    per_drift, per_decay = float(_tail(one, level, decay)[0]), drift * float(_steepness(one, level, decay)[0])
    first = per_drift**2 * other - 2 * per_drift * per_decay * cross + per_decay**2 * weight
    return _Offset(drift, math.sqrt(other * inverse), decay, drift * per_drift, math.sqrt(first * inverse))


def _sum(values: F64) -> float:
    """Sum exactly: the bits of a matrix product may depend on the values' place in memory."""
    return math.fsum(values.tolist())


def _looked_at(faint: Bool, some: Bool, columns: int, ranges: Ranges) -> Bool:
    """Choose the overscan columns to use [exposure, column]."""
    looked = np.zeros((len(faint), columns), np.bool_)
    for exposures, (first, last) in ((faint, ranges.cti_columns), (some, ranges.offset_columns)):
        looked[exposures, first - 1 : last] = True
    return looked


def fit(signal: F64, tail: F64, error: F64, shifts: int, ranges: Ranges, level: Sequence[int] = ()) -> Fit:
    """Fit one amplifier.

    Parameters
    ----------
    signal : `numpy.ndarray` [exposure], float64
        Signal of the last data column, electron; NaN where unknown.
    tail : `numpy.ndarray` [exposure, overscan column], float64
        Means of the overscan columns from the first on, electron.
    error : `numpy.ndarray` [exposure], float64
        Standard error of each of these means, electron.
    shifts : `int`
        Transfers of the last data column.
    level : sequence of `int`
        Overscan columns, counted from 1, that the rows' levels were taken from.

    Returns
    -------
    fit : `Fit`
        With 0 exposures where the amplifier does not respond to light.
    """
    lit = np.isfinite(signal) & np.isfinite(tail).all(axis=1) & (signal > LIT)
    faint, some = lit & (signal < ranges.cti_signal), lit & (signal < ranges.offset_signal)
    if not faint.any():
        return Fit()
    weight = (signal / error)[:, np.newaxis] ** 2 * _looked_at(faint, some, tail.shape[1], ranges)
    power: F64 = np.array([_sum(column) for column in weight.T])
    used = np.flatnonzero(power)
    height: F64 = np.array(
        [_sum(w[w > 0] * tail[w > 0, x] / signal[w > 0]) / power[x] for x, w in zip(used, weight.T[used], strict=True)]
    )
    behind = used > 0
    columns, under = (used[behind] + 1).astype(np.float64), np.asarray(level, np.float64)
    offset = _offset(columns, height[behind], power[used[behind]], under)
    first = float(height[0]) - offset.first
    return Fit(
        cti=max(first, 0.0) / shifts,
        cti_error=math.hypot(power[0] ** -0.5, offset.first_error) / shifts,
        drift=offset.drift,
        drift_error=offset.drift_error,
        decay=offset.decay,
        eper=float(np.median(tail[faint, :2].sum(axis=1) / (shifts * signal[faint]))),
        exposures=int(faint.sum()),
    )


def tails(reader: Reader, file: File, columns: int) -> list[F64]:
    """Measure means of each amplifier's last data column and overscan columns, clipped at 3 sigma, electron.

    Returns
    -------
    means : `list` of `numpy.ndarray` [1 + column], float64
        NaN where no pixel is good.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    means = []
    for channel, image in zip(reader.channels, trailing(reader, file, columns), strict=True):
        electrons = image if channel.gain != 1.0 else image * np.float32(channel.amplifier.gain)
        each = [clipped_mean(np.ascontiguousarray(electrons[:, x : x + 1]))[0] for x in range(electrons.shape[1])]
        means.append(np.array(each))
    return means


class Cti(FrameKernel):
    """The gang kernel: a piece is one exposure of one detector.

    ``config``: ``isr``, the fields of `Ranges`, ``permissions``; output ``cti``.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._ranges = Ranges.from_plain(job.config)

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each exposure by the bytes read for it."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> F64:
        """Measure the means [amplifier, 1 + column] of one exposure."""
        file = self.raws(task)[piece]
        found: dict[int, F64] = {}
        for reader in self.readers(task):
            numbers = [channel.number for channel in reader.channels]
            found |= dict(zip(numbers, tails(reader, file, self._ranges.columns), strict=True))
        return np.array([found[k] for k in sorted(found)])

    def finish(self, task: Task, results: Iterable[F64]) -> dict[str, Any]:
        """Fit each amplifier and publish.

        Raises
        ------
        DataError
            No amplifier of the detector responds to light, or a frame is another detector's.
        """
        self.require_inputs(task)
        means = np.array([result.copy() for result in results])  # another rank's result is valid until the next one
        detector = self.calibrations(task).detector
        fits = []
        for k, amplifier in enumerate(detector.amplifiers):
            error = np.full(len(means), amplifier.read_noise / np.sqrt(amplifier.data.ny))
            region, last = serial_region(amplifier, self.isr), amplifier.read_order(amplifier.data).x1
            region = region and amplifier.read_order(region)
            level = range(region.x0 - last + 1, region.x1 - last + 1) if region else ()
            found = fit(means[:, k, 0], means[:, k, 1:], error, last, self._ranges, level)
            fits.append(found if cti.possible(found.cti, found.drift, found.decay) else Fit())
        if not any(f.exposures for f in fits):
            what = f"no amplifier has light below {self._ranges.cti_signal:g} electron: not flats of a faint ramp"
            raise DataError(self.raws(task)[0].path, what)
        cards: list[Card] = [("NEXPOSUR", len(means), "flats that were looked at"), *self.calibrations(task).left_out]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        unmeasured = [a.name for a, f in zip(detector.amplifiers, fits, strict=True) if not f.exposures]
        output = publish(
            task.outputs[cti.KIND],
            lambda path: cti.write(path, self.camera, detector, [f.row() for f in fits], cards),
            self.stamp,
            self.job.config["permissions"],
        )
        return {cti.KIND: output, "inputs_used": len(means), "not_measured": unmeasured}


def execute(job: Job, comm: Any) -> int:
    """Measure every task's detector; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Cti(job))
