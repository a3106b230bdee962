"""MEANCLIP of one large sample: an amplifier, a detector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from kernels.camera.geometry import Box
from kernels.compiled import njit
from kernels.statistics.clip import IQR_TO_SIGMA
from kernels.statistics.percentiles import percentiles
from kernels.statistics.simd import INDEX, LANES, Code, Variable

F32 = NDArray[np.float32]


@intrinsic
def _add_row(typing: Any, row: Any, end: Any, base: Any, low: Any, high: Any, totals: Any) -> Any:
    """Add up ``d = row[:end] - base`` where ``low <= d <= high``, lane by lane.

    ``end`` is a multiple of `LANES`; ``totals`` [3 LANES] float64: sum, sum of squares, number.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, signature, arguments)
        origin, lowest, highest = (code.spread(k) for k in (2, 3, 4))
        zero, one = code.number(0, double=True), code.number(1, double=True)
        total, squares, number = Variable(zero), Variable(zero), Variable(zero)
        with code.loop(INDEX(0), code.index(1), LANES) as at:
            d = code.load(0, at).double() - origin
            keep = (lowest <= d) & (d <= highest)
            d = code.where(keep, d, zero)
            total.set(total.get() + d)
            squares.set(squares.get() + d * d)
            number.set(number.get() + code.where(keep, one, zero))
        for k, part in enumerate((total, squares, number)):
            code.add_to(5, k, part.get())
        return code.nothing()

    return types.void(row, end, base, low, high, totals), generate


@njit
def _within(image, x0, x1, base, low, high):  # type: ignore[no-untyped-def]
    """Sum, sum of squares and number of the ``d = x - base`` of columns ``[x0, x1)`` in ``low <= d <= high``."""
    totals = np.zeros(3 * LANES)
    for y in range(image.shape[0]):
        row = image[y, x0:x1]
        whole = row.size // LANES * LANES
        _add_row(row, whole, base, low, high, totals)
        for x in range(whole, row.size):
            d = float(row[x]) - base
            if low <= d <= high:
                totals[0] += d
                totals[LANES] += d * d
                totals[2 * LANES] += 1
    return totals[:LANES].sum(), totals[LANES : 2 * LANES].sum(), int(totals[2 * LANES :].sum())


def clipped_mean(image: F32, box: Box | None = None, nsigma: float = 3.0, passes: int = 3) -> tuple[float, float, int]:
    """MEANCLIP of one large sample.

    Parameters
    ----------
    image : `numpy.ndarray` [y, x], float32
        NaN or infinite: left out.
    box : `Box`, optional
        Of the image; all of it without.

    Returns
    -------
    mean, sigma : `float`
        NaN where nothing is good.
    count : `int`
        Survivors.
    """
    box = Box(0, 0, image.shape[1], image.shape[0]) if box is None else box
    (lower, centre, upper), good = percentiles(image, None, box, (25, 50, 75))
    if not good:
        return float("nan"), float("nan"), 0
    base, rows = float(centre), np.ascontiguousarray(image[box.y0 : box.y1], np.float32)
    centre, limit, variance, number = 0.0, nsigma * IQR_TO_SIGMA * float(upper - lower), 0.0, 0
    for _ in range(passes):
        total, squares, some = _within(rows, box.x0, box.x1, base, centre - limit, centre + limit)
        if not some:  # no spread left, and the centre an ulp beside the value it stands for
            break
        centre, number = total / some, some
        variance = max(squares - total * centre, 0.0) / max(some - 1, 1)
        limit = nsigma * math.sqrt(variance)
    return base + centre, math.sqrt(variance), number
