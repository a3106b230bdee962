"""Write rows as Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from kernels.verification.rows import COLUMNS, Rows

#: Version of the columns, in the file's metadata; read by `campaign.verification.parquet`.
VERSION = 1


def write(path: str, rows: Rows, about: Mapping[str, object] = MappingProxyType({})) -> None:
    """Write rows to a new file; text as dictionaries, zstd.

    Parameters
    ----------
    about : `dict`, optional
        Provenance, for the file's metadata.

    Raises
    ------
    OSError
        The file is there, or cannot be written.
    ValueError
        A column is missing or of another length.
    """
    import pyarrow
    from pyarrow import parquet

    lengths = {name: len(rows[name]) for name in COLUMNS if name in rows}
    if set(lengths) != set(COLUMNS) or len(set(lengths.values())) > 1:
        raise ValueError(f"rows need the columns {', '.join(COLUMNS)}, of one length; they have {lengths}")
    arrays = [
        pyarrow.array(rows[name]).dictionary_encode() if kind == "U" else pyarrow.array(rows[name].astype(kind))
        for name, kind in COLUMNS.items()
    ]
    table = pyarrow.table(arrays, names=list(COLUMNS)).replace_schema_metadata(
        {"verification": str(VERSION), **{name: str(value) for name, value in about.items()}}
    )
    with Path(path).open("xb") as file:
        parquet.write_table(table, file, compression="zstd", write_statistics=False)
