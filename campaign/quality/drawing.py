"""Draws pictures as PNG: an image with scale and histogram, and detectors with their names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKGROUND = "#20242c"
#: Percentiles of the grey levels at the ends of the scale.
CLIPPED = (1, 99)
#: Fewest and most pixels along a picture's longer side, and dots per inch.
SMALLEST, LARGEST, DPI = 700, 1600, 100
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


def limits(image: NDArray[np.float32]) -> tuple[float, float]:
    """Give grey levels that enclose 98 % of the pixels; never equal."""
    good = image[np.isfinite(image)]
    if not good.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(good, CLIPPED))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def figure_for(shape: Sequence[int], more: tuple[float, float]) -> Figure:
    """Make a figure with a dot for each pixel of ``shape`` (rows, columns), and margins in inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = shape
    factor = min(max(1.0, SMALLEST / max(rows, columns)), LARGEST / max(rows, columns))
    size = (max(columns * factor / DPI, 4.5) + more[0], max(rows * factor / DPI, 1.0) + more[1])
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture whole, or not at all."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.png")
    try:
        figure.canvas.print_png(temporary)  # type: ignore[attr-defined]  # savefig lays out and draws twice
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_names(axes: Axes, names: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Write detectors' names on them, as small as necessary."""
    from matplotlib.patheffects import withStroke

    if not 1 < len(names) <= NAMED:
        return
    size = 9 if len(names) < 30 else 5
    for name, (x, y, nx, ny) in names:
        outline = [withStroke(linewidth=1.5, foreground="black")]
        where = (x + nx / 2 - 0.5, y + 0.9 * ny - 0.5)
        axes.text(*where, name, size=size, color="white", ha="center", va="top", path_effects=outline)


def draw(shown: Shown, path: Path) -> None:
    """Draw an image, x to the right and y up, with a histogram and a scale that marks clipped levels."""
    image = shown.image
    low, high = limits(image)
    figure = figure_for(image.shape, (1.9, 2.4))
    figure.set_layout_engine("none")  # it takes longer than the drawing, and places are known
    width, height = figure.get_size_inches()

    def axes_at(left: float, bottom: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    axes = axes_at(0.7, 1.85, width - 1.9, height - 2.4)
    scale = axes_at(width - 1.1, 1.85, 0.15, height - 2.4)
    counts = axes_at(0.7, 0.45, width - 0.9, 0.75)
    axes.set_facecolor(BACKGROUND)
    picture = axes.imshow(image, origin="lower", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xlabel(shown.axes, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_title(shown.title, fontsize=10)
    write_names(axes, shown.names)
    good = image[np.isfinite(image)]
    below, above = int((good < low).sum()), int((good > high).sum())
    clipped = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    extend = clipped[below > 0, above > 0]
    figure.colorbar(picture, cax=scale, label=shown.unit, extend=extend)
    _histogram(counts, good, (low, high), shown.unit)
    words = f"{below} pixels below {low:.5g}, {above} above {high:.5g}"
    counts.set_title(
        words
        + (f", {image.size - good.size} outside the detectors or without a value" if good.size < image.size else ""),
        fontsize=8,
    )
    save(figure, path)


def _histogram(axes: Axes, good: NDArray[np.float32], ends: tuple[float, float], unit: str) -> None:
    """Draw the frequency of each level, somewhat beyond both ends of the scale; mark the ends."""
    low, high = ends
    margin = (high - low) / 2
    ends_of_bins = (low - margin, high + margin)
    axes.hist(np.clip(good, *ends_of_bins), bins=200, range=ends_of_bins, histtype="stepfilled", color="#5a7d9a")
    if good.size:
        axes.set_yscale("log")
    for end in ends:
        axes.axvline(end, color="#b7791f", lw=1)
    axes.set_xlabel(f"{unit}; values beyond are counted at the ends", fontsize=8)
    axes.set_ylabel("pixels", fontsize=8)
    axes.tick_params(labelsize=7)
