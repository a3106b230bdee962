"""The brighter-fatter correction of a corrected frame, by the detector's kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.bfk import Kernels
from kernels.calibrations.config import IsrConfig
from kernels.errors import JobError
from kernels.fits.product import Card
from kernels.products.wholeframe import UNUSABLE
from kernels.transfer.brighterfatter import Method, Rule, correct

#: Methods by upstream's names; STEPPED is ours.
METHODS: Final = {"COULTON18": Method.COULTON, "STEPPED": Method.STEPPED}
#: Iterations of each: upstream's most, and as many as leave 1e-5 of the deficit of a flat of 100,000 electron.
ROUNDS: Final = {Method.COULTON: 10, Method.STEPPED: 4}
#: Largest value of a kernel, 1/electron; those of CCDs reach a few 1e-6.
LARGEST: Final = 1e-4
#: Largest difference between the quadrants of a kernel, of which one is used, relative to the largest value.
UNLIKE: Final = 0.05


def rule(kernels: Kernels, isr: IsrConfig) -> Rule:
    """Choose the inversion: by default STEPPED where the kernel was made here, COULTON18 where it was made elsewhere.

    A kernel of ours is the potential of the fit's a, to all orders; others are made for the first-order formula.
    """
    name = isr.brighter_fatter_method
    method = METHODS["STEPPED" if kernels.model else "COULTON18"] if name == "AUTO" else METHODS[name]
    return Rule(method, isr.brighter_fatter_rounds or ROUNDS[method])


def redistribute(
    image: NDArray[np.float32], mask: NDArray[np.int32], kernels: Kernels, isr: IsrConfig, unit: str
) -> Sequence[Card]:
    """Put charge back over the pixel edges that it was moved over, in place; tell how in cards.

    Masked pixels are interpolated for the others, and stay as they are.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        The assembled detector, electron, after bias, dark and defects.
    mask : `numpy.ndarray` [y, x], int32

    Raises
    ------
    JobError
        The frame is not in electron, or the file has no valid kernel, or one that cannot be.
    """
    whole = kernels.whole
    if unit != "electron":
        raise JobError(f"doBrighterFatter needs frames in electron, they are in {unit}: set doApplyGains: true")
    if whole is None:
        raise JobError("doBrighterFatter: the bfk has no kernel of the detector and no valid amplifier")
    _require_credible(whole)
    chosen, good = rule(kernels, isr), (mask & UNUSABLE) == 0
    level = float(np.median(image[good])) if good.any() else 0.0
    image[:] = correct(image, good, whole, level, chosen)
    name = next(name for name, method in METHODS.items() if method is chosen.method)
    return [
        ("BFMETHOD", name, "inversion of the brighter-fatter effect"),
        ("BFROUNDS", chosen.rounds, "iterations"),
        ("BFKERNEL", f"fit {kernels.model}" if kernels.model else "made elsewhere", "source of the kernel"),
        ("BFLEVEL", level, "level beyond the edges, electron"),
        ("BFNFILL", int(good.size - np.count_nonzero(good)), "masked pixels: interpolated for others, unchanged"),
    ]


def _require_credible(whole: NDArray[np.float64]) -> None:
    """Require an odd square of credible values that is symmetric: the inversions take one of its quadrants."""
    rows, columns = whole.shape
    if rows != columns or rows % 2 == 0:
        raise JobError(f"doBrighterFatter: the bfk's kernel is {columns} x {rows} pixels, an odd square is wanted")
    if (largest := float(np.abs(whole).max())) > LARGEST:
        raise JobError(f"doBrighterFatter: the bfk has a value of {largest:.4g} / electron, {LARGEST:g} is possible")
    unlike = max(float(np.abs(whole - whole[::-1]).max()), float(np.abs(whole - whole[:, ::-1]).max()))
    if unlike > UNLIKE * largest:
        what = f"its quadrants differ by {unlike:.2g} / electron, its largest value is {largest:.2g}"
        raise JobError(f"doBrighterFatter: the bfk's kernel is not symmetric: {what}")
