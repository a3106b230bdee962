"""Pieces of a detector's frames to be combined: row blocks of amplifiers, of about equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kernels.camera.geometry import Detector
from kernels.jobs.job import File

#: Compressed bytes of all frames in one piece.
PIECE_BYTES = 16 << 20
#: Largest assumed compression of a file, which may be unpacked as it is read.
TIGHTEST = 16


@dataclass(frozen=True)
class Piece:
    """Data rows ``[first, last)`` of a group of amplifiers, and their bytes in all files."""

    amplifiers: Sequence[int]
    first: int
    last: int
    bytes: float


def cut(detector: Detector, groups: Sequence[Sequence[int]], files: Sequence[File], limit: int) -> list[Piece]:
    """Cut a detector into row blocks of amplifiers with at most ``limit`` bytes in all files."""
    pieces: list[Piece] = []
    for group in groups if files else ():
        amplifiers = [detector.amplifiers[k] for k in group]
        height = amplifiers[0].data.ny
        whole = sum(4 * a.raw[0] * height for a in amplifiers)
        share = len(group) / len(detector.amplifiers)
        total = sum(whole if file.bytes is None else max(file.bytes * share, whole / TIGHTEST) for file in files)
        number = min(height, max(1, -int(-total // limit)))
        edges = [height * k // number for k in range(number + 1)]
        pieces += [Piece(group, first, last, total * (last - first) / height) for first, last in pairwise(edges)]
    return pieces
