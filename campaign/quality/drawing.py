"""Draws pictures as PNG: an image with scale and histogram, and detectors with their names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.canvas import BARS, ENDS, HIGHEST, LOWEST, Canvas, Panel, font, levels

#: Percentiles of the grey levels at the ends of the scale.
CLIPPED = (1, 99)
#: Fewest and most dots along an image's longer side.
SMALLEST, LARGEST = 600, 1600
#: Least width of a picture, which holds the histogram's words; dots.
NARROWEST = 620
#: Room around an image for labels: left, right, below; dots.
LEFT, RIGHT, BELOW = 60, 110, 45
#: With more detectors than this no names are written.
NAMED = 250


@dataclass(frozen=True)
class Shown:
    """Image with its labels.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        NaN where there is no detector.
    title : `str`
        Lines above the image.
    unit : `str`
        Unit of the scale.
    axes : `str`
        Meaning of a pixel.
    names : sequence of `tuple`
        Detectors: name, and box [x0, y0, nx, ny] on the image.
    """

    image: NDArray[np.float32]
    title: str
    unit: str
    axes: str
    names: Sequence[tuple[str, Sequence[int]]] = ()


def places(detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any], binning: int) -> list[list[int]]:
    """Locate each detector on a mosaic, as `kernels.products.mosaic.places` does.

    Returns
    -------
    boxes : `list` [`list` [`int`]]
        ``[x0, y0, nx, ny]``; x to the right and y up.
    """
    pitch = min(types[d["type"]]["pixel_um"] for d in detectors) * 1e-3 * binning
    boxes = []
    for d in detectors:
        size = [-(-n // binning) for n in types[d["type"]]["size"]]
        if round(d["yaw_deg"] / 90) % 2:
            size.reverse()
        x, y = (at / pitch - n / 2 for at, n in zip(d["position_mm"], size, strict=True))
        boxes.append([round(x), round(y), *size])
    left, bottom = min(b[0] for b in boxes), min(b[1] for b in boxes)
    return [[x - left, y - bottom, nx, ny] for x, y, nx, ny in boxes]


def limits(image: NDArray[np.float32], narrowest: float = 0.5) -> tuple[float, float]:
    """Give grey levels that enclose 98 % of the pixels; never equal."""
    good = image[np.isfinite(image)]
    if not good.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(good, CLIPPED))
    least = max(narrowest, 1e-6 * abs(low)) or 1.0
    return (low, high) if high > low else (low - least, high + least)


def _every(shape: Sequence[int]) -> int:
    """Give the pixels along a side of a dot of a large image."""
    return -(-max(shape) // LARGEST)


def averaged(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average a large image over squares of pixels, so that a lone bad column shows; NaN where none has a value."""
    if (every := _every(image.shape)) == 1:
        return image

    def sums(values: NDArray[Any]) -> NDArray[np.float32]:
        rows = np.add.reduceat(values, range(0, image.shape[0], every), 0, np.float32)
        return np.add.reduceat(rows, range(0, image.shape[1], every), 1)

    good = np.isfinite(image)
    with np.errstate(invalid="ignore"):
        return sums(np.where(good, image, np.float32(0))) / sums(good)


