"""Draws calibrations that are tables: defects over the focal plane, numbers of each amplifier."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.canvas import BLACK, LOST, OUTSIDE, POINTS, WHITE, ZERO, Canvas, Panel, font
from campaign.quality.drawing import LARGEST, image_panel, places, write_names
from campaign.quality.plane import Numbers

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


@dataclass(frozen=True)
class _Panel:
    """A number of each amplifier, with its error; both are computed from the rows of a table."""

    label: str
    value: Callable[[NDArray[Any]], NDArray[np.float64]]
    error: Callable[[NDArray[Any]], NDArray[np.float64]]
    #: Name of its map of the focal plane; empty: none is drawn.
    map: str = ""


def _column(label: str, name: str, error: str = "", before: str = "", map: str = "") -> _Panel:
    """Take a column and that of its error, which tables of earlier versions have under another name."""

    def read(rows: NDArray[Any], column: str) -> NDArray[np.float64]:
        return np.asarray(rows[column], np.float64)

    def errors(rows: NDArray[Any]) -> NDArray[np.float64]:
        used = error or f"{_named(rows, name, before)}_ERROR"
        return read(rows, used) if used in (rows.dtype.names or ()) else np.zeros(len(rows))

    return _Panel(label, lambda rows: read(rows, _named(rows, name, before)), errors, map)


def _first(label: str, name: str, error: str, map: str) -> _Panel:
    """Take the first number of a column of lists, 1e-6."""

    def read(rows: NDArray[Any], column: str) -> NDArray[np.float64]:
        return 1e6 * np.asarray(rows[column], np.float64).reshape(len(rows), -1)[:, 0]

    return _Panel(label, lambda rows: read(rows, name), lambda rows: read(rows, error), map)


def _change(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Give the change of gains that are divided by a factor, percent; NaN where none was measured."""
    known = np.isfinite(rows["GAIN_ADJUSTMENT_ERR"])
    return np.where(known, 100 / np.asarray(rows["GAIN_ADJUSTMENT"], np.float64) - 100, math.nan)


