"""Bytes of a file by ``pread``, into memory of the caller's; without a compiler, which some kernels do without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from kernels.errors import DataError


class Source:
    """An open file, read into a reused buffer."""

    def __init__(self, path: str, handle: int) -> None:
        self.path, self._handle = path, handle

    def once(self, data: memoryview, at: int) -> int:
        """Fill what one call of the system fills from byte ``at`` on; return how much."""
        try:
            return os.preadv(self._handle, [data], at)
        except OSError as error:
            raise DataError(self.path, error.strerror or str(error)) from error

    def read(self, data: NDArray[np.uint8], at: int, padding: int = 0) -> None:
        """Fill ``data`` with the bytes from ``at`` on; the last ``padding`` bytes may be missing, and are 0."""
        done = 0
        while done < data.size:
            count = self.once(data[done:].data, at + done)
            if not count and data.size - done <= padding:
                data[done:] = 0
                return
            if not count:
                raise DataError(self.path, f"truncated: {data.size} bytes wanted at byte {at}, {done} found")
            done += count


@contextmanager
def opened(path: str, handle: int | None) -> Iterator[Source]:
    """Open the file, or its unpacked copy."""
    if handle is not None:
        yield Source(path, handle)
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    try:
        yield Source(path, handle)
    finally:
        os.close(handle)


def part(path: str, at: int, count: int, handle: int | None = None) -> NDArray[np.uint8]:
    """Read bytes of a file, or of its unpacked copy.

    Raises
    ------
    DataError
        The file cannot be read, or is too short.
    """
    data = np.empty(count, np.uint8)
    with opened(path, handle) as source:
        source.read(data, at)
    return data


def stretches(path: str, at: int, length: int, distance: int, number: int) -> NDArray[np.uint8]:
    """Read stretches of a file that are equally long and lie equally far apart, the first one from byte ``at`` on.

    Returns
    -------
    data : `numpy.ndarray` [number, length], uint8

    Raises
    ------
    DataError
        The file cannot be read, or ends before.
    """
    if length == distance:
        return part(path, at, number * length).reshape(number, length)
    data = np.empty((number, length), np.uint8)
    whole = data.reshape(-1).data
    with opened(path, None) as source:
        for k in range(number):
            if source.once(whole[k * length : (k + 1) * length], at + k * distance) < length:
                source.read(data[k], at + k * distance)
    return data
