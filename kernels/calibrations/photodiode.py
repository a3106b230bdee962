"""Readings of a photodiode that watches the lamp: one file for each exposure.

Files are datasets of the repository; in repositories of before they lie beside the raw frames (`path_of`).  A file is
upstream's PhotodiodeCalib, ECSV with the columns TIME (second) and CURRENT (ampere), and is named
``<obs_id>_photodiode.ecsv``, as Rubin's are.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.isrtext import read_ecsv
from kernels.errors import DataError
from kernels.fits.tables import Table

F64 = NDArray[np.float64]

#: Ways of integrating a trace, by upstream's names.
METHODS: Final = ("TRIMMED_SUM", "DIRECT_SUM")
#: Units of the columns, and what prefixes of them are worth.
UNITS: Final = {"TIME": "s", "CURRENT": "A"}
PREFIXES: Final = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12}
#: Part of the range of the samples below which one belongs to the baseline, and the clipping of the latter.
LOW: Final = 0.2
NSIGMA: Final = 3.0
PASSES: Final = 3


def path_of(raw: str, detector: str) -> Path:
    """Name the reading of the exposure of a raw frame.

    Parameters
    ----------
    raw : `str`
        Path of a raw frame, ``<obs_id>_<detector>.fits``.
    detector : `str`
        Name of its detector.
    """
    path = Path(raw)
    return path.with_name(f"{path.name.split('.fits')[0].removesuffix(f'_{detector}')}_photodiode.ecsv")


def charge(path: Path, method: str = "TRIMMED_SUM", scale: float = -1.0) -> float:
    """Integrate a reading.

    Parameters
    ----------
    method : `str`
        One of `METHODS`.  ``TRIMMED_SUM`` subtracts the baseline: the clipped mean of the samples in the lowest fifth
        of their range.
    scale : `float`
        Factor of the current: Rubin's diodes are read with a negative sign.

    Returns
    -------
    charge : `float`
        Coulomb.

    Raises
    ------
    DataError
        The file cannot be read, or holds no trace.
    """
    if not path.is_file():
        raise DataError(str(path), "is not there")
    _, (table,) = read_ecsv(str(path))
    missing = sorted({"TIME", "CURRENT"} - table.columns.keys())
    if missing:
        raise DataError(str(path), f"has no column {missing[0]}; it has {', '.join(table.columns) or 'none'}")
    time, current = (_column(str(path), table, name) for name in ("TIME", "CURRENT"))
    bad = int((~(np.isfinite(time) & np.isfinite(current))).sum()) if time.ndim == 1 else 0
    if time.ndim != 1 or time.size < 2 or bad:
        raise DataError(str(path), f"holds no trace: {bad} of {time.size} samples are no numbers")
    if not (np.diff(time) > 0).all():
        back = int((np.diff(time) <= 0).sum())
        raise DataError(str(path), f"holds no trace: TIME does not ascend at {back} of {time.size} samples")
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        current = current * scale
        if method == "TRIMMED_SUM":
            current = current - _baseline(current)
        found = float(np.trapezoid(current, time))
    if not math.isfinite(found):
        raise DataError(str(path), f"holds no trace: its charge is {found:g} C")
    return found


def _column(path: str, table: Table, name: str) -> F64:
    """Read a column in second or ampere, whatever decimal prefix its unit has."""
    unit, base = table.units.get(name, "") or UNITS[name], UNITS[name]
    if not unit.endswith(base) or unit[: -len(base)] not in PREFIXES:
        raise DataError(path, f"column {name} is in {unit}, {base} is wanted (or m{base}, u{base}, n{base}, p{base})")
    if table.columns[name].dtype.kind not in "fi":
        raise DataError(path, f"column {name} holds {table.columns[name].dtype}, no numbers")
    return np.asarray(table.columns[name], np.float64) * PREFIXES[unit[: -len(base)]]


def _baseline(current: F64) -> float:
    """Average the samples without light."""
    low = current[current <= current.min() + LOW * np.ptp(current)]
    for _ in range(PASSES):
        low = low[np.abs(low - low.mean()) <= NSIGMA * low.std()] if low.std() > 0 else low
    return float(low.mean())
