"""The clipped mean of one large sample against its definition in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.camera.geometry import Box
from kernels.statistics.sample import clipped_mean


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize(("x0", "nx"), [(0, 1), (3, 15), (5, 16), (1, 17), (2, 37), (0, 53)])
@pytest.mark.parametrize(("y0", "ny"), [(0, 1), (2, 5), (0, 9)])
def test_a_box_is_clipped_as_the_definition_says(
    slow_meanclip: Any, x0: int, nx: int, y0: int, ny: int, passes: int
) -> None:
    """Outliers and values that are no numbers lie within the box, and a very different level around it."""
    rng = np.random.default_rng(100 * nx + ny)
    image = np.full((9, 53), 9e4, np.float32)
    inside = rng.normal(1000, 8, (ny, nx)).astype(np.float32)
    for value, share in ((5000, 0.05), (np.nan, 0.05), (np.inf, 0.03), (-np.inf, 0.03)):
        inside[rng.random((ny, nx)) < share] = value
    inside[0, 0] = 1001
    image[y0 : y0 + ny, x0 : x0 + nx] = inside
    mean, sigma, count = clipped_mean(image, Box(x0, y0, nx, ny), 3.0, passes)
    expected, variance, kept = slow_meanclip(inside.ravel().tolist(), 3.0, passes)
    assert count == kept
    assert mean == pytest.approx(expected, rel=1e-7)
    if np.isfinite(inside).sum() > 1:
        assert sigma == pytest.approx(np.sqrt(variance * kept), rel=1e-5, abs=1e-6)


def test_nothing_good_has_no_mean() -> None:
    mean, sigma, count = clipped_mean(np.full((3, 20), np.nan, np.float32))
    assert np.isnan(mean) and np.isnan(sigma) and count == 0
