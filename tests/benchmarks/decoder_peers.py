"""Other readers of a Rice-compressed HDU; each opens the file again for each read, as the decoder does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import fitsio
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

Read = Callable[[], NDArray[Any]]


def peers(path: str) -> dict[str, Read]:
    """Give what is installed, by name; each reads the first extension."""

    def by_fitsio() -> NDArray[Any]:
        with fitsio.FITS(path) as file:
            return np.asarray(file[1].read())

    found: dict[str, Read] = {"fitsio": by_fitsio}
    try:
        import rustfits
    except ImportError:
        pass
    else:

        def by_rustfits() -> NDArray[Any]:
            with rustfits.FITS(path) as file:
                return np.asarray(file[1].read())

        found["rustfits"] = by_rustfits
    try:
        import imagecodecs
    except ImportError:
        return found
    return {**found, "imagecodecs": _tile_by_tile(path, imagecodecs.rcomp_decode)}


def _tile_by_tile(path: str, decode: Callable[..., Any]) -> Read:
    """Decode the tiles of one row each from one pread; where they lie is looked up once, before."""
    with fits.open(path, disable_image_compression=True) as file:
        hdu: Any = file[1]
        header, begin = hdu.header, hdu.fileinfo()["datLoc"]
        width, height = header["ZNAXIS1"], header["ZNAXIS2"]
        heap = begin + header.get("THEAP", header["NAXIS1"] * header["NAXIS2"])
        row = np.dtype([("length", ">i4"), ("offset", ">i4"), ("rest", f"V{header['NAXIS1'] - 8}")])
        described = np.fromfile(path, row, height, offset=begin)
        size, zero, blocks = header["PCOUNT"], int(header.get("BZERO", 0)), header.get("ZVAL1", 32)
    kind = np.dtype(f"i{abs(header['ZBITPIX']) // 8}")
    tiles = [(int(o), int(o) + int(n)) for o, n in zip(described["offset"], described["length"], strict=True)]

    def read() -> NDArray[Any]:
        image = np.empty((height, width), np.int32)
        handle = os.open(path, os.O_RDONLY)
        try:
            text = memoryview(os.pread(handle, size, heap))
        finally:
            os.close(handle)
        for number, (first, end) in enumerate(tiles):
            image[number] = decode(text[first:end], shape=(width,), dtype=kind, nblock=blocks)
        return image + np.int32(zero) if zero else image

    return read
