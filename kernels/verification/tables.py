"""Metrics of the tables: ptc, linearizer, cti, crosstalk, defects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.defects import Defects
from kernels.calibrations.isrcalib import IsrCalib
from kernels.camera.geometry import Box, Detector
from kernels.transfer.crosstalkfit import Crosstalk
from kernels.verification.metric import Values, metric, wanted
from kernels.verification.rows import Rows, Sheet

F64 = NDArray[np.float64]

TABLE, CROSSTALK = "table", "crosstalk"
#: Columns that metrics of tables need, which not every table has.
NEEDED: Final = {
    "residuals": ("FIT_RES", "INP_ORDINATE"),
    "a00": ("A_MATRIX",),
    "row means": ("ROW_MEAN_VARIANCE", "RAW_MEANS"),
    "turnoff": ("PTC_TURNOFF",),
}


@dataclass(frozen=True)
class Table:
    """A table of one detector, its rows in the order of the detector's amplifiers."""

    kind: str
    #: As the camera file describes it.
    detector: Detector
    #: By upstream's names, [amplifier, ...]; of defects: [box].
    columns: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, found: IsrCalib, detector: Detector) -> Table:
        """Take the first table of a file.

        Raises
        ------
        DataError
            Its amplifiers are not the detector's.
        """
        columns = found.tables[0].columns
        if found.layout.table.names:
            rows = found.order(detector)
            columns = {name: np.asarray(column)[rows] for name, column in columns.items()}
        return cls(found.kind, detector, columns)

    @property
    def there(self) -> set[str]:
        """Needs of metrics that it meets: columns with a number."""
        return {need for need, names in NEEDED.items() if all(self._some(name) for name in names)}

    def _some(self, name: str) -> bool:
        column = np.asarray(self.columns.get(name, np.nan))
        return column.dtype.kind in "iuf" and bool(np.isfinite(column).any())

    def number(self, name: str) -> F64:
        """Return a column [amplifier] of numbers; NaN where the table has none."""
        n = len(self.detector.amplifiers)
        return np.asarray(self.columns[name], np.float64) if name in self.columns else np.full(n, np.nan)

    def nominal(self, name: str) -> F64:
        """Return a value of the camera file [amplifier]."""
        return np.array([getattr(a, name) for a in self.detector.amplifiers], np.float64)


@metric("PTC_GAIN", "", of=TABLE, kinds=("ptc",))
def ptc_gain(table: Table) -> Values:
    """Gain over the camera file's, less 1."""
    nominal = table.nominal("gain")
    return Values(table.number("GAIN") / nominal - 1, 0.0, np.nan_to_num(table.number("GAIN_ERR") / nominal) ** 2)


@metric("PTC_NOISE", "", of=TABLE, kinds=("ptc",))
def ptc_noise(table: Table) -> Values:
    """Read noise over the camera file's, less 1."""
    nominal = table.nominal("read_noise")
    return Values(table.number("NOISE") / nominal - 1, 0.0, np.nan_to_num(table.number("NOISE_ERR") / nominal) ** 2)


@metric("BAD_AMP", "electron", of=TABLE, kinds=("ptc",))
def bad_amp(table: Table) -> Values:
    """Read noise."""
    return Values(table.number("NOISE"), 0.0, np.nan_to_num(table.number("NOISE_ERR")) ** 2)


@metric("PTC_TURNOFF", "electron", of=TABLE, kinds=("ptc",), needs=("turnoff",))
def ptc_turnoff(table: Table) -> Values:
    """Largest signal that the curve describes."""
    gain = table.number("GAIN")
    error = np.nan_to_num(table.number("PTC_TURNOFF_SAMPLING_ERROR") * gain)
    return Values(table.number("PTC_TURNOFF") * gain, 0.0, error**2)


@metric("PTC_BFE_A00", "1/electron", of=TABLE, kinds=("ptc",), needs=("a00",))
def ptc_bfe_a00(table: Table) -> Values:
    """Brighter-fatter coefficient of a pixel on itself, below 0."""
    return Values(np.asarray(table.columns["A_MATRIX"], np.float64).reshape(len(table.detector.amplifiers), -1)[:, 0])


