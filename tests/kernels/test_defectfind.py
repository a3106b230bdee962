"""Defects of a bias, a dark and a flat, at the limits; see also tests/campaign/test_bootstraps.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from kernels.errors import JobError
from kernels.products.defectfind import Thresholds, find

SHAPE = (100, 60)
GAIN = 1.5


def amplifier(level: float, sigma: float, pixels: Mapping[tuple[int, int], float]) -> np.ndarray:
    image = np.random.default_rng(7).normal(level, sigma, SHAPE).astype(np.float32)
    for where, value in pixels.items():
        image[where] = value
    return image


def bad(kind: str, image: np.ndarray, **wanted: Any) -> set[tuple[int, int]]:
    found = find(kind, image, GAIN, Thresholds.from_plain(wanted))
    return {(int(y), int(x)) for y, x in np.argwhere(found.bad)}


def test_by_value() -> None:
    """Each a little above and a little below its threshold; nothing else of 6000 pixels."""
    bias = amplifier(20.0, 5.0, {(3, 4): 1035.0, (3, 5): 1005.0, (9, 9): -995.0, (8, 8): -965.0, (50, 1): np.nan})
    assert bad("bias", bias) == {(3, 4), (9, 9), (50, 1)}
    dark = amplifier(0.02, 0.05, {(3, 4): 5.1 / GAIN + 0.02, (3, 5): 4.8 / GAIN + 0.02, (7, 7): -90.0})
    assert bad("dark", dark) == {(3, 4)}
    assert bad("dark", dark, dark=3.0) == {(3, 4), (3, 5)}
    flat = amplifier(1.2, 0.005, {(3, 4): 0.79 * 1.2, (3, 5): 0.82 * 1.2, (60, 30): 1.95 * 1.2, (61, 30): 1.85 * 1.2})
    assert bad("flat", flat) == {(3, 4), (60, 30)}
    assert bad("flat", flat, flat=0.9) == {(3, 4), (3, 5), (60, 30)}
    assert find("flat", flat, GAIN, Thresholds()).vampires.tolist() == [[60, 30]]
    assert bad("flat", flat, vampire=0.0) == {(3, 4)}


def test_by_standard_deviations() -> None:
    """Bright 4.8 in dark and flat, dark 5.0 in the flat alone."""
    spots = {(3, 4): 5.2, (5, 5): -5.4, (9, 9): 4.4, (9, 8): -4.6}
    dark = amplifier(0.0, 1.0, spots)
    assert bad("dark", dark, mode="STDEV") == {(3, 4)}
    flat = amplifier(1.0, 0.01, {where: 1 + 0.01 * value for where, value in spots.items()})
    assert bad("flat", flat, mode="STDEV") == {(3, 4), (5, 5)}


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_an_amplifier_without_a_good_pixel_is_bad(kind: str) -> None:
    assert len(bad(kind, np.full(SHAPE, np.nan, np.float32))) == SHAPE[0] * SHAPE[1]


def test_an_amplifier_that_sees_no_light_is_bad() -> None:
    assert len(bad("flat", amplifier(-0.01, 0.001, {}))) == SHAPE[0] * SHAPE[1]


@pytest.mark.parametrize(
    ("plain", "words"),
    [({"drak": 3}, "thresholds: unknown key 'drak'"), ({"mode": "SIGMA"}, "thresholds.mode: 'SIGMA' is none of VALUE")],
)
def test_what_is_no_threshold(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(JobError, match=words):
        Thresholds.from_plain(plain)
