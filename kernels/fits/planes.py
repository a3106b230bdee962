"""Planes of a product as it was written here, read by rows; whatever is laid out otherwise is left to cfitsio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.errors import DataError
from kernels.fits.blocks import Stream, packing, walk
from kernels.fits.cards import Cards
from kernels.fits.pread import stretches

#: Pixels by BITPIX, as they lie in the file.
_KINDS: Final = {-32: np.dtype(">f4"), 32: np.dtype(">i4")}
#: Keywords by which the numbers of a file are not the pixels, and the values that others must have.
_CHANGING: Final = ("BSCALE", "BZERO", "BLANK", "ZIMAGE", "GROUPS")
_PLAIN: Final = {"XTENSION": "IMAGE", "NAXIS": 2, "PCOUNT": 0, "GCOUNT": 1}


@dataclass(frozen=True)
class Plane:
    """Uncompressed image of 32-bit pixels: where its data begin, byte; its width and height, pixel; its numbers."""

    path: str
    at: int
    width: int
    height: int
    kind: np.dtype[Any]

    def stored(self, box: Box) -> NDArray[Any]:
        """Read a box [y, x] of the image, big-endian.

        Raises
        ------
        DataError
            The file cannot be read, or is shorter than it was.
        """
        size = self.kind.itemsize
        data = stretches(
            self.path, self.at + size * (box.y0 * self.width + box.x0), size * box.nx, size * self.width, box.ny
        )
        return data.view(self.kind)

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box [y, x] of the image; see `stored`."""
        data = self.stored(box)
        return data.view(self.kind.newbyteorder("=")).byteswap(inplace=True)


def _plane(path: str, cards: Cards) -> Plane | None:
    """The plane of an HDU; `None` where it is anything else than an image of plain 32-bit pixels."""
    usual = all(cards.get(key) == value for key, value in _PLAIN.items())
    if not usual or any(cards.has(key) for key in _CHANGING) or cards.get("BITPIX") not in _KINDS:
        return None
    width, height = cards.axes()
    return Plane(path, cards.data_start, width, height, _KINDS[int(str(cards.get("BITPIX")))])


def planes(path: str) -> Mapping[str, Plane]:
    """Find the planes of a product by EXTNAME; those that are not plain, or not alone of their name, are left out.

    An unreadable file has none: the reader that is asked then says what is wrong with it.
    """
    try:
        with open(path, "rb") as file:
            if packing(path, file):
                return {}
            headers = walk(Stream(path, file)).headers
        names = [(cards.text("EXTNAME") or "").upper() for cards in headers]
        number = Counter(names)
        found = {name: _plane(path, cards) for name, cards in zip(names, headers, strict=True) if number[name] == 1}
    except (OSError, DataError):
        return {}
    return {name: plane for name, plane in found.items() if plane is not None}
