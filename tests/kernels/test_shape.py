"""A frame with another shape of its light than the others."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.isr.load import BLANK, FIRST_PIECE, PIECES, SAMPLED, VARIANCE, sample
from kernels.statistics import shape

N, CELLS = 8, (8, 8)
Y, X = np.mgrid[0:8, 0:8] / 7.0
VIGNETTE = 1 - 0.2 * ((X - 0.5) ** 2 + (Y - 0.5) ** 2)


def flats(levels: list[float], zero: float = 0.0, seed: int = 1) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return np.stack([zero + 10 * X + level * VIGNETTE + rng.normal(0, 5, CELLS) for level in levels])


@pytest.mark.parametrize("zero", [0.0, 1000.0])
@pytest.mark.parametrize("levels", [[20000.0] * N, [5000.0 + 3000 * n for n in range(N)]])
def test_flats_of_one_shape_are_alike_whatever_their_levels(levels: list[float], zero: float) -> None:
    cells = flats(levels, zero)
    far, error = shape.deviations(cells, np.median(cells, axis=(1, 2)), zero=False)
    assert np.abs(far).max() < 1.5 * 5
    np.testing.assert_allclose(np.median(error), 5, rtol=0.4)


def test_half_in_shadow_is_far() -> None:
    cells = flats([20000.0 * (1 + 0.01 * n) for n in range(N)])
    cells[3, :, 4:] *= 0.95
    far, _ = shape.deviations(cells, np.median(cells, axis=(1, 2)), zero=True)
    assert abs(far[3]) == pytest.approx(0.025 * 20000, rel=0.2)
    assert np.abs(np.delete(far, 3)).max() < 20


def test_two_halves_stand_on_two_sides() -> None:
    cells = flats([20000.0] * N)
    cells[::2] += 300 * X
    far, _ = shape.deviations(cells, np.full(N, 20000.0), zero=True)
    assert (np.sign(far[::2]) == -np.sign(far[1])).all() and np.ptp(far[::2]) < 10 < np.abs(far).min()


@pytest.mark.parametrize("width", [32, 509])
def test_a_cosmic_ray_along_a_column_is_no_shape(width: int) -> None:
    """The track lies in all sampled rows of a band; pieces are compared with their definition in numpy."""
    rng = np.random.default_rng(width)
    rows = np.rint(rng.normal(1000, 5, (N, 64, width))).astype(np.int32)
    rows[3, 8:24, width // 2] += 1300
    rows[5, 7, : width // 16] = BLANK
    out = np.empty((N, 64, SAMPLED))
    sample(rows, np.arange(64), np.array([0, width]), np.zeros(2, np.int64), np.full((N, 64), 1000.0), out)
    for k in range(PIECES):
        piece = rows[:, :, width * k // PIECES : width * (k + 1) // PIECES]
        few = min(4, piece.shape[2] // 4)
        for frame, row in [(3, 9), (5, 7), (0, 0)]:
            good = np.sort(piece[frame, row][piece[frame, row] != BLANK])
            quiet = good.size == piece.shape[2] and np.ptp(good) <= 8 * out[frame, row, VARIANCE] ** 0.5
            inner = good if quiet or good.size <= 2 * few else good[few : good.size - few]
            np.testing.assert_allclose(out[frame, row, FIRST_PIECE + k], inner.mean() - 1000)
    far, error = shape.deviations(shape.cells(out[:, :, FIRST_PIECE:]), np.zeros(N), zero=False)
    assert np.abs(far).max() < np.median(error)


def test_a_dead_amplifier_has_no_shape() -> None:
    far, error = shape.deviations(np.zeros((3, 8, 8)), np.zeros(3), zero=True)
    assert not far.any() and not error.any()


def test_a_line_through_pairs_half_a_table_apart_does_not_mind_one_odd_point() -> None:
    x = np.arange(9.0)
    y = 3 * x + 1
    y[4] = 1e4
    assert shape.line(x, y) == pytest.approx((3, 1))
