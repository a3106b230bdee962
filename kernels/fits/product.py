"""Products in the layout of afw's exposure files: IMAGE, MASK and VARIANCE HDUs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.errors import DataError
from kernels.fits import seal
from kernels.fits import write as fitswrite
from kernels.fits.fitsfile import opened
from kernels.fits.planes import Plane, planes

#: Bit numbers of the mask planes, afw's.
PLANES = {"BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4, "DETECTED": 5, "SUSPECT": 7, "NO_DATA": 8, "VIGNETTED": 9}
BAD = 1 << PLANES["BAD"]
DARKENED = 1 << PLANES["NO_DATA"] | 1 << PLANES["VIGNETTED"]

Card = tuple[str, Any, str]
#: Rows of a whole detector that are read at a time, into memory that stays in cache.
ROWS = 16

#: afw's origin of an image within its parent; its readers refuse an HDU without it.
_ORIGIN: list[Card] = [("LTV1", 0.0, "x of the first pixel is 0"), ("LTV2", 0.0, "y of the first pixel is 0")]
_FACTOR = re.compile(r"[A-Za-z]+")


def squared(unit: str) -> str:
    """Write the square of a unit, such as ``electron2/s2``; empty for a unit with powers or blanks."""
    return _FACTOR.sub(r"\g<0>2", unit) if set(_FACTOR.sub("", unit)) <= {"/", "1"} else ""


def described(hdu: str, unit: str = "") -> list[Card]:
    """Give the cards of an HDU beside its name, by which afw's and astropy's readers know what it holds.

    Parameters
    ----------
    hdu : `str`
        ``IMAGE``, ``MASK`` or ``VARIANCE``.
    unit : `str`
        That of IMAGE; empty where there is none.
    """
    units = {"IMAGE": unit, "VARIANCE": squared(unit)}
    cards: list[Card] = [("EXTTYPE", hdu, "")]
    if units.get(hdu):
        cards.append(("BUNIT", units[hdu], ""))
    if hdu == "VARIANCE":
        cards.append(("UTYPE", "VarianceUncertainty", "of astropy; else it reads standard deviations"))
    planes = PLANES if hdu == "MASK" else {}
    return [*cards, *_ORIGIN, *((f"MP_{plane}", bit, "bit number") for plane, bit in planes.items())]


def _header(cards: Sequence[Card]) -> fitsio.FITSHDR:
    return fitsio.FITSHDR([{"name": n, "value": v, "comment": c} for n, v, c in cards])


def write(
    path: str,
    cards: Sequence[Card],
    image: NDArray[np.float32],
    mask: NDArray[np.int32] | None = None,
    variance: NDArray[np.float32] | None = None,
) -> str:
    """Write a product, with DATASUM and CHECKSUM in every HDU.

    Parameters
    ----------
    path : `str`
        A new file.
    cards : sequence of (name, value, comment)
        The primary header.
    image, variance : `numpy.ndarray` [y, x], float32
        In the ``BUNIT`` of the primary header, and its square; each HDU names its own.
    mask : `numpy.ndarray` [y, x], int32
        Planes as in `PLANES`, named in its header as ``MP_<plane>``.

    Returns
    -------
    sha256 : `str`
        Checksum of the file.

    Raises
    ------
    OSError
        The file cannot be written, or FITS cannot hold the value of a card.
    """
    images = {"IMAGE": (image, np.float32), "MASK": (mask, np.int32), "VARIANCE": (variance, np.float32)}
    there = {name: np.asarray(pixels, kind) for name, (pixels, kind) in images.items() if pixels is not None}
    unit = next((str(value) for name, value, _ in cards if name == "BUNIT"), "")

    def describe(fits: fitsio.FITS) -> None:
        """Write one pixel each, because only the headers are used."""
        fits.write(None, header=_header(cards))
        for name, pixels in there.items():
            fits.write(np.zeros((1, 1), pixels.dtype), extname=name, header=_header(described(name, unit)))

    return fitswrite.write(path, list(zip(seal.headers(describe), [None, *there.values()], strict=True)))


@dataclass(frozen=True)
class Product:
    """A product that is applied to frames: its path, header, and the places of its pixels in the file."""

    path: str
    header: Mapping[str, Any]
    planes: Mapping[str, Plane] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str, unit: str) -> Product:
        """Read the header and check the unit.

        Raises
        ------
        DataError
            The file is unreadable, or in another unit than the frames that it is to correct.
        """
        try:
            with opened(path) as fits:
                header = dict(fits[0].read_header())
        except OSError as error:
            raise DataError(path, str(error).splitlines()[0]) from error
        found = str(header.get("CALUNIT", "nothing")).strip()
        if found != unit:
            raise DataError(path, f"is in {found} (CALUNIT), the frames it is to correct are in {unit}")
        return cls(path, header, planes(path))

    def has(self, hdu: str) -> bool:
        """Whether the product has an HDU.

        Raises
        ------
        DataError
            The file cannot be read.
        """
        try:
            with opened(self.path) as fits:
                return hdu in fits
        except OSError as error:
            raise DataError(self.path, str(error).splitlines()[0]) from error

    def read(self, box: Box, hdu: str = "IMAGE") -> NDArray[Any]:
        """Read a box of the assembled detector; see `read`."""
        plane = self.planes.get(hdu)
        if plane is None:
            return read(self.path, box, hdu)
        _require_size(self.path, hdu, plane.width, plane.height, box)
        return plane.read(box)

    def parts(self, boxes: Sequence[Box]) -> Iterator[NDArray[np.float32]]:
        """Read boxes of IMAGE that lie side by side, whole rows of the file at a time; see `read`."""
        out = [np.empty((box.ny, box.nx), np.float32) for box in boxes]
        left, right = min(box.x0 for box in boxes), max(box.x1 for box in boxes)
        for y0 in range(min(box.y0 for box in boxes), max(box.y1 for box in boxes), ROWS):
            rows = self.read(Box(left, y0, right - left, min(ROWS, max(box.y1 for box in boxes) - y0)))
            for box, pixels in zip(boxes, out, strict=True):
                first, last = max(box.y0, y0), min(box.y1, y0 + ROWS)
                if first < last:
                    some = rows[first - y0 : last - y0, box.x0 - left : box.x1 - left]
                    pixels[first - box.y0 : last - box.y0] = some
        while out:  # the caller may keep a mirrored copy instead
            yield out.pop(0)

    def flagged(self, box: Box, bits: int) -> NDArray[np.bool_]:
        """Flag the pixels of a box [y, x] whose MASK has any of some bits; see `read`."""
        plane = self.planes.get("MASK")
        if plane is None or plane.kind.kind != "i":
            return np.asarray((self.read(box, "MASK") & bits) != 0)
        _require_size(self.path, "MASK", plane.width, plane.height, box)
        stored, as_stored = plane.stored(box).view(np.int32), np.int32(bits).byteswap()
        return np.asarray((stored & as_stored) != 0)


def _require_size(path: str, hdu: str, width: int, height: int, box: Box) -> None:
    if height < box.y1 or width < box.x1:
        raise DataError(path, f"{hdu} is {width} x {height} pixels: of another detector type")


def read(path: str, box: Box, hdu: str = "IMAGE") -> NDArray[Any]:
    """Read a box of one HDU of a product.

    Raises
    ------
    DataError
        The HDU is missing, unreadable or too small.
    """
    try:
        with opened(path) as fits:
            height, width = fits[hdu].get_info()["dims"]
            _require_size(path, hdu, width, height, box)
            return np.asarray(fits[hdu][box.y0 : box.y1, box.x0 : box.x1])
    except OSError as error:
        raise DataError(path, f"{hdu}: {str(error).splitlines()[0]}") from error
