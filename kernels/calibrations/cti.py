"""Deferred charge: the parts of a packet that an amplifier's serial register and output leave for later columns.

Product: upstream's CTI, one row an amplifier, of which are applied:

=========== ====== ==========================================================
AMPLIFIER          name
GLOBAL_CTI         fraction of a packet that a transfer leaves behind
DRIFT_SCALE        offset of the output, relative to the packet that makes it
DECAY_TIME  pixel  decay length of the offset
=========== ====== ==========================================================

Ours besides: GLOBAL_CTI_ERROR, DRIFT_SCALE_ERROR (standard errors), EPER
((overscan columns 1 + 2) / (transfers x last column), median of the
exposures) and EXPOSURES (number in the fit; 0: not measured, nothing is
corrected).  The second table holds upstream's serial traps; ours has none.

`kernels.calibrations.deferred` has the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kernels.calibrations import isrfiles
from kernels.calibrations.deferred import Deferral
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.product import Card

KIND = "cti"
#: Columns of a measurement, in the order of `write`.
MEASURED = (
    "GLOBAL_CTI",
    "GLOBAL_CTI_ERROR",
    "DRIFT_SCALE",
    "DRIFT_SCALE_ERROR",
    "DECAY_TIME",
    "EPER",
    "EXPOSURES",
)
#: Largest credible values of a CCD.
LARGEST_CTI, LARGEST_DRIFT = 1e-3, 0.1


def possible(cti: float, drift: float, decay: float) -> bool:
    """Whether an amplifier can have these values; if not, the measurement is of something else."""
    return 0 <= cti <= LARGEST_CTI and 0 <= drift <= LARGEST_DRIFT and 0 < decay < math.inf


def read(path: str, camera: Camera, detector: Detector) -> tuple[list[Deferral], tuple[str, ...]]:
    """Read a detector's deferrals, in the order of its amplifiers.

    Returns
    -------
    deferrals : `list` [`Deferral`]
    notes : `tuple` [`str`, ...]
        Parts of the file that are not applied.

    Raises
    ------
    DataError
        See `kernels.calibrations.isrfiles.read` and `IsrCalib.require`; or the amplifiers are not the
        detector's, or a value is impossible.
    """
    file = isrfiles.read(path)
    file.require(KIND, camera, detector)
    rows = file.order(detector)
    drifts = file.numbers("DRIFT_SCALE", rows)
    decays = file.values("DECAY_TIME", rows)
    decays = np.where((drifts == 0) & ~(decays > 0), 1.0, decays)  # an offset that is none has no decay
    found = []
    for amplifier, cti, drift, decay in zip(
        detector.amplifiers, file.numbers("GLOBAL_CTI", rows).tolist(), drifts.tolist(), decays.tolist(), strict=True
    ):
        if not possible(cti, drift, decay):
            what = f"cti {cti:g}, drift {drift:g}, decay {decay:g} pixels"
            raise DataError(path, f"amplifier {amplifier.name}: {what} cannot be")
        found.append(Deferral(cti, drift, decay))
    sizes = file.values("SIZE", table=1) if len(file.tables) > 1 and file.tables[1].rows else np.zeros(0)
    traps = int((sizes > 0).sum())
    return found, (f"cti: the serial traps of {traps} amplifiers are not corrected",) if traps else ()


def write(
    path: str, camera: Camera, detector: Detector, rows: Sequence[Sequence[float]], cards: Sequence[Card] = ()
) -> None:
    """Write a detector's cti; ``rows`` [amplifier] hold the numbers in the order of `MEASURED`."""
    names = np.array([a.name for a in detector.amplifiers])
    values = np.asarray(rows, np.float64).reshape(len(names), len(MEASURED))
    columns = {"AMPLIFIER": names} | {name: values[:, k] for k, name in enumerate(MEASURED)}
    columns["INPUT_GAIN"] = np.array([a.gain for a in detector.amplifiers])
    columns["EXPOSURES"] = values[:, -1].astype(np.int32)
    numbers = dict.fromkeys(("SIZE", "EMISSION_TIME", "PIXEL", "COEFFS"), np.zeros(0))
    traps = {"AMPLIFIER": names[:0], "TYPE": names[:0], **numbers}
    isrfiles.save(path, KIND, camera, detector, columns, cards, second=traps)
