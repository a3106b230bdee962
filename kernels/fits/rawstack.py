"""Raw rows of one amplifier of many frames: read together, decoded a row block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit
from kernels.fits.rice import decode
from kernels.fits.rowbytes import BLANK, Summed, corrupt_tile
from kernels.fits.tiles import RowTiles


class Buffer:
    """Reused bytes, whose pages are already mapped; it grows and never shrinks."""

    def __init__(self) -> None:
        self._data: NDArray[np.uint8] = np.empty(0, np.uint8)

    def reserve(self, count: int) -> NDArray[np.uint8]:
        """Lend at least ``count`` bytes; their former content may be lost."""
        if count > self._data.size:
            self._data = np.empty(0, np.uint8)  # free the old bytes before allocating
            self._data = np.empty(count, np.uint8)
        return self._data


class _Run(Protocol):
    """Consecutive frames of equal storage, decoded together."""

    def rows(self, rows: slice, first: int, out: NDArray[np.int32]) -> None:
        """Fill ``out`` [frame, row, x] with ``rows`` of the stack; the first is row ``first`` of the raw frame."""


@njit
def integers(data, starts, size, zero, out):  # type: ignore[no-untyped-def]
    """Read rows of big-endian integers of ``size`` bytes (1: unsigned) from ``starts`` on, plus ``zero``, as int32."""
    for row in range(out.shape[0]):
        pixels, found = out[row], data[starts[row] : starts[row] + size * out.shape[1]]
        if size == 1:
            for x in range(pixels.size):
                pixels[x] = found[x] + zero
        elif size == 2:
            words = found.view(np.uint16)
            for x in range(pixels.size):
                pixels[x] = np.int16((words[x] << 8) | (words[x] >> 8)) + zero
        else:
            longs = found.view(np.uint32)
            for x in range(pixels.size):
                word = longs[x]
                pixels[x] = (word >> 24) | ((word >> 8) & 0xFF00) | ((word << 8) & 0xFF0000) | (word << 24)


@njit
def settle(out, blank, half):  # type: ignore[no-untyped-def]
    """Turn pixels of value ``blank`` into `BLANK`, and wrap those from ``half`` on (0: none) to negative, in place."""
    for row in range(out.shape[0]):
        pixels = out[row]
        for x in range(pixels.size):
            value = pixels[x]
            wrapped = value - np.int32(2 * half) if half and value >= half else value
            pixels[x] = BLANK if value == blank else wrapped


@dataclass(frozen=True)
class Decoded:
    """One frame's decoded rows: ``pixels`` [row, x] (int32, ADU, `kernels.fits.rowbytes.BLANK` where blank)."""

    pixels: NDArray[np.int32]


@dataclass(frozen=True)
class Coded:
    """One frame's coded rows: ``starts`` and ``lengths`` [row] (int64) of their tiles in the stack's bytes.

    Pixels from ``half`` on have wrapped, and are negative; 0: none.
    """

    path: str
    tiles: RowTiles
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    half: int = 0


class _DecodedRun:
    def __init__(self, parts: Sequence[Decoded]) -> None:
        self._parts = parts

    def rows(self, rows: slice, first: int, out: NDArray[np.int32]) -> None:
        for pixels, part in zip(out, self._parts, strict=True):
            pixels[:] = part.pixels[rows]