@metric("ROW_MEAN_VARIANCE", "", of=TABLE, kinds=("ptc",), needs=("row means",))
def row_mean_variance(table: Table) -> Values:
    """Variance of the means of rows in differences of flats over that of charge, median over the exposures."""
    gain, n = table.number("GAIN"), len(table.detector.amplifiers)
    names = "ROW_MEAN_VARIANCE", "RAW_MEANS"
    variance, means = (np.asarray(table.columns[name], np.float64).reshape(n, -1) for name in names)
    width = np.array([a.data.nx for a in table.detector.amplifiers])
    with np.errstate(divide="ignore", invalid="ignore"):
        each = variance * width[:, np.newaxis] * gain[:, np.newaxis] / (2 * means)
    good = np.isfinite(each) & (means * gain[:, np.newaxis] > 3000)
    found = [float(np.median(row[some])) if some.any() else np.nan for row, some in zip(each, good, strict=True)]
    return Values(np.array(found))


@metric("MAX_RESIDUAL_ERROR", "", of=TABLE, kinds=("linearizer",), model="maximum", needs=("residuals",))
def max_residual_error(table: Table) -> Values:
    """Largest residual of the fit over its signal; the node at 0 (0 / 0 upstream) does not count."""
    n = len(table.detector.amplifiers)
    names = "FIT_RES", "INP_ORDINATE"
    residuals, signals = (np.asarray(table.columns[name], np.float64).reshape(n, -1) for name in names)
    good = np.isfinite(residuals) & (signals > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(good, np.abs(residuals / signals), 0.0)
    return Values(np.where(good.any(axis=1), each.max(axis=1), np.nan), size=good.sum(axis=1))


@metric("NUMBERS", "", of=TABLE, kinds=("ptc", "linearizer", "cti"))
def complete(table: Table) -> Values:
    """Number of applied columns that hold no number."""
    wanted_ = {"ptc": ("GAIN", "NOISE"), "cti": ("GLOBAL_CTI", "DRIFT_SCALE", "DECAY_TIME"), "linearizer": ("COEFFS",)}
    n = len(table.detector.amplifiers)
    lacking = np.zeros(n)
    for name in wanted_[table.kind]:
        cells = np.asarray(table.columns.get(name, np.full(n, np.nan)), np.float64).reshape(n, -1)
        lacking += ~np.isfinite(cells).any(axis=1) if name == "COEFFS" else ~np.isfinite(cells).all(axis=1)
    return Values(lacking)


@metric("FRAC", "", of=TABLE, kinds=("defects",))
def frac(table: Table) -> Values:
    """Share of pixels in the boxes of the defects."""
    boxes = np.column_stack([np.asarray(table.columns[name], np.int64) for name in ("x0", "y0", "width", "height")])
    mask = Defects(boxes).mask(Box(0, 0, *table.detector.size))
    return Values(np.array([float(np.mean(mask[a.target.slices])) for a in table.detector.amplifiers]))


def tabled(table: Table, mjd: float = 0.0) -> Rows:
    """Measure a table; rows with exposure 0 and the role ``table``."""
    sheet = Sheet(table.detector.id, [a.name for a in table.detector.amplifiers], table.kind)
    for one in wanted(TABLE, table.kind, table.there):
        sheet.add(one, one.compute(table), mjd=mjd, role=TABLE)
    return sheet.rows()


@dataclass(frozen=True)
class Left:
    """Crosstalk that is left in corrected frames of spots or stars: its fit, and the detector."""

    detector: Detector
    fit: Crosstalk


@metric("NO_SIGNIFICANT_DETECTION", "", of=CROSSTALK, kinds=("crosstalk",))
def no_significant_detection(left: Left) -> Values:
    """Coefficient that is left, a row a pair: target, source."""
    names, n = [a.name for a in left.detector.amplifiers], len(left.detector.amplifiers)
    at = np.nonzero(np.isfinite(left.fit.c0) & ~np.eye(n, dtype=bool))
    pairs = tuple(f"{names[t]} {names[s]}" for t, s in zip(*at, strict=True))
    return Values(left.fit.c0[at], 0.0, left.fit.c0_error[at] ** 2, names=pairs)


def coupled(left: Left, mjd: float = 0.0) -> Rows:
    """Measure the crosstalk that is left; rows with exposure 0."""
    sheet = Sheet(left.detector.id, [a.name for a in left.detector.amplifiers], CROSSTALK)
    for one in wanted(CROSSTALK, CROSSTALK, ()):
        values = one.compute(left)
        if values.names:
            sheet.add(one, values, mjd=mjd)
    return sheet.rows()
