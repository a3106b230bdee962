"""Draws the crosstalk of a detector: each amplifier's share in each other one; and its numbers for the focal plane."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from campaign.quality.canvas import LOST, ZERO, Canvas, Panel, font
from campaign.quality.plane import Numbers

F64 = NDArray[np.float64]

#: Signal of a source at which its crosstalk is shown, in the unit of the frames.
SIGNAL: Final = 100_000.0
#: Dots of a cell; room on the left, above, on the right and below.
WIDE, TALL = 50, 26
LEFT, ABOVE, RIGHT, BELOW = 70, 90, 110, 60
#: Colours of the largest negative value, of 0 and of the largest positive one; those of an amplifier in itself.
COLOURS: Final = ("#2166ac", "#ffffff", "#b2182b")
ITSELF: Final = "#d9d9d9"
#: Distance of the lines of a hatched cell, dots.
HATCH: Final = 6
#: Part of the largest value up to which the scale is straight: beyond, it is logarithmic.
STRAIGHT: Final = 0.03


def effects(row: Any) -> tuple[F64, NDArray[np.bool_]]:
    """Compute the crosstalk at `SIGNAL`, relative to it, and whether it is valid.

    Parameters
    ----------
    row : structured
        The table's only one.

    Returns
    -------
    effect : `numpy.ndarray` [source, target], float64
        c0 + c1 x; not a number where it was not measured, and of an amplifier in itself.
    valid : `numpy.ndarray` [source, target], bool
    """
    c0, c1, valid = (np.asarray(row[name]).ravel() for name in ("CT_COEFFS", "CT_COEFFS_SQR", "CT_VALID"))
    n = math.isqrt(c0.size)
    effect = (np.asarray(c0, np.float64) + SIGNAL * np.asarray(c1, np.float64)).reshape(n, n)
    np.fill_diagonal(effect, np.nan)
    return effect, valid.astype(bool).reshape(n, n)


def strongest(row: Any) -> F64:
    """Give the largest valid crosstalk that each amplifier gets, of either sign, 1e-6; NaN where none was measured."""
    effect, valid = effects(row)
    known = np.isfinite(effect)
    most = np.where(valid & known, np.abs(effect), 0.0).max(axis=0)
    return np.where(known.any(axis=0), 1e6 * most, np.nan)


def _place(value: float, most: float) -> float:
    """Give a value's place on the scale from -1 to 1: straight near 0, then logarithmic (inverse hyperbolic sine)."""
    return math.asinh(value / (STRAIGHT * most)) / math.asinh(1 / STRAIGHT)


def _colour(at: float) -> str:
    """Mix the colour of a place on the scale."""
    part = min(abs(at), 1.0)
    rgb = [[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in (COLOURS[1], COLOURS[2 if at > 0 else 0])]
    return "#" + bytes(round(a + part * (b - a)) for a, b in zip(*rgb, strict=True)).hex()


def _hatch(canvas: Canvas, x: int, y: int) -> None:
    """Draw slanted lines over a cell."""
    for start in range(-TALL, WIDE, HATCH):
        first, last = max(start, 0), min(start + TALL, WIDE - 1)
        canvas.draw.line((x + first, y + TALL - first + start, x + last, y + TALL - last + start), ZERO)


def maps(tables: Mapping[int, Any], title: str) -> dict[str, Numbers]:
    """Give the numbers of amplifiers that are drawn over the focal plane, by name."""
    label = f"strongest crosstalk that an amplifier gets, of a source of {SIGNAL:,.0f}"
    return {"strongest": Numbers(title, label, "1e-6", {d: strongest(rows[0]) for d, rows in tables.items()})}


def draw_matrix(rows: Any, metadata: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw a detector's matrix: sources down, targets across, on a scale that is symmetric about 0.

    Parameters
    ----------
    rows : structured
        The table's only one.
    metadata : mapping
        The table's, with the names of its amplifiers and the unit of the frames.
    """
    row, names = rows[0], str(metadata["AMPNAMES"]).split()
    unit = str(metadata["CROSSTALK_RATIOS_UNITS"]).strip().replace("adu", "ADU")
    effect, valid = effects(row)
    counts = np.asarray(row["CT_COUNTS"]).reshape(effect.shape)
    shown = np.abs(effect[valid & np.isfinite(effect)])
    most, n = float(shown.max()) if shown.size else 1e-6, len(names)
    canvas = Canvas(max(LEFT + n * WIDE + RIGHT, 660), ABOVE + n * TALL + BELOW, "RGB")
    canvas.text((canvas.image.width / 2, 8), title, 14)
    for s in range(n):
        y = ABOVE + s * TALL
        canvas.text((LEFT - 8, y + TALL / 2), names[s], 11, "rm")
        canvas.text((LEFT + s * WIDE + WIDE / 2, ABOVE - 8), names[s], 11, "md")
        for t in range(n):
            _cell(canvas, (LEFT + t * WIDE, y), float(effect[s, t]), bool(valid[s, t]), s == t, most)
    canvas.text((LEFT + n * WIDE / 2, ABOVE - 26), "target", 12, "md")
    canvas.text((LEFT - 8, ABOVE - 8), "source", 12, "rd")
    below = f"crosstalk of a source of {SIGNAL:,.0f} {unit}, 1e-6 of it; hatched: not significant; red: not measured"
    measured = int((np.isfinite(effect) & (counts > 0)).sum())
    canvas.text((LEFT + n * WIDE / 2, ABOVE + n * TALL + 10), below, 12)
    words = f"{int(valid.sum())} of {n * (n - 1)} are valid, {measured} were measured"
    canvas.text((LEFT + n * WIDE / 2, ABOVE + n * TALL + 28), words, 12)
    _bar(canvas, (LEFT + n * WIDE + 24, ABOVE, LEFT + n * WIDE + 40, ABOVE + n * TALL), most)
    canvas.save(path)


def _cell(canvas: Canvas, at: tuple[int, int], value: float, valid: bool, itself: bool, most: float) -> None:
    x, y = at
    known = math.isfinite(value)
    fill = _colour(_place(value, most)) if known and valid else ITSELF if itself else "white" if known else LOST
    canvas.draw.rectangle((x, y, x + WIDE - 1, y + TALL - 1), fill)
    if itself:
        return
    if not valid:
        _hatch(canvas, x, y)
    if known:
        ink = "white" if valid and abs(_place(value, most)) > 0.75 else "black" if valid else "#555555"
        text = f"{1e6 * value:.0f}" if abs(value) >= 9.95e-6 else f"{1e6 * value:.1f}".replace("-0.0", "0.0")
        if not valid:
            left, top, right, bottom = canvas.draw.textbbox((x + WIDE / 2, y + TALL / 2), text, font(12), "mm")
            canvas.draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), "white")
        canvas.text((x + WIDE / 2, y + TALL / 2), text, 12, "mm", ink)


def _bar(canvas: Canvas, box: tuple[float, float, float, float], most: float) -> None:
    """Draw the scale, with values at their places."""
    left, top, right, bottom = (round(n) for n in box)
    for y in range(top, bottom):
        canvas.draw.line((left, y, right, y), _colour(1 - 2 * (y - top) / max(bottom - top - 1, 1)))
    panel = Panel(canvas, box, (0, 1), (-1, 1))
    values = [sign * most * part for part in (1, 0.3, 0.1, 0.03) for sign in (-1, 1)]
    marks = [(_place(value, most), f"{1e6 * value:.3g}") for value in sorted([*values, 0.0])]
    panel.frame(across=(), up=marks, right=True)
    canvas.text((left, top - 20), "1e-6", 11, "la")