def _centre(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Give the centres of kernels, 1e-7/electron: their minima."""
    return 1e7 * np.asarray(rows["KERNEL"], np.float64).reshape(len(rows), -1).min(axis=1)


def _ends(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[float, float]:
    """Give the ends of a scale: with 0, unless the numbers differ by less than a fifth of their size."""
    if not low.size:
        return 0.0, 1.0
    first, last = float(low.min()), float(high.max())
    if first > 0 and last - first < 0.2 * last:
        return first, last
    return min(first, 0.0), max(last, 0.0)


#: By a column that only tables of the kind have: where an amplifier was measured, and its numbers.
_AMPLIFIERS: Mapping[str, tuple[Callable[[NDArray[Any]], NDArray[np.bool_]], tuple[_Panel, ...]]] = {
    "EXPOSURES": (
        lambda rows: rows["EXPOSURES"] > 0,
        (_column("CTI", "GLOBAL_CTI", before="CTI"), _column("drift of the output", "DRIFT_SCALE", before="DRIFT")),
    ),
    "PTC_TURNOFF": (
        lambda rows: np.isfinite(rows["GAIN"]),
        (
            _column("gain, electron/ADU", "GAIN", "GAIN_ERR", map="gain"),
            _column("read noise, electron", "NOISE", "NOISE_ERR", map="noise"),
            _column("turnoff, ADU", "PTC_TURNOFF", "PTC_TURNOFF_SAMPLING_ERROR", map="turnoff"),
            _first("a00, 1e-6/electron", "PTC_FIT_PARS", "PTC_FIT_PARS_ERROR", "a00"),
        ),
    ),
    "GAIN_ADJUSTMENT": (
        lambda rows: np.isfinite(rows["GAIN_ADJUSTMENT_ERR"]),
        (_Panel("change of the gain, %", _change, lambda rows: 100 * rows["GAIN_ADJUSTMENT_ERR"], "change"),),
    ),
    "LINEARITY_TURNOFF": (
        lambda rows: np.isfinite(rows["LINEARITY_TURNOFF"]),
        (
            _column("turnoff of linearity, ADU", "LINEARITY_TURNOFF"),
            _column("scatter of residuals, ADU", "FIT_RES_SIGMAD"),
        ),
    ),
    "MEAN_XCORRS": (
        lambda rows: np.asarray(rows["VALID"], bool),
        (_Panel("centre of the kernel, 1e-7/electron", _centre, lambda rows: np.zeros(len(rows))),),
    ),
}


def _panels(names: Sequence[str]) -> tuple[Callable[[NDArray[Any]], NDArray[np.bool_]], tuple[_Panel, ...]]:
    """Find the panels of a table by its columns."""
    return next(found for column, found in _AMPLIFIERS.items() if column in names)


@dataclass(frozen=True)
class Measured:
    """Numbers of a detector's amplifiers."""

    names: Sequence[str]
    #: [amplifier]: Whether it was measured.
    measured: NDArray[np.bool_]
    #: By label, values and standard errors (0 where unknown) [amplifier].
    values: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def numbers(rows: NDArray[Any]) -> Measured | None:
    """Give the numbers of a detector's amplifiers; `None` for a table that has none."""
    names = rows.dtype.names or ()
    if not any(column in names for column in _AMPLIFIERS) or not len(rows):
        return None
    measured, panels = _panels(names)
    column = next(name for name in ("AMPLIFIER_NAME", "AMPLIFIER", "AMP_NAME") if name in names)
    amplifiers = [str(name).strip() for name in np.asarray(rows[column]).astype(str)]
    values = {one.label: (np.asarray(one.value(rows)), np.asarray(one.error(rows))) for one in panels}
    return Measured(amplifiers, np.asarray(measured(rows), bool), values)


def maps(rows: Rows, title: str) -> dict[str, Numbers]:
    """Give the numbers of amplifiers that are drawn over the focal plane, by name."""
    _, panels = _panels(next(iter(rows.values())).dtype.names or ())
    found = {}
    for shown in panels:
        label, _, unit = shown.label.partition(", ")
        if shown.map:
            found[shown.map] = Numbers(title, label, unit, {d: shown.value(table) for d, table in rows.items()})
    return found


def _amplifiers(
    rows: Rows, detectors: Sequence[Mapping[str, Any]], types: Mapping[str, Any], path: Path, title: str
) -> None:
    """Draw numbers of each amplifier, with errors."""
    table = np.concatenate([rows[d["id"]] for d in detectors])
    measured, panels = _panels(table.dtype.names or ())
    canvas = Canvas(1100, 100 + 270 * len(panels))
    canvas.text((550, 8), title, 14)
    good = measured(table)
    starts = np.cumsum([0, *(len(rows[d["id"]]) for d in detectors)])
    middles = (starts[:-1] + starts[1:] - 1) / 2
    step = math.ceil(len(detectors) * max(font(11).getlength(d["name"]) + 12 for d in detectors) / 1000)
    names = [(at, d["name"]) for at, d in zip(middles, detectors, strict=True)][::step]
    lost = int((~good).sum())
    last = f"amplifiers, by detector; {lost} were not measured{' (red)' if lost else ''}"
    for row, shown in enumerate(panels):
        top, value, error = 80 + 270 * row, shown.value(table), shown.error(table)
        low, high = _ends((value - error)[good], (value + error)[good])
        margin = 0.05 * (high - low) or 1.0
        panel = Panel(canvas, (70, top, 1080, top + 220), (-1, len(table)), (low - margin, high + margin))
        if low <= 0 <= high:
            panel.line([(-1, 0), (len(table), 0)], ZERO)
        for n in map(int, np.flatnonzero(~good)):
            panel.line([(n, panel.y[0]), (n, panel.y[1])], LOST)
        for n in map(int, np.flatnonzero(good)):
            panel.line([(n, value[n] - error[n]), (n, value[n] + error[n])], POINTS)
            x, y = panel.at(n, value[n])
            canvas.draw.rectangle((x - 1, y - 1, x + 1, y + 1), POINTS)
        panel.frame(shown.label, last if row == len(panels) - 1 else "", across=names)
    canvas.save(path)


#: By `campaign.kinds.model.Picture`.
TABLES = {"boxes": _defects, "amplifiers": _amplifiers}
