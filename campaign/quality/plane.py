"""Draws a number of each amplifier over the focal plane: SVG with the numbers under the pointer, and PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from campaign.jobs.file import write_text
from campaign.quality.canvas import OUTSIDE, Canvas, Panel, colour, levels
from campaign.quality.drawing import image_panel, limits, places, scale, write_names

#: Dots along the longer side of the focal plane.
SIDE = 900
#: White letters with a dark rim.
HALO = 'fill="#fff" stroke="#20242c" stroke-width="2" paint-order="stroke"'


@dataclass(frozen=True)
class Numbers:
    """A number of each amplifier.

    Parameters
    ----------
    values : mapping
        By detector [amplifier], float64; NaN where unknown.
    """

    title: str
    label: str
    unit: str
    values: Mapping[int, NDArray[np.float64]]


@dataclass(frozen=True)
class _Cell:
    """An amplifier at its place: box [x0, y0, x1, y1], y up, in units of a dot."""

    detector: str
    amplifier: str
    box: tuple[float, float, float, float]
    value: float


def _turned(box: Sequence[float], size: Sequence[float], quarters: int) -> tuple[float, float, float, float]:
    """Turn a box [x0, y0, x1, y1] of a detector counterclockwise by quarters of a turn."""
    (x0, y0, x1, y1), (width, height) = box, size
    for _ in range(quarters % 4):
        x0, y0, x1, y1 = height - y1, x0, height - y0, x1
        width, height = height, width
    return x0, y0, x1, y1


def _cells(
    numbers: Numbers, detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any]
) -> tuple[list[_Cell], list[tuple[str, Sequence[int]]], tuple[int, int]]:
    """Locate the amplifiers; also give the detectors' names and boxes, and the size (width, height)."""
    one = places(detectors, types, 1)
    binning = max(1, -(-max(max(x + nx, y + ny) for x, y, nx, ny in one) // SIDE))
    boxes = places(detectors, types, binning)
    cells = []
    for d, (left, bottom, _, _) in zip(detectors, boxes, strict=True):
        kind = types[d["type"]]
        for k, amplifier in enumerate(kind["amplifiers"]):
            x, y, nx, ny = amplifier["target"]
            box = _turned((x, y, x + nx, y + ny), kind["size"], round(d["yaw_deg"] / 90))
            x0, y0, x1, y1 = (n / binning for n in box)
            place = (left + x0, bottom + y0, left + x1, bottom + y1)
            cells.append(_Cell(d["name"], amplifier["name"], place, float(numbers.values[d["id"]][k])))
    size = max(x + nx for x, _, nx, _ in boxes), max(y + ny for _, y, _, ny in boxes)
    return cells, [(d["name"], box) for d, box in zip(detectors, boxes, strict=True)], size


def draw_plane(
    numbers: Numbers, detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any], stem: Path
) -> list[Path]:
    """Draw ``stem``.svg and ``stem``.png.

    Parameters
    ----------
    detectors, types
        Those of a camera file; ``detectors`` with values alone.
    """
    wanted = [d for d in detectors if d["id"] in numbers.values]
    cells, names, size = _cells(numbers, wanted, types)
    ends = limits(np.array([cell.value for cell in cells], np.float32), 0.0)
    made = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    write_text(made[0], _svg(numbers, cells, names, size, ends))
    _png(numbers, cells, names, size, ends, made[1])
    return made


def _words(numbers: Numbers, cells: Sequence[_Cell]) -> str:
    """Say the median, the extremes and where they are."""
    known = [cell for cell in cells if math.isfinite(cell.value)]
    lost = len(cells) - len(known)
    missing = f"; {lost} without a value" if lost else ""
    if not known:
        return f"no amplifier has a value{missing}"
    low, high = (choose(known, key=lambda cell: cell.value) for choose in (min, max))
    median = float(np.median([cell.value for cell in known]))
    both = (("lowest", low), ("highest", high))
    ends = ", ".join(f"{word} {cell.value:.5g} {cell.detector} {cell.amplifier}" for word, cell in both)
    return f"{len(known)} amplifiers: median {median:.5g} {numbers.unit}, {ends}{missing}"


def _png(
    numbers: Numbers,
    cells: Sequence[_Cell],
    names: Sequence[tuple[str, Sequence[int]]],
    size: tuple[int, int],
    ends: tuple[float, float],
    path: Path,
) -> None:
    image = np.full((size[1], size[0]), OUTSIDE, np.uint8)
    for cell in cells:
        x0, y0, x1, y1 = (round(n) for n in cell.box)
        image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = levels(np.array([cell.value]), *ends)[0]
    panel = image_panel(image.shape, image, f"{numbers.title}\n{numbers.label}")
    panel.frame(below=_words(numbers, cells), across=(), up=())
    write_names(panel, names)
    canvas: Canvas = panel.canvas
    _, top, right, bottom = panel.box
    bar = Panel(canvas, (right + 20, top + 12, right + 36, max(bottom - 12, top + 80)), (0, 1), ends)
    scale(bar, 0, 0, numbers.unit)
    canvas.save(path)


def _svg(
    numbers: Numbers,
    cells: Sequence[_Cell],
    names: Sequence[tuple[str, Sequence[int]]],
    size: tuple[int, int],
    ends: tuple[float, float],
) -> str:
    width, height = size
    rows = []
    for cell in cells:
        x0, y0, x1, y1 = cell.box
        known = math.isfinite(cell.value)
        words = f"{cell.detector} {cell.amplifier}: {cell.value:.6g} {numbers.unit}" if known else (
            f"{cell.detector} {cell.amplifier}: no value"
        )  # fmt: skip
        fill = colour(cell.value, *ends) if known else "#f85149"
        place = f'x="{x0:.2f}" y="{height - y1:.2f}" width="{x1 - x0:.2f}" height="{y1 - y0:.2f}"'
        rows.append(f'<rect {place} fill="{fill}"><title>{escape(words)}</title></rect>')
    for name, (x, y, nx, ny) in names:
        place = f'x="{x}" y="{height - y - ny}" width="{nx}" height="{ny}"'
        rows.append(f'<rect {place} fill="none" stroke="#20242c"/>')
        if len(names) > 1:
            text = f'x="{x + nx / 2}" y="{height - y - ny + 12}" font-size="10" text-anchor="middle"'
            rows.append(f"<text {text} {HALO}>{escape(name)}</text>")
    bars = [
        f'<rect x="{width + 20}" y="{height * (1 - (n + 1) / 50):.1f}" width="16" height="{height / 50 + 0.5:.1f}" '
        f'fill="{colour(n + 0.5, 0, 50)}"/>'
        for n in range(50)
    ]
    for value, at in ((ends[0], height), ((ends[0] + ends[1]) / 2, height / 2 + 4), (ends[1], 10)):
        bars.append(f'<text x="{width + 42}" y="{at:.0f}" font-size="11">{value:.5g}</text>')
    title = escape(f"{numbers.label}, {numbers.unit}")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -40 {width + 130} {height + 80}" '
        f'font-family="sans-serif" role="img" aria-label="{title}">'
    )
    texts = [
        f'<text x="0" y="-24" font-size="14">{escape(numbers.title.splitlines()[0])}</text>',
        f'<text x="0" y="-8" font-size="12">{title}</text>',
        f'<text x="0" y="{height + 20}" font-size="12">{escape(_words(numbers, cells))}</text>',
    ]
    return "\n".join([head, *texts, *rows, *bars, "</svg>", ""])
