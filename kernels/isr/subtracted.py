"""Variance that a subtracted bias and dark add to a product.

A product is sum_i a_i F_i - d D - b B, with a_i = w_i / s_i for weights w_i (sum 1) and scales s_i,
d = sum a_i t_i for dark times t_i and b = sum a_i.  The scatter of its frames shows their variance, but not
that of D and B.  The dark is itself made of frames less beta times a bias: if that was the same bias, B
enters with b - d beta, most of which cancels in a flat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.applied import Calibrations
from kernels.camera.geometry import Box
from kernels.compiled import njit
from kernels.fits.fitsfile import opened
from kernels.fits.product import ROWS, Card, Product
from kernels.isr.channel import Exposures

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Cards of a product: coefficients b and d, and the DATASUM of the bias' pixels.
BIAS, DARK, BIAS_SUM = "VAR_BIAS", "VAR_DARK", "VAR_BIAS_SUM"


def _sum_of(bias: Product | None) -> str:
    """Read the DATASUM that identifies a bias; empty without one."""
    if bias is None:
        return ""
    with opened(bias.path) as fits:
        return str(fits["IMAGE"].read_header().get("DATASUM", "")).strip()


def _inverse_scale(header: Mapping[str, Any]) -> float:
    """Read the mean of 1 / scale of a product's inputs from its header."""
    scales = [float(header[f"CPP_INPUT_SCALE_{n}"]) for n in range(int(header.get("NINPUTS", 0)))]
    return float(np.mean(1 / np.array(scales))) if scales else 0.0


@dataclass(frozen=True)
class Coefficients:
    """Factors by which an amplifier's bias and dark enter the product."""

    bias: float
    dark: float

    @classmethod
    def of(cls, exposures: Exposures, number: int, weights: F64) -> Coefficients:
        """Compute the factors for an amplifier's frames with weights [frame] of sum 1."""
        each = weights / exposures.scales[:, number].astype(np.float64)
        return cls(float(each.sum()), float((each * exposures.dark_times.astype(np.float64)).sum()))


@njit
def _add(variance, x0, x1, factor, total):  # type: ignore[no-untyped-def]
    """Add finite variances of columns ``[x0, x1)`` times a factor to a total [y, x], in place."""
    infinity, nothing = np.float32(np.inf), np.float32(0)
    for y in range(variance.shape[0]):
        row, to = variance[y, x0:x1], total[y]
        for x in range(row.size):
            value = row[x]
            to[x] += factor * (value if abs(value) < infinity else nothing)


class Subtracted:
    """Variance that a task's bias and dark add.

    Parameters
    ----------
    calibrations : `Calibrations`
        Calibrations of the task's detector.
    provenance : `dict`
        Provenance of the task, which names the datasets.
    """

    def __init__(self, calibrations: Calibrations, provenance: Mapping[str, Any]) -> None:
        bias, dark = (p if p and p.has("VARIANCE") else None for p in (calibrations.bias, calibrations.dark))
        self._bias, self._dark = bias, dark
        self._sum = _sum_of(calibrations.bias)
        self._beta, self._within = 0.0, False
        if calibrations.bias and calibrations.dark:
            header = calibrations.dark.header
            named = provenance.get("CALIB_BIAS_ID", "")
            same = header.get(BIAS_SUM, "") == self._sum if BIAS_SUM in header else header.get("CALIB_BIAS_ID") == named
            if same and (self._sum or named):
                self._within = BIAS in header  # VARIANCE of older darks includes their own frames only
                self._beta = float(header[BIAS]) if self._within else _inverse_scale(header)

    def of_bias(self, c: Coefficients) -> float:
        """Compute the factor of the bias' variance; below 0 where the dark's variance includes more than remains."""
        square = (c.bias - c.dark * self._beta) ** 2
        return square - (c.dark * self._beta) ** 2 if self._within and self._dark else square

    def add(self, variance: F32, parts: Sequence[tuple[Box, Coefficients]]) -> None:
        """Add the variance to a detector's [y, x], in place; NaN stays NaN.

        Parameters
        ----------
        parts : sequence of (`Box`, `Coefficients`)
            The amplifiers on the assembled detector.

        Raises
        ------
        DataError
            A calibration cannot be read.
        """
        height, width = variance.shape
        for y0 in range(0, height, ROWS):
            rows = Box(0, y0, width, min(ROWS, height - y0))  # of all amplifiers: one stretch of the file
            of_bias, of_dark = (
                None if product is None else np.ascontiguousarray(product.read(rows, "VARIANCE"), np.float32)
                for product in (self._bias, self._dark)
            )
            for box, c in parts:
                inside = slice(max(box.y0 - y0, 0), max(box.y1 - y0, 0))
                to = variance[y0 : rows.y1][inside, box.x0 : box.x1]
                more = np.zeros(to.shape, np.float32)
                for of, factor in ((of_bias, self.of_bias(c)), (of_dark, c.dark**2)):
                    if of is not None:
                        _add(of[inside], box.x0, box.x1, np.float32(factor), more)
                to += np.maximum(more, np.float32(0))

    def cards(self, c: Coefficients, plain: bool) -> list[Card]:
        """Make the cards that define VARIANCE in the product's header."""
        if plain:
            return [("VARDEF", "plain", "variance of the survivors / their number")]
        cards: list[Card] = [("VARDEF", "estimator", "variance of IMAGE: clipping and what was subtracted count")]
        if self._bias:
            cards.append((BIAS, c.bias, "bias was subtracted times this"))
        if self._sum:
            cards.append((BIAS_SUM, self._sum, "DATASUM of that bias"))
        if self._dark:
            cards.append((DARK, c.dark, "dark was subtracted times this"))
        return cards
