"""Deferred charge along a row: serial transfer inefficiency, and an output amplifier that does not settle.

The model is that of Snyder and Roodman (SPIE 11454, 2020).  Each clock leaves a
fraction ``cti`` of every packet behind.  A packet of register pixel j is clocked
until it is out, so that column i reads

    out_i = sum_d C(i, d) (1 - cti)^(i - d + 1) cti^d  q_(i - d),

a triangular matrix of binomials, whose inverse has -cti in place of cti:

    q_i = (1 - cti)^-(i + 1)  sum_d C(i, d) (-cti)^d  out_(i - d).

Then the output amplifier adds an offset, which jumps to ``drift`` times the
packet where that exceeds the remaining offset, and decays by
``exp(-1 / decay)`` a column.  Rows are independent, both ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import njit

F32 = NDArray[np.float32]

#: Transfers that a packet may miss; with 600 columns and a cti of 1e-4 a fourth would matter by 4e-7.
MISSED = 3


@dataclass(frozen=True)
class Deferral:
    """Deferred charge of one amplifier."""

    #: Fraction of a packet that a transfer leaves behind.
    cti: float = 0.0
    #: Offset relative to the packet that causes it.
    drift: float = 0.0
    #: Decay length of the offset, columns.
    decay: float = 1.0

    def __bool__(self) -> bool:
        return self.cti > 0 or self.drift > 0

    @property
    def kept(self) -> float:
        """Fraction of an offset that remains after one column."""
        return math.exp(-1 / self.decay)


def defer(charge: F32, deferral: Deferral) -> F32:
    """Read rows of charge as the amplifier does.

    Parameters
    ----------
    charge : `numpy.ndarray` [row, column], float32
        In read-out order from the register's first pixel on, prescan and overscan included, electron.
    """
    column, cti = np.arange(charge.shape[1], dtype=np.float64), deferral.cti
    read = charge * ((1 - cti) ** (column + 1)).astype(np.float32)
    ways = np.ones_like(column)
    for missed in range(1, MISSED + 1):
        ways *= np.maximum(column - missed + 1, 0) * cti / missed
        share = (ways * (1 - cti) ** (column - missed + 1)).astype(np.float32)
        read[:, missed:] += share[missed:] * charge[:, :-missed]
    offset, drift, kept = np.zeros(len(charge), np.float32), np.float32(deferral.drift), np.float32(deferral.kept)
    for x in range(charge.shape[1] if deferral.drift else 0):
        offset = np.maximum(drift * read[:, x], kept * offset)
        read[:, x] += offset
    return read


def restoring(deferral: Deferral, first: int, columns: int) -> F32:
    """Compute factors [missed, column] of the inverse, for ``columns`` columns from register pixel ``first`` on."""
    column, cti = np.arange(first, first + columns, dtype=np.float64), deferral.cti
    factors, ways = np.empty((MISSED + 1, columns), np.float32), (1 - cti) ** -(column + 1)
    for missed in range(MISSED + 1):
        factors[missed] = ways
        ways = ways * np.maximum(column - missed, 0) * -cti / (missed + 1)
    return factors


@njit
def restore(signal: NDArray[np.float32], factors: NDArray[np.float32], drift: float, kept: float) -> None:
    """Move the deferred charge of an amplifier's signal back to its column, in place.

    Parameters
    ----------
    signal : `numpy.ndarray` [row, column], float32
        In read-out order; pixels before the first column are taken as empty.
    factors : `numpy.ndarray` [missed, column], float32
        See `restoring`.
    drift, kept : `float`
        See `Deferral`.
    """
    rows, columns = signal.shape
    # fraction of the measured signal that is the packet's own offset
    share, left = np.float32(drift / (1 + drift)), np.float32(kept)
    none, one, two, three = factors[0], factors[1], factors[2], factors[3]
    zero = np.float32(0)
    for y in range(rows):
        row = signal[y]
        if drift > 0:
            offset = zero
            for x in range(columns):
                offset = max(share * row[x], left * offset)
                row[x] -= offset
        for x in range(columns - 1, 2, -1):
            row[x] = none[x] * row[x] + one[x] * row[x - 1] + two[x] * row[x - 2] + three[x] * row[x - 3]
        for x in range(min(columns, 3) - 1, -1, -1):
            total = none[x] * row[x]
            if x > 0:
                total += one[x] * row[x - 1]
            if x > 1:
                total += two[x] * row[x - 2]
            row[x] = total
