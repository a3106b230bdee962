"""Columns, edges, rings and boxes of defects, against the rules written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.errors import JobError
from kernels.products.defectgrow import Growth, boxes, grow_columns, mask_edges, mask_rings

NOTHING = Growth(edge_rows=0, edge_columns=0)


def column(*bad: int, rows: int = 200) -> np.ndarray:
    mask = np.zeros((rows, 3), np.bool_)
    mask[list(bad), 1] = True
    return mask


def by_definition(bad: np.ndarray, rules: Growth) -> np.ndarray:
    """Decide for every good pixel alone, by the pixels before and behind it in its column."""
    grown = bad.copy()
    for (y, x), there in np.ndenumerate(bad):
        rows = np.flatnonzero(bad[:, x])
        before, behind = rows[rows < y], rows[rows > y]
        between = before.size and behind.size and behind[0] - before[-1] - 1 < rules.column_gap
        filled = between and rows.size >= max(1, rules.column_bad)
        grown[y, x] = there or filled or 0 < rules.column_whole <= rows.size
    return grown


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1), share=st.floats(0.01, 0.9), bad=st.integers(0, 30), gap=st.integers(0, 12),
    whole=st.integers(0, 40),
)  # fmt: skip
def test_columns_by_definition(seed: int, share: float, bad: int, gap: int, whole: int) -> None:
    mask = np.random.default_rng(seed).random((60, 5)) < share
    rules = Growth(column_bad=bad, column_gap=gap, column_whole=whole)
    np.testing.assert_array_equal(grow_columns(mask, rules), by_definition(mask, rules))


def test_columns_at_their_limits() -> None:
    """49 bad pixels are 49 bad pixels, 50 are a column; 29 good ones between are none, 30 are a gap."""
    every_second = range(0, 98, 2)
    assert grow_columns(column(*every_second), NOTHING).sum() == 49
    assert grow_columns(column(*every_second, 98), NOTHING).sum() == 99
    assert grow_columns(column(*every_second, 98, 98 + 30), NOTHING).sum() == 99 + 30
    assert grow_columns(column(*every_second, 98, 98 + 31), NOTHING).sum() == 99 + 1
    assert grow_columns(column(*every_second, 98), Growth(column_whole=50)).sum() == 200
    assert grow_columns(column(*every_second), Growth(column_whole=50)).sum() == 49


def test_edges() -> None:
    mask = np.zeros((40, 30), np.bool_)
    mask_edges(mask, Growth())
    assert mask.sum() == 40 * 30 - (40 - 14) * (30 - 16)
    untouched = np.zeros((40, 30), np.bool_)
    mask_edges(untouched, NOTHING)
    assert not untouched.any()


def test_rings() -> None:
    mask = np.zeros((40, 30), np.bool_)
    mask_rings(mask, np.array([[20, 15], [0, 29]]), Growth(ring=3))
    y, x = np.mgrid[:40, :30]
    wanted = ((y - 20) ** 2 + (x - 15) ** 2 <= 9) | (y**2 + (x - 29) ** 2 <= 9)
    np.testing.assert_array_equal(mask, wanted)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.0, 1.0), ny=st.integers(1, 25), nx=st.integers(1, 25))
def test_boxes_cover_just_what_is_bad_and_none_twice(seed: int, share: float, ny: int, nx: int) -> None:
    mask = np.random.default_rng(seed).random((ny, nx)) < share
    count = np.zeros((ny, nx), int)
    for x0, y0, width, height in boxes(mask):
        count[y0 : y0 + height, x0 : x0 + width] += 1
    np.testing.assert_array_equal(count, mask)


def test_boxes_are_few_where_they_can_be() -> None:
    mask = np.zeros((400, 300), np.bool_)
    mask_edges(mask, Growth())
    mask[:, 100:104] = True
    mask[50, 60] = True
    assert len(boxes(mask)) == 8
    assert boxes(np.ones((5, 7), np.bool_)).tolist() == [[0, 0, 7, 5]]
    assert boxes(np.zeros((5, 7), np.bool_)).shape == (0, 4)


@pytest.mark.parametrize(
    ("plain", "words"),
    [({"colum_bad": 3}, "growth: unknown key 'colum_bad'"), ({"ring": -1}, "growth.ring: at least 0")],
)
def test_what_is_no_rule(plain: dict[str, int], words: str) -> None:
    with pytest.raises(JobError, match=words):
        Growth.from_plain(plain)
