"""Draws brighter-fatter kernels and their coefficients a: of each amplifier of a detector, and over the focal plane."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.quality.canvas import LOST, Canvas, Panel, font, levels
from campaign.quality.plane import Numbers

F64 = NDArray[np.float64]
#: Dots of a panel's side, between the two of an amplifier, and between amplifiers.
SIDE, INNER, GAP = 150, 24, 56
#: Largest lag that is drawn.
REACH = 5
#: Explains the panels, below all of them.
LEGEND = "left: kernel, right: a by lag in x and y; colours by the signed square root, ends common to the page: "


def matrices(rows: NDArray[Any], column: str) -> F64:
    """Give a column of square matrices in one line each, [amplifier, y, x]."""
    values = np.asarray(rows[column], np.float64).reshape(len(rows), -1)
    side = math.isqrt(values.shape[1])
    return values.reshape(len(rows), side, side)


def coefficients(rows: NDArray[Any]) -> F64:
    """Give the coefficients a [amplifier, y lag, x lag], 1/electron, 0 in the middle; NaN of an amplifier without."""
    found = -matrices(rows, "MEAN_XCORRS")
    found[~found.any(axis=(1, 2))] = np.nan
    return found


def maps(rows: Mapping[int, NDArray[Any]], title: str) -> dict[str, Numbers]:
    """Give the numbers of kernels that are drawn over the focal plane, by name."""
    middles = {
        "a00": ("a00", "1e-6/electron", {d: 1e6 * _middle(coefficients(table)) for d, table in rows.items()}),
        "centre": ("centre of the kernel", "1e-6/electron", {d: 1e6 * _valid(table) for d, table in rows.items()}),
    }
    return {name: Numbers(title, *shown) for name, shown in middles.items()}


def _middle(matrices: F64) -> F64:
    half = matrices.shape[1] // 2
    return np.asarray(matrices[:, half, half])


def _valid(rows: NDArray[Any]) -> F64:
    return np.where(np.asarray(rows["VALID"], bool).ravel(), _middle(matrices(rows, "KERNEL")), np.nan)


@dataclass(frozen=True)
class _Shown:
    """A kernel and its coefficients [y, x], 1/electron, with the words above both; `None`: there is none."""

    kernel: F64 | None
    a: F64 | None
    words: tuple[str, str]


def _detector(others: Sequence[NDArray[Any]]) -> list[_Shown]:
    """Give the detector's kernel, and the coefficients that it is the potential of."""
    tables = [table for table in others if {"DETECTOR", "KERNEL"} <= set(table.dtype.names or ())]
    found = []
    for kernel in (one for table in tables for one in matrices(table, "KERNEL")):
        k = np.pad(kernel, 1)
        a = 4 * kernel - k[2:, 1:-1] - k[:-2, 1:-1] - k[1:-1, 2:] - k[1:-1, :-2]
        half = kernel.shape[0] // 2
        found.append(_Shown(kernel, a, (f"detector: centre {kernel.min():.3g}", f"a00 {a[half, half]:.3g}")))
    return found


def _amplifiers(rows: NDArray[Any]) -> list[_Shown]:
    found = []
    for row, kernel, a in zip(rows, matrices(rows, "KERNEL"), coefficients(rows), strict=True):
        name, half = str(np.asarray(row["AMPLIFIER"]).astype(str)).strip(), a.shape[0] // 2
        valid, known = bool(row["VALID"]), bool(np.isfinite(a[half, half]))
        words = f"{name}: centre {kernel.min():.3g}" if valid else f"{name}: no kernel"
        below = f"a00 {a[half, half]:.3g}" if known else "no curve"
        found.append(_Shown(kernel if valid else None, a if known else None, (words, below)))
    return found


def draw_kernels(rows: NDArray[Any], others: Sequence[NDArray[Any]], path: Path, title: str) -> None:
    """Draw a page of kernels and coefficients: the detector's, which is applied, and those of its amplifiers.

    Parameters
    ----------
    rows : structured `numpy.ndarray` [amplifier]
        A bfk in upstream's layout.
    others : sequence of structured `numpy.ndarray`
        Its further tables.
    """
    shown = [*_detector(others), *_amplifiers(rows)]
    columns = min(4, max(1, math.ceil(math.sqrt(len(shown)))))
    lines, wide = -(-len(shown) // columns), 2 * SIDE + INNER + GAP
    largest = [
        max([float(np.abs(one).max()) for one in some if one is not None], default=0.0) or 1.0
        for some in ([one.kernel for one in shown], [one.a for one in shown])
    ]
    legend = f"{LEGEND}+-{largest[0]:.3g} and +-{largest[1]:.3g} 1/electron"
    canvas = Canvas(max(columns * wide + 40, font(11).getlength(legend) + 40), 90 + lines * (SIDE + GAP))
    canvas.text((canvas.image.width / 2, 8), title, 14)
    canvas.text((canvas.image.width / 2, canvas.image.height - 18), legend, 11)
    for k, one in enumerate(shown):
        left, top = 50 + (k % columns) * wide, 75 + (k // columns) * (SIDE + GAP)
        for n, (image, ends, above) in enumerate(zip((one.kernel, one.a), largest, one.words, strict=True)):
            _image(canvas, (left + n * (SIDE + INNER), top), image, ends, above)
    canvas.save(path)


def _image(canvas: Canvas, place: tuple[float, float], image: F64 | None, largest: float, above: str) -> None:
    """Draw the middle of a matrix by its lags; a cross where there is none."""
    half = REACH if image is None else min(REACH, image.shape[0] // 2)
    left, top, end = *place, half + 0.5
    panel = Panel(canvas, (left, top, left + SIDE, top + SIDE), (-end, end), (-end, end))
    if image is None:
        panel.line([(-end, -end), (end, end)], LOST)
        panel.line([(-end, end), (end, -end)], LOST)
    else:
        middle = slice(image.shape[0] // 2 - half, image.shape[0] // 2 + half + 1)
        values = image[middle, middle]
        panel.paste(levels(np.sign(values) * np.sqrt(np.abs(values) / largest), -1, 1), end, end)
    panel.frame(above, size=9)
