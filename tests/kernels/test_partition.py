"""Shares of pieces among ranks: contiguous, complete, balanced."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.jobs.partition import shares

WEIGHTS = st.lists(st.floats(0.01, 1000), max_size=60)


@settings(max_examples=200)
@given(WEIGHTS, st.integers(1, 20))
def test_shares_are_contiguous_complete_and_balanced(weights: list[float], size: int) -> None:
    parts = shares(weights, size)
    assert len(parts) == size
    assert [n for part in parts for n in part] == list(range(len(weights)))
    assert all(a.stop == b.start for a, b in pairwise(parts))
    fair, largest = sum(weights) / size, max(weights, default=0)
    for part in parts:
        assert sum(weights[n] for n in part) <= (fair + largest) * (1 + 1e-9)


@settings(max_examples=50)
@given(st.integers(0, 100), st.integers(1, 20))
def test_equal_pieces_are_dealt_out_evenly(pieces: int, size: int) -> None:
    lengths = [len(part) for part in shares([1.0] * pieces, size)]
    assert max(lengths) - min(lengths) <= 1


def test_one_rank_takes_everything() -> None:
    assert shares([3.0, 1.0], 1) == [range(0, 2)]
    assert shares([], 2) == [range(0, 0), range(0, 0)]
