"""Draws calibrations that are tables: defects over the focal plane, deferred charge by amplifier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.canvas import BLACK, LOST, OUTSIDE, POINTS, WHITE, ZERO, Canvas, Panel, font
from campaign.quality.drawing import LARGEST, image_panel, places, write_names

Rows = Mapping[int, NDArray[Any]]


def draw_table(
    picture: str, rows: Rows, detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any], path: Path, title: str
) -> None:
    """Draw the tables of a run.

    Parameters
    ----------
    picture : `str`
        See `campaign.kinds.model.Picture`.
    rows : mapping
        Table of each detector.
    """
    wanted = [d for d in detectors if d["id"] in rows]
    TABLES[picture](rows, wanted, types, path, title)


def _defects(
    rows: Rows, detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any], path: Path, title: str
) -> None:
    """Draw every box at its place, with at least one dot at any scale."""
    one = places(detectors, types, 1)
    extent = max(max(x + nx for x, _, nx, _ in one), max(y + ny for _, y, _, ny in one))
    binning = -(-extent // LARGEST)
    boxes = places(detectors, types, binning)
    shape = max(y + ny for _, y, _, ny in boxes), max(x + nx for x, _, nx, _ in boxes)
    dots, bad, whole = np.full(shape, OUTSIDE, np.uint8), 0, 0
    for d, (x, y, nx, ny) in zip(detectors, boxes, strict=True):
        plane, fine = _mask(rows[d["id"]], types[d["type"]]["size"], binning)
        bad, whole = bad + fine, whole + int(np.prod(types[d["type"]]["size"]))
        dots[y : y + ny, x : x + nx] = np.rot90(np.where(plane, BLACK, WHITE), -round(d["yaw_deg"] / 90))
    total = sum(len(some) for some in rows.values())
    panel = image_panel(shape, dots, f"{title}\n{total} boxes, {bad} pixels, {100 * bad / whole:.3g} %")
    panel.frame(below=f"black: a defect in it; a dot is {binning} x {binning} pixels of a detector")
    write_names(panel, [(d["name"], box) for d, box in zip(detectors, boxes, strict=True)])
    panel.canvas.save(path)


def _named(rows: NDArray[Any], name: str, before: str) -> str:
    """Give the name of a column, which tables of earlier versions have under another."""
    return name if name in (rows.dtype.names or ()) else before


def _mask(boxes: NDArray[Any], size: Sequence[int], binning: int) -> tuple[NDArray[np.bool_], int]:
    """Give the bins with a defect, and the number of defect pixels."""
    fine = np.zeros((size[1], size[0]), bool)
    plane = np.zeros([-(-n // binning) for n in fine.shape], bool)
    corner = [_named(boxes, name, name.upper()) for name in ("x0", "y0", "width", "height")]
    for box in boxes:
        x, y, nx, ny = (int(box[name]) for name in corner)
        fine[y : y + ny, x : x + nx] = True
        plane[y // binning : -(-(y + ny) // binning), x // binning : -(-(x + nx) // binning)] = True
    return plane, int(fine.sum())


def _cti(rows: Rows, detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw each amplifier's transfer inefficiency and output drift, with errors."""
    canvas = Canvas(1100, 640)
    canvas.text((550, 8), title, 14)
    table = np.concatenate([rows[d["id"]] for d in detectors])
    good = table["EXPOSURES"] > 0
    starts = np.cumsum([0, *(len(rows[d["id"]]) for d in detectors)])
    middles = (starts[:-1] + starts[1:] - 1) / 2
    step = math.ceil(len(detectors) * max(font(11).getlength(d["name"]) + 12 for d in detectors) / 1000)
    names = [(at, d["name"]) for at, d in zip(middles, detectors, strict=True)][::step]
    lost = int((~good).sum())
    last = f"amplifiers, by detector; {lost} were not measured{' (red)' if lost else ''}"
    cti, drift = _named(table, "GLOBAL_CTI", "CTI"), _named(table, "DRIFT_SCALE", "DRIFT")
    for top, column, label in ((80, cti, "CTI"), (350, drift, "drift of the output")):
        value, error = table[column], table[f"{column}_ERROR"]
        low, high = min((value - error)[good].min(initial=0), 0), max((value + error)[good].max(initial=0), 0)
        margin = 0.05 * (high - low) or 1.0
        panel = Panel(canvas, (70, top, 1080, top + 220), (-1, len(table)), (low - margin, high + margin))
        panel.line([(-1, 0), (len(table), 0)], ZERO)
        for n in map(int, np.flatnonzero(~good)):
            panel.line([(n, panel.y[0]), (n, panel.y[1])], LOST)
        for n in map(int, np.flatnonzero(good)):
            panel.line([(n, value[n] - error[n]), (n, value[n] + error[n])], POINTS)
            x, y = panel.at(n, value[n])
            canvas.draw.rectangle((x - 1, y - 1, x + 1, y + 1), POINTS)
        panel.frame(label, last if top > 80 else "", across=names)
    canvas.save(path)


#: By `campaign.kinds.model.Picture`.
TABLES = {"boxes": _defects, "amplifiers": _cti}
