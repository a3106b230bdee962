"""Metrics of the raw overscans of a frame, and agreement of its header."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.deferred import Deferral
from kernels.verification.frame import Frame
from kernels.verification.metric import Values, metric

F64 = NDArray[np.float64]

#: Rows on either side of a shift, and the first rows, where levels settle (cp_verify: 30).
WINDOW, SETTLING = 30, 30
#: First columns of the serial overscan whose charge was deferred.
DEFERRED = 2


def _gains(frame: Frame) -> F64:
    return np.array([a.gain for a in frame.detector.amplifiers])


def _read_noise(frame: Frame) -> Values:
    """Measure the standard deviation about each row's mean, in electrons."""
    value = np.sqrt([one.noise2 for one in frame.serial]) * _gains(frame)
    number = np.array([one.levels.size * (one.columns.size - frame.isr.skip_columns - 1) for one in frame.serial])
    expected = np.array([np.hypot(a.read_noise, a.gain / 12**0.5) for a in frame.detector.amplifiers])
    return Values(value, expected, expected**2 / (2 * number))


@metric("READ_NOISE", "electron", kinds=("bias", "dark"), needs=("overscans",))
def read_noise(frame: Frame) -> Values:
    """Standard deviation of the serial overscan about each row's mean."""
    return _read_noise(frame)


@metric("NOISE_SIGNAL_INDEPENDENCE", "electron", kinds=("flat",), needs=("overscans",))
def noise_signal_independence(frame: Frame) -> Values:
    """Standard deviation of the serial overscan of a frame with light: the electronics' noise at that signal."""
    return _read_noise(frame)


@metric("OVERSCAN_LEVEL", "adu", needs=("overscans",))
def overscan_level(frame: Frame) -> Values:
    """Mean of the serial overscan, to compare exposures."""
    return Values(np.array([float(one.levels.mean()) for one in frame.serial]))


@lru_cache(maxsize=8)
def _weights(n: int) -> F64:
    """Make the least squares' weights of a step in the middle of 2 n rows that also have a slope."""
    at = np.arange(2 * n) - n + 0.5
    design = np.column_stack([np.where(at > 0, 0.5, -0.5), at, np.ones(2 * n)])
    return np.ascontiguousarray(np.linalg.pinv(design)[0])


def _shift(levels: F64) -> F64:
    """Fit a step between two windows of rows with one slope, at each row [row]; ADU.

    Weights are those of least squares for a step and a line: a slow drift does not count.
    """
    weights = _weights(min(WINDOW, (len(levels) - 1) // 3))
    return np.convolve(levels, weights[::-1], mode="valid")[min(SETTLING, len(levels) // 4) :]


def _steps(frame: Frame) -> list[F64]:
    """Fit steps to the row levels of each amplifier, after the first rows."""
    return [_shift(one.levels) for one in frame.serial]


@metric("BIAS_SHIFT", "adu", needs=("overscans",), model="maximum")
def bias_shift(frame: Frame) -> Values:
    """Largest step of the row levels within 60 rows, after the first 30."""
    found = []
    for one, steps in zip(frame.serial, _steps(frame), strict=True):
        weights = _weights(min(WINDOW, (one.levels.size - 1) // 3))
        width = one.columns.size - frame.isr.skip_columns
        variance = one.noise2 / width * float(weights @ weights)
        found.append((float(np.max(np.abs(steps))), variance, steps.size))
    value, variances, size = np.array(found).T
    return Values(value, 0.0, variances, size=size)


def _predicted(deferral: Deferral | None) -> F64:
    """Give the fractions that a cti table predicts in the two columns: by transfer, and by the output."""
    if deferral is None:
        return np.zeros(2)
    return np.array([deferral.cti, deferral.drift * sum(deferral.kept**n for n in range(1, DEFERRED + 1))])


def _trail(frame: Frame) -> tuple[F64, F64, F64, F64]:
    """Measure the charge in the first overscan columns [amplifier]: that, its variance, signal, transfers; ADU."""
    found = []
    for one, serial, amplifier in zip(frame.raw or (), frame.serial, frame.detector.amplifiers, strict=True):
        late = serial.columns[max(frame.isr.skip_columns, DEFERRED) :]
        level = float(late.mean())
        error2 = serial.noise2 / serial.levels.size * (DEFERRED + DEFERRED**2 / late.size)
        box = amplifier.read_order(amplifier.data)
        found.append((float(np.sum(serial.columns[:DEFERRED] - level)), error2, one.last_column - level, box.x1))
    trail, error2_, signal, transfers = np.array(found).T
    return trail, error2_, signal, transfers


@metric("EPER_SERIAL", "", kinds=("flat",), needs=("overscans",))
def eper_serial(frame: Frame) -> Values:
    """Charge in the first two overscan columns over that of the last imaging column and its transfers."""
    trail, error2, signal, transfers = _trail(frame)
    return Values(trail / (signal * transfers), 0.0, error2 / (signal * transfers) ** 2)


@metric("CTI", "", kinds=("flat",), needs=("overscans", "cti"))
def cti(frame: Frame) -> Values:
    """EPER_SERIAL less what the cti table predicts."""
    trail, error2, signal, transfers = _trail(frame)
    assert frame.deferrals is not None
    table = np.array([_predicted(one) for one in frame.deferrals])
    expected = table[:, 0] + table[:, 1] / transfers
    return Values(trail / (signal * transfers), expected, error2 / (signal * transfers) ** 2)


@metric("EPER_PARALLEL", "", kinds=("flat",), needs=("overscans", "parallel overscans"))
def eper_parallel(frame: Frame) -> Values:
    """Charge in the first two rows of the parallel overscan over that of the last imaging row and its transfers."""
    value, variance = (np.full(len(frame.boxes), np.nan) for _ in range(2))
    for k, (one, amplifier) in enumerate(zip(frame.raw or (), frame.detector.amplifiers, strict=True)):
        rows = one.parallel.astype(np.float64).mean(axis=1)
        late = rows[DEFERRED:]
        signal = (one.last_row - float(late.mean())) * amplifier.data.y1
        noise2 = (amplifier.read_noise / amplifier.gain) ** 2 / amplifier.data.nx
        value[k] = float(np.sum(rows[:DEFERRED] - late.mean())) / signal
        variance[k] = noise2 * (DEFERRED + DEFERRED**2 / len(late)) / signal**2
    return Values(value, 0.0, variance)


def _differs(frame: Frame, name: str) -> Values:
    assert frame.header is not None
    found, wanted = frame.header.found.get(name, ""), frame.header.wanted.get(name, "")
    return Values(float(found != wanted))


@metric("UNIT", "", model="exact", needs=("header",), amplifiers=False)
def unit(frame: Frame) -> Values:
    """Whether a product's unit is not the camera's."""
    return _differs(frame, "UNIT")


@metric("DETECTOR", "", model="exact", needs=("header",), amplifiers=False)
def detector(frame: Frame) -> Values:
    """Whether a product is another detector's."""
    return _differs(frame, "DETECTOR")


@metric("FILTER", "", model="exact", needs=("header",), kinds=("flat",), amplifiers=False)
def filter_(frame: Frame) -> Values:
    """Whether the flat is of another filter than the frame."""
    return _differs(frame, "FILTER")


@metric("VALIDITY", "", model="exact", needs=("header",), amplifiers=False)
def validity(frame: Frame) -> Values:
    """Whether the exposure lies outside the dates of a product; `found` is ``outside`` then, `wanted` ``inside``."""
    return _differs(frame, "VALIDITY")
