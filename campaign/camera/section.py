"""FITS image sections as boxes of pixels."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SECTION = re.compile(r"\[(\d+):(\d+),(\d+):(\d+)\]", re.ASCII)


@dataclass(frozen=True)
class Section:
    """FITS image section as 0-based pixels; a range written backwards is a mirrored axis."""

    x0: int
    y0: int
    nx: int
    ny: int
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def parse(cls, text: str) -> Section:
        """Read ``[x1:x2,y1:y2]``, 1-based and inclusive.

        Raises
        ------
        ValueError
            The text is no section, or starts below 1.
        """
        match = _SECTION.fullmatch(text.replace(" ", ""))
        corners = [int(v) for v in match.groups()] if match else [0]
        if min(corners) < 1:
            raise ValueError(f"{text!r} is not a FITS section like [1:512,1:2002]")
        xa, xb, ya, yb = corners
        return cls(min(xa, xb) - 1, min(ya, yb) - 1, abs(xb - xa) + 1, abs(yb - ya) + 1, xb < xa, yb < ya)

    def __str__(self) -> str:
        xa, xb = (self.x1, self.x0 + 1) if self.flip_x else (self.x0 + 1, self.x1)
        ya, yb = (self.y1, self.y0 + 1) if self.flip_y else (self.y0 + 1, self.y1)
        return f"[{xa}:{xb},{ya}:{yb}]"

    @property
    def x1(self) -> int:
        """First column after the section."""
        return self.x0 + self.nx

    @property
    def y1(self) -> int:
        """First row after the section."""
        return self.y0 + self.ny

    @property
    def box(self) -> list[int]:
        """0-based ``[x0, y0, nx, ny]``."""
        return [self.x0, self.y0, self.nx, self.ny]

    def inside(self, size: Sequence[int]) -> bool:
        """Whether the section lies on an image of ``size`` (width, height)."""
        return self.x1 <= size[0] and self.y1 <= size[1]

    def overlaps(self, other: Section) -> bool:
        """Whether two sections share a pixel."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


def cut(box: Section, data: Section, n: int) -> Section:
    """Move a region of the frame as the data region within it shrinks by ``n``."""

    def move(value: int, start: int, length: int) -> int:
        outside = max(value - start - length, 0)
        return value if value <= start else start + min(value - start, length) // n + outside

    x0, x1 = (move(v, data.x0, data.nx) for v in (box.x0, box.x1))
    y0, y1 = (move(v, data.y0, data.ny) for v in (box.y0, box.y1))
    return Section(x0, y0, x1 - x0, y1 - y0, box.flip_x, box.flip_y)


def shrink(edges: Iterable[int], n: int) -> dict[int, int]:
    """Move each edge of the amplifier grid so that every cell is floor-divided by ``n``."""
    ordered = sorted({0, *edges})
    steps = ((b - a) // n for a, b in itertools.pairwise(ordered))
    return dict(zip(ordered, itertools.accumulate(steps, initial=0), strict=True))
