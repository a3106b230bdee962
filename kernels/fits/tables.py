"""Calibrations in tables: one FITS file a detector, with a product's primary header and one table or more.

The primary header names the file's kind (OBSTYPE) and detector (INSTRUME,
DETECTOR, DETNAME), and the unit of the frames where that matters (CALUNIT).
The metadata of a table stand in its own header; its columns may have units (TUNIT).
Every HDU has DATASUM and CHECKSUM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.blocks import Stream, packing, walk
from kernels.fits.fitsfile import UNREADABLE, opened
from kernels.fits.metadata import Entry, read_cards, write_cards
from kernels.fits.product import Card
from kernels.fits.seal import written

#: cfitsio's answer if DATASUM and data disagree (0: no DATASUM).
WRONG = -1
#: Kinds of numpy that a column can have.
_KINDS = "biufSU"


@dataclass(frozen=True)
class Table:
    """A table."""

    #: By name, each [row] or [row, ...]: bool, integers, floats, or text.
    columns: Mapping[str, NDArray[Any]]
    #: Units by column; none for a number, a name, or where the file has none.
    units: Mapping[str, str] = field(default_factory=dict)
    #: EXTNAME; empty without.
    name: str = ""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))


def identity(kind: str, camera: Camera, detector: Detector) -> list[Card]:
    """Make the cards that name a table's kind and detector."""
    return [
        ("OBSTYPE", kind, "calibration product"),
        ("INSTRUME", camera.name, ""),
        ("DETECTOR", detector.id, ""),
        ("DETNAME", detector.name, ""),
    ]


def write_tables(
    path: str, cards: Sequence[Card], tables: Sequence[Table], metadata: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write tables; the same content gives the same bytes.

    Parameters
    ----------
    path : `str`
        A new file.
    cards : sequence of (name, value, comment)
        The primary header.
    tables : sequence of `Table`
        Columns of equal length, which may be 0; one whose cells hold no values is left out.
    metadata : sequence of mapping, optional
        Of each table.

    Raises
    ------
    DataError
        A column or a name in the metadata cannot be written.
    """
    header = fitsio.FITSHDR([{"name": n, "value": v, "comment": c} for n, v, c in cards])
    try:
        more = [[], *(write_cards(some) for some in metadata)]
    except ValueError as error:
        raise DataError(path, str(error)) from error

    def write(fits: fitsio.FITS) -> None:
        fits.write(None, header=header)
        for table in tables:
            rows = _records(path, table)
            units = [table.units.get(name, "") for name in rows.dtype.names or ()]
            fits.create_table_hdu(rows, extname=table.name or None, units=units)
            if len(rows):
                fits[-1].write(rows)

    Path(path).write_bytes(written(write, more))


def _records(path: str, table: Table) -> NDArray[Any]:
    """Put columns side by side."""
    columns = {name: np.asarray(values) for name, values in table.columns.items() if 0 not in np.shape(values)[1:]}
    for name, values in columns.items():
        if values.dtype.kind not in _KINDS:
            raise DataError(path, f"column {name} holds {values.dtype}, which no table can")
        if values.dtype.kind == "U":
            columns[name] = np.char.encode(values, "utf-8") if values.size else values.astype("S1")
    rows = np.zeros(table.rows, [(name, v.dtype, v.shape[1:]) for name, v in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    return rows


def read_tables(path: str) -> tuple[dict[str, Entry], list[tuple[dict[str, Entry], Table]]]:
    """Read the primary header and every table of a file.

    Returns
    -------
    primary : `dict`
        Entries of the primary header.
    tables : `list` of (metadata, `Table`)

    Raises
    ------
    DataError
        The file cannot be read, fails its checksum, or holds no table.
    """
    try:
        with open(path, "rb") as file:
            headers = walk(Stream(path, file, packing(path, file))).headers
        metadata = [read_cards(cards.cards()) for cards in headers]
        with opened(path) as fits:
            _check_sums(path, fits)
            tables = [
                (metadata[n], _table(hdu))
                for n, hdu in enumerate(fits)
                if n and hdu.get_info()["hdutype"] != fitsio.IMAGE_HDU
            ]
    except UNREADABLE as error:
        raise DataError(path, f"is no FITS table: {_first_line(error)}") from error
    if not tables:
        raise DataError(path, "holds no table")
    return metadata[0], tables


def _table(hdu: fitsio.hdu.TableHDU) -> Table:
    """Read a table; fitsio cannot read columns of one without rows."""
    names, header = hdu.get_colnames(), hdu.read_header()
    whole = hdu.read() if hdu.get_nrows() else np.zeros(0, hdu.get_rec_dtype()[0])
    columns = {name: _native(whole[name]) for name in names}
    units = {name: str(header.get(f"TUNIT{n}") or "").strip() for n, name in enumerate(names, 1)}
    return Table(columns, {name: unit for name, unit in units.items() if unit}, hdu.get_extname())


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Copy a column in the machine's own byte order, texts without trailing blanks."""
    if values.dtype.kind in "SU":
        return np.char.rstrip(np.char.decode(values, "latin-1") if values.dtype.kind == "S" else values)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


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
    if not camera.is_named(said("INSTRUME")):
        raise DataError(path, f"is of {said('INSTRUME')} (INSTRUME), the frames are of {camera.name}")
    found, wanted = (said("DETECTOR"), said("DETNAME")), (str(detector.id), detector.name)
    if found != wanted:
        raise DataError(
            path, f"is of detector {' '.join(found)} (DETECTOR, DETNAME), the frames are of {' '.join(wanted)}"
        )
    if unit and said("CALUNIT") != unit:
        raise DataError(path, f"is in {said('CALUNIT')} (CALUNIT), the frames it is to correct are in {unit}")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else repr(error)
