"""Subtraction of fringes from a corrected frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Box
from kernels.fits.product import BAD, Card, Product
from kernels.products.wholeframe import WholeFrame
from kernels.statistics import detections
from kernels.transfer.fringefit import Rule, fit

F32 = NDArray[np.float32]

#: Detections that no aperture includes: above 5 sigma of a frame that is hardly smoothed, so that no fringe is one.
STARS: Final = detections.Rule(nsigma=5.0, sigma=1.0, rounds=3, grow=3, cell=128)
#: Least half-sides of apertures, and least side of cells, on a camera of any scale, pixels.
LEAST: Final = 2, 12, 32


def rule(isr: IsrConfig, scale: int, exposure: int, detector: int) -> Rule:
    """Make the rule of the fit of a frame: lengths shrink with the camera's scale, the seed is the frame's own."""
    small, large = (
        max(least, round(n / scale)) for least, n in zip(LEAST[:2], (isr.fringe_small, isr.fringe_large), strict=True)
    )
    seed = (isr.fringe_seed + 1000 * exposure + detector) % 2**32
    return Rule(isr.fringe_places, seed, small, large, isr.fringe_rounds, isr.fringe_clip)


def subtract(frame: WholeFrame, fringe: Product, how: Rule, scale: int, unit: str) -> Sequence[Card]:
    """Subtract the fringes of a frame, in place; tell how much in cards.

    Parameters
    ----------
    frame : `WholeFrame`
        After bias, dark and flat; its variance gains those of the fringe frame and of the amplitude.  BAD pixels of the
        fringe frame become BAD, and keep their values.
    scale : `int`
        The camera's.

    Raises
    ------
    DataError
        The fringe frame cannot be read.
    """
    image, mask, variance = frame.image, frame.mask, frame.variance
    box = Box(0, 0, image.shape[1], image.shape[0])
    pattern = np.ascontiguousarray(fringe.read(box), np.float32)
    lost = fringe.flagged(box, BAD) | ~np.isfinite(pattern)
    spread = np.zeros_like(pattern)
    if fringe.has("VARIANCE"):
        spread = np.nan_to_num(fringe.read(box, "VARIANCE"), posinf=0, neginf=0).astype(np.float32)
    pattern[lost] = spread[lost] = 0
    mask[lost] |= BAD
    good = mask == 0
    left = np.where(good, image, np.float32(np.nan))
    cell = max(round(STARS.cell / scale), LEAST[2])
    good &= ~detections.find(left, detections.Rule(STARS.nsigma, STARS.sigma, STARS.rounds, STARS.grow, cell))
    found = fit(np.where(good, image, np.float32(0)), variance, good, pattern, spread, how)
    cards: list[Card] = [
        ("FRAMPL", found.amplitude, f"amplitude of the fringes subtracted, {unit}"),
        ("FRSEED", how.seed, "of the random places"),
        ("FRPLACES", how.places, "random places"),
        ("FRUSED", found.used, "places used"),
        ("FRSMALL", how.small, "half the side of the small apertures, pixel"),
        ("FRLARGE", how.large, "half the side of the large apertures, pixel"),
    ]
    if found.why:
        return [*cards, ("FRWHY", found.why[:60], "nothing was subtracted")]
    image -= np.float32(found.amplitude) * pattern
    variance += np.float32(found.amplitude**2) * spread + np.float32(found.error**2) * pattern**2
    return [
        *cards,
        ("FRAMPERR", found.error, "its standard error"),
        ("FRSCATT", found.scatter, "scatter of the places about the fit"),
    ]
