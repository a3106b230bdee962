"""Read rows from Parquet, as `kernels.verification.parquet` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from campaign.verification.rows import NUMBERS, TEXTS, WHOLE, Rows, RowsUnreadable, Text

#: Newest version of the columns that is understood.
VERSION: Final = 1


def read(path: Path) -> Rows:
    """Read the rows of one file.

    Raises
    ------
    RowsUnreadable
        The file is no Parquet, of a newer version, or lacks a column.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with path.open("rb") as file:
            table = parquet.read_table(file)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise RowsUnreadable(f"cannot be read: {error}", where=str(path)) from error
    said = (table.schema.metadata or {}).get(b"verification", b"0").decode()
    if not said.isdigit() or not 1 <= int(said) <= VERSION:
        what = f"its rows are of version {said}, this release reads up to {VERSION}"
        raise RowsUnreadable(what, where=str(path), do="read it with the release that wrote it, or measure again")
    if missing := [name for name in (*TEXTS, *WHOLE, *NUMBERS) if name not in table.column_names]:
        raise RowsUnreadable(f"has no column {missing[0]}", where=str(path), do="measure again")
    plain: dict[str, Any] = {name: _text(table[name].combine_chunks()) for name in TEXTS}
    return Rows.of(plain | {name: table[name].to_numpy() for name in (*WHOLE, *NUMBERS)})


def _text(column: Any) -> Text:
    """Take a dictionary's codes as they are; encode plain text."""
    import pyarrow

    found = column if isinstance(column, pyarrow.DictionaryArray) else column.dictionary_encode()
    codes = found.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Text(codes, tuple(map(str, found.dictionary.to_pylist())))
