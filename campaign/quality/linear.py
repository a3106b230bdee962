"""Draws a detector's linearity: residuals before and after the correction over the signal, of each amplifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.canvas import ENDS, LOST, POINTS, ZERO, Canvas, Panel, font, ticks
from campaign.quality.plane import Numbers

#: Width and heights of an amplifier's panels, and room between them, dots.
WIDTH, TALL, LOW, GAP = 300, 110, 90, 62
#: Signal above which residuals are the curve's rather than the photons', ADU.
FAINT = 2000.0
#: Ends of the upper panel (deviation, percent) at least, and of the lower one (residuals, 1e-3).
PERCENT, THOUSANDTHS = 0.1, 1.0


def draw_linearity(rows: NDArray[Any], path: Path, title: str) -> None:
    """Draw a page of residuals: what was corrected, above, and what is left; points outside lie on the border.

    Parameters
    ----------
    rows : structured `numpy.ndarray` [amplifier]
        A linearizer in upstream's layout.
    """
    columns = min(4, max(1, math.ceil(math.sqrt(len(rows)))))
    lines = -(-len(rows) // columns)
    words = max(font(14).getlength(line) for line in title.splitlines()) + 20
    canvas = Canvas(max(columns * (WIDTH + GAP) + 30, words), 70 + lines * (TALL + LOW + GAP))
    canvas.text((canvas.image.width / 2, 8), title, 14)
    known = [_points(row) for row in rows]
    x = 0.0, max([float(signal.max(initial=1.0)) for signal, *_ in known]) * 1.03
    reach = max([PERCENT, *(1.1 * float(np.abs(deviation[good]).max(initial=0)) for _, deviation, _, good in known)])
    for k, (row, points) in enumerate(zip(rows, known, strict=True)):
        place = 60 + (k % columns) * (WIDTH + GAP), 75 + (k // columns) * (TALL + LOW + GAP)
        _amplifier(canvas, place, row, points, (x, (-reach, reach)), k // columns == lines - 1)
    canvas.save(path)


def linear_maps(rows: Mapping[int, NDArray[Any]], title: str) -> dict[str, Numbers]:
    """Give the numbers of each amplifier that are drawn over the focal plane, by the picture's name.

    Parameters
    ----------
    rows : mapping
        Table of each detector.
    """
    residual, deviation, turnoff = ({d: np.full(len(some), np.nan) for d, some in rows.items()} for _ in range(3))
    for d, some in rows.items():
        for k, row in enumerate(some):
            signal, off, left, good = _points(row)
            bright = good & (signal > FAINT)
            turnoff[d][k] = row["LINEARITY_TURNOFF"]
            if bright.any():
                residual[d][k] = np.abs(left[bright]).max()
                deviation[d][k] = np.abs(off[bright]).max()
    above = f"above {FAINT:g} ADU"
    return {
        "residual": Numbers(title, f"largest residual {above}", "1e-3", residual),
        "deviation": Numbers(title, f"largest deviation from proportion {above}", "%", deviation),
        "turnoff": Numbers(title, "turnoff of linearity", "ADU", turnoff),
    }


def _points(row: Any) -> tuple[NDArray[Any], ...]:
    """Give signals (ADU), deviations from proportion (percent), residuals (1e-3) and whether each was fitted."""
    signal, model, left = (
        np.asarray(row[name], np.float64).ravel() for name in ("INP_ORDINATE", "FIT_RES_MODEL", "FIT_RES_UNMASKED")
    )
    seen = np.isfinite(signal) & np.isfinite(model) & np.isfinite(left) & (signal > 0) & (model > 0)
    signal, model, left = signal[seen], model[seen], left[seen]
    offset = float(np.ravel(row["LIN_FIT"])[0])
    deviation = 100 * ((signal - offset) / model - 1)
    return signal, deviation, 1000 * left / model, np.asarray(row["INP_MASK"], bool).ravel()[seen]


def _amplifier(
    canvas: Canvas,
    place: tuple[float, float],
    row: Any,
    points: tuple[NDArray[Any], ...],
    ends: tuple[tuple[float, float], tuple[float, float]],
    lowest: bool,
) -> None:
    (left, top), (x, y), (signal, deviation, residuals, good) = place, ends, points
    upper = Panel(canvas, (left, top, left + WIDTH, top + TALL), x, y)
    lower = Panel(canvas, (left, top + TALL, left + WIDTH, top + TALL + LOW), x, (-THOUSANDTHS, THOUSANDTHS))
    for panel, values in ((upper, deviation), (lower, residuals)):
        panel.line([(x[0], 0), (x[1], 0)], ZERO)
        for at_signal, value, fitted in zip(signal.tolist(), values.tolist(), good.tolist(), strict=True):
            at_x, at_y = panel.at(at_signal, value)
            canvas.draw.rectangle((at_x - 1, at_y - 1, at_x + 1, at_y + 1), POINTS if fitted else LOST)
        turnoff = float(row["LINEARITY_TURNOFF"])
        if math.isfinite(turnoff):
            panel.line([(turnoff, panel.y[0]), (turnoff, panel.y[1])], ENDS)
    words = f"{str(np.asarray(row['AMPLIFIER_NAME']).astype(str)).strip()}: no linearity"
    if good.any():
        scatter = 1.4826 * float(np.median(np.abs(residuals[good] - np.median(residuals[good]))))
        words = f"{words.split(':')[0]}: turnoff {row['LINEARITY_TURNOFF']:.0f} ADU, scatter {scatter / 1000:.1e}"
    upper.frame(words, across=(), up=ticks(*y, 4), size=9)
    up = [(-THOUSANDTHS, f"{-THOUSANDTHS:g}e-3"), (0.0, "0"), (THOUSANDTHS, f"{THOUSANDTHS:g}e-3")]
    lower.frame("", "signal, ADU (above: deviation, %)" if lowest else "", up=up, size=9)
