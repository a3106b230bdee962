"""Raw frames: rows of one amplifier, from plain, gzipped or tile-compressed FITS."""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

import fitsio
import numpy as np
from numpy.typing import NDArray

from kernels.errors import DataError
from kernels.geometry import Amplifier
from kernels.job import File
from kernels.rawstack import Buffer, Coded, Decoded, Stack
from kernels.rice import SPARE
from kernels.rowbytes import load, room
from kernels.tiles import RowTiles, scan

#: cfitsio's answer where DATASUM and data disagree (0 without DATASUM).
WRONG = -1
#: What fitsio raises for a file that it cannot make sense of.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, SystemError, MemoryError)
#: Files whose HDUs are remembered: a task's, and some more.
REMEMBERED = 2000


@dataclass
class _Open:
    """An open file and those of its HDUs that were found to be what they should be."""

    fits: fitsio.FITS
    hdus: dict[str | int, fitsio.hdu.ImageHDU] = field(default_factory=dict)


class Frames:
    """Rows of many frames; of those that cfitsio must read a bounded number is held open.

    Parameters
    ----------
    limit : `int`
        Files held open at most (a process has 1024 handles, not more).
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._tiles: dict[str, dict[str | int, RowTiles | None]] = {}
        self._verified: set[tuple[str, int]] = set()
        self._buffers: defaultdict[int, Buffer] = defaultdict(Buffer)

    def stack(self, files: Sequence[File], amplifier: Amplifier, first: int, last: int, slot: int = 0) -> Stack:
        """Read raw rows ``[first, last)`` of an amplifier of many frames, for `Stack.rows` to decode.

        The compressed bytes go into the slot's buffer, which its next stack uses
        again: it ends the life of the one before.  What is not Rice by rows,
        cfitsio reads at once, and the stack holds its pixels.

        Raises
        ------
        DataError
            A file, or this HDU of it, cannot be read, is corrupt or has another shape.
        """
        return self._stack(self._buffers[slot], files, amplifier, first, last)

    def rows(self, file: File, amplifier: Amplifier, first: int, last: int) -> NDArray[np.int32]:
        """Read raw rows ``[first, last)`` of an amplifier of one frame.

        Returns
        -------
        rows : `numpy.ndarray` [last - first, raw width], int32
            ADU; prescan and overscan included.

        Raises
        ------
        DataError
            The file, or this HDU, cannot be read, is corrupt or has another shape.
        """
        out = np.empty((1, last - first, amplifier.raw[0]), np.int32)
        self._stack(self._buffers[-1], [file], amplifier, first, last).rows(first, last, out)
        return out[0]

    def _stack(self, buffer: Buffer, files: Sequence[File], amplifier: Amplifier, first: int, last: int) -> Stack:
        described = [self._described(file, amplifier) for file in files]
        found = [tiles for tiles in described if tiles]
        needed = sum(room(t, last - first) for t in found) + max((t.data_bytes for t in found), default=0)
        data, at = buffer.reserve(needed + SPARE), 0
        parts: list[Coded | Decoded] = []
        for file, tiles in zip(files, described, strict=True):
            if tiles is None:
                parts.append(Decoded(self._by_cfitsio(file, amplifier, first, last)))
                continue
            starts, lengths, end = load(file.path, tiles, first, last, data, at, self._unverified(file, tiles))
            self._verified.add((file.path, tiles.table))
            parts.append(Coded(file.path, tiles, starts, lengths))
            at = (end + 7) // 8 * 8
        return Stack(first, parts, data[: at + SPARE])

    def _unverified(self, file: File, tiles: RowTiles) -> bool:
        return tiles.datasum is not None and (file.path, tiles.table) not in self._verified

    def _described(self, file: File, amplifier: Amplifier) -> RowTiles | None:
        """How an amplifier's HDU is compressed; `None` where cfitsio must read it."""
        if file.path not in self._tiles:
            if len(self._tiles) >= REMEMBERED:
                self._tiles.clear()
                self._verified.clear()
            self._tiles[file.path] = self._scan(file)
        tiles = self._tiles[file.path].get(amplifier.hdu)
        if tiles is not None:
            _check_shape(file, amplifier, (tiles.width, tiles.height))
        return tiles

    def _scan(self, file: File) -> dict[str | int, RowTiles | None]:
        try:
            size = os.stat(file.path).st_size
        except OSError as error:
            raise DataError(file.path, error.strerror or str(error)) from error
        if file.bytes not in (None, size):
            raise DataError(file.path, f"has {size} bytes, it had {file.bytes} when the run was planned")
        return scan(file.path)

    def _get(self, file: File) -> _Open:
        if file.path in self._open:
            self._open.move_to_end(file.path)
            return self._open[file.path]
        handle = _Open(fitsio.FITS(file.path, "r"))
        self._open[file.path] = handle
        if len(self._open) > self._limit:
            self._open.popitem(last=False)[1].fits.close()
        return handle

    def _hdu(self, file: File, amplifier: Amplifier) -> fitsio.hdu.ImageHDU:
        """An amplifier's HDU; its shape, and its data where there is a DATASUM, are checked once."""
        opened, name = self._get(file), amplifier.hdu
        if name not in opened.hdus:
            hdu = _find(opened.fits, name)
            _check_shape(file, amplifier, tuple(hdu.get_info()["dims"])[::-1])
            if opened.fits._FITS.verify_checksum(hdu.get_extnum() + 1)["dataok"] == WRONG:
                raise DataError(file.path, f"HDU {name}: corrupt, its data are not those of its DATASUM")
            opened.hdus[name] = hdu
        return opened.hdus[name]

    def _by_cfitsio(self, file: File, amplifier: Amplifier, first: int, last: int) -> NDArray[np.int32]:
        try:
            pixels = self._hdu(file, amplifier)[first:last, :]
        except UNREADABLE as error:
            raise DataError(file.path, f"HDU {amplifier.hdu}: {_first_line(error)}") from error
        if pixels.dtype.kind == "f":
            raise DataError(file.path, f"HDU {amplifier.hdu} holds {pixels.dtype}, a raw frame holds integers")
        if not np.can_cast(pixels.dtype, np.int32) and pixels.size:
            info, found = np.iinfo(np.int32), (int(pixels.min()), int(pixels.max()))
            if found[0] < info.min or found[1] > info.max:
                raise DataError(file.path, f"HDU {amplifier.hdu} holds {found[0]} to {found[1]}, beyond 32 bits")
        return np.ascontiguousarray(pixels, dtype=np.int32)

    def forget(self) -> None:
        """Forget what was learnt of the files: another detector's come."""
        self._tiles.clear()
        self._verified.clear()

    def close(self) -> None:
        """Close every file."""
        while self._open:
            self._open.popitem()[1].fits.close()

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_shape(file: File, amplifier: Amplifier, shape: tuple[int, ...]) -> None:
    if shape != amplifier.raw:
        raise DataError(file.path, f"HDU {amplifier.hdu} is {shape} pixels, the camera says {amplifier.raw}")


def _find(fits: fitsio.FITS, name: str | int) -> fitsio.hdu.ImageHDU:
    """An HDU by name or number; an fpacked primary image lies in the HDU after an empty primary."""
    if isinstance(name, str):
        return fits[name]
    packed = not fits[0].has_data() and len(fits) > 1 and fits[1].read_header().get("ZSIMPLE", False)
    return fits[name + 1 if packed else name]


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else repr(error)
