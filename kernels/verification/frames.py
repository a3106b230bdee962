"""Metrics of a corrected frame's pixels, by amplifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.verification.frame import Frame
from kernels.verification.measure import CLIPPED_MEAN, CLIPPED_SIGMA, COUNT, MEAN, SIGMA, TAIL, box_mean
from kernels.verification.metric import Values, metric

F64 = NDArray[np.float64]

#: Share of Gaussian pixels beyond 5 standard deviations.
BEYOND_5 = 5.733e-7
#: Share of an amplifier's width that the strips beside its boundaries have, and of an edge in tearing.
STRIP, EDGE = 0.25, 0.04


def _mean_of(frame: Frame) -> tuple[F64, F64]:
    """Return the variances of the amplifiers' means: the frame's own, and the shared one."""
    sizes = frame.height, frame.width, frame.of(COUNT)
    return frame.noise.own.mean(*sizes), frame.noise.shared.mean(*sizes)


@metric("MEAN", "electron", kinds=("bias", "dark"))
def mean(frame: Frame) -> Values:
    """Clipped mean (5 sigma x 3) without cosmic rays."""
    own, shared = _mean_of(frame)
    return Values(frame.of(CLIPPED_MEAN), 0.0, own, shared)


@metric("MEAN_PLAIN", "electron", kinds=("bias", "dark"))
def mean_plain(frame: Frame) -> Values:
    """Mean of all good pixels but cosmic rays over NOISE, as cp_verify has it."""
    return Values(frame.of(MEAN) / frame.of(CLIPPED_SIGMA), 0.0, 1 / np.maximum(frame.of(COUNT), 1))


@metric("RATE", "electron/second", kinds=("dark",), needs=("dark time",))
def rate(frame: Frame) -> Values:
    """Clipped mean over the dark time: what the dark has left."""
    own, shared = _mean_of(frame)
    return Values(frame.of(CLIPPED_MEAN) / frame.seconds, 0.0, own / frame.seconds**2, shared / frame.seconds**2)


@metric("NOISE", "electron")
def noise(frame: Frame) -> Values:
    """Clipped standard deviation (5 sigma x 3), against read noise, light, overscan levels and products."""
    sizes = frame.height, frame.width, frame.of(COUNT)
    whole = frame.noise.whole
    expected = np.sqrt(whole.within(*sizes))
    return Values(frame.of(CLIPPED_SIGMA), expected, whole.of_variance(*sizes) / (4 * expected**2))


@metric("NOISE_RATIO", "", kinds=("bias", "dark"))
def noise_ratio(frame: Frame) -> Values:
    """NOISE over the read noise, less 1, as cp_verify has it."""
    read = np.array([a.read_noise for a in frame.detector.amplifiers])
    return Values(frame.of(CLIPPED_SIGMA) / read - 1, 0.0, 0.5 / np.maximum(frame.of(COUNT), 1))


@metric("NOISE_SHOT", "", kinds=("flat",))
def noise_shot(frame: Frame) -> Values:
    """NOISE over the root of the mean, less 1, as cp_verify has it."""
    root = np.sqrt(np.where(frame.light > 0, frame.light, np.nan))
    return Values(frame.of(CLIPPED_SIGMA) / root - 1, 0.0, 0.5 / np.maximum(frame.of(COUNT), 1))


@metric("CR_NOISE", "")
def cr_noise(frame: Frame) -> Values:
    """Standard deviation without cosmic rays over NOISE, less 1."""
    return Values(frame.of(SIGMA) / frame.of(CLIPPED_SIGMA) - 1)


@metric("AMP_CORNER", "electron", kinds=("bias", "dark"))
def amp_corner(frame: Frame) -> Values:
    """Mean of the pixels that are read first (200 x 200 at full size) less that of the amplifier."""
    found = np.full((len(frame.boxes), 4), np.nan)
    for k, (box, amplifier) in enumerate(zip(frame.boxes, frame.detector.amplifiers, strict=True)):
        height, width = min(frame.corner, box.ny), min(frame.corner, box.nx)
        x0 = box.x1 - width if amplifier.flip_x != amplifier.leftwards else box.x0
        y0 = box.y1 - height if amplifier.flip_y else box.y0
        number, value = box_mean(frame.clean, Box(x0, y0, width, height))
        found[k] = value, height, width, number
    values, *near = found.T
    far = frame.height, frame.width, frame.of(COUNT)
    parts = frame.noise.own, frame.noise.shared
    own, shared = (part.mean(*near) - part.mean(*far) for part in parts)
    return Values(values - frame.of(MEAN), 0.0, own, shared)


@metric("TAIL", "pixel", model="poisson")
def tail(frame: Frame) -> Values:
    """Number of pixels beyond 5 sigma that are no cosmic ray."""
    return Values(frame.of(TAIL), BEYOND_5 * frame.of(COUNT), 0.0, size=frame.of(COUNT))


@metric("COSMIC", "pixel")
def cosmic(frame: Frame) -> Values:
    """Number of pixels that cosmic rays hit; told, not tested."""
    return Values(np.array([np.count_nonzero(frame.rays[box.slices]) for box in frame.boxes], np.float64))


@metric("SATURATED", "", needs=("saturated",))
def saturated(frame: Frame) -> Values:
    """Share of saturated pixels."""
    return Values(np.asarray(frame.saturated, np.float64) / (frame.height * frame.width))


@metric("MASKED", "")
def masked(frame: Frame) -> Values:
    """Share of pixels without a value; 1 in a dead amplifier."""
    return Values(1 - frame.of(COUNT) / (frame.height * frame.width))


@metric("STRUCTURE", "chi2", model="chi2")
def structure(frame: Frame) -> Values:
    """Squares of the bins (64 x 64 pixels at full size) about the amplifier's mean, over their variances."""
    found, whole = np.full((len(frame.boxes), 2), np.nan), frame.noise.whole
    of_mean = whole.mean(frame.height, frame.width, frame.of(COUNT)) - whole.common
    for k, (bins, filled) in enumerate(zip(frame.measured.bins, frame.measured.filled, strict=True)):
        rows, columns = frame.boxes[k].ny / bins.shape[0], frame.boxes[k].nx / bins.shape[1]
        good = filled > 0
        if np.count_nonzero(good) > 1:
            weight = 1 / (whole.pixel[k] / filled[good] + whole.row[k] / rows + whole.column[k] / columns)
            about = bins[good] - np.sum(weight * bins[good]) / weight.sum()
            found[k] = np.sum(about**2 * weight), np.count_nonzero(good) - weight.sum() * of_mean[k]
    common = np.abs(frame.noise.shared.pixel) / whole.pixel
    return Values(found[:, 0], found[:, 1], 0.0, common, size=np.nan_to_num(found[:, 1]))


