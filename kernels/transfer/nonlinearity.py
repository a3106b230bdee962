"""Groups of exposures, and the signals up to which an amplifier is linear but for a small deviation.

The rules are those of cp_pipe's LinearitySolveTask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Fewest points that show a turnoff.
FEWEST = 5


class NoLine(ValueError):
    """Points without a line, and why."""


@dataclass(frozen=True)
class LinearTurnoff:
    """End of the range that a spline can correct."""

    #: Largest mean near the line, ADU.
    signal: float
    #: Level of saturation, ADU: the turnoff where none is seen.
    largest: float
    #: [point], bool: Near the line.
    good: Bool


def groups(signal: F64, light: F64, threshold: float = 0.1, share: float = 0.9) -> I64:
    """Find the groups of exposures in which signal is proportional to light, as by filters in front of the monitor.

    Parameters
    ----------
    signal, light : `numpy.ndarray` [exposure], float64
        Mean, ADU; exposure time or charge of a diode.
    threshold : `float`
        Gap between the ratios of two groups, relative to the median ratio.
    share : `float`
        Part of the largest signal above which an exposure may saturate: it belongs to the group of the brightest one
        below.

    Returns
    -------
    group : `numpy.ndarray` [exposure], int64
        From 0, in the order of the ratios; -1 where a value is not finite or not above 0.
    """
    group = np.full(signal.shape, -1, np.int64)
    usable = np.isfinite(signal) & np.isfinite(light) & (light > 0) & (signal > 0)
    if not usable.any():
        return group
    above = usable & (signal > share * signal[usable].max())
    below = usable & ~above if (usable & ~above).any() else usable
    ratio = signal[below] / light[below]
    order = np.argsort(ratio, kind="stable")
    jumps = np.diff(ratio[order]) > threshold * np.median(ratio)
    number = np.empty(order.size, np.int64)
    number[order] = np.concatenate([[0], np.cumsum(jumps)])
    group[below] = number
    group[above] = group[np.flatnonzero(below)[np.argmax(signal[below])]]
    return group


def _slopes(light: F64, signal: F64, group: I64, used: Bool) -> F64:
    """Fit a line through 0 to each group, signals being their own variances: [point], not a number without points."""
    slope = np.full(light.shape, np.nan)
    for one in np.unique(group[used]):
        mine = used & (group == one)
        slope[group == one] = light[mine].sum() / (light[mine] ** 2 / signal[mine]).sum()
    return slope


def linear_turnoff(
    light: F64, signal: F64, used: Bool, group: I64 | None = None, ptc: float = np.inf, deviation: float = 0.01
) -> LinearTurnoff:
    """Find the largest signal that a line through 0 describes.

    Parameters
    ----------
    light, signal : `numpy.ndarray` [point], float64
        Exposure time or charge of a diode; mean, ADU.
    used : `numpy.ndarray` [point], bool
        Points of the first line: those below the PTC's turnoff; means below 1000 ADU are left out.
    group : `numpy.ndarray` [point], int64, optional
        Each group has a line of its own.
    ptc : `float`
        Turnoff of the PTC, ADU: that of linearity is below 1.3 times this.
    deviation : `float`
        Largest deviation, relative to the signal.

    Raises
    ------
    NoLine
        Never 5 points near a line.
    """
    group = np.zeros(light.shape, np.int64) if group is None else group
    finite = np.isfinite(light) & np.isfinite(signal) & (signal > 0) & (light > 0)
    used = used & finite & (signal >= 1000) & (signal <= 1.3 * ptc)
    while used.sum() >= FEWEST - 1:
        with np.errstate(invalid="ignore", divide="ignore"):
            residuals = 1 - _slopes(light, signal, group, used) * light / signal
            residuals = residuals - np.median(residuals[used])
            good = finite & (np.abs(residuals) < deviation) & (signal < 1.3 * ptc)
        if good.sum() >= FEWEST:
            return LinearTurnoff(float(signal[good].max()), _saturation(signal[finite], signal[good], deviation), good)
        used[np.flatnonzero(used)[np.argmax(np.abs(residuals[used]))]] = False
    raise NoLine(f"of {light.size} points fewer than {FEWEST} lie within {deviation:.2g} of a line")


def _saturation(signal: F64, good: F64, deviation: float) -> float:
    """Take the median of the means near the largest one."""
    largest = float(signal.max())
    return largest if good.max() == largest else float(np.median(signal[signal > (1 - deviation) * largest]))
