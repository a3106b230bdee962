"""Growth of bad pixels: columns, edges and rings are masked with them, and cut into boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import JobError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Growth:
    """Rules of growth, in pixels."""

    #: Least number of bad pixels of an amplifier's column that make it bad between them, too.
    column_bad: int = 50
    #: Least number of consecutive good pixels between them that stay good.
    column_gap: int = 30
    #: Least number of bad pixels that make the whole column bad; 0: never.
    column_whole: int = 0
    #: Rows and columns masked along the detector's edges.
    edge_rows: int = 7
    edge_columns: int = 8
    #: Radius of the disc masked around a pixel that draws the light of others.
    ring: int = 8

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Growth:
        """Check and freeze.

        Raises
        ------
        JobError
            An unknown key, or a number below 0.
        """
        unknown = sorted(set(plain) - {f.name for f in fields(cls)})
        if unknown:
            raise JobError(f"growth: unknown key {unknown[0]!r}")
        made = cls(**plain)
        if wrong := [name for name, value in vars(made).items() if value < 0]:
            raise JobError(f"growth.{wrong[0]}: at least 0 was expected")
        return made


def grow_columns(bad: Mask, rules: Growth) -> Mask:
    """Apply the column rules to an amplifier's pixels [y, x]; bad pixels stay bad."""
    grown = bad.copy()
    many = np.count_nonzero(bad, axis=0)
    for x in np.flatnonzero(many >= max(1, rules.column_bad)):
        rows = np.flatnonzero(bad[:, x])
        for first, last in pairwise(rows):
            if last - first - 1 < rules.column_gap:
                grown[first:last, x] = True
    if rules.column_whole:
        grown[:, many >= rules.column_whole] = True
    return grown


def mask_edges(bad: Mask, rules: Growth) -> None:
    """Mask the edges of a detector [y, x], in place."""
    rows, columns = rules.edge_rows, rules.edge_columns
    if rows:
        bad[:rows] = bad[-rows:] = True
    if columns:
        bad[:, :columns] = bad[:, -columns:] = True


def mask_rings(bad: Mask, centres: NDArray[np.intp], rules: Growth) -> None:
    """Mask the discs around pixels ``centres`` [n, (y, x)] of a detector [y, x], in place."""
    height, width = bad.shape
    reach = np.arange(-rules.ring, rules.ring + 1)
    dy, dx = np.nonzero(reach[:, np.newaxis] ** 2 + reach**2 <= rules.ring**2)
    for y, x in centres:
        ys, xs = y + dy - rules.ring, x + dx - rules.ring
        inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
        bad[ys[inside], xs[inside]] = True


def boxes(bad: Mask) -> NDArray[np.int64]:
    """Cover exactly the bad pixels [y, x] of a detector with disjoint boxes [box, (x0, y0, width, height)].

    Runs of pixels in a column are joined with runs of the same rows in the adjacent columns.
    """
    height, width = bad.shape
    padded = np.zeros((width, height + 2), np.int8)
    padded[:, 1:-1] = bad.T
    steps = np.diff(padded, axis=1)
    x, first = np.nonzero(steps == 1)
    _, last = np.nonzero(steps == -1)
    order = np.lexsort((x, last, first))
    x, first, last = x[order], first[order], last[order]
    if not x.size:
        return np.zeros((0, 4), np.int64)
    fresh = np.ones(x.size, np.bool_)
    fresh[1:] = (first[1:] != first[:-1]) | (last[1:] != last[:-1]) | (x[1:] != x[:-1] + 1)
    starts = np.flatnonzero(fresh)
    widths = np.diff(np.append(starts, x.size))
    return np.column_stack([x[starts], first[starts], widths, last[starts] - first[starts]]).astype(np.int64)
