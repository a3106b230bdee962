"""Draws a detector's photon transfer curves: variance over mean, model, residuals and turnoff of each amplifier."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.canvas import ENDS, LOST, POINTS, ZERO, Canvas, Panel, font

#: Width and heights of an amplifier's panels, and room between them, dots.
WIDTH, TALL, LOW, GAP = 300, 150, 50, 62
#: Residuals beyond this many standard errors come to lie on the border.
PULLS = 5.0
#: Explains the panels, below all of them.
LEGEND = (
    "above: variance / mean (ADU) of each pair, blue if on the curve, else red; brown: the fit; "
    "red line: turnoff; below: (variance - fit) / standard error"
)


def draw_curves(rows: NDArray[Any], path: Path, title: str) -> None:
    """Draw a page of curves.

    Parameters
    ----------
    rows : structured `numpy.ndarray` [amplifier]
        A ptc in upstream's layout.
    """
    columns = min(4, max(1, math.ceil(math.sqrt(len(rows)))))
    lines = -(-len(rows) // columns)
    canvas = Canvas(max(columns * (WIDTH + GAP) + 30, font(11).getlength(LEGEND) + 40), 90 + lines * (TALL + LOW + GAP))
    canvas.text((canvas.image.width / 2, 8), title, 14)
    canvas.text((canvas.image.width / 2, canvas.image.height - 18), LEGEND, 11)
    known = [_points(row) for row in rows]
    ratios = [p[1][np.isfinite(p[1])] for p in known]
    every = np.concatenate([r for r in ratios if r.size] or [np.array([0.0, 1.0])])
    means = np.concatenate([p[0][np.isfinite(p[0])] for p in known] or [np.ones(1)])
    y = float(np.percentile(every, 1)) * 0.9, float(np.percentile(every, 98)) * 1.15
    x = 0.0, float(means.max(initial=1.0)) * 1.03
    for k, (row, points) in enumerate(zip(rows, known, strict=True)):
        left = 60 + (k % columns) * (WIDTH + GAP)
        top = 75 + (k // columns) * (TALL + LOW + GAP)
        _amplifier(canvas, (left, top), row, points, (x, y if y[1] > y[0] else (0.0, 1.0)), k // columns == lines - 1)
    canvas.save(path)


def _points(row: Any) -> tuple[NDArray[np.float64], ...]:
    """Give mean (ADU), variance / mean, model / mean, and the standard error of the ratio."""
    side = int(row["COV_MATRIX_SIDE"])
    mean = np.asarray(row["RAW_MEANS"], np.float64)
    found, model = (
        np.asarray(row[name], np.float64).reshape(mean.size, side, side)[:, 0, 0]
        for name in ("COVARIANCES", "COVARIANCES_MODEL")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        error = found * np.sqrt(2 / np.asarray(row["NPIXEL_COVARIANCES"], np.float64))
        return mean, found / mean, model / mean, error / mean


def _amplifier(
    canvas: Canvas,
    place: tuple[float, float],
    row: Any,
    points: tuple[NDArray[np.float64], ...],
    ends: tuple[tuple[float, float], tuple[float, float]],
    lowest: bool,
) -> None:
    (left, top), (x, y), (mean, ratio, model, error) = place, ends, points
    good, turnoff = np.asarray(row["EXP_ID_MASK"], bool), float(row["PTC_TURNOFF"])
    upper = Panel(canvas, (left, top, left + WIDTH, top + TALL), x, y)
    lower = Panel(canvas, (left, top + TALL, left + WIDTH, top + TALL + LOW), x, (-PULLS, PULLS))
    lower.line([(x[0], 0), (x[1], 0)], ZERO)
    order = np.argsort(mean)
    line = [(float(mean[n]), float(model[n])) for n in order if np.isfinite(model[n])]
    if len(line) > 1:
        upper.line(line, ENDS)
    for n in map(int, order[np.isfinite(ratio[order])]):
        fill = POINTS if good[n] else LOST
        marks = [upper.at(mean[n], ratio[n])]
        if np.isfinite(model[n]) and error[n] > 0:
            marks.append(lower.at(mean[n], (ratio[n] - model[n]) / error[n]))
        for at_x, at_y in marks:
            canvas.draw.rectangle((at_x - 1, at_y - 1, at_x + 1, at_y + 1), fill)
    for panel in (upper, lower):
        if math.isfinite(turnoff):
            panel.line([(turnoff, panel.y[0]), (turnoff, panel.y[1])], LOST)
    name = str(np.asarray(row["AMPLIFIER_NAME"]).astype(str)).strip()
    words = f"{name}: no curve"
    if math.isfinite(float(row["GAIN"])):
        words = f"{name}: {row['GAIN']:.4f} e/ADU, {row['NOISE']:.2f} e, chi2 {row['PTC_FIT_CHI_SQ']:.2f}"
    upper.frame(words, across=(), size=9)
    lower.frame("", "mean, ADU" if lowest else "", up=[(-PULLS, f"{-PULLS:g}"), (PULLS, f"{PULLS:g}")], size=9)
