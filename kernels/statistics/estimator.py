"""Bias of the statistics of `kernels.statistics.clip`, for Gaussian inputs of one variance.

Clipping removes the tails: survivors scatter less than the inputs, and their mean is less certain than a
mean of all.  So the survivors' variance / count is multiplied by a factor that depends on the number of
good inputs, and then has the variance of the result as its expectation.  Inputs that are whole numbers
(ADU) add the effects of rounding: a median of whole numbers is a whole number itself, and survivors that
are all equal show no scatter.

Rules with default settings have a table; others are simulated through `clip.collapse` itself, from a fixed seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.statistics import clip
from kernels.statistics.network import workspace
from kernels.statistics.weighted import clipped_weighted_mean

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Simulated numbers of inputs; between them factors are interpolated.
GRID: Final = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 25, 30, 40, 50, 80, 100, 150, 200)
#: Number of inputs; spread (see `Table`) and survivors' variance / count over 1 / n of MEANCLIP, then of SIGMACLIP,
#: both with the default settings.  Simulated as by `_simulated`, with 3e8 values each: good to 3e-4.
CLIPPED: Final = np.array(
    [
        (2, 1.0000, 0.9998, 1.0000, 0.9998),
        (3, 1.0000, 0.9999, 1.0000, 0.9999),
        (4, 1.1714, 0.8397, 1.0000, 0.9999),
        (5, 1.1773, 0.7753, 1.0000, 1.0002),
        (6, 1.1387, 0.8408, 1.0000, 1.0000),
        (7, 1.1176, 0.8727, 1.0000, 1.0000),
        (8, 1.1135, 0.8861, 1.0000, 1.0000),
        (9, 1.1370, 0.8757, 1.0000, 0.9999),
        (10, 1.1154, 0.8970, 1.0003, 0.9998),
        (11, 1.1040, 0.9089, 1.0013, 0.9987),
        (12, 1.0985, 0.9152, 1.0022, 0.9978),
        (13, 1.1045, 0.9154, 1.0038, 0.9966),
        (14, 1.0931, 0.9244, 1.0048, 0.9956),
        (15, 1.0862, 0.9302, 1.0064, 0.9942),
        (16, 1.0828, 0.9335, 1.0074, 0.9933),
        (17, 1.0839, 0.9350, 1.0087, 0.9922),
        (18, 1.0770, 0.9395, 1.0094, 0.9915),
        (20, 1.0708, 0.9448, 1.0115, 0.9900),
        (25, 1.0615, 0.9528, 1.0154, 0.9869),
        (30, 1.0539, 0.9585, 1.0181, 0.9850),
        (40, 1.0461, 0.9641, 1.0216, 0.9823),
        (50, 1.0423, 0.9669, 1.0241, 0.9805),
        (80, 1.0375, 0.9703, 1.0278, 0.9777),
        (100, 1.0363, 0.9712, 1.0291, 0.9768),
        (150, 1.0349, 0.9722, 1.0309, 0.9755),
        (200, 1.0348, 0.9726, 1.0321, 0.9749),
    ]
)
#: Number of inputs, and the spread of their median: good to 2e-3.  Interpolate among odd or even numbers only.
MEDIANS: Final = np.array(
    [
        (1, 1.0), (2, 1.0000), (3, 1.3459), (4, 1.1928), (5, 1.4346), (6, 1.2884), (7, 1.4736), (8, 1.3445),
        (9, 1.4945), (10, 1.3837), (11, 1.5090), (12, 1.4115), (13, 1.5189), (14, 1.4305), (15, 1.5256), (16, 1.4458),
        (17, 1.5307), (18, 1.4580), (19, 1.5344), (20, 1.4686), (21, 1.5392), (30, 1.5010), (31, 1.5479), (50, 1.5280),
        (51, 1.5577), (80, 1.5430), (81, 1.5627), (100, 1.5508), (101, 1.5651), (200, 1.5578), (201, 1.5674),
    ]
)  # fmt: skip
#: Values of a simulation; its factors are good to 0.5 %.
SAMPLE: Final = 1 << 20
#: Values of a simulation that compares rounded with unrounded numbers.
STEPPED: Final = 1 << 19
#: Fewest pixels with all survivors equal that give a simulation a usable mean.
ENOUGH: Final = 100


@dataclass(frozen=True)
class Table:
    """Expected behaviour of a rule, by the number of good inputs; entries 0 and 1 mean nothing."""

    #: [n + 1], float32: Variance of the result over that of a plain mean.
    spread: F32
    #: [n + 1], float32: Variance of the result over the expected survivors' variance / count.
    scatter: F32
    #: [n + 1], float32: Like ``spread``, for results whose survivors are all equal.
    equal: F32


@cache
def _pool(numbers: int) -> tuple[F32, F32]:
    """Draw Gaussian and uniform numbers from a fixed seed."""
    rng = np.random.Generator(np.random.PCG64(20241208))
    return rng.standard_normal(numbers, dtype=np.float32), rng.random(numbers // 2, dtype=np.float32) - np.float32(0.5)


def _collapsed(values: F32, rule: clip.Rule) -> tuple[F64, F64]:
    """Collapse values [n, pixel]: results, and survivors' variance / count."""
    n, pixels = values.shape
    cube = workspace(n, pixels)
    cube[:n, :pixels] = values
    width = cube.shape[1]
    image, variance, count = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
    clip.collapse(cube, n, rule, image, variance, count, factors=np.ones(n + 1, np.float32))
    return image[:pixels].astype(np.float64), variance[:pixels].astype(np.float64)


