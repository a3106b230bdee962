"""Read JSON and endless streams from elsewhere within limits, or refuse them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

#: Most levels of nesting; documents of this project have ten at most.
MAX_DEPTH = 64
#: Largest log that another program fills, byte.
MAX_LOG = 8 << 20
CHUNK = 1 << 16
CUT = b"\n[the rest was not kept]\n"
#: Time that a child may hold an ended process's standard error open, second.
PATIENCE_S = 1.0


def from_json(text: str | bytes, depth: int = MAX_DEPTH) -> Any:
    """Read a JSON document.

    Raises
    ------
    ValueError
        The text is not JSON, is nested deeper than ``depth``, or has numbers that are not finite.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError(f"nested deeper than {depth} levels") from None
    level, left = [value], depth
    while level:
        if left < 0:
            raise ValueError(f"nested deeper than {depth} levels")
        left -= 1
        level = [below for one in level for below in _below(one)]
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON's")


def _below(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


@contextmanager
def into_log(path: Path, most: int = MAX_LOG) -> Iterator[IO[bytes]]:
    """Give another program's process a file to write to, whose content is appended to a log, up to a size.

    Output beyond ``most`` bytes is dropped, and the log says so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    source, sink = os.pipe()
    with os.fdopen(source, "rb", buffering=0) as reading, path.open("ab") as log:
        thread = threading.Thread(target=_copy, args=(reading, log, most), daemon=True)
        thread.start()
        try:
            with os.fdopen(sink, "wb", buffering=0) as writing:
                yield writing
        finally:
            thread.join(PATIENCE_S)  # a connection of ssh's that stays for the next command holds the other end


def _copy(source: IO[bytes], log: IO[bytes], most: int) -> None:
    left = most - log.seek(0, os.SEEK_END)
    with suppress(OSError, ValueError):  # closed meanwhile
        while chunk := source.read(CHUNK):
            if left >= 0:
                log.write(chunk[:left])
                log.write(CUT if len(chunk) > left else b"")
                log.flush()
                left -= len(chunk)
