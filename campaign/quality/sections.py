"""Draws a camera file's sections over a frame, and the levels on both sides of their borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.canvas import Canvas, Panel
from campaign.quality.drawing import limits

if TYPE_CHECKING:
    from campaign.camera.parts import Amplifier, CcdType

COLOURS = {"data": "#3fb950", "serial_overscan": "#f0883e", "parallel_overscan": "#58a6ff"}
WRONG = "#f85149"
#: Most borders that are drawn enlarged.
CLOSELY = 8
#: Room for the HDUs, and for the borders to their right; margin left of all HDUs, right of and below each; dots.
ROOM, MORE, LEFT, RIGHT, BELOW = (950, 870), 480, 40, 16, 26


def draw(kind: CcdType, found: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw a detector's HDUs with the sections of their amplifiers, and borders of data sections enlarged.

    Parameters
    ----------
    found : mapping
        See `kernels.products.sections.examine`.
    """
    rows = {row["amplifier"]: row for row in found["amplifiers"]}
    borders = _chosen(found["amplifiers"])
    canvas = Canvas(LEFT + ROOM[0] + MORE * bool(borders), ROOM[1] + 80, "RGB")
    light = found["frames"]["lit"]
    state = (
        f"mean of {min(light, 5)} lit frame{'s' * (light > 1)}"
        if light
        else "no lit frame: sections are drawn, and not judged"
    )
    canvas.text((ROOM[0] / 2, 10), f"{title}: {state}", 15)
    hdus = [
        ([a for a in kind.amplifiers if a.hdu == picture["hdu"]], np.load(picture["path"]), picture["step"])
        for picture in found["pictures"]
    ]
    shape = hdus[0][0][0].raw
    columns = max(range(1, len(hdus) + 1), key=lambda n: _factor(shape, len(hdus), n))
    cell = ROOM[0] / columns, ROOM[1] / -(-len(hdus) // columns)
    for n, (some, image, step) in enumerate(hdus):
        (width, height), factor = some[0].raw, _factor(some[0].raw, len(hdus), columns)
        x, y = LEFT + n % columns * cell[0], 42 + n // columns * cell[1]
        box = (x, y, x + width * factor, y + height * factor)
        panel = Panel(canvas, box, (0.5, width + 0.5), (0.5, height + 0.5))
        _frame(panel, some, image, step, rows)
        panel.frame(up=() if n % columns else None, size=9)
    _legend(canvas, ROOM[1] + 58)
    if borders:
        canvas.text((ROOM[0] + MORE / 2, 10), "levels at the data section's borders, ADU", 13)
        _closely(canvas, borders)
    canvas.save(path)


def _factor(raw: Sequence[int], many: int, columns: int) -> float:
    """Give the dots a pixel of ``many`` HDUs in so many columns."""
    return min((ROOM[0] / columns - RIGHT) / raw[0], (ROOM[1] / -(-many // columns) - BELOW) / raw[1])


def _legend(canvas: Canvas, y: float) -> None:
    x = 60.0
    for name, colour in (*COLOURS.items(), ("where the light ends", WRONG)):
        line = ((x, y), (x + 30, y))
        if colour == WRONG:
            canvas.dashes(line, colour, 2)
        else:
            canvas.draw.line(line, colour, 3)
        canvas.text((x + 38, y), name.replace("_", " "), 12, "lm")
        x += 190
    canvas.draw.ellipse((x, y - 4, x + 8, y + 4), "white", "black")
    canvas.text((x + 16, y), "read first; the arrow: along a row", 12, "lm")


def _frame(panel: Panel, some: Sequence[Amplifier], image: NDArray[Any], step: int, rows: Mapping[str, Any]) -> None:
    """Draw one HDU with its amplifiers; pixels are counted from 1, like sections."""
    canvas, (low, high) = panel.canvas, limits(image)
    grey = np.clip((image - low) / (high - low), 0, 1) * 255
    panel.paste(grey.astype(np.uint8), image.shape[1] * step + 0.5, image.shape[0] * step + 0.5)
    for amplifier in some:
        for name, box in {"data": amplifier.data, **amplifier.overscans}.items():
            fill = None if name == "data" else COLOURS[name] + "59"
            panel.rectangle(box.x0 + 0.5, box.y0 + 0.5, box.x1 + 0.5, box.y1 + 0.5, COLOURS[name], fill)
        _corner(panel, amplifier)
        row = rows[amplifier.name]
        words = f"{amplifier.name}\n{'does not fit' if row['misfits'] else 'fits' if row['judged'] else 'not judged'}"
        x, y = panel.at(amplifier.data.x0 + amplifier.data.nx / 2, amplifier.data.y0 + amplifier.data.ny / 2)
        canvas.draw.rounded_rectangle((x - 38, y - 17, x + 38, y + 17), 4, "#ffffffc0")
        canvas.text((x, y), words, 12, "mm", WRONG if row["misfits"] else "black")
        if row["judged"] and row["lit"]:
            x0, y0, x1, y1 = (n + 0.5 for n in row["lit"])
            corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))
            canvas.dashes([panel.at(*one) for one in corners], WRONG)


def _corner(panel: Panel, amplifier: Amplifier) -> None:
    """Give the corner that is read first and the direction of a row; pixels read last lie beside the overscans."""
    data = amplifier.data
    serial, parallel = amplifier.serial_overscan, amplifier.parallel_overscan
    if serial is None:
        return
    rightwards, upwards = serial.x0 >= data.x1, parallel is None or parallel.y0 >= data.y1
    x, y = panel.at(data.x0 if rightwards else data.x1, data.y0 if upwards else data.y1)
    x, y, sign = x + (10 if rightwards else -10), y - (10 if upwards else -10), 1 if rightwards else -1
    panel.canvas.draw.line((x, y, x + sign * 26, y), WRONG, 2)
    panel.canvas.draw.polygon(((x + sign * 24, y - 4), (x + sign * 24, y + 4), (x + sign * 32, y)), WRONG)
    panel.canvas.draw.ellipse((x - 4, y - 4, x + 4, y + 4), "white", "black")


def _chosen(amplifiers: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Choose the borders to enlarge: misplaced ones first, then those with any edge."""
    borders = [(row["amplifier"], b) for row in amplifiers if row["judged"] for b in row["borders"]]
    seen = [(name, b) for name, b in borders if b["edge"]]
    return sorted(seen, key=lambda one: -abs(one[1]["found"] - one[1]["declared"]))[:CLOSELY]


def _closely(canvas: Canvas, borders: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    cell = (ROOM[1] + 20) / len(borders)
    for n, (name, border) in enumerate(borders):
        first, declared, found = border["first"], border["declared"], border["found"]
        profile = np.array(border["profile"], float).repeat(2)
        places = np.arange(first, first + len(profile) // 2 + 1).repeat(2)[1:-1] + 0.5
        margin = 0.08 * float(np.ptp(profile)) or 1.0
        top = 52 + n * cell
        ends = (float(profile.min()) - margin, float(profile.max()) + margin)
        box = (ROOM[0] + 100, top, ROOM[0] + MORE + 20, top + cell - 48)
        panel = Panel(canvas, box, (places[0], places[-1]), ends)
        panel.line(list(zip(places, profile, strict=True)), "black")
        panel.line([(declared + 0.5, end) for end in ends], COLOURS["data"], 3)
        canvas.dashes([panel.at(found + 0.5, end) for end in ends], WRONG)
        off = found - declared
        words = f"light ends {off:+d} from the border" if off else "light ends at the border"
        panel.frame(f"{name}, {border['side']}: {words}", size=9)
