"""Calibrations as text: ECSV, and YAML as lsst.ip.isr writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from kernels.calibrations.layouts import Layout, TableLayout, layout_of
from kernels.errors import DataError
from kernels.fits.tables import Table

#: Largest file that is read, bytes: its values take a hundred times as much memory.
LARGEST = 64 << 20
#: Most values of a YAML file, aliases expanded.
MOST_VALUES = 10_000_000


def read_ecsv(path: str) -> tuple[dict[str, Any], list[Table]]:
    """Read a file of one table; astropy's importing takes half a second, so only here.

    Raises
    ------
    DataError
        The file is no ECSV.
    """
    from astropy.table import Table as AstropyTable

    text = _text(path)
    try:
        # a text without a line break would be taken for a path
        found = AstropyTable.read(text + "\n", format="ascii.ecsv")
        columns = {name: _plain(found[name]) for name in found.colnames}
        units = {name: str(found[name].unit) for name in found.colnames if found[name].unit is not None}
    except Exception as error:  # astropy raises what its parsers do
        raise DataError(path, f"is no ECSV table: {_line(error)}") from error
    return dict(found.meta), [Table(columns, units)]


def _text(path: str) -> str:
    """Read a file as UTF-8, if it is small enough.

    Raises
    ------
    DataError
        It cannot be read, is too large, or is no text.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise DataError(path, f"is larger than {LARGEST >> 20} MiB, the most that is read as text: make it FITS")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"cannot be read as text: {_line(error)}") from error


def _plain(column: Any) -> NDArray[Any]:
    """Make a plain array of an astropy column; a masked number is NaN."""
    if np.ma.isMaskedArray(column):
        column = column.filled(np.nan) if column.dtype.kind == "f" else column.filled()
    return _flat(np.array(column))


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """Make numbers of lists of one, as FITS does."""
    return array.reshape(len(array)) if array.shape[1:] == (1,) else array


class _Loader(yaml.SafeLoader):
    """Safe loader that knows the containers of lsst.daf.base."""


def _property_list(loader: _Loader, node: yaml.Node) -> dict[str, Any]:
    """Make a mapping of a list of [key, type, value, comment]; a key that stands more than once has a list."""
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a PropertyList is no list", node.start_mark)
    found: dict[str, Any] = {}
    for item in loader.construct_sequence(node, deep=True):
        if not isinstance(item, list) or len(item) < 3:
            raise yaml.constructor.ConstructorError(None, None, f"{item!r} is no property", node.start_mark)
        key, value = str(item[0]), item[2]
        if key not in found:
            found[key] = value
        elif isinstance(found[key], list):
            found[key].append(value)
        else:
            found[key] = [found[key], value]
    return found


def _tuple(loader: _Loader, node: yaml.Node) -> list[Any]:
    """Make a list of Python's tuple."""
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a tuple is no list", node.start_mark)
    return list(loader.construct_sequence(node, deep=True))


#: Raised for a file that is no YAML; the last four by PyYAML's constructors, for ``!!bool x``, ``!!int ""``, ...
_NO_YAML = (yaml.YAMLError, RecursionError, ValueError, AttributeError, KeyError, IndexError, TypeError)

