"""Pictures with axes, drawn by Pillow: a plotting library's import costs more than all that a small step draws."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
Ticks = Sequence[tuple[float, str]]

#: Colours beside greys and levels.
BACKGROUND, BARS, ENDS, POINTS, ZERO, LOST = "#20242c", "#5a7d9a", "#b7791f", "#1f6feb", "#999999", "#f85149"
#: Entries of the palette: greys from black to white, by which the soft edges of texts stay grey; then levels.
GREYS, LEVELS = 48, 200
BLACK, WHITE, LOWEST, HIGHEST, OUTSIDE = 0, GREYS - 1, GREYS, GREYS + LEVELS - 1, GREYS + LEVELS
#: Viridis, by N. Smith, S. van der Walt and E. Firing (CC0), at equidistant levels.
_VIRIDIS = """440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30
d8e219 fde725"""


@lru_cache
def _palette() -> bytes:
    greys = np.linspace(0, 255, GREYS)[:, None].repeat(3, 1)
    known = np.frombuffer(bytes.fromhex(_VIRIDIS), np.uint8).reshape(-1, 3)
    where = np.linspace(0, len(known) - 1, LEVELS)
    scale = np.stack([np.interp(where, range(len(known)), channel) for channel in known.T], 1)
    others = "".join((BACKGROUND, BARS, ENDS, POINTS, ZERO, LOST)).replace("#", "")
    return np.rint(np.concatenate([greys, scale])).astype(np.uint8).tobytes() + bytes.fromhex(others)


@lru_cache
def font(size: int) -> Any:
    """Load Pillow's own font; it has ASCII, to which names are limited."""
    return ImageFont.load_default(size)


class Canvas:
    """A white picture.

    Parameters
    ----------
    width, height : `float`
        Dots.
    mode : `str`
        ``P``: the palette of greys, levels and colours above, a third of the bytes of ``RGB``.
    """

    def __init__(self, width: float, height: float, mode: str = "P") -> None:
        self.image = Image.new(mode, (round(width), round(height)), WHITE if mode == "P" else "white")
        if mode == "P":
            self.image.putpalette(_palette())
        self.draw = ImageDraw.Draw(self.image, "RGBA" if mode == "RGB" else None)
        self.draw.fontmode = "L"  # with a palette Pillow's default has hard edges

    def text(self, at: Point, words: str, size: int = 12, anchor: str = "ma", fill: str = "black") -> None:
        """Write a text; ``anchor`` as Pillow's: m(iddle), l(eft), r(ight), then a(scender), m(iddle), d(escender)."""
        self.draw.text(at, words, fill, font(size), anchor, align="center")

    def dashes(self, corners: Sequence[Point], fill: str, width: int = 1) -> None:
        """Draw a dashed line through points."""
        for start, end in pairwise(np.array(corners, float)):
            length = float(np.hypot(*(end - start)))
            for at in range(0, math.ceil(length), 9):
                ends = [start + (end - start) * min(t / length, 1) for t in (at, at + 5)]
                self.draw.line([tuple(np.rint(one)) for one in ends], fill, width)

    def save(self, path: Path) -> None:
        """Write the picture whole, or not at all."""
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.png")
        try:
            self.image.save(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Give the palette's entry of each value; not finite ones get the background's."""
    with np.errstate(invalid="ignore"):
        entry = GREYS + np.clip((values - low) * (LEVELS / (high - low)), 0, LEVELS - 1)
    return np.where(np.isfinite(values), entry, OUTSIDE).astype(np.uint8)


def colour(value: float, low: float, high: float) -> str:
    """Give the colour of a value as ``#rrggbb``."""
    known = np.frombuffer(bytes.fromhex(_VIRIDIS), np.uint8).reshape(-1, 3)
    at = min(max((value - low) / (high - low), 0.0), 1.0) * (len(known) - 1)
    return "#" + bytes(round(float(np.interp(at, range(len(known)), one))) for one in known.T).hex()


def ticks(low: float, high: float, most: float) -> Ticks:
    """Choose about ``most`` round numbers within a range, with their labels."""
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * (1 - 1e-9))
    numbers = [n * step for n in range(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1)]
    place, largest = math.floor(math.log10(step) + 1e-9), max(map(abs, numbers), default=0.0)
    if largest < 1e6 and place >= -5:
        return [(n, f"{n:.{max(0, -place)}f}") for n in numbers]
    digits = min(max(math.floor(math.log10(largest or step)) - place, 0), 9)
    return [(n, re.sub(r"e\+?(-?)0?", r"e\1", f"{n:.{digits}e}") if n else "0") for n in numbers]


