"""Draws a camera file's sections over a frame, and the levels on both sides of their borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from campaign.quality.drawing import limits, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from campaign.camera.parts import Amplifier, CcdType

COLOURS = {"data": "#3fb950", "serial_overscan": "#f0883e", "parallel_overscan": "#58a6ff"}
WRONG = "#f85149"
#: Most borders that are drawn enlarged.
CLOSELY = 8


def draw(kind: CcdType, found: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw a detector's HDUs with the sections of their amplifiers, and borders of data sections enlarged.

    Parameters
    ----------
    found : mapping
        See `kernels.products.sections.examine`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {row["amplifier"]: row for row in found["amplifiers"]}
    borders = _chosen(found["amplifiers"])
    wide = min(4, len(found["pictures"]))
    tall = -(-len(found["pictures"]) // wide)
    figure = Figure(figsize=(9.0 + 4.4 * bool(borders), 8.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(1, 2, width_ratios=(2, 1), squeeze=False)[0] if borders else [figure]
    left, right = parts[0], parts[1:]
    light = found["frames"]["lit"]
    state = (
        f"mean of {min(light, 5)} lit frame{'s' * (light > 1)}"
        if light
        else "no lit frame: sections are drawn, and not judged"
    )
    left.suptitle(f"{title}: {state}", fontsize=11)
    panels = left.subplots(tall, wide, squeeze=False).flat
    for axes, picture in zip(panels, found["pictures"], strict=False):
        some = [a for a in kind.amplifiers if a.hdu == picture["hdu"]]
        _frame(axes, picture, some, rows, len(found["pictures"]) > 1)
    for axes in panels:
        axes.set_axis_off()
    left.legend(handles=_legend(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    if right:
        _closely(right[0].subplots(len(borders), 1, squeeze=False).flat, borders)
        right[0].suptitle("levels at the data section's borders, ADU", fontsize=9)
    save(figure, path)


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, lw=2, label=name.replace("_", " ")) for name, colour in COLOURS.items()]
    lines.append(Line2D([], [], color=WRONG, lw=1.5, ls="--", label="where the light ends"))
    return [
        *lines,
        Line2D([], [], color="white", mec="black", marker="o", ls="", label="read first; the arrow: along a row"),
    ]


def _frame(
    axes: Axes, picture: Mapping[str, Any], some: Sequence[Amplifier], rows: Mapping[str, Any], small: bool
) -> None:
    """Draw one HDU; pixels are counted from 1, like sections."""
    from matplotlib.patches import Rectangle

    image, step = np.load(picture["path"]), picture["step"]
    low, high = limits(image)
    width, height = some[0].raw
    extent = (0.5, image.shape[1] * step + 0.5, 0.5, image.shape[0] * step + 0.5)
    axes.imshow(image, origin="lower", cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest")
    margin = 0.02 * max(width, height)
    axes.set(xlim=(0.5 - margin, width + 0.5 + margin), ylim=(0.5 - margin, height + 0.5 + margin))
    axes.tick_params(labelsize=6 if small else 8)
    for amplifier in some:
        for name, box in {"data": amplifier.data, **amplifier.overscans}.items():
            shape = Rectangle((box.x0 + 0.5, box.y0 + 0.5), box.nx, box.ny, edgecolor=COLOURS[name], lw=1.2)
            shape.set_facecolor("none" if name == "data" else (COLOURS[name], 0.35))
            axes.add_patch(shape)
        _corner(axes, amplifier)
        row = rows[amplifier.name]
        words = f"{amplifier.name}: {'does not fit' if row['misfits'] else 'fits' if row['judged'] else 'not judged'}"
        x, y = amplifier.data.x0 + amplifier.data.nx / 2, amplifier.data.y0 + amplifier.data.ny / 2
        colour = WRONG if row["misfits"] else "black"
        axes.text(x, y, words, ha="center", size=7 if small else 10, color=colour, backgroundcolor="#ffffffb0")
        if row["judged"] and row["lit"]:
            x0, y0, x1, y1 = row["lit"]
            light = Rectangle((x0 + 0.5, y0 + 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=WRONG, lw=1, ls="--")
            axes.add_patch(light)


def _corner(axes: Axes, amplifier: Amplifier) -> None:
    """Give the corner that is read first and the direction of a row; pixels read last lie beside the overscans."""
    data = amplifier.data
    serial, parallel = amplifier.serial_overscan, amplifier.parallel_overscan
    if serial is None:
        return
    rightwards, upwards = serial.x0 >= data.x1, parallel is None or parallel.y0 >= data.y1
    inset = 0.04 * min(data.nx, data.ny)
    x = data.x0 + inset if rightwards else data.x1 - inset
    y = data.y0 + inset if upwards else data.y1 - inset
    axes.plot(x, y, "o", color="white", mec="black", ms=4)
    tip = (x + 0.15 * data.nx * (1 if rightwards else -1), y)
    axes.annotate("", tip, (x, y), arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.5})


def _chosen(amplifiers: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Choose the borders to enlarge: misplaced ones first, then those with any edge."""
    borders = [(row["amplifier"], b) for row in amplifiers if row["judged"] for b in row["borders"]]
    seen = [(name, b) for name, b in borders if b["edge"]]
    return sorted(seen, key=lambda one: -abs(one[1]["found"] - one[1]["declared"]))[:CLOSELY]


def _closely(panels: Any, borders: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    for axes, (name, border) in zip(panels, borders, strict=True):
        first, declared, found = border["first"], border["declared"], border["found"]
        pixels = np.arange(first, first + len(border["profile"])) + 1
        axes.step(pixels, border["profile"], where="mid", color="black", lw=1)
        axes.axvline(declared + 0.5, color=COLOURS["data"], lw=2)
        axes.axvline(found + 0.5, color=WRONG, lw=1.2, ls="--")
        axes.tick_params(labelsize=6)
        off = found - declared
        words = f"light ends {off:+d} from the border" if off else "light ends at the border"
        axes.set_title(f"{name}, {border['side']}: {words}", fontsize=7, pad=2)
