"""Arrays within JSON: their bytes compressed, as text."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.errors import DataError

#: Types that a file may name.
_KINDS: Final = ("<f4", "<f8", "<i4", "<i8", "|u1")


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """Pack an array; its bits stay."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(zlib.compress(plain.tobytes(), 1)).decode("ascii")
    return {"kind": plain.dtype.str, "shape": list(plain.shape), "data": data}


def unpack(path: str, packed: Mapping[str, Any]) -> NDArray[Any]:
    """Unpack an array of a file.

    Raises
    ------
    DataError
        Its kind, shape or bytes are not those of an array.
    """
    try:
        kind, shape = packed["kind"], [int(n) for n in packed["shape"]]
        if kind not in _KINDS or min(shape, default=0) < 0:
            raise ValueError(f"kind {kind}, shape {shape}")
        wanted = int(np.prod(shape)) * np.dtype(kind).itemsize
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(packed["data"], validate=True), wanted + 1)
        return np.frombuffer(data, kind).reshape(shape).astype(np.dtype(kind).newbyteorder("="))
    except (KeyError, TypeError, ValueError, zlib.error, binascii.Error) as error:
        raise DataError(path, f"holds an array that cannot be unpacked: {error}") from error