def _slope(frame: Frame, axis: int) -> Values:
    """Fit a plane to the amplifiers' means; return its rise across the detector along an axis."""
    at = np.array([((b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2) for b in frame.boxes]) / np.array(frame.detector.size)
    own, shared = _mean_of(frame)
    means = frame.of(CLIPPED_MEAN)
    good = np.isfinite(means) & (own > 0)
    if np.count_nonzero(good) < 4 or np.ptp(at[good, axis]) == 0:
        return Values(np.nan, 0.0, np.nan)
    design = np.column_stack([np.ones(len(at)), at - at.mean(axis=0)])[good]
    solve = np.linalg.pinv(design)[1 + axis]
    level = np.nanmedian(means) if frame.kind == "flat" else 1.0
    more, common = (float((solve**2) @ part[good]) / level**2 for part in (own, shared))
    return Values(float(solve @ means[good]) / level, 0.0, more, common)


@metric("GRADIENT_X", "electron", amplifiers=False, needs=("several amplifiers",))
def gradient_x(frame: Frame) -> Values:
    """Rise of the amplifiers' means across the detector in x (flats: relative)."""
    return _slope(frame, 0)


@metric("GRADIENT_Y", "electron", amplifiers=False, needs=("several amplifiers",))
def gradient_y(frame: Frame) -> Values:
    """Rise of the amplifiers' means across the detector in y (flats: relative)."""
    return _slope(frame, 1)


@metric("LEVEL", "", kinds=("flat",))
def level(frame: Frame) -> Values:
    """Mean over the median of the detector's amplifiers, less 1."""
    own, shared = _mean_of(frame)
    means = frame.of(CLIPPED_MEAN)
    middle = float(np.nanmedian(means)) if np.isfinite(means).any() else np.nan
    more = 1 + np.pi / 2 / max(len(means), 1)  # of the median itself
    return Values(means / middle - 1, 0.0, more * own / middle**2, more * shared / middle**2)


@metric("FLUX", "electron", kinds=("flat",), amplifiers=False)
def flux(frame: Frame) -> Values:
    """Median over the amplifiers of their means, to compare detectors and exposures."""
    means, (own, shared) = frame.of(CLIPPED_MEAN), _mean_of(frame)
    good = np.isfinite(means)
    if not good.any():
        return Values(np.nan, 0.0, np.nan)
    n = np.count_nonzero(good)
    more, common = (np.pi / 2 * float(np.mean(part[good])) / n for part in (own, shared))
    return Values(float(np.median(means[good])), float(np.median(means[good])), more, common)


@metric("SCATTER", "", kinds=("flat",), amplifiers=False, needs=("several amplifiers",))
def scatter(frame: Frame) -> Values:
    """Standard deviation of the amplifiers' means over their mean."""
    means = frame.of(CLIPPED_MEAN)
    good = means[np.isfinite(means)]
    if good.size < 2:
        return Values(np.nan)
    own, _ = _mean_of(frame)
    noise2 = float(np.nanmean(own)) / float(np.mean(good)) ** 2
    return Values(float(np.std(good, ddof=1) / np.mean(good)), noise2**0.5, noise2 / (2 * (good.size - 1)))


@dataclass(frozen=True)
class Link:
    """Boundary between two amplifiers of a row."""

    #: Number of the amplifier to the right.
    right: int
    #: Logarithm of right over left, and its variances: the frame's own, and the shared one.
    ratio: float
    own: float
    shared: float


def _links(frame: Frame) -> dict[int, Link]:
    """Compare the strips at each vertical boundary between two amplifiers that have light, by the left one."""
    means, found = frame.of(CLIPPED_MEAN), dict[int, Link]()
    places = {(b.x0, b.y0, b.ny): k for k, b in enumerate(frame.boxes)}
    for k, box in enumerate(frame.boxes):
        j = places.get((box.x1, box.y0, box.ny))
        if j is None or not (means[k] > 0 and means[j] > 0):
            continue
        width = max(1, round(STRIP * min(box.nx, frame.boxes[j].nx)))
        here, there = np.nanmean(frame.measured.columns[k][-width:]), np.nanmean(frame.measured.columns[j][:width])
        number = width * frame.height * frame.of(COUNT) / (frame.height * frame.width)
        parts = (part.mean(frame.height, width, number) / means**2 for part in (frame.noise.own, frame.noise.shared))
        own, shared = (float(part[k] + part[j]) for part in parts)
        if here > 0 and there > 0:
            found[k] = Link(j, float(np.log(there / here)), own, shared)
    return found


@metric("STEP", "", kinds=("flat",), needs=("neighbours",))
def step(frame: Frame) -> Values:
    """Brightness of an amplifier, by the steps at the boundaries of its row, relative to the row's median.

    One whose neighbours have no light has an error of 100 %.
    """
    links, lit = _links(frame), frame.of(CLIPPED_MEAN) > 0
    value, own, shared = np.where(lit, 0.0, np.nan), np.where(lit, 1.0, np.nan), np.where(lit, 0.0, np.nan)
    for first in sorted(set(links) - {one.right for one in links.values()}):
        row, k = [(first, 0.0, 0.0, 0.0)], first
        while k in links:
            one, (_, level, more, common) = links[k], row[-1]
            k = one.right
            row.append((k, level + one.ratio, more + one.own, common + one.shared))
        members = np.array([one[0] for one in row])
        levels, sums, sums_shared = np.array([one[1:] for one in row]).T
        middle = int(np.argsort(levels, kind="stable")[(len(levels) - 1) // 2])
        value[members] = levels - np.median(levels)
        side = np.sign(np.arange(len(row)) - middle)
        for to, total in ((own, sums), (shared, sums_shared)):  # the middle one has the error of a neighbour
            to[members] = np.where(side == 0, total[-1] / (len(row) - 1), side * (total - total[middle]))
    return Values(value, 0.0, own, np.maximum(shared, 0.0))  # medians of frames do not cancel as their means do


@metric("DIVISADERO", "", kinds=("flat",), model="maximum")
def divisadero(frame: Frame) -> Values:
    """Largest relative deviation of an amplifier's outermost columns from a line through the others."""
    value, variance = np.full(len(frame.boxes), np.nan), np.full(len(frame.boxes), np.nan)
    whole = frame.noise.whole
    for k, profile in enumerate(frame.measured.columns):
        edge, at = max(1, round(EDGE * profile.size)), np.arange(profile.size)
        inner = np.isfinite(profile) & (at >= 2 * edge) & (at < profile.size - 2 * edge)
        if np.count_nonzero(inner) < 4:
            continue
        design = np.column_stack([np.ones(profile.size), at - at[inner].mean()])
        solve = np.linalg.pinv(design[inner])
        error2 = (whole.pixel[k] / frame.height[k] + whole.column[k]) / float(np.mean(profile[inner])) ** 2
        ends = []
        for some in (slice(0, edge), slice(profile.size - edge, None)):
            weights = design[some].mean(axis=0) @ solve
            variance[k] = error2 * (1 / edge + float(weights @ weights))
            ends.append(abs(float(np.mean(profile[some])) / float(weights @ profile[inner]) - 1))
        value[k] = max(ends)
    return Values(value, 0.0, variance, size=2.0)
