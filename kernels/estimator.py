"""How far the statistics of `kernels.clip` are from the truth, for Gaussian inputs of one variance.

Clipping throws away the tails: what survives scatters less than the inputs do, and its mean is known
worse than a mean of all.  So the survivors' variance / count is multiplied by a factor, by the number of
good inputs, whose expectation is the variance of the result.  Inputs of whole numbers (ADU) add what
their rounding does: a median of whole numbers is a whole number itself, and survivors that are all equal
tell nothing of the scatter.

The usual rules have a table; others are simulated through `clip.collapse` itself, from a fixed seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels import clip
from kernels.network import workspace

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Numbers of inputs that are looked at; between them factors are interpolated.
GRID: Final = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 25, 30, 40, 50, 80, 100, 150, 200)
#: By rule: what `Table` holds, at the numbers of `GRID`.  Simulated as `_simulated` does, of 3e8 values each
#: (MEDIAN 1e8): good to 3e-4 (MEDIAN 2e-3).
KNOWN: Final[dict[clip.Rule, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    clip.Rule("MEANCLIP"): (
        (
            1.0000,
            1.0000,
            1.1714,
            1.1773,
            1.1387,
            1.1176,
            1.1135,
            1.1370,
            1.1154,
            1.1040,
            1.0985,
            1.1045,
            1.0931,
            1.0862,
            1.0828,
            1.0839,
            1.0770,
            1.0708,
            1.0615,
            1.0539,
            1.0461,
            1.0423,
            1.0375,
            1.0363,
            1.0349,
            1.0348,
        ),
        (
            0.9998,
            0.9999,
            0.8397,
            0.7753,
            0.8408,
            0.8727,
            0.8861,
            0.8757,
            0.8970,
            0.9089,
            0.9152,
            0.9154,
            0.9244,
            0.9302,
            0.9335,
            0.9350,
            0.9395,
            0.9448,
            0.9528,
            0.9585,
            0.9641,
            0.9669,
            0.9703,
            0.9712,
            0.9722,
            0.9726,
        ),
    ),
    clip.Rule("MEDIAN"): (
        (
            1.0000,
            1.3459,
            1.1928,
            1.4346,
            1.2884,
            1.4736,
            1.3445,
            1.4945,
            1.3837,
            1.5090,
            1.4115,
            1.5189,
            1.4305,
            1.5256,
            1.4458,
            1.5307,
            1.4580,
            1.4686,
            1.5425,
            1.5010,
            1.5165,
            1.5280,
            1.5430,
            1.5508,
            1.5579,
            1.5578,
        ),
        (
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
        ),
    ),
    clip.Rule("SIGMACLIP"): (
        (
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0000,
            1.0003,
            1.0013,
            1.0022,
            1.0038,
            1.0048,
            1.0064,
            1.0074,
            1.0087,
            1.0094,
            1.0115,
            1.0154,
            1.0181,
            1.0216,
            1.0241,
            1.0278,
            1.0291,
            1.0309,
            1.0321,
        ),
        (
            0.9998,
            0.9999,
            0.9999,
            1.0002,
            1.0000,
            1.0000,
            1.0000,
            0.9999,
            0.9998,
            0.9987,
            0.9978,
            0.9966,
            0.9956,
            0.9942,
            0.9933,
            0.9922,
            0.9915,
            0.9900,
            0.9869,
            0.9850,
            0.9823,
            0.9805,
            0.9777,
            0.9768,
            0.9755,
            0.9749,
        ),
    ),
}
#: Values of a simulation: its factors are good to 0.5 %.
SAMPLE: Final = 1 << 20
#: The same where rounding is compared with none, on the same numbers.
STEPPED: Final = 1 << 19
#: A simulation must have this many pixels whose survivors are all equal, to say anything of them.
ENOUGH: Final = 100


@dataclass(frozen=True)
class Table:
    """What to expect of a rule, by the number of good inputs; entries 0 and 1 say nothing.

    Parameters
    ----------
    spread : `numpy.ndarray` [n + 1], float32
        Variance of the result over that of a plain mean.
    scatter : `numpy.ndarray` [n + 1], float32
        Variance of the result over the expected survivors' variance / count.
    equal : `numpy.ndarray` [n + 1], float32
        As ``spread``, of results whose survivors are all equal.
    """

    spread: F32
    scatter: F32
    equal: F32


@cache
def _pool(numbers: int) -> tuple[F32, F32]:
    """Gaussian and uniform numbers, always the same."""
    rng = np.random.Generator(np.random.PCG64(20241208))
    return rng.standard_normal(numbers, dtype=np.float32), rng.random(numbers // 2, dtype=np.float32) - np.float32(0.5)


def _collapsed(values: F32, rule: clip.Rule) -> tuple[F64, F64]:
    """Results and survivors' variance / count of values [n, pixel]."""
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
    """Of ``n`` Gaussian values: variance of the result, and expected survivors' variance / count, over 1 / n."""
    values = _gaussian(n)
    image, variance = _collapsed(values, rule)
    excess = image**2 - values.mean(axis=0, dtype=np.float64) ** 2  # what a plain mean has is known, and mostly shared
    return 1 + n * float(excess.mean()), n * float(variance.mean())


