"""Tables of ours of before: one table behind a primary header that holds the metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.isrcalib import AMPLIFIERS, IsrCalib
from kernels.calibrations.layouts import LAYOUTS, Layout
from kernels.errors import DataError
from kernels.fits.tables import Table

Columns = dict[str, NDArray[Any]]

#: Columns that upstream does not have, and their units.
_UNITS = {"NODES": "adu", "VALUES": "adu", "C0": "", "C1": "1/{unit}"}


def _crosstalk(path: str, columns: Columns, metadata: dict[str, Any]) -> Columns:
    """Turn [target, source] into [source, target], with both in the order of the targets."""
    names = [str(name) for name in columns["AMPLIFIER"]]
    sources = [str(metadata.get(f"SOURCE{n}") or "").strip() for n in range(len(names))]
    for name in ("C0", "C1"):
        if columns[name].shape != (len(names),) * 2:
            raise DataError(path, f"column {name} is {columns[name].shape}, not {len(names)} x {len(names)}")
        if not np.isfinite(columns[name]).all():
            raise DataError(path, f"column {name} holds a value that is no number")
    if sorted(sources) != sorted(names):
        raise DataError(path, "its sources (SOURCE0, ...) are not its amplifiers")
    order = [sources.index(name) for name in names]
    metadata |= {AMPLIFIERS: " ".join(names), "NAMP": len(names), "HAS_CROSSTALK": True}
    metadata["CROSSTALK_RATIOS_UNITS"] = metadata.get("CALUNIT", "nothing")
    flat = {name: np.asarray(columns[name][:, order], np.float64).T.reshape(1, -1) for name in ("C0", "C1")}
    return {"CT_COEFFS": flat["C0"], "CT_COEFFS_SQR": flat["C1"]}


def _linearizer(path: str, columns: Columns, metadata: dict[str, Any]) -> Columns:
    """Put nodes and values side by side."""
    nodes, values = columns["NODES"], columns["VALUES"]
    if nodes.shape != values.shape or nodes.ndim != 2:
        raise DataError(path, f"NODES are {nodes.shape[1:]} an amplifier, VALUES {values.shape[1:]}")
    for name in ("NODES", "VALUES"):
        if not np.isfinite(columns[name]).all():
            raise DataError(path, f"column {name} holds a value that is no number")
    coefficients = np.concatenate([nodes, values], axis=1)
    return {
        "AMPLIFIER_NAME": columns["AMPLIFIER"],
        "TYPE": np.array(["Spline"] * len(nodes)),
        "COEFFS": coefficients,
    }


_OTHERS: Mapping[str, tuple[tuple[str, ...], Callable[[str, Columns, dict[str, Any]], Columns]]] = {
    "crosstalk": (("AMPLIFIER", "C0", "C1"), _crosstalk),
    "linearizer": (("AMPLIFIER", "NODES", "VALUES"), _linearizer),
}


def converted(path: str, primary: Mapping[str, Any], tables: Sequence[Table]) -> IsrCalib:
    """Convert a file to upstream's layout.

    Raises
    ------
    DataError
        It is no table of a known kind; a column is missing or in another unit.
    """
    kind = str(primary.get("OBSTYPE")).strip()
    layout = LAYOUTS.get(kind)
    table = next((one for one in tables if one.name.upper() == kind.upper()), None)
    if layout is None:
        raise DataError(path, f"is {kind} (OBSTYPE), which is none of {', '.join(LAYOUTS)}")
    if table is None:
        raise DataError(path, f"is no {kind} table: it has no extension {kind.upper()}")
    metadata = {**primary, "OBSTYPE": layout.obstype, "DET_NAME": primary.get("DETNAME")}
    wanted, convert = _OTHERS.get(kind, (tuple(layout.before), None))
    _check(path, table, wanted, layout, str(primary.get("CALUNIT", "")).strip())
    columns = {name: table.columns[name] for name in wanted}
    plain = {layout.before.get(name, name): values for name, values in columns.items()}
    return IsrCalib(path, kind, metadata, (Table(convert(path, columns, metadata) if convert else plain),))


def _check(path: str, table: Table, wanted: Sequence[str], layout: Layout, unit: str) -> None:
    """Require the columns, each in its unit."""
    units = {column.name: column.unit for column in layout.table.columns} | _UNITS
    for name in wanted:
        if name not in table.columns:
            raise DataError(path, f"has no column {name}; it has {', '.join(table.columns)}")
        right = units.get(layout.before.get(name) or name, "").format(unit=unit)
        found = table.units.get(name, "").lower()
        if found != right:
            raise DataError(path, f"column {name} is in {found or 'no unit'} (TUNIT), {right or 'none'} is wanted")
