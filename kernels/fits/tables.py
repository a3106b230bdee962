"""Calibrations in tables: one FITS file a detector, with a product's primary header and one table.

The primary header names the file's kind (OBSTYPE) and detector (INSTRUME,
DETECTOR, DETNAME), and the unit of the frames where that matters (CALUNIT).
The table is the extension named after OBSTYPE; its columns have units (TUNIT).
Every HDU has DATASUM and CHECKSUM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.fitsfile import UNREADABLE, opened
from kernels.fits.product import Card
from kernels.fits.seal import written

#: cfitsio's answer if DATASUM and data disagree (0: no DATASUM).
WRONG = -1


@dataclass(frozen=True)
class Column:
    """A column: name, values [row] or [row, k], and their unit ('' for a number or a name)."""

    name: str
    values: NDArray[Any]
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """A table as read: its path, primary header, and columns by name."""

    path: str
    header: Mapping[str, Any]
    columns: Mapping[str, NDArray[Any]]


def identity(kind: str, camera: Camera, detector: Detector) -> list[Card]:
    """Make the cards that name a table's kind and detector."""
    return [
        ("OBSTYPE", kind, "calibration product"),
        ("INSTRUME", camera.name, ""),
        ("DETECTOR", detector.id, ""),
        ("DETNAME", detector.name, ""),
    ]


def write_table(path: str, cards: Sequence[Card], columns: Sequence[Column]) -> None:
    """Write a table; the same content gives the same bytes.

    Parameters
    ----------
    path : `str`
        A new file.
    cards : sequence of (name, value, comment)
        The primary header; ``OBSTYPE`` names the extension.
    columns : sequence of `Column`
        Columns of equal length, which may be 0.
    """
    kind = next(str(value) for name, value, _ in cards if name == "OBSTYPE")
    dtype = [(c.name, c.values.dtype, c.values.shape[1:]) for c in columns]
    rows = np.zeros(len(columns[0].values), dtype)
    for column in columns:
        rows[column.name] = column.values
    header = fitsio.FITSHDR([{"name": n, "value": v, "comment": c} for n, v, c in cards])

    def write(fits: fitsio.FITS) -> None:
        fits.write(None, header=header)
        fits.create_table_hdu(rows, extname=kind.upper(), units=[c.unit for c in columns])
        if len(rows):
            fits[-1].write(rows)

    Path(path).write_bytes(written(write))


def read_table(
    path: str, kind: str, camera: Camera, detector: Detector, units: Mapping[str, str], unit: str = ""
) -> Table:
    """Read and check the table of one detector.

    Parameters
    ----------
    kind : `str`
        Required value of ``OBSTYPE``.
    units : `dict` [`str`, `str`]
        Wanted columns, and the unit that each must have.
    unit : `str`, optional
        Required value of ``CALUNIT``, for a table that applies to frames in one unit only.

    Raises
    ------
    DataError
        The file cannot be read or fails its checksum; it is another kind of
        product, another camera's or detector's, or for frames in another unit;
        a column is missing, in another unit, or has a value that is no number.
    """
    try:
        with opened(path) as fits:
            header = dict(fits[0].read_header())
            check_identity(path, header, kind, camera, detector, unit)
            _check_sums(path, fits)
            hdu = fits[kind.upper()]
            found = {name.upper(): str(hdu.read_header().get(f"TUNIT{n}") or "").strip().lower()
                     for n, name in enumerate(hdu.get_colnames(), 1)}  # fmt: skip
            _check_columns(path, found, units)
            columns = {name: _column(hdu, name) for name in units}
    except UNREADABLE as error:
        raise DataError(path, f"is no {kind} table: {_first_line(error)}") from error
    for name, values in columns.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(path, f"column {name} holds a value that is no number")
    return Table(path, header, columns)


def _column(hdu: fitsio.hdu.TableHDU, name: str) -> NDArray[Any]:
    """Read a column's values; fitsio cannot read columns of a table without rows."""
    if not hdu.get_nrows():
        return np.zeros(0)
    values = np.asarray(hdu.read_column(name))
    return np.char.strip(values.astype(str)) if values.dtype.kind in "SU" else values


def _check_sums(path: str, fits: fitsio.FITS) -> None:
    for number in range(len(fits)):
        found = fits._FITS.verify_checksum(number + 1)
        if found["dataok"] == WRONG:
            raise DataError(path, f"HDU {number}: corrupt, its data are not those of its DATASUM")
        if not found["dataok"] and found["hduok"] == WRONG:
            raise DataError(path, f"HDU {number}: corrupt, it has no DATASUM, and is not what its CHECKSUM says")


def check_identity(
    path: str, header: Mapping[str, Any], kind: str, camera: Camera, detector: Detector, unit: str
) -> None:
    """Refuse a product of another kind, camera, detector or unit.

    Raises
    ------
    DataError
        The product is of another.
    """

    def said(key: str) -> str:
        return str(header.get(key, "nothing")).strip()

    if said("OBSTYPE") != kind:
        raise DataError(path, f"is {said('OBSTYPE')} (OBSTYPE), {kind} is wanted")
    if said("INSTRUME") != camera.name:
        raise DataError(path, f"is of {said('INSTRUME')} (INSTRUME), the frames are of {camera.name}")
    found, wanted = (said("DETECTOR"), said("DETNAME")), (str(detector.id), detector.name)
    if found != wanted:
        raise DataError(
            path, f"is of detector {' '.join(found)} (DETECTOR, DETNAME), the frames are of {' '.join(wanted)}"
        )
    if unit and said("CALUNIT") != unit:
        raise DataError(path, f"is in {said('CALUNIT')} (CALUNIT), the frames it is to correct are in {unit}")


def _check_columns(path: str, found: Mapping[str, str], units: Mapping[str, str]) -> None:
    for name, unit in units.items():
        if name not in found:
            raise DataError(path, f"has no column {name}; it has {', '.join(found)}")
        if found[name] != unit:
            raise DataError(path, f"column {name} is in {found[name] or 'no unit'} (TUNIT), {unit or 'none'} is wanted")


def order(table: Table, names: Sequence[str], detector: Detector) -> list[int]:
    """Find the rows of the detector's amplifiers in a table's list of names.

    Raises
    ------
    DataError
        The names are not those of the detector's amplifiers, each once.
    """
    wanted = [a.name for a in detector.amplifiers]
    parts = {"only the table has": set(names) - set(wanted), "only the camera has": set(wanted) - set(names)}
    if odd := [f"{who} {', '.join(sorted(some)[:4])}" for who, some in parts.items() if some]:
        raise DataError(table.path, f"its amplifiers are not those of detector {detector.name}: {'; '.join(odd)}")
    if twice := [name for name in wanted if list(names).count(name) > 1]:
        raise DataError(table.path, f"amplifier {twice[0]} stands in it more than once")
    return [list(names).index(name) for name in wanted]


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else repr(error)
