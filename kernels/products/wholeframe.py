"""Corrections of a whole detector after its variance is known: flat, bad regions, interpolation; upstream's order.

Each changes a frame in place, and tells in cards what it did to how many pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.config import IsrConfig
from kernels.camera.geometry import Box
from kernels.errors import DataError, JobError
from kernels.fits.product import BAD, DARKENED, PLANES, Card, Product
from kernels.statistics.gaps import fill, grown

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

#: Planes of pixels whose value means nothing; a SUSPECT or VIGNETTED one has a value.
UNUSABLE: Final = sum(1 << PLANES[name] for name in ("BAD", "SAT", "CR", "NO_DATA"))
#: Upstream's plane of pixels that are no number; ours are SAT or BAD.
NO_NUMBER: Final = "UNMASKEDNAN"
INTRP: Final = 1 << PLANES["INTRP"]
#: Largest value of a flat that divides nothing: pixels without response, whose quotients could overflow.
LEAST: Final = 1e-6
#: Range of levels that a detector's normalised flat can have; another is in counts.
LEVELS: Final = (0.02, 50.0)
#: Rows of a flat that are read at a time.
_ROWS: Final = 256


@dataclass(frozen=True)
class WholeFrame:
    """A corrected frame, [y, x] of the assembled detector."""

    #: float32, in the job's unit, and its square.
    image: F32
    variance: F32
    #: int32, planes as in `kernels.fits.product.PLANES`.
    mask: NDArray[np.int32]

    @property
    def usable(self) -> Bool:
        """Pixels [y, x] whose value means something."""
        return (self.mask & UNUSABLE) == 0


def flatten(frame: WholeFrame, flat: Product) -> Sequence[Card]:
    """Divide by the flat; VARIANCE gains that of the flat.

    With F the flat, I becomes I / F, and V becomes V / F^2 + (I / F)^2 V_F / F^2.  Pixels of the flat that are not
    above 0 divide nothing and are BAD.  BAD, NO_DATA and VIGNETTED of the flat are handed on.

    Raises
    ------
    DataError
        The flat cannot be read, has no pixel above 0, or is not normalised.
    """
    height, width = frame.image.shape
    known, dead, levels = flat.has("VARIANCE"), 0, list[float]()
    for y0 in range(0, height, _ROWS):
        box = Box(0, y0, width, min(_ROWS, height - y0))
        at = box.slices
        of, planes = np.asarray(flat.read(box), np.float32), np.asarray(flat.read(box, "MASK"), np.int32)
        fine = (of > LEAST) & (of < np.inf)
        dead += int(np.count_nonzero(~fine))
        levels += [float(np.median(of[fine]))] if fine.any() else []
        divisor = np.where(fine, of, np.float32(1))
        frame.image[at] /= divisor
        frame.variance[at] /= divisor * divisor
        if known:
            more = np.asarray(flat.read(box, "VARIANCE"), np.float32)
            more = np.where(fine & np.isfinite(more), more, np.float32(0))
            frame.variance[at] += np.square(frame.image[at] / divisor) * more
        frame.mask[at] |= planes & (BAD | DARKENED)
        frame.mask[at] |= np.where(fine, 0, BAD).astype(np.int32)
    if dead == frame.image.size:
        raise DataError(flat.path, "has no pixel above 0: nothing can be divided by it")
    level = float(np.median(levels))
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise DataError(flat.path, f"has a level of {level:.4g}: a flat is relative, of about 1; it is not normalised")
    return [("FLATDEAD", dead, "pixels of the flat not above 0: BAD, not divided")]


def set_bad_regions(frame: WholeFrame) -> Sequence[Card]:
    """Give BAD pixels that are not interpolated the median of the usable ones."""
    usable = frame.usable
    bad = (frame.mask & (BAD | INTRP)) == BAD
    if not usable.any():
        return [("NSETBAD", 0, "no pixel is usable: BAD pixels keep their values")]
    level = float(np.median(frame.image[usable]))
    frame.image[bad] = level
    return [
        ("NSETBAD", int(np.count_nonzero(bad)), "BAD pixels set to the level"),
        ("BADLEVEL", level, "median of the usable pixels"),
    ]


def interpolate(frame: WholeFrame, isr: IsrConfig) -> Sequence[Card]:
    """Interpolate pixels of the wanted planes between the usable ones of their row, and flag them INTRP.

    SAT is grown before.  A row without a usable pixel gets the median of all; VARIANCE is interpolated likewise: that
    of the neighbours, for what an interpolated pixel may be off by.

    Raises
    ------
    JobError
        There is no such plane.
    """
    wanted = [name for name in isr.interpolated_planes if name != NO_NUMBER]
    if unknown := [name for name in wanted if name not in PLANES]:
        raise JobError(f"maskListToInterpolate: there is no plane {unknown[0]}; there are {', '.join(PLANES)}")
    if "SAT" in wanted and isr.grow_saturated:
        saturated = grown((frame.mask & 1 << PLANES["SAT"]) != 0, isr.grow_saturated)
        frame.mask[saturated] |= 1 << PLANES["SAT"]
    hole = (frame.mask & sum(1 << PLANES[name] for name in wanted)) != 0
    usable = frame.usable & ~hole
    if not usable.any():
        return [("NINTRP", 0, "no pixel is usable: none is interpolated")]
    lone = int(np.count_nonzero(hole[~usable.any(axis=1)]))
    for plane in (frame.image, frame.variance):
        filled = plane.copy()
        fill(filled, usable, float(np.median(plane[usable])) if lone else 0.0)
        plane[hole] = filled[hole]
    frame.mask[hole] |= INTRP
    each = {name: int(np.count_nonzero(hole & ((frame.mask & 1 << PLANES[name]) != 0))) for name in wanted}
    return [
        ("NINTRP", int(np.count_nonzero(hole)), "interpolated pixels"),
        *((f"NINTRP_{name}", number, f"of them {name}") for name, number in each.items()),
        ("NINTRP_LEVEL", lone, "of them in rows without a usable pixel: the median"),
    ]


def finished(frame: WholeFrame, isr: IsrConfig) -> list[Card]:
    """Replace the values of unusable pixels, as asked for, in upstream's order.

    Raises
    ------
    JobError
        There is no plane to be interpolated.
    """
    cards: list[Card] = []
    if isr.bad_regions:
        cards += set_bad_regions(frame)
    if isr.interpolate:
        cards += interpolate(frame, isr)
    return cards
