"""Identity of a frame: the file under a raw's name may have been replaced since ingest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kernels.camera.geometry import Detector
from kernels.errors import DataError
from kernels.fits.blocks import Stream, opening, packing, walk
from kernels.fits.cards import Cards

_KEYWORD = re.compile(r"\{([^{}]+)\}")


def _headers(path: str, sources: Sequence[str | int]) -> list[Cards]:
    """Read the headers of the HDUs in ``sources``; for the primary one alone, nothing else of the file is read."""
    try:
        with open(path, "rb") as file:
            stream = Stream(path, file, packing(path, file))
            hdus = opening(stream) if list(sources) == [0] else walk(stream)
            return [cards for source in sources for cards in hdus.of(source)]
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error


def _text(headers: Sequence[Cards], source: str) -> str | None:
    """Read a keyword, or several as in ``{RAFTBAY}_{CCDSLOT}``; `None` if one is missing."""
    found = {k: next((c.text(k) for c in headers if c.has(k)), None) for k in _KEYWORD.findall(source) or [source]}
    if any(not value for value in found.values()):
        return None
    return _KEYWORD.sub(lambda match: str(found[match[1]]), source) if "{" in source else found[source]


def require(path: str, identity: Mapping[str, Any], detector: Detector) -> None:
    """Compare a frame's header with the camera and detector of its ingest.

    Values that the header lacks were given at ingest, and are not compared.

    Parameters
    ----------
    identity : `dict`
        ``accept`` (keyword: values) of the camera; ``detector``: sources of
        the detector's name or number, in order of preference; ``headers``:
        HDUs whose keywords count (by default the primary one).

    Raises
    ------
    DataError
        The frame is another camera's or detector's.
    """
    headers = _headers(path, identity.get("headers", (0,)))
    for keyword, values in identity.get("accept", {}).items():
        found = _text(headers, keyword)
        if found is not None and found not in values:
            raise DataError(path, f"{keyword} is {found!r}: a frame of another camera than when it was ingested")
    label = next(filter(None, (_text(headers, source) for source in identity.get("detector", ()))), None)
    if label is not None and label not in (detector.name, str(detector.id)):
        raise DataError(path, f"is a frame of detector {label}, it was ingested as one of {detector.name}")


def number_of(path: str, keyword: str) -> float:
    """Read a number from the primary header of a frame.

    Raises
    ------
    DataError
        The header lacks the keyword, or its value is no number.
    """
    text = _text(_headers(path, [0]), keyword)
    try:
        return float(text or "")
    except ValueError as error:
        raise DataError(path, f"{keyword} is {text!r} in the primary header, a number is needed") from error
