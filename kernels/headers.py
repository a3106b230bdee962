"""Raw frames at ingest: the headers, and whether the file is whole.

The file is walked block by block rather than opened by cfitsio, which accepts
a truncated file until its pixels are asked for, unpacks a gzipped one into
memory, and turns a malformed value into some other value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kernels.errors import DataError, KernelError
from kernels.fitsblocks import BITPIX, Cards, Stream, opening, walk
from kernels.job import Job
from kernels.publish import reason, sync


def _describe(number: int, cards: Cards) -> dict[str, Any]:
    compressed = cards.get("ZIMAGE") is True
    if compressed and cards.get("ZBITPIX") not in BITPIX:
        raise DataError(cards.path, f"HDU {cards.text('EXTNAME') or number}: ZBITPIX is {cards.get('ZBITPIX')!r}")
    return {
        "hdu": number,
        "extname": cards.text("EXTNAME"),
        "shape": cards.axes("Z" if compressed else ""),
        "compressed": compressed,
        "datasec": cards.text("DATASEC"),
        "detsec": cards.text("DETSEC"),
    }


def _container(packed: bool, hdus: Iterable[dict[str, Any]]) -> str:
    if packed:
        return "gzip"
    return "tile-compressed" if any(h["compressed"] for h in hdus) else "plain"


def read(path: str, keywords: Sequence[str]) -> dict[str, Any]:
    """Read a frame's headers and make sure that all of the file is there.

    Gzip is known by its magic number; its stream is unpacked to the end, in
    pieces of 1 MiB, and its checksum verified.  A single image packed by
    fpack (ZSIMPLE) counts as the primary HDU that it was.

    Parameters
    ----------
    keywords : sequence of `str`
        Wanted from the primary header; those of ESO's hierarchy as
        ``ESO DET OUT1 CONAD``.

    Returns
    -------
    frame : `dict`
        ``path``; ``headers`` (keyword to value, those that it has); ``hdus``
        (``hdu``, ``extname``, ``shape`` [width, height], ``compressed``,
        ``datasec``, ``detsec``); ``container`` (``plain``, ``gzip`` or
        ``tile-compressed``); ``bytes``, the file's size.

    Raises
    ------
    DataError
        The file cannot be read, is not FITS, is truncated, has something
        after its end, fails its checksum, or a wanted value is malformed.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            headers = walk(Stream(path, file, packed))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    primary = headers[:1]
    if len(headers) > 1 and headers[1].get("ZSIMPLE") is True:
        primary, headers = headers[:2], headers[1:]
    hdus = [_describe(number, cards) for number, cards in enumerate(headers)]
    values = {k: next((c.get(k) for c in primary if c.has(k)), None) for k in keywords}
    present = {k: v for k, v in values.items() if v is not None}
    return {"path": path, "headers": present, "hdus": hdus, "container": _container(packed, hdus), "bytes": size}


def primary(path: str, keywords: Sequence[str]) -> dict[str, Any]:
    """Read the primary header alone: ``path`` and ``headers``, as `read` has them.

    Raises
    ------
    DataError
        The header cannot be read.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            cards = opening(Stream(path, file, packed))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    values = {k: next((c.get(k) for c in cards if c.has(k)), None) for k in keywords}
    return {"path": path, "headers": {k: v for k, v in values.items() if v is not None}}


def _attempt(path: str, keywords: Sequence[str], whole: bool) -> dict[str, Any]:
    try:
        return read(path, keywords) if whole else primary(path, keywords)
    except DataError as error:
        return {"path": path, "error": error.why}


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in lines)
        sync(temporary)
        temporary.rename(path)
    except OSError as error:
        raise KernelError(f"{path}: cannot be written: {reason(error, path.parent)}") from error
    finally:
        with suppress(OSError):  # gone already, or never there
            temporary.unlink()


def execute(job: Job, comm: Any = None) -> int:
    """Read the header of every task's frame and write what was found.

    Parameters
    ----------
    job : `kernels.job.Job`
        A task for each frame, ``inputs["raw"]`` its one file;
        ``config["keywords"]`` are wanted, ``config["result"]`` is the path of
        the JSON lines: one a task, in their order, as `read` returns (or
        `primary`, where ``config["whole"]`` is false) or ``{"path", "error"}``.
    comm : mpi4py communicator, optional
        The ranks share the frames; rank 0 writes.

    Returns
    -------
    failures : `int`
        Frames of this rank that cannot be used.

    Raises
    ------
    KernelError
        The result cannot be written.
    """
    rank, ranks = (comm.Get_rank(), comm.Get_size()) if comm else (0, 1)
    paths = [job.files[task.inputs["raw"][0]].path for task in job.tasks]
    keywords, whole = job.config["keywords"], bool(job.config.get("whole", True))
    mine = [(n, _attempt(paths[n], keywords, whole)) for n in range(rank, len(paths), ranks)]
    found = comm.gather(mine, root=0) if comm else [mine]
    if found is not None:
        numbered = sorted((item for share in found for item in share), key=lambda item: item[0])
        _write(Path(job.config["result"]), (line for _, line in numbered))
    return sum("error" in line for _, line in mine)