def _gaussian(n: int) -> F32:
    pixels = SAMPLE // n
    return _pool(SAMPLE)[0][: n * pixels].reshape(n, pixels)


def _simulated(rule: clip.Rule, n: int) -> tuple[float, float]:
    """Simulate ``n`` Gaussian values: variance of the result, and expected survivors' variance / count, over 1 / n."""
    values = _gaussian(n)
    image, variance = _collapsed(values, rule)
    excess = image**2 - values.mean(axis=0, dtype=np.float64) ** 2  # a plain mean's part is known, and mostly shared
    return 1 + n * float(excess.mean()), n * float(variance.mean())


@cache
def _smooth(rule: clip.Rule, most: int, parity: int) -> tuple[tuple[float, ...], F64, F64]:
    """Return grid, spread and survivors' share up to ``most`` inputs; of medians for odd (1) or even (0) numbers."""
    if rule.statistic in ("MEAN", "WEIGHTED"):
        return (2,), np.ones(1), np.ones(1)
    if rule == clip.Rule("MEDIAN"):
        kind = MEDIANS[MEDIANS[:, 0] % 2 == parity]
        return tuple(kind[:, 0]), kind[:, 1], np.ones(len(kind))
    if rule in (clip.Rule("MEANCLIP"), clip.Rule("SIGMACLIP")):
        first = 1 if rule.statistic == "MEANCLIP" else 3
        return tuple(CLIPPED[:, 0]), CLIPPED[:, first], CLIPPED[:, first + 1]
    numbers = (*(n for n in GRID if n < most), min(most, GRID[-1]))
    found = np.array([_simulated(rule, n) for n in numbers])
    return numbers, found[:, 0], found[:, 1]


@dataclass(frozen=True)
class Steps:
    """Inputs that are whole steps of the converter, less the medians of overscans."""

    #: Noise of an input without its rounding, steps.
    noise: float
    #: Of the serial and parallel overscan, 0 without: the median of an even number of pixels may be half a step.
    columns: int = 0
    rows: int = 0

    @property
    def rounded(self) -> Steps:
        """These steps with noise rounded to an eighth of an octave, so that similar amplifiers share a simulation."""
        return Steps(2.0 ** (round(8 * math.log2(max(self.noise, 0.1))) / 8), self.columns, self.rows)


def _parts(steps: Steps) -> F32:
    """Draw the fractions of a step that the levels of rows and columns leave."""
    rng, number, noise = np.random.Generator(np.random.PCG64(20241208)), 1024, np.float32(steps.noise)

    def rounded(size: int) -> F32:
        return np.rint(rng.random(number) + noise * rng.standard_normal((size, number))).astype(np.float32)

    rows = np.median(rounded(steps.columns), axis=0) if steps.columns else np.zeros(number)
    column = np.zeros(number)
    if steps.rows:
        column = np.median(rounded(steps.rows) - rng.choice(rows, (steps.rows, number)), axis=0)
    return np.asarray((rows + rng.permutation(column)) % 1, np.float32)