@cache
def _smooth(rule: clip.Rule, most: int) -> tuple[tuple[int, ...], F64, F64]:
    """Grid, spread and survivors' share up to ``most`` inputs."""
    if rule.statistic in ("MEAN", "WEIGHTED"):
        return (2,), np.ones(1), np.ones(1)
    if rule in KNOWN:
        spread, survivors = KNOWN[rule]
        return GRID, np.array(spread), np.array(survivors)
    numbers = (*(n for n in GRID if n < most), min(most, GRID[-1]))
    found = np.array([_simulated(rule, n) for n in numbers])
    return numbers, found[:, 0], found[:, 1]


@dataclass(frozen=True)
class Steps:
    """Inputs that are whole steps of the converter, less the medians of overscans.

    Parameters
    ----------
    noise : `float`
        Of an input, its rounding left out; steps.
    columns, rows : `int`
        Of the serial and the parallel overscan, 0 without: medians of even numbers are halves of steps at times.
    """

    noise: float
    columns: int = 0
    rows: int = 0

    @property
    def rounded(self) -> Steps:
        """The noise to an eighth of an octave: amplifiers that hardly differ share a simulation."""
        return Steps(2.0 ** (round(8 * math.log2(max(self.noise, 0.1))) / 8), self.columns, self.rows)


def _parts(steps: Steps) -> F32:
    """Parts of a step by which levels differ: those of some rows and columns."""
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
    """What rounding does: to spread and scatter, factors; and `Table.equal`."""
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


def _coarse(rule: clip.Rule, n: int, noise: float) -> bool:
    """Whether steps of the converter change the variance by more than about one percent."""
    return noise < max(40 / n, math.sqrt(6 * n) if rule.statistic == "MEDIAN" else 2.0)


def _rounded(values: F64) -> F32:
    """To four digits: no processor's last bit gets into a product."""
    return np.asarray([float(f"{value:.4g}") for value in values], np.float32)


@cache
def table(rule: clip.Rule, n: int, steps: Steps | None = None) -> Table:
    """What to expect of up to ``n`` inputs.

    Parameters
    ----------
    rule : `kernels.clip.Rule`
        WEIGHTED counts as MEAN.
    steps : `Steps`, optional
        Where inputs are whole steps of the converter.
    """
    if rule.statistic in ("MEAN", "WEIGHTED"):
        rule = clip.Rule("MEAN")
    grid, spread, survivors = _smooth(rule, max(n, 2))
    good = np.arange(n + 1)
    of_spread, of_survivors = np.interp(good, grid, spread), np.interp(good, grid, survivors)
    of_scatter, of_equal = of_spread / of_survivors, of_spread
    if steps and n > 1 and _coarse(rule, n, steps.noise):
        more, less, equal = _stepped(rule, min(n, GRID[-1]), steps.rounded)
        of_scatter, of_equal = of_scatter * less, np.full(n + 1, equal)
        of_spread = of_spread * more
    return Table(_rounded(of_spread), _rounded(of_scatter), _rounded(of_equal))
