"""Reused memory, since the pages of a new array cost as much as the work on it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.statistics.network import workspace


class Scratch:
    """Arrays by name; asking for a name again loses the array's content."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._cubes: dict[str, tuple[tuple[int, int], NDArray[np.float32]]] = {}

    def array(self, name: str, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
        """Lend an array of undefined content."""
        count = prod(shape)
        if name not in self._arrays or self._arrays[name].size < count:
            self._arrays.pop(name, None)  # before the new one is asked for
            self._arrays[name] = np.empty(count, kind)
        return self._arrays[name][:count].reshape(shape)

    def cube(self, name: str, n: int, pixels: int) -> NDArray[np.float32]:
        """Lend a cube like those of `kernels.statistics.network.workspace`, with +infinity in the padding."""
        if name not in self._cubes or self._cubes[name][0] != (n, pixels):
            self._cubes.pop(name, None)
            self._cubes[name] = (n, pixels), workspace(n, pixels)
        return self._cubes[name][1]

    def drop(self, *names: str) -> None:
        """Release arrays."""
        for name in names:
            self._arrays.pop(name, None)
