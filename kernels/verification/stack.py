"""Metrics of many exposures of one detector: faint patterns average, defects repeat, levels make a ladder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kernels.verification.applied import Components
from kernels.verification.frame import Frame
from kernels.verification.measure import CLIPPED_MEAN, CLIPPED_SIGMA, COUNT, NSIGMA
from kernels.verification.metric import Values, metric, wanted
from kernels.verification.rows import Rows, Sheet, join

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Most bins of a profile.
BINS = 32
#: Rate of a hot pixel, electron/second; signal of a cold one over its amplifier's level.
HOT, COLD = 5.0, 0.8
#: A pixel repeats that is found in more than this share of the exposures, and in at least two.
REPEATS = 0.5
#: Axes of profiles.
ROWS, COLUMNS = 0, 1


@dataclass(frozen=True)
class Share:
    """Share of one exposure of one detector in a stack; plain arrays."""

    exposure: int
    role: str
    kind: str
    detector: int
    amplifiers: tuple[str, ...]
    #: [amplifier, 2, `BINS`], float32: Means of bins of rows and columns, flats relative; NaN beyond the last bin.
    profiles: F32
    #: [amplifier, 2], float64: Variance of a bin: the frame's own, and the shared one.
    own: F64
    shared: F64
    #: [amplifier, amplifier], float32: Correlation of pixels read at the same time; empty where it is not measured.
    correlations: F32
    #: Variance of a correlation of independent amplifiers: the frame's own, and the shared one.
    scatter: tuple[float, float]
    #: [n], int64: Places (y x width + x) of pixels outside the mask that are hot, or cold.
    hot: I64
    cold: I64
    #: [amplifier], float64: Mean over the median of the detector's amplifiers, and its variance.
    ratios: F64
    variance: F64
    #: Width of the detector, pixel, and boxes [amplifier, (x0, y0, nx, ny)].
    width: int
    boxes: I64


def _profiles(frame: Frame) -> tuple[F32, F64, F64]:
    """Bin the profiles of all amplifiers; return also the variances of a bin."""
    n = len(frame.boxes)
    found, variances = np.full((n, 2, BINS), np.nan, np.float32), [np.full((n, 2), np.nan) for _ in range(2)]
    level = frame.of(CLIPPED_MEAN) if frame.kind == "flat" else np.ones(n)
    for k, box in enumerate(frame.boxes):
        for axis, (profile, across) in enumerate(
            ((frame.measured.rows[k], box.nx), (frame.measured.columns[k], box.ny))
        ):
            side = -(-profile.size // BINS)
            whole = profile[: profile.size // side * side].reshape(-1, side)
            found[k, axis, : len(whole)] = whole.mean(axis=1) / level[k]
            for to, part in zip(variances, (frame.noise.own, frame.noise.shared), strict=True):
                to[k, axis] = _of_bin(part, k, axis, side, across) / level[k] ** 2
    return found, variances[0], variances[1]


def _of_bin(part: Components, k: int, axis: int, side: int, across: int) -> float:
    """Compute the variance of a bin of ``side`` rows or columns, ``across`` pixels long."""
    along = part.row if axis == ROWS else part.column
    return float(part.pixel[k] / (side * across) + along[k] / side)


def _scatter(frame: Frame) -> tuple[float, float]:
    """Compute the variance of a correlation: rows and columns make fewer pixels independent, products are shared."""
    own, shared = frame.noise.own, frame.noise.shared
    total = own.total + shared.total
    wide = 1 + (own.row / total) ** 2 * frame.width + (own.column / total) ** 2 * frame.height
    number = frame.of(COUNT)
    live = np.nan_to_num(number) > 0
    if not live.any():
        return np.nan, np.nan
    own_, shared_ = wide / number, wide * (shared.total / total) ** 2 / number
    return float(np.mean(own_[live])), float(np.mean(shared_[live]))


def _correlations(frame: Frame) -> F32:
    """Correlate the amplifiers' pixels in read-out order; empty where they are of unlike shape, or only one."""
    shapes = {(b.ny, b.nx) for b in frame.boxes}
    if frame.kind == "flat" or len(shapes) > 1 or len(frame.boxes) < 2:
        return np.empty((0, 0), np.float32)
    (ny, nx) = next(iter(shapes))
    pixels = np.empty((len(frame.boxes), ny, nx), np.float32)
    for to, box, a in zip(pixels, frame.boxes, frame.detector.amplifiers, strict=True):
        to[:] = frame.clean[box.slices][:: -1 if a.flip_y else 1, :: -1 if a.flip_x != a.leftwards else 1]
    flat = pixels.reshape(len(pixels), -1)
    flat -= frame.of(CLIPPED_MEAN).astype(np.float32)[:, np.newaxis]
    limit = (NSIGMA * frame.of(CLIPPED_SIGMA)).astype(np.float32)[:, np.newaxis]
    flat[~(np.abs(flat) <= limit)] = 0
    products = flat @ flat.T
    size = np.sqrt(np.diag(products))
    with np.errstate(invalid="ignore"):
        return np.asarray(products / np.outer(size, size), np.float32)


def _each_amplifier(frame: Frame, values: F64) -> F32:
    """Make an image [y, x] of a value an amplifier; NaN between them."""
    image = np.full(frame.image.shape, np.nan, np.float32)
    for box, value in zip(frame.boxes, values, strict=True):
        image[box.slices] = value
    return image


