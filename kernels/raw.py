"""Raw frames: rows of one amplifier, from plain, gzipped or tile-compressed FITS."""

from __future__ import annotations

from collections import OrderedDict
from types import TracebackType

import fitsio
import numpy as np
from numpy.typing import NDArray

from kernels.errors import DataError
from kernels.geometry import Amplifier
from kernels.job import File


class Frames:
    """Opens frames when they are needed and keeps a bounded number of them open.

    Parameters
    ----------
    limit : `int`
        Files held open at most (a process has 1024 handles, not more).
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._open: OrderedDict[str, fitsio.FITS] = OrderedDict()

    def _get(self, file: File) -> fitsio.FITS:
        if file.path in self._open:
            self._open.move_to_end(file.path)
            return self._open[file.path]
        try:
            handle = fitsio.FITS(file.path, "r")
        except OSError as error:
            raise DataError(file.path, _first_line(error)) from error
        self._open[file.path] = handle
        if len(self._open) > self._limit:
            self._open.popitem(last=False)[1].close()
        return handle

    def _hdu(self, file: File, name: str | int) -> fitsio.hdu.ImageHDU:
        """An HDU by name or number; an fpacked primary image lies in the HDU after an empty primary."""
        fits = self._get(file)
        packed = isinstance(name, int) and not fits[0].has_data() and len(fits) > 1
        shift = 1 if packed and fits[1].read_header().get("ZSIMPLE", False) else 0
        return fits[name + shift if isinstance(name, int) else name]

    def rows(self, file: File, amplifier: Amplifier, first: int, last: int) -> NDArray[np.int32]:
        """Read raw rows ``[first, last)`` of an amplifier.

        Returns
        -------
        rows : `numpy.ndarray` [last - first, raw width], int32
            ADU; prescan and overscan included.

        Raises
        ------
        DataError
            The file, or this HDU, cannot be read or has another shape.
        """
        width, height = amplifier.raw
        try:
            hdu = self._hdu(file, amplifier.hdu)
            shape = tuple(hdu.get_info()["dims"])
            if shape != (height, width):
                raise DataError(
                    file.path, f"HDU {amplifier.hdu} is {shape[::-1]} pixels, the camera says {(width, height)}"
                )
            pixels = hdu[first:last, :]
        except (OSError, ValueError) as error:
            raise DataError(file.path, f"HDU {amplifier.hdu}: {_first_line(error)}") from error
        if pixels.dtype.kind == "f":
            raise DataError(file.path, f"HDU {amplifier.hdu} holds {pixels.dtype}, a raw frame holds integers")
        return np.ascontiguousarray(pixels, dtype=np.int32)

    def close(self) -> None:
        """Close every file."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else repr(error)
