"""Draws calibrations that are tables: defects over the focal plane, deferred charge by amplifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.drawing import BACKGROUND, LARGEST, figure_for, places, save, write_names

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
    canvas, bad, whole = np.full(shape, np.nan, np.float32), 0, 0
    for d, (x, y, nx, ny) in zip(detectors, boxes, strict=True):
        plane, fine = _mask(rows[d["id"]], types[d["type"]]["size"], binning)
        bad, whole = bad + fine, whole + int(np.prod(types[d["type"]]["size"]))
        canvas[y : y + ny, x : x + nx] = np.rot90(plane, -round(d["yaw_deg"] / 90))
    figure = figure_for(shape, (0.8, 1.2))
    axes = figure.subplots()
    axes.set_facecolor(BACKGROUND)
    axes.imshow(canvas, origin="lower", cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    total = sum(len(some) for some in rows.values())
    axes.set_title(f"{title}\n{total} boxes, {bad} pixels, {100 * bad / whole:.3g} %", fontsize=10)
    axes.set_xlabel(f"black: a defect in it; a dot is {binning} x {binning} pixels of a detector", fontsize=8)
    axes.tick_params(labelsize=7)
    write_names(axes, [(d["name"], box) for d, box in zip(detectors, boxes, strict=True)])
    save(figure, path)


def _mask(boxes: NDArray[Any], size: Sequence[int], binning: int) -> tuple[NDArray[np.float32], int]:
    """Give the bins with a defect, and the number of defect pixels."""
    fine = np.zeros((size[1], size[0]), bool)
    plane = np.zeros([-(-n // binning) for n in fine.shape], np.float32)
    for box in boxes:
        x, y, nx, ny = (int(box[name]) for name in ("X0", "Y0", "WIDTH", "HEIGHT"))
        fine[y : y + ny, x : x + nx] = True
        plane[y // binning : -(-(y + ny) // binning), x // binning : -(-(x + nx) // binning)] = 1
    return plane, int(fine.sum())


def _cti(rows: Rows, detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw each amplifier's transfer inefficiency and output drift, with errors."""
    figure = figure_for((500, 1000), (0.5, 1.0))
    panels = figure.subplots(2, 1, sharex=True)
    table = np.concatenate([rows[d["id"]] for d in detectors])
    place, good = np.arange(len(table)), table["EXPOSURES"] > 0
    for axes, name, label in zip(panels, ("CTI", "DRIFT"), ("CTI", "drift of the output"), strict=True):
        errors = table[f"{name}_ERROR"]
        axes.errorbar(place[good], table[name][good], errors[good], fmt=".", ms=4, lw=0.8, color="#1f6feb")
        axes.axhline(0, color="#999999", lw=0.6)
        axes.set_ylabel(label, fontsize=8)
        axes.tick_params(labelsize=7)
        for at in place[~good]:
            axes.axvline(at, color="#f85149", lw=0.6)
    starts = np.cumsum([0, *(len(rows[d["id"]]) for d in detectors)])
    step = max(1, len(detectors) // 40)
    middles = ((starts[:-1] + starts[1:] - 1) / 2)[::step]
    panels[1].set_xticks(middles, [d["name"] for d in detectors][::step], rotation=90 if len(detectors) > 6 else 0)
    lost = int((~good).sum())
    panels[1].set_xlabel(f"amplifiers, by detector; {lost} were not measured{' (red)' if lost else ''}", fontsize=8)
    panels[0].set_title(title, fontsize=10)
    save(figure, path)


#: By `campaign.kinds.model.Picture`.
TABLES = {"boxes": _defects, "amplifiers": _cti}