@cache
def _stepped(rule: clip.Rule, n: int, steps: Steps) -> tuple[float, float, float]:
    """Simulate rounding: its factors for spread and scatter, and `Table.equal`."""
    noise, values = np.float32(steps.noise), _gaussian(n)[:, : STEPPED // n]
    truth, parts = _pool(SAMPLE)[1][: values.shape[1]], _parts(steps)
    shift = parts[np.arange(values.size) % (parts.size - 1)].reshape(values.shape)
    image, variance = _collapsed(np.rint(truth + noise * values + shift) - shift, rule)
    square, one = (image - truth) ** 2, (float(noise) ** 2 + 1 / 12) / n
    equal = variance == 0
    of_equal = float(square[equal].mean()) if np.count_nonzero(equal) >= ENOUGH else float(square.mean())
    smooth, spread_of = _collapsed(values, rule)
    spread, survivors = float(np.mean(smooth**2)) * n, float(spread_of.mean()) * n
    rest = float(square.mean()) - float(equal.mean()) * of_equal
    scatter = rest / float(variance.mean()) / (spread / survivors) if variance.any() else 1.0
    return float(square.mean()) / one / spread, scatter, of_equal / one


@cache
def _weighted(rule: clip.Rule, octaves: tuple[int, ...], heavy: bool) -> tuple[float, float]:
    """Simulate spread and scatter of frames of unlike noise, weighted by 2^(octave / 4)."""
    n, weights = len(octaves), 2.0 ** (np.array(octaves) / 4)
    values = _gaussian(n)[:, : STEPPED // n]
    cube = workspace(n, values.shape[1])
    cube[:n, : values.shape[1]] = values / np.sqrt(weights)[:, np.newaxis]
    mean = (values * np.sqrt(weights)[:, np.newaxis]).sum(axis=0, dtype=np.float64) / weights.sum()
    width = cube.shape[1]
    image, variance, count = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
    clipped_weighted_mean(cube, n, rule, weights, image, variance, count, heavy)
    got, some = image[: mean.size].astype(np.float64), np.isfinite(variance[: mean.size])
    spread = 1 + float(np.mean(got**2 - mean**2)) * float(weights.sum())
    return spread, spread / (float(variance[: mean.size][some].mean(dtype=np.float64)) * float(weights.sum()))


def _coarse(rule: clip.Rule, n: int, noise: float) -> bool:
    """Whether steps of the converter change the variance by more than about one percent."""
    return noise < max(40 / n, math.sqrt(6 * n) if rule.statistic == "MEDIAN" else 2.0)


def _canonical(rule: clip.Rule) -> clip.Rule:
    """Reset the settings that a rule does not use."""
    if rule.statistic in ("MEAN", "WEIGHTED", "MEDIAN"):
        return clip.Rule("MEDIAN" if rule.statistic == "MEDIAN" else "MEAN")
    return replace(rule, ddof=1) if rule.statistic == "MEANCLIP" else replace(rule, passes=clip.Rule.passes)


def _rounded(values: F64) -> F32:
    """Round to four digits, so that the last bits of one processor do not get into a product."""
    return np.asarray([float(f"{value:.4g}") for value in values], np.float32)


@cache
def table(
    rule: clip.Rule, n: int, steps: Steps | None = None, weights: tuple[float, ...] = (), heavy: bool = False
) -> Table:
    """Tabulate the expected behaviour of up to ``n`` inputs.

    Parameters
    ----------
    rule : `kernels.statistics.clip.Rule`
        Rule of the clip; WEIGHTED counts as MEAN.
    steps : `Steps`, optional
        The converter's steps, where inputs are multiples of them.
    weights : `tuple` of `float`, optional
        Weights of ``n`` inputs of unlike noise, which is then simulated in place of rounding; the spread is relative to
        the variance of the weighted mean.
    heavy : `bool`, optional
        As for `kernels.statistics.weighted.clipped_weighted_mean`.
    """
    rule = _canonical(rule)
    of_spread, of_survivors = np.ones(n + 1), np.ones(n + 1)
    for parity in (0, 1) if rule.statistic == "MEDIAN" else (0,):
        grid, spread, survivors = _smooth(rule, max(n, 2), parity)
        good = np.arange(parity, n + 1, 2 if rule.statistic == "MEDIAN" else 1)
        of_spread[good], of_survivors[good] = np.interp(good, grid, spread), np.interp(good, grid, survivors)
    of_scatter, of_equal = of_spread / of_survivors, of_spread
    if weights and rule.statistic != "MEAN":
        octaves = tuple(round(4 * math.log2(w / max(weights))) for w in weights)
        spread_of, scatter_of = _weighted(rule, octaves, heavy)
        of_spread, of_scatter, of_equal = (np.full(n + 1, v) for v in (spread_of, scatter_of, spread_of))
    elif steps and n > 1 and _coarse(rule, n, steps.noise):
        more, less, equal = _stepped(rule, min(n, GRID[-1]), steps.rounded)
        of_scatter, of_equal = of_scatter * less, np.full(n + 1, equal)
        of_spread = of_spread * more
    return Table(_rounded(of_spread), _rounded(of_scatter), _rounded(of_equal))
