"""Sorting networks: every size sorts, and no size runs another one's compiled code."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from kernels.statistics import network

ROOT = Path(network.__file__).parents[1]
#: Sorts cubes of the sizes on the command line; fails where one does not come out sorted.
SCRIPT = """
import sys
import numpy as np
from kernels.statistics import network
for n in map(int, sys.argv[1:]):
    cube = network.workspace(n, 100)
    cube[:n, :100] = values = np.random.default_rng(n).normal(0, 1, (n, 100)).astype(np.float32)
    network.sort(cube, n)
    assert (cube[:n, :100] == np.sort(values, axis=0)).all(), n
"""


@pytest.mark.parametrize("n", range(1, 13))
def test_the_comparators_sort_all_patterns_of_zeros_and_ones(n: int) -> None:
    """Which is to say everything (the zero-one principle, Knuth 5.3.4)."""
    values = np.array(list(product((0, 1), repeat=n))).T
    for low, high in network.comparators(n):
        values[low], values[high] = np.minimum(values[low], values[high]), np.maximum(values[low], values[high])
    assert (np.diff(values, axis=0) >= 0).all()


@pytest.mark.parametrize("n", [*range(1, 41), 100, 333, 1000])
def test_every_size_is_sorted(n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.choice(np.array([0, -0.0, 1, 1e30, -1e30, np.inf, 5e-40, 3.5], np.float32), (n, 150))
    values[:, 50:] = rng.normal(0, 1, (n, 100))
    cube = network.workspace(n, 150)
    cube[:n, :150] = values
    network.sort(cube, n)
    np.testing.assert_array_equal(cube[:n, :150], np.sort(values, axis=0))
    assert np.isinf(cube[n:]).all() and np.isinf(cube[:, 150:]).all()


def test_rows_do_not_crowd_into_one_set_of_the_cache() -> None:
    for pixels in range(64, 5000, 64):
        width = network.workspace(4, pixels).shape[1]
        assert width >= pixels and width % network.TILE == 0 and width * 4 % 4096


@pytest.mark.parametrize("shape", [(20, 100), (16, 128), (24, 128)])
def test_a_cube_of_another_shape_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot hold 20 exposures"):
        network.sort(np.zeros(shape, np.float32), 20)


@pytest.mark.processes
def test_no_size_runs_the_cached_code_of_another(tmp_path: Path) -> None:
    """One cache on disk, filled by one size, then asked for others: larger, smaller, and beyond the straight line."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for sizes in (["20"], ["32", "7", "20"], ["40", "100", "12"]):
        subprocess.run([sys.executable, "-c", SCRIPT, *sizes], env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*.nbi"))