_Loader.add_constructor("lsst.daf.base.PropertyList", _property_list)
_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_yaml(path: str) -> tuple[dict[str, Any], list[Table]]:
    """Read a file of one calibration.

    Raises
    ------
    DataError
        The file is no YAML, holds objects of unknown classes, or no calibration of a known kind.
    """
    plain: Any = None
    loader = None
    try:
        loader = _Loader(_text(path))
        node = loader.get_single_node()
        if node is not None and _values(node, {}) > MOST_VALUES:
            raise DataError(path, f"is no calibration: it holds more than {MOST_VALUES} values, aliases expanded")
        if node is not None:
            plain = loader.construct_document(node)
    except _NO_YAML as error:
        raise DataError(path, f"is no YAML file of plain values: {_line(error)}") from error
    finally:
        if loader is not None:
            loader.dispose()
    plain = plain if isinstance(plain, dict) else {}
    metadata = plain.get("metadata")
    if not isinstance(metadata, dict):
        raise DataError(path, "has no metadata: it is no calibration of lsst.ip.isr")
    layout = layout_of(str(metadata.get("OBSTYPE", "")))
    if layout is None:
        return metadata, []
    metadata = {**_identity(plain, metadata), **metadata}
    tables = [_table(path, plain, layout.table, layout)]
    if layout.second and (second := _table(path, plain, layout.second, layout)).columns:
        tables.append(second)
    return metadata, tables


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node, aliases expanded; of one within itself, the recursion has no end."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        pairs = isinstance(node, yaml.MappingNode)
        parts = (part for pair in node.value for part in pair) if pairs else iter(node.value)
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def _identity(plain: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Find entries of the metadata that some versions keep beside it."""
    beside = {
        "INSTRUME": "instrument",
        "DETECTOR": "detectorId",
        "DET_NAME": "detectorName",
        "PTC_FIT_TYPE": "ptcFitType",
        "HAS_CROSSTALK": "hasCrosstalk",
        "NAMP": "nAmp",
        "CROSSTALK_RATIOS_UNITS": "crosstalkRatiosUnits",
    }
    return {name: plain[key] for name, key in beside.items() if metadata.get(name) is None and key in plain}


def _table(path: str, plain: Mapping[str, Any], layout: TableLayout, whole: Layout) -> Table:
    """Make a table of a file's mappings and lists; what is empty throughout is left out."""
    data = plain.get(layout.within) or {} if layout.within else plain
    columns: dict[str, NDArray[Any]] = {}
    try:
        if layout.arrangement in ("row", "lists"):
            given = {c.name: data[c.key] for c in layout.columns if c.key and data.get(c.key) is not None}
            cells = {n: [v] if layout.arrangement == "row" else v for n, v in given.items()}
        else:
            names, cells = _by_name(data, layout)
            if names:
                columns[layout.names] = np.array(names, str)
        for name, values in cells.items():
            array = _stacked(values)
            if 0 not in array.shape[1:]:
                columns[name] = array
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise DataError(path, f"is no {whole.kind} of known arrangement: {_line(error)}") from error
    return Table(columns)


def _by_name(data: Mapping[str, Any], layout: TableLayout) -> tuple[list[str], dict[str, list[Any]]]:
    """Give the names of amplifiers or detectors, and each column's cells in their order."""
    if layout.arrangement == "amplifiers":
        keys = {c.name: {a: row[c.key] for a, row in data.items() if c.key in row} for c in layout.columns if c.key}
    else:
        keys = {c.name: data[c.key] for c in layout.columns if c.key and isinstance(data.get(c.key), dict)}
    names = list(dict.fromkeys(str(a) for some in keys.values() for a in some))
    full = {n: {str(a): v for a, v in some.items()} for n, some in keys.items() if some}
    for name, some in full.items():
        if missing := [a for a in names if a not in some]:
            raise ValueError(f"{name} has no value of {missing[0]}")
    return names, {n: [some[a] for a in names] for n, some in full.items()}


def _stacked(cells: Sequence[Any]) -> NDArray[Any]:
    """Put cells one below the other; shorter lists of numbers are filled up with NaN."""
    arrays = [np.asarray(cell) for cell in cells]
    if len({a.shape for a in arrays}) > 1:
        longest = max(a.shape[0] for a in arrays)
        if any(a.ndim != 1 or (a.size and a.dtype.kind not in "fi") for a in arrays):
            raise ValueError("its amplifiers have lists of different lengths")
        arrays = [np.pad(a.astype(np.float64), (0, longest - a.size), constant_values=np.nan) for a in arrays]
    return _flat(np.stack(arrays)) if arrays else np.zeros(0)


def _line(error: BaseException) -> str:
    """Put an error's text on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
