"""Metrics of two flats of one level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.errors import DataError
from kernels.verification.frame import Frame
from kernels.verification.measure import CLIPPED_MEAN, CLIPPED_SIGMA, KEPT, measure
from kernels.verification.metric import Values, metric, wanted
from kernels.verification.rows import Rows, Sheet


@dataclass(frozen=True)
class Pair:
    """Two frames of one detector and level."""

    first: Frame
    second: Frame


@metric("GAIN_FROM_FLAT_PAIR", "", of="pair", kinds=("flat",))
def gain_from_flat_pair(pair: Pair) -> Values:
    """Gain in use over the true gain: variance of the difference of two flats over that of their charge."""
    first, second = pair.first, pair.second
    means = [frame.of(CLIPPED_MEAN) for frame in (first, second)]
    ratio = np.nan_to_num(means[1] / means[0], nan=1.0)
    difference = second.clean.copy()
    for box, factor in zip(first.boxes, ratio.astype(np.float32), strict=True):
        difference[box.slices] -= factor * first.clean[box.slices]
    found = measure(difference, first.boxes, first.bin)
    still = second.still.total + ratio**2 * first.still.total
    charge = second.charge + ratio**2 * first.charge
    squares = found.of(CLIPPED_SIGMA) ** 2
    error2 = 2 * squares**2 / np.maximum(found.of(KEPT) - 1, 1)
    return Values((squares - still) / charge, 1.0, error2 / charge**2)


def paired(first: Frame, second: Frame) -> Rows:
    """Measure two flats of one level; rows have the second's exposure.

    Raises
    ------
    DataError
        They are of two detectors, or the same exposure.
    """
    if first.detector.id != second.detector.id or first.exposure == second.exposure:
        what = " and ".join(f"exposure {one.exposure} of detector {one.detector.id}" for one in (first, second))
        raise DataError("pair of flats", f"{what}: two exposures of one detector are wanted")
    sheet = Sheet(first.detector.id, [a.name for a in first.detector.amplifiers], "flat")
    for one in wanted("pair", "flat", ()):
        sheet.add(one, one.compute(Pair(first, second)), second.exposure, second.mjd, second.role)
    return sheet.rows()
