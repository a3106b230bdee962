"""Rows of upstream's LINEARIZER, one an amplifier."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Detector
from kernels.response.linearflats import Flats
from kernels.transfer.lineardetector import Linear, Solution
from kernels.transfer.linearmodel import MAD, Light, Polynomial

F64 = NDArray[np.float64]


#: Entries of a look-up table, from 0 ADU: upstream's maxLookupTableAdu.
ENTRIES = 1 << 18


def columns(detector: Detector, flats: Flats, found: Solution, kind: str) -> dict[str, NDArray[Any]]:
    """Make the columns of a detector.

    Parameters
    ----------
    kind : `str`
        One of `kernels.transfer.lineardetector.TYPES`.
    """
    signals, light, ptc = flats.signals, flats.light, flats.ptc
    used = np.ones(signals.shape[1]) if flats.normalisation is None else flats.normalisation
    coefficients = _coefficients(found, kind)
    longest = max(2, *map(len, coefficients.values()))
    rows: list[dict[str, Any]] = []
    for k, amplifier in enumerate(detector.amplifiers):
        box, one = amplifier.target, found.amplifiers.get(k)
        padded = np.full(longest, math.nan)
        padded[: len(coefficients.get(k, ()))] = coefficients.get(k, ())
        row = {
            "AMPLIFIER_NAME": amplifier.name,
            "TYPE": kind if one else "None",
            "COEFFS": padded,
            **dict(zip(("BBOX_X0", "BBOX_Y0", "BBOX_DX", "BBOX_DY"), (box.x0, box.y0, box.nx, box.ny), strict=True)),
            "INPUT_GAIN": amplifier.gain,
            "INPUT_TURNOFF": float(ptc[k]),
            "INP_ABSCISSA": light.amount,
            "INP_ORDINATE": signals[k],
            "INP_MASK": one.used if one else np.zeros(signals.shape[1], np.bool_),
            "INP_GROUPING_INDEX": light.group,
            "INP_NORMALIZATION": used,
            "ABS_REF_AMP": detector.amplifiers[found.reference].name,
        }
        rows.append(row | _fitted(one, signals[k], light))
    _fill(rows)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _coefficients(found: Solution, kind: str) -> dict[int, F64]:
    made = {}
    for row, (k, one) in enumerate(found.amplifiers.items()):
        absolute, relative = one.fitted.absolute, one.fitted.relative
        if isinstance(absolute, Polynomial):
            made[k] = np.array([row, 0.0]) if kind == "LookupTable" else absolute.values
            continue
        values = np.where(np.arange(len(absolute.nodes)), absolute.values, 0.0)  # S(0) is 0, not 1e-17
        if kind == "Spline":
            made[k] = np.concatenate([absolute.nodes, values])
            continue
        first = (np.array([0.0, absolute.nodes[-1]]), np.zeros(2))
        if relative is not None:
            first = (relative.nodes, np.where(np.arange(len(relative.nodes)), relative.values, 0.0))
        lengths = np.array([len(first[0]), len(absolute.nodes)], np.float64)
        made[k] = np.concatenate([lengths, *first, absolute.nodes, values])
    return made


def lookups(found: Solution) -> NDArray[np.float32]:
    """Tabulate what is added to a signal of 0, 1, ... ADU, a row for each amplifier with a linearity; ADU.

    Beyond the turnoff, where no flat supports the polynomial, its last value holds.
    """
    at = np.arange(ENTRIES, dtype=np.float64)
    rows = [one.fitted.correct(np.minimum(at, one.turnoff.signal)) for one in found.amplifiers.values()]
    ends = [np.minimum(at, one.turnoff.signal) for one in found.amplifiers.values()]
    return np.array([row - end for row, end in zip(rows, ends, strict=True)], np.float32)


def _fitted(one: Linear | None, signal: F64, light: Light) -> dict[str, Any]:
    """Give the columns of the fit; of an amplifier that has none, NaN."""
    blank = np.full(signal.shape, math.nan)
    if one is None:
        lists = ("FIT_RES", "FIT_RES_UNMASKED", "FIT_RES_MODEL")
        numbers = ("RED_CHI_SQ", "FIT_RES_SIGMAD", "LINEARITY_TURNOFF", "LINEARITY_MAX_SIGNAL")
        empty: dict[str, Any] = {"FIT_PARAMS": np.empty(0), "FIT_PARAMS_ERR": np.empty(0)}
        line = {"LIN_FIT": np.full(2, math.nan)}
        return empty | line | dict.fromkeys(lists, blank) | dict.fromkeys(numbers, math.nan)
    fitted = one.fitted
    slopes = np.array([fitted.slopes.get(int(g), math.nan) for g in light.group])
    model = slopes * light.amount
    residuals = fitted.correct(signal) - fitted.offset - model
    good = np.where(one.used, residuals, math.nan)
    splines = [s for s in (fitted.relative, fitted.absolute) if s is not None]
    values = np.concatenate([s.values for s in splines])
    line_errors = [fitted.offset_error, *fitted.slope_errors.values()]
    return {
        "FIT_PARAMS": np.concatenate([values, [fitted.offset], list(fitted.slopes.values())]),
        "FIT_PARAMS_ERR": np.concatenate([np.full(values.shape, math.nan), line_errors]),
        "RED_CHI_SQ": math.nan,
        "FIT_RES": good,
        "FIT_RES_SIGMAD": MAD * float(np.nanmedian(np.abs(good - np.nanmedian(good)))),
        "FIT_RES_UNMASKED": residuals,
        "FIT_RES_MODEL": model,
        "LIN_FIT": np.array([fitted.offset, next(iter(fitted.slopes.values()))]),
        "LINEARITY_TURNOFF": one.turnoff.signal,
        "LINEARITY_MAX_SIGNAL": one.turnoff.largest,
    }


def _fill(rows: list[dict[str, Any]]) -> None:
    """Give lists of different lengths one length, NaN at the end."""
    for name in ("FIT_PARAMS", "FIT_PARAMS_ERR"):
        longest = max(len(row[name]) for row in rows)
        for row in rows:
            row[name] = np.concatenate([row[name], np.full(longest - len(row[name]), math.nan)])
