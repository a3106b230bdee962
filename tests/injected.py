"""The defects that the simulator has put in, as the documented rules mask them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Detector
from kernels.products.defectgrow import Growth, grow_columns, mask_edges, mask_rings

VAMPIRE = 4


def grown(kinds: NDArray[Any], detector: Detector, rules: Growth) -> NDArray[np.bool_]:
    """Apply the rules, exactly, to the truth's ``DEFECTS`` [y, x] of a detector."""
    wanted = kinds > 0
    for amplifier in detector.amplifiers:
        at = amplifier.target.slices
        wanted[at] = grow_columns(kinds[at] > 0, rules)
    mask_rings(wanted, np.argwhere(kinds & VAMPIRE), rules)
    mask_edges(wanted, rules)
    return wanted


def require_agreement(bad: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> None:
    """99.5 % is found, and next to nothing else."""
    assert (bad & wanted).sum() >= 0.995 * wanted.sum()
    assert (bad & ~wanted).sum() <= 1e-4 * bad.size
