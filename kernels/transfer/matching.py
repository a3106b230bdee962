"""Pairs of like flats in a sequence of exposures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Matched:
    """Positions in the sequence."""

    pairs: tuple[tuple[int, int], ...]
    #: Exposures without a partner.
    singles: tuple[int, ...]


def match(values: Sequence[float], tolerance: float, filters: Sequence[str] = ()) -> Matched:
    """Pair consecutive exposures of equal values: exposure times (second), fluxes, numbers of pairs.

    Of three in a row the third is single; four are two pairs.  Exposures of unlike ``filters``, if these are given, are
    no pair.
    """
    pairs: list[tuple[int, int]] = []
    singles: list[int] = []
    at = 0
    while at < len(values):
        alike = at + 1 < len(values) and (not filters or filters[at] == filters[at + 1])
        if alike and abs(values[at + 1] - values[at]) <= tolerance:
            pairs.append((at, at + 1))
            at += 2
        else:
            singles.append(at)
            at += 1
    return Matched(tuple(pairs), tuple(singles))