class _CodedRun:
    def __init__(self, parts: Sequence[Coded], data: NDArray[np.uint8]) -> None:
        self._parts, self._data = parts, data
        self._starts = np.array([part.starts for part in parts])
        self._lengths = np.array([part.lengths for part in parts])

    def rows(self, rows: slice, first: int, out: NDArray[np.int32]) -> None:
        tiles, flat = self._parts[0].tiles, out.reshape(-1, out.shape[2], copy=False)
        starts, lengths = self._starts[:, rows].ravel(), self._lengths[:, rows].ravel()
        if not tiles.block:
            integers(self._data, starts, tiles.bytes, tiles.zero, flat)
        else:
            self._decode(starts, lengths, first, flat, out.shape[1])
        half = self._parts[0].half
        if half or tiles.blank is not None:
            settle(flat, int(BLANK) if tiles.blank is None else tiles.blank, half)

    def _decode(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64], first: int, flat: NDArray[np.int32], rows: int
    ) -> None:
        tiles = self._parts[0].tiles
        wrong = decode(self._data, starts, lengths, tiles.block, tiles.bytes, tiles.zero, flat)
        if wrong < 0 and tiles.bits < 8 * tiles.bytes:
            wrong = _outside(flat, tiles)
        if wrong >= 0:
            frame, row = divmod(wrong, rows)
            raise corrupt_tile(self._parts[frame].path, self._parts[frame].tiles, first + row)


def _outside(pixels: NDArray[np.int32], tiles: RowTiles) -> int:
    """Find the first row with a value outside the image's type; -1 without any."""
    span = 1 << tiles.bits
    lowest = tiles.zero - (span // 2 if tiles.bits > 8 else 0)
    rows = np.flatnonzero(((pixels < lowest) | (pixels >= lowest + span)).any(axis=1))
    return int(rows[0]) if rows.size else -1


def _kind(part: Coded | Decoded) -> tuple[int | None, ...]:
    """Return the properties that frames must share to be decoded together."""
    if isinstance(part, Decoded):
        return ()
    tiles = part.tiles
    return tiles.width, tiles.bits, tiles.block, tiles.bytes, tiles.zero, tiles.blank, part.half


def _may_be_blank(part: Coded | Decoded) -> bool:
    return part.tiles.blank is not None if isinstance(part, Coded) else bool((part.pixels == BLANK).any())


def _runs(parts: Sequence[Coded | Decoded], data: NDArray[np.uint8]) -> Iterator[tuple[int, _Run]]:
    """Yield runs of frames that can be decoded together, each with its number of frames."""
    for _, group in groupby(parts, _kind):
        run = list(group)
        decoded, coded = [p for p in run if isinstance(p, Decoded)], [p for p in run if isinstance(p, Coded)]
        yield len(run), _CodedRun(coded, data) if coded else _DecodedRun(decoded)


class Stack:
    """Rows of one amplifier of many frames, read but not decoded; made by `kernels.fits.raw.Frames.stack`.

    Parameters
    ----------
    first : `int`
        First row, counted in the raw frame.
    parts : `list`
        One part a frame.
    data : `numpy.ndarray` [byte], uint8
        The tiles, and `kernels.fits.rice.SPARE` bytes behind them.
    sums : `list` [`Summed` or `None`]
        By frame, the part of the rows in the DATASUM of their image, for `kernels.fits.raw.Frames.compare`; `None`
        where nothing is left to compare.

    Attributes
    ----------
    blanks : `list` [`int`]
        Frames that may have blank pixels; for most cameras none.
    """

    def __init__(
        self, first: int, parts: Sequence[Coded | Decoded], data: NDArray[np.uint8], sums: Sequence[Summed | None]
    ) -> None:
        self._first, self._runs, self.sums = first, list(_runs(parts, data)), sums
        self.blanks = [n for n, part in enumerate(parts) if _may_be_blank(part)]

    def rows(self, first: int, last: int, out: NDArray[np.int32]) -> None:
        """Decode raw rows ``[first, last)`` of every frame.

        Parameters
        ----------
        first, last : `int`
            Rows of the raw frame, within the stack.
        out : `numpy.ndarray` [frame, last - first, raw width], int32
            Filled, ADU, `kernels.fits.rowbytes.BLANK` where blank; C-contiguous.

        Raises
        ------
        DataError
            A tile is corrupt: file, HDU and row are named.
        """
        done, rows = 0, slice(first - self._first, last - self._first)
        for count, run in self._runs:
            run.rows(rows, first, out[done : done + count])
            done += count
