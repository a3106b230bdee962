"""Deferred charge: the parts of a packet that an amplifier's serial register and output leave for later columns.

Product: OBSTYPE ``cti``; extension CTI, one row an amplifier:

=========== ====== ==========================================================
AMPLIFIER          name
CTI                fraction of a packet that a transfer leaves behind
CTI_ERROR          its standard error
DRIFT              offset of the output, relative to the packet that makes it
DRIFT_ERROR        its standard error
DECAY       pixel  decay length of the offset
EPER               (overscan columns 1 + 2) / (transfers x last column), median of the exposures
EXPOSURES          number in the fit of CTI; 0: not measured, nothing is corrected
=========== ====== ==========================================================

`kernels.calibrations.deferred` has the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.calibrations.deferred import Deferral
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.product import Card
from kernels.fits.tables import Column, identity, order, read_table, write_table

KIND = "cti"
UNITS = {
    "AMPLIFIER": "",
    "CTI": "",
    "CTI_ERROR": "",
    "DRIFT": "",
    "DRIFT_ERROR": "",
    "DECAY": "pixel",
    "EPER": "",
    "EXPOSURES": "",
}
#: Largest credible values of a CCD.
LARGEST_CTI, LARGEST_DRIFT = 1e-3, 0.1


def possible(cti: float, drift: float, decay: float) -> bool:
    """Whether an amplifier can have these values; if not, the measurement is of something else."""
    return 0 <= cti <= LARGEST_CTI and 0 <= drift <= LARGEST_DRIFT and decay > 0


def read(path: str, camera: Camera, detector: Detector) -> list[Deferral]:
    """Read a detector's deferrals, in the order of its amplifiers.

    Raises
    ------
    DataError
        See `kernels.fits.tables.read_table`; or the amplifiers are not the
        detector's, or a value is impossible.
    """
    table = read_table(path, KIND, camera, detector, UNITS)
    rows = order(table, list(table.columns["AMPLIFIER"]), detector)
    found = []
    for amplifier, row in zip(detector.amplifiers, rows, strict=True):
        cti, drift, decay = (float(table.columns[name][row]) for name in ("CTI", "DRIFT", "DECAY"))
        if not possible(cti, drift, decay):
            what = f"cti {cti:g}, drift {drift:g}, decay {decay:g} pixels"
            raise DataError(path, f"amplifier {amplifier.name}: {what} cannot be")
        found.append(Deferral(cti, drift, decay))
    return found


def write(
    path: str, camera: Camera, detector: Detector, rows: Sequence[Sequence[float]], cards: Sequence[Card] = ()
) -> None:
    """Write a detector's cti; ``rows`` [amplifier] hold the numbers in the order of `UNITS`."""
    names = np.array([a.name for a in detector.amplifiers], "S")
    values = np.asarray(rows, np.float64).reshape(len(names), len(UNITS) - 1)
    columns = [Column("AMPLIFIER", names)]
    columns += [Column(name, values[:, k], unit) for k, (name, unit) in enumerate(list(UNITS.items())[1:])]
    columns[-1] = Column("EXPOSURES", values[:, -1].astype(np.int32))
    write_table(path, [*identity(KIND, camera, detector), *cards], columns)