@dataclass(frozen=True)
class Panel:
    """Rectangle of a picture with a scale along each axis.

    Parameters
    ----------
    canvas : `Canvas`
    box : `tuple` [`float`]
        Left, top, right, bottom; dots.
    x, y : `tuple` [`float`, `float`]
        Values at the left and right, lower and upper end.
    """

    canvas: Canvas
    box: tuple[float, float, float, float]
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Locate a point; one outside comes to lie on the border."""
        left, top, right, bottom = self.box
        across = min(max((x - self.x[0]) / (self.x[1] - self.x[0]), 0), 1)
        up = min(max((y - self.y[0]) / (self.y[1] - self.y[0]), 0), 1)
        return round(left + across * (right - left)), round(bottom - up * (bottom - top))

    def line(self, points: Sequence[Point], fill: str, width: int = 1) -> None:
        """Draw a line through points."""
        self.canvas.draw.line([self.at(*point) for point in points], fill, width)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, outline: str | None, fill: str | None) -> None:
        """Draw a box."""
        (left, bottom), (right, top) = self.at(x0, y0), self.at(x1, y1)
        self.canvas.draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), fill, outline)

    def paste(self, dots: NDArray[np.uint8], x: float, y: float) -> None:
        """Put an image [y, x] of palette entries or greys in, its first row the lowest, up to the point ``x, y``."""
        (left, bottom), (right, top) = self.at(self.x[0], self.y[0]), self.at(x, y)
        image = Image.fromarray(np.ascontiguousarray(dots[::-1])).resize((right - left, bottom - top), 0)
        self.canvas.image.paste(image, (left, top))

    def frame(
        self, above: str = "", below: str = "", across: Ticks | None = None, up: Ticks | None = None, size: int = 11,
        right: bool = False,
    ) -> None:  # fmt: skip
        """Draw the border with ticks and labels, and a line of text above and below.

        Parameters
        ----------
        across, up : sequence of (value, label), optional
            Ticks along x and y; round numbers where not given.
        size : `int`
            Height of the labels, dots; texts are larger by one.
        right : `bool`
            Whether the labels of y stand on the right.
        """
        x0, y0, x1, y1 = (round(n) for n in self.box)
        draw, text, middle = self.canvas.draw, self.canvas.text, (x0 + x1) / 2
        draw.rectangle((x0 - 1, y0 - 1, x1, y1), outline="black")
        for value, label in ticks(*self.x, min(8, (x1 - x0) / (4 * size))) if across is None else across:
            x, _ = self.at(value, self.y[0])
            draw.line((x, y1 + 1, x, y1 + 4), "black")
            text((x, y1 + 6), label, size)
        for value, label in ticks(*self.y, min(8, (y1 - y0) / (2 * size))) if up is None else up:
            _, y = self.at(self.x[0], value)
            draw.line((x1 + 1, y, x1 + 4, y) if right else (x0 - 5, y, x0 - 2, y), "black")
            text((x1 + 7 if right else x0 - 8, y), label, size, "lm" if right else "rm")
        text((middle, y0 - 6), above, size + 1, "md")
        text((middle, y1 + 2 * size), below, size + 1)
