"""Division of work: contiguous shares of weighted pieces, computed alike on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise


def shares(weights: Sequence[float], size: int) -> list[range]:
    """Cut a list of pieces into ``size`` contiguous ranges of about equal weight.

    Ranges are contiguous, so that one detector's pieces lie on neighbouring ranks;
    with fewer pieces than ranks some shares are empty.

    Parameters
    ----------
    weights : sequence of `float`
        Cost of each piece.
    size : `int`
        Number of ranks.
    """
    ends = list(accumulate(weights))
    total = ends[-1] if ends else 0.0
    cuts = [0]
    for rank in range(1, size):
        target = total * rank / size
        at = cuts[-1]
        # a piece belongs to the rank whose share holds its middle
        while at < len(ends) and ends[at] - weights[at] / 2 < target:
            at += 1
        cuts.append(at)
    cuts.append(len(ends))
    return [range(first, last) for first, last in pairwise(cuts)]
