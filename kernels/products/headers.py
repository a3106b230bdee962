"""Raw frames at ingest: read the headers, and make sure that the file is complete.

The file is walked block by block rather than opened by cfitsio, which accepts
a truncated file until its pixels are read, unpacks a gzipped file into memory,
and turns a malformed value into another value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from kernels.errors import DataError
from kernels.fits.blocks import Hdus, Stream, opening, packing, walk
from kernels.fits.cards import BITPIX, Cards
from kernels.fits.tiles import Odd, described
from kernels.jobs.job import Job
from kernels.jobs.publish import PublishError, reason

KERNEL: Final = "headers"


def _describe(number: int, cards: Cards, pixels: str | tuple[int, float] | None) -> dict[str, Any]:
    if cards.compressed and cards.get("ZBITPIX") not in BITPIX:
        raise DataError(cards.path, f"HDU {cards.text('EXTNAME') or number}: ZBITPIX is {cards.get('ZBITPIX')!r}")
    return {
        "hdu": number,
        "extname": cards.text("EXTNAME"),
        "shape": cards.shape("Z" if cards.compressed else ""),
        "compressed": cards.compressed,
        "datasec": cards.text("DATASEC"),
        "detsec": cards.text("DETSEC"),
        "unreadable": pixels if isinstance(pixels, str) else None,
        "beyond": list(pixels) if isinstance(pixels, tuple) else None,
    }


def _container(packed: str, hdus: Iterable[dict[str, Any]]) -> str:
    return packed or ("tile-compressed" if any(h["compressed"] for h in hdus) else "plain")


def _pixels(path: str, hdus: Hdus) -> dict[int, str | tuple[int, float]]:
    """Check at ingest the pixels of images that are not read by rows, so that no task fails on them."""
    scanned = described(hdus)
    if not any(isinstance(image, Odd) for image in scanned.images):
        return {}
    from kernels.fits.raw import Frames  # with numba: few frames need it

    with Frames() as frames:
        return frames.examine(path, scanned)


def read(path: str, keywords: Sequence[str], sources: Sequence[str | int] = (0,)) -> dict[str, Any]:
    """Read a frame's headers and make sure that the file is complete.

    Packed files are recognised by their magic numbers; the stream is unpacked to
    the end, in pieces of 1 MiB, and its checksum verified.  A single image packed
    by fpack (ZSIMPLE) counts as its original primary HDU.  Pixels that are not
    stored as whole numbers by rows are read, too.

    Parameters
    ----------
    keywords : sequence of `str`
        Wanted keywords; those of ESO's hierarchy as ``ESO DET OUT1 CONAD``.
    sources : sequence of `str` or `int`
        HDUs whose headers are searched; the first that has a keyword counts.

    Returns
    -------
    frame : `dict`
        ``path``; ``headers`` (value by keyword, for those found); ``hdus``
        (``hdu``, ``extname``, ``shape`` [width, height], ``compressed``,
        ``datasec``, ``detsec``, ``unreadable`` (why its pixels cannot be read),
        ``beyond`` ([number of pixels beyond 32 bits, one of them])); ``container``
        (``plain``, ``tile-compressed``, or the packing); ``bytes``, the file's
        size; ``after``, bytes after the last HDU.

    Raises
    ------
    DataError
        The file cannot be read, is not FITS, is truncated, fails its checksum,
        or a wanted value is malformed.
    """
    try:
        with open(path, "rb") as file:
            size, packed = os.fstat(file.fileno()).st_size, packing(path, file)
            headers = walk(Stream(path, file, packed))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    pixels = _pixels(path, headers)
    hdus = [_describe(number, cards, pixels.get(number)) for number, cards in enumerate(headers.headers)]
    looked = [cards for source in sources for cards in headers.of(source)]
    values = {k: next((c.get(k) for c in looked if c.has(k)), None) for k in keywords}
    return {
        "path": path,
        "headers": {k: v for k, v in values.items() if v is not None},
        "hdus": hdus,
        "container": _container(packed, hdus),
        "bytes": size,
        "after": headers.beyond,
    }


def primary(path: str, keywords: Sequence[str]) -> dict[str, Any]:
    """Read the primary header alone; return ``path`` and ``headers`` as `read` does.

    Raises
    ------
    DataError
        The header cannot be read.
    """
    try:
        with open(path, "rb") as file:
            cards = opening(Stream(path, file, packing(path, file))).primary
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    values = {k: next((c.get(k) for c in cards if c.has(k)), None) for k in keywords}
    return {"path": path, "headers": {k: v for k, v in values.items() if v is not None}}


def _attempt(path: str, job: Job) -> dict[str, Any]:
    keywords, sources = job.config["keywords"], job.config.get("headers", (0,))
    try:
        if job.config.get("whole", True) or tuple(sources) != (0,):
            return read(path, keywords, sources)
        return primary(path, keywords)
    except DataError as error:
        return {"path": path, "error": error.why}
    except Exception as error:  # a fault of one file must not keep the others from being read
        return {"path": path, "error": f"cannot be read: {error!r}"}


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{token_hex(4)}.tmp")
    try:
        with temporary.open("w") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in lines)
        temporary.rename(path)  # not synced: whoever asked reads it at once, or asks again
    except OSError as error:
        raise PublishError(f"{path}: cannot be written: {reason(error, path.parent)}") from error
    finally:
        with suppress(OSError):  # renamed already, or never written
            temporary.unlink()


def execute(job: Job, comm: Any = None) -> int:
    """Read the header of every task's frame and write the results.

    Parameters
    ----------
    job : `kernels.jobs.job.Job`
        One task a frame, with its file in ``inputs["raw"]``.
        ``config["keywords"]`` and ``config["headers"]`` are ``keywords`` and
        ``sources`` of `read`; ``config["result"]`` is the path of the JSON
        lines: one a task, in order, as `read` returns it (or `primary`, where
        ``config["whole"]`` is false), or ``{"path", "error"}``.
    comm : mpi4py communicator, optional
        The ranks share the frames; rank 0 writes.

    Returns
    -------
    failures : `int`
        Frames of this rank that cannot be used.

    Raises
    ------
    PublishError
        The result cannot be written.
    """
    rank, ranks = (comm.Get_rank(), comm.Get_size()) if comm else (0, 1)
    paths = [job.files[task.inputs["raw"][0]].path for task in job.tasks]
    mine = [(n, _attempt(paths[n], job)) for n in range(rank, len(paths), ranks)]
    found = comm.gather(mine, root=0) if comm else [mine]
    if found is not None:
        numbered = sorted((item for share in found for item in share), key=lambda item: item[0])
        _write(Path(job.config["result"]), (line for _, line in numbered))
    return sum("error" in line for _, line in mine)
