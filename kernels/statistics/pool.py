"""Level of a sample whose parts are seen one after another, each once, by brackets that follow from an earlier sample.

The detector's level needs brackets before its first amplifier is scanned.  An earlier exposure has them, once it is
brought to the light of the present one: levels grow in proportion, their scatter with the square root.  The result has
the bits of `kernels.statistics.level.clipped_level` of all parts, or there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.statistics.level import MANY, Guess, Part, of_parts, scan

F32 = NDArray[np.float32]
#: Largest ratio of light at which brackets are still foreseen.
LIKE = 2.0


@dataclass(frozen=True)
class Earlier:
    """Parts of an earlier sample: their numbers of pixels, means and thin samples; one without pixels is left out."""

    pixels: Sequence[int]
    means: Sequence[float]
    thins: Sequence[F32]

    @property
    def some(self) -> bool:
        """Whether brackets can be foreseen: each part has a thin sample, and a positive mean."""
        parts = [(mean, thin) for n, mean, thin in zip(self.pixels, self.means, self.thins, strict=True) if n]
        return bool(parts) and all(mean > 0 and thin.size for mean, thin in parts)

    def foresee(self, part: int, mean: float, nsigma: float, passes: int) -> Guess | None:
        """Give brackets of a sample in which a part has a mean; `None` where that is too unlike."""
        ratio, total = mean / self.means[part], sum(self.pixels)
        if not 1 / LIKE < ratio < LIKE:
            return None
        each = []
        for n, level, thin in zip(self.pixels, self.means, self.thins, strict=True):
            if n:
                some = thin[:: max(1, thin.size * total // (MANY * n))]
                each.append(ratio * level + math.sqrt(ratio) * (some.astype(np.float64) - level))
        guess = Guess.of(np.concatenate(each).astype(np.float32), nsigma, passes)
        return guess if guess.holds(total) else None


class Pool:
    """Sample that is like an earlier one, seen part by part."""

    def __init__(self, earlier: Earlier, nsigma: float, passes: int) -> None:
        self._earlier, self._how = earlier, (nsigma, passes)
        self._guess: Guess | None = None
        self._parts: list[Part | None] = []

    def add(self, part: int, image: F32, box: Box, mean: float) -> None:
        """Scan a part, whose mean is known; one that the earlier sample left out is left out."""
        if not self._earlier.pixels[part]:
            return
        if not self._parts:
            self._guess = self._earlier.foresee(part, mean, *self._how)
        self._parts.append(None if self._guess is None else scan(image, box, self._guess))

    def level(self) -> tuple[float, int] | None:
        """Mean and count of all parts; `None` where the brackets do not tell."""
        parts = [part for part in self._parts if part is not None]
        if self._guess is None or len(parts) < len(self._parts):
            return None
        return of_parts(self._guess, parts, *self._how)