def image_panel(shape: Sequence[int], dots: NDArray[np.uint8], title: str, below: int = 0) -> Panel:
    """Begin a picture with a title and an image, and leave ``below`` dots free under its labels.

    Parameters
    ----------
    shape : (rows, columns)
        Pixels of the image, for the scales.
    dots : `numpy.ndarray` [y, x], uint8
        Entries of the palette; each is repeated in a small image.
    """
    many = -(-SMALLEST // max(dots.shape))
    dots = dots.repeat(many, 0).repeat(many, 1)
    rows, columns = dots.shape
    lines = title.splitlines()
    longest = max((font(14).getlength(line) for line in lines), default=0)
    width = max(LEFT + columns + RIGHT, round(longest) + 40, NARROWEST)
    top, left = 30 + 18 * len(lines), LEFT + (width - LEFT - columns - RIGHT) // 2
    canvas = Canvas(width, top + rows + BELOW + below)
    canvas.text((left + columns / 2 if width == LEFT + columns + RIGHT else width / 2, 8), title, 14)
    panel = Panel(canvas, (left, top, left + columns, top + rows), (-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5))
    panel.paste(dots, panel.x[1], panel.y[1])
    return panel


def write_names(panel: Panel, names: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Write detectors' names on them, as small as necessary."""
    if not 1 < len(names) <= NAMED:
        return
    for name, (x, y, nx, ny) in names:
        wide = panel.at(x + nx, y)[0] - panel.at(x, y)[0]
        size = min(max(int(70 * wide / font(100).getlength(name)), 7), 13)
        at = panel.at(x + nx / 2 - 0.5, y + 0.96 * ny - 0.5)
        x0, y0, x1, y1 = panel.canvas.draw.textbbox(at, name, font(size), "ma")
        panel.canvas.draw.rectangle((x0 - 2, y0 - 2, x1 + 1, y1 + 1), "black")
        panel.canvas.text(at, name, size, fill="white")


def draw(shown: Shown, path: Path) -> None:
    """Draw an image, x to the right and y up, with a histogram and a scale that marks clipped levels."""
    image = shown.image
    low, high = limits(image)
    good = image[np.isfinite(image)]
    panel = image_panel(image.shape, levels(averaged(image), low, high), shown.title, 150)
    canvas, (_, top, right, bottom) = panel.canvas, panel.box
    every = _every(image.shape)
    panel.frame(below=shown.axes + (f"; a dot is the mean of {every} x {every}" if every > 1 else ""))
    write_names(panel, shown.names)
    below, above = int((good < low).sum()), int((good > high).sum())
    scale(
        Panel(canvas, (right + 20, top + 12, right + 36, max(bottom - 12, top + 80)), (0, 1), (low, high)),
        below,
        above,
        shown.unit,
    )
    words = f"{below} pixels below {low:.5g}, {above} above {high:.5g}"
    if good.size < image.size:
        words += f", {image.size - good.size} outside the detectors or without a value"
    box = (LEFT, bottom + BELOW + 40, canvas.image.width - 20, bottom + BELOW + 110)
    _histogram(canvas, box, good, (low, high), (words, f"{shown.unit}; values beyond are counted at the ends"))
    canvas.save(path)


def scale(panel: Panel, below: int, above: int, unit: str) -> None:
    """Draw the scale of levels; an arrow at an end says that levels were clipped there."""
    left, top, right, bottom = (round(n) for n in panel.box)
    panel.paste(levels(np.linspace(*panel.y, bottom - top)[:, None].repeat(right - left, 1), *panel.y), 1, panel.y[1])
    panel.frame(across=(), right=True)
    for clipped, end, tip, entry in (
        (below, bottom + 1, bottom + 12, LOWEST),
        (above, top - 2, top - 13, HIGHEST),
    ):
        if clipped:
            panel.canvas.draw.polygon([(left - 1, end), (right, end), ((left + right) // 2, tip)], entry, "black")
    panel.canvas.text((left, top - 32), unit, 12, "la")


def _histogram(
    canvas: Canvas, box: Sequence[float], good: NDArray[np.float32], ends: tuple[float, float], texts: Sequence[str]
) -> None:
    """Draw the frequency of each level, somewhat beyond both ends of the scale; mark the ends."""
    low, high = ends
    margin = (high - low) / 2
    beyond = (low - margin, high + margin)
    near = (-margin, high - low + margin)  # about the lower end, where float32 has digits to spare
    counts, edges = np.histogram(np.clip(good - np.float32(low), *near), int(box[2] - box[0]) // 3, near)
    edges = edges.astype(np.float64) + low
    tall = math.log10(max(int(counts.max()), 10)) * 1.05
    panel = Panel(
        canvas, (box[0], box[1], box[2], box[3]), (beyond[0] - margin / 20, beyond[1] + margin / 20), (-0.3, tall)
    )
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        if count:
            panel.rectangle(start, -0.3, end, math.log10(count), None, BARS)
    for end in ends:
        panel.line([(end, -0.3), (end, tall)], ENDS)
    powers = range(0, math.floor(tall) + 1, 1 + int(tall) // 4)
    panel.frame(texts[0], texts[1], up=[(n, f"1e{n}" if n else "1") for n in powers])
