"""Files of calibrations that are tables, in upstream's layout: read, checked, written.

`read` takes FITS, ECSV and YAML, and the FITS tables that earlier versions of
ours wrote.  `kernels.calibrations.layouts` has the layouts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kernels.calibrations import before
from kernels.calibrations.isrcalib import IsrCalib
from kernels.calibrations.isrtext import read_ecsv, read_yaml
from kernels.calibrations.layouts import LAYOUTS, TableLayout, layout_of
from kernels.camera.geometry import Camera, Detector
from kernels.errors import DataError
from kernels.fits.product import Card
from kernels.fits.tables import Table, identity, read_tables, write_tables

#: Other spellings of units.
_SPELLINGS = {"pix": "pixel", "pixels": "pixel", "electrons": "electron", "e-": "electron", "e-/adu": "electron/adu"}


def read(path: str) -> IsrCalib:
    """Read a calibration that is a table: FITS, ECSV or YAML, by content.

    Parameters
    ----------
    path : `str`
        A file in upstream's layout, or a FITS table in ours of before.

    Returns
    -------
    calibration : `IsrCalib`
        With its columns and metadata as they are; `IsrCalib.require` compares it with a detector.

    Raises
    ------
    DataError
        The file cannot be read or fails its checksum; it is no calibration of a known kind; its version is newer
        than `kernels.calibrations.layouts` knows; a column that is applied is missing, or is in another unit.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error
    if start.startswith(b"# %ECSV"):
        metadata, tables = read_ecsv(path)
    elif path.lower().endswith((".yaml", ".yml")):
        metadata, tables = read_yaml(path)
    else:
        return _checked(_fits(path))
    return _checked(_known(path, metadata, tables))


def _known(path: str, metadata: Mapping[str, Any], tables: Sequence[Table]) -> IsrCalib:
    metadata = {str(name): value for name, value in metadata.items()}
    obstype = str(metadata.get("OBSTYPE") or "nothing").strip()
    layout = layout_of(obstype)
    if layout is None or not tables:
        raise DataError(path, f"is {obstype} (OBSTYPE), which is none of {', '.join(LAYOUTS)}")
    return IsrCalib(path, layout.kind, metadata, tuple(tables))


def _fits(path: str) -> IsrCalib:
    """Read a FITS file; the metadata stand in the first table's header, or, in ours of before, in the primary one."""
    primary, tables = read_tables(path)
    metadata, _ = tables[0]
    if "OBSTYPE" not in metadata and "OBSTYPE" in primary:
        return before.converted(path, primary, [table for _, table in tables])
    found = _known(path, metadata, [table for _, table in tables])
    ours = {"INSTRUME": found.instrument, "DETECTOR": str(found.detector), "DETNAME": found.detector_name}
    for name, value in ours.items():
        if "OBSTYPE" in primary and str(primary.get(name, "nothing")).strip() != value:
            raise DataError(path, f"its headers disagree: {name} is {primary.get(name)} in the first, else {value}")
    return found


def _checked(found: IsrCalib) -> IsrCalib:
    """Refuse unknown versions, missing columns and other units."""
    layout, version = found.layout, found.version
    if version is not None and not layout.oldest <= version <= layout.version + 1e-6:
        known = f"{layout.oldest:g} to {layout.version:g}" if layout.oldest else f"up to {layout.version:g}"
        raise DataError(found.path, f"is {layout.obstype} version {version:g}; {known} are known here")
    for table, columns in zip(found.tables, (layout.table, layout.second), strict=False):
        if columns:
            _check_columns(found, table, columns)
    return found


def _check_columns(found: IsrCalib, table: Table, layout: TableLayout) -> None:
    for column in layout.columns:
        if column.name not in table.columns:
            if column.needed:
                has = ", ".join(table.columns) or "none"
                raise DataError(found.path, f"has no column {column.name}; it has {has}")
            continue
        wanted, text = column.unit.format(unit=found.unit), table.units.get(column.name, "").lower()
        unit = _SPELLINGS.get(text, text)
        if unit and unit != wanted:
            raise DataError(found.path, f"column {column.name} is in {unit} (TUNIT), {wanted or 'none'} is wanted")


def write(found: IsrCalib, path: str, cards: Sequence[Card] = ()) -> None:
    """Write a calibration as FITS in upstream's layout; the same content gives the same bytes.

    Parameters
    ----------
    found : `IsrCalib`
        As `read` gives it.
    path : `str`
        A new file.
    cards : sequence of (name, value, comment), optional
        The primary header, which upstream does not read.

    Raises
    ------
    DataError
        FITS cannot hold a column or a name of the metadata.
    """
    tables = [replace(table, name=table.name or found.kind.upper()) for table in found.tables[:1]]
    tables += [
        replace(table, name=table.name or f"{found.kind.upper()}{n}") for n, table in enumerate(found.tables[1:], 2)
    ]
    write_tables(path, cards, tables, [found.metadata])


def save(
    path: str,
    kind: str,
    camera: Camera,
    detector: Detector,
    columns: Mapping[str, Any],
    cards: Sequence[Card] = (),
    metadata: Mapping[str, Any] | None = None,
    second: Mapping[str, Any] | None = None,
) -> None:
    """Write a detector's calibration that was made here.

    Parameters
    ----------
    columns : mapping
        Values by column, each [row] or [row, ...]; the others of the layout are written blank.
    cards : sequence of (name, value, comment), optional
        Provenance, for the primary header and for the metadata.
    metadata : mapping, optional
        Further entries that upstream's class needs.
    second : mapping, optional
        Columns of the second table.
    """
    layout = LAYOUTS[kind]
    raft, _, slot = detector.name.partition("_")
    entries: dict[str, Any] = {
        "OBSTYPE": layout.obstype,
        f"{layout.obstype}_SCHEMA": layout.schema,
        f"{layout.obstype}_VERSION": layout.version,
        "INSTRUME": camera.name,
        "RAFTNAME": raft if slot else "",
        "SLOTNAME": slot,
        "DETECTOR": detector.id,
        "DET_NAME": detector.name,
        "DET_SER": "",
        "FILTER": "",
        "CALIB_ID": f"instrument={camera.name} detectorName={detector.name} detector={detector.id}",
        "CALIBCLS": layout.calibcls,
        **(metadata or {}),
    }
    units = [("CALUNIT", camera.unit, "unit of the frames")] if layout.unit else []
    primary: list[Card] = [*identity(kind, camera, detector), *units, *cards]
    entries |= {name: value for name, value, _ in cards if name not in entries}
    tables = [_filled(layout.table, columns)]
    if layout.second and second is not None:
        tables.append(_filled(layout.second, second))
    write(IsrCalib(path, kind, entries, tuple(tables)), path, primary)


def _filled(layout: TableLayout, columns: Mapping[str, Any]) -> Table:
    """Put the columns in the layout's order; write those that are not given blank."""
    rows = len(next(iter(columns.values())))
    given = {name: np.asarray(values) for name, values in columns.items()}
    blank = {c.name: c.blank for c in layout.columns if c.name not in given and c.blank is not None}
    filled = {
        name: np.array([value] * rows if rows else np.zeros((0, *np.shape(value)))) for name, value in blank.items()
    }
    order = [c.name for c in layout.columns]
    names = sorted(given | filled, key=lambda name: order.index(name) if name in order else math.inf)
    # No units: of a second table whose units astropy does not like, upstream's reader drops the whole.
    return Table({name: (given | filled)[name] for name in names})