def share(frame: Frame) -> Share:
    """Take from a frame what its stack needs."""
    profiles, own, shared = _profiles(frame)
    none = np.empty(0, np.int64)
    hot, cold, means, sigmas = none, none, frame.of(CLIPPED_MEAN), frame.of(CLIPPED_SIGMA)
    middle = float(np.nanmedian(means)) if np.isfinite(means).any() else np.nan
    if frame.kind == "dark" and frame.seconds:
        hot = np.flatnonzero(frame.image > _each_amplifier(frame, HOT * frame.seconds * frame.electron))
    if frame.kind == "flat":
        cold = np.flatnonzero(frame.image < _each_amplifier(frame, np.fmin(COLD * means, means - NSIGMA * sigmas)))
    return Share(
        frame.exposure, frame.role, frame.kind, frame.detector.id, tuple(a.name for a in frame.detector.amplifiers),
        profiles, own, shared, _correlations(frame), _scatter(frame), hot.astype(np.int64), cold.astype(np.int64),
        means / middle, frame.noise.own.mean(frame.height, frame.width, frame.of(COUNT)) / middle**2,
        frame.detector.size[0], np.array([(b.x0, b.y0, b.nx, b.ny) for b in frame.boxes], np.int64),
    )  # fmt: skip


@dataclass(frozen=True)
class Stack:
    """Shares of exposures of one detector, kind and role."""

    shares: Sequence[Share]

    @property
    def first(self) -> Share:
        """Any of them."""
        return self.shares[0]

    @cached_property
    def correlations(self) -> F64:
        """Correlations [exposure, amplifier, amplifier]."""
        return np.array([one.correlations for one in self.shares], np.float64)

    def repeated(self, places: Sequence[I64]) -> F64:
        """Count the pixels [amplifier] that are found again and again."""
        pixels, times = np.unique(np.concatenate(places), return_counts=True)
        often = pixels[(times > REPEATS * len(places)) & (times > 1)]
        y, x = np.divmod(often, self.first.width)
        inside = [(x >= x0) & (x < x0 + nx) & (y >= y0) & (y < y0 + ny) for x0, y0, nx, ny in self.first.boxes.tolist()]
        return np.array([np.count_nonzero(one) for one in inside], np.float64)


def _profile(stack: Stack, axis: int) -> Values:
    """Compare the mean profile with its mean: the sum of squares over variances."""
    n, every = len(stack.shares), np.array([one.profiles[:, axis] for one in stack.shares], np.float64)
    mean = every.mean(axis=0)
    own, shared = (np.mean([getattr(s, name)[:, axis] for s in stack.shares], axis=0) for name in ("own", "shared"))
    variance = np.maximum(own / n + shared, 0.1 * own / n)
    good = np.isfinite(mean)
    number = good.sum(axis=1)
    centre = np.sum(mean, axis=1, where=good) / np.maximum(number, 1)
    squares = np.sum((mean - centre[:, np.newaxis]) ** 2, axis=1, where=good) / variance
    freedom = np.maximum(number - 1, 0)
    return Values(np.where(freedom > 0, squares, np.nan), freedom, 0.0, size=freedom)


@metric("PROFILE_ROW", "chi2", of="stack", model="chi2")
def profile_row(stack: Stack) -> Values:
    """Means of rows, in up to 32 bins, of the mean of the exposures."""
    return _profile(stack, ROWS)


@metric("PROFILE_COLUMN", "chi2", of="stack", model="chi2")
def profile_column(stack: Stack) -> Values:
    """Means of columns, in up to 32 bins, of the mean of the exposures."""
    return _profile(stack, COLUMNS)


@metric("AMP_CORR", "", of="stack", kinds=("bias", "dark"), needs=("pair",))
def amp_corr(stack: Stack) -> Values:
    """Mean correlation between two amplifiers, a row a pair."""
    names, at = stack.first.amplifiers, np.triu_indices(len(stack.first.amplifiers), 1)
    each = stack.correlations[:, at[0], at[1]]
    pairs = tuple(f"{names[i]} {names[j]}" for i, j in zip(*at, strict=True))
    own, shared = np.mean([one.scatter for one in stack.shares], axis=0)
    return Values(each.mean(axis=0), 0.0, own / len(each), shared, names=pairs)


@metric("HOT", "pixel", of="stack", kinds=("dark",))
def hot(stack: Stack) -> Values:
    """Number of pixels outside the mask above 5 electron/second, again and again."""
    return Values(stack.repeated([one.hot for one in stack.shares]))


@metric("COLD", "pixel", of="stack", kinds=("flat",))
def cold(stack: Stack) -> Values:
    """Number of pixels outside the mask below 80 % of their amplifier's level, again and again."""
    return Values(stack.repeated([one.cold for one in stack.shares]))


@metric("MAX_RESIDUAL_ERROR", "", of="stack", kinds=("flat",), model="maximum")
def max_residual_error(stack: Stack) -> Values:
    """Largest change of an amplifier's level relative to the detector's over the exposures, whatever their light."""
    every, variance = (np.array([getattr(s, name) for s in stack.shares]) for name in ("ratios", "variance"))
    weight = 1 / variance
    mean = np.sum(weight * every, axis=0) / weight.sum(axis=0)
    away = np.abs(every - mean) / np.sqrt(variance)
    worst = np.argmax(np.nan_to_num(away), axis=0)
    at = worst, np.arange(every.shape[1])
    return Values(np.abs(every - mean)[at], 0.0, variance[at], size=float(len(every)))


def stacked(shares: Sequence[Share], mjd: float = 0.0) -> Rows:
    """Measure the stack of one detector and kind, role by role; rows with exposure 0."""
    parts = []
    for role in sorted({one.role for one in shares}):
        stack = Stack([one for one in shares if one.role == role])
        first = stack.first
        sheet = Sheet(first.detector, first.amplifiers, first.kind)
        there = {"pair"} if first.correlations.size else set()
        for one in wanted("stack", first.kind, there):
            sheet.add(one, one.compute(stack), mjd=mjd, role=role)
        parts.append(sheet.rows())
    return join(parts)
