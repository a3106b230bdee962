"""Edges of the light, on images with known edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Box
from kernels.statistics.edges import fit, proposal

OFFSET, LIGHT = 1000.0, 5000.0
#: x0, y0, x1, y1 of the light: a prescan of 3, an overscan of 16 columns and one of 8 rows.
TRUTH = (3, 0, 67, 48)
RAW = (83, 56)


def amplifier(shift: tuple[int, int] = (0, 0), **more: Any) -> Amplifier:
    """The sections as they should be, or some pixels off; they end with the image."""
    dx, dy = shift
    data = Box(3 + dx, dy, 64, 48)
    serial = Box(data.x1, 0, RAW[0] - data.x1, RAW[1])
    parallel = Box(data.x0, data.y1, 64, RAW[1] - data.y1)
    boxes = {"data": data, "serial_overscan": serial, "parallel_overscan": parallel, **more}
    plain = {"name": "A", "hdu": 0, "raw": RAW, "target": Box(0, 0, 64, 48), "flip_x": False, "flip_y": False}
    return Amplifier(**plain, **boxes, gain=1.0, read_noise=5.0, saturation=float("inf"))  # type: ignore[arg-type]


def image(light: float = LIGHT, slope: float = 0.0, offset: float = OFFSET) -> NDArray[np.float32]:
    """Make a flat whose light falls along x, in the outermost pixels by a third; its overscan keeps 3 % of it."""
    frame = np.random.default_rng(1).normal(offset, 2, RAW[::-1])
    x0, y0, x1, y1 = TRUTH
    shape = light * (1 - slope * np.linspace(0, 1, x1 - x0))
    frame[y0:y1, x0:x1] += shape
    frame[y0:y1, [x0, x1 - 1]] -= shape[[0, -1]] / 3
    frame[y0:y1, x1] += 0.03 * light
    return frame.astype(np.float32)


@pytest.mark.parametrize("subtracted", [False, True])
@pytest.mark.parametrize("slope", [0.0, 0.6])
@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (3, 0), (8, 0), (-1, 0), (-3, 0), (0, 1), (0, 3), (0, 8), (3, 3)])
def test_sections_that_are_off_are_found_and_put_right(shift: tuple[int, int], slope: float, subtracted: bool) -> None:
    """Dark pixels in the data, or lit ones in an overscan; the proposal is the truth."""
    one = amplifier(shift)
    found = fit(one, [], image(slope=slope, offset=0.0 if subtracted else OFFSET), subtracted)
    assert found.judged
    assert found.lit == list(TRUTH)
    assert bool(found.misfits) == (shift != (0, 0))
    if shift == (0, 0):
        assert found.notes == []
        return
    for d, word in zip(shift, ("column", "row"), strict=True):
        many = f"{abs(d)} {word}{'s' * (abs(d) > 1)}"
        assert (d == 0) != any(f"data has {many} without light" in text for text in found.misfits)
        if d < 0:
            assert any(text.startswith(f"serial_overscan has {many} in the light") for text in found.misfits)
    right = amplifier()
    boxes = {
        name: list(vars(getattr(right, name)).values()) for name in ("data", "serial_overscan", "parallel_overscan")
    }
    assert proposal(one, [], found) == boxes


def test_a_data_section_within_the_light_is_well_and_what_it_leaves_out_is_said() -> None:
    found = fit(amplifier(data=Box(5, 0, 60, 48)), [], image(), False)
    assert found.misfits == []
    assert sorted(found.notes) == [
        f"2 columns in the light beyond its {side} are in no data section" for side in ("left", "right")
    ]


def test_a_data_section_that_is_too_large_is_made_smaller() -> None:
    one = replace(amplifier(), data=Box(3, 0, 72, 48), serial_overscan=Box(75, 0, 8, 56))
    found = fit(one, [], image(), False)
    assert found.misfits == ["data has 8 columns without light at its right (columns 68 to 75)"]
    assert proposal(one, [], found)["data"] == [3, 0, 64, 48]
    assert proposal(one, [], found)["serial_overscan"] == [67, 0, 16, 56]


def test_two_amplifiers_with_their_overscans_between_them() -> None:
    """One frame, 40 columns of light, twice 12 of overscan, 40 of light; both sections three columns too far right."""
    plain = {"raw": (104, 40), "parallel_overscan": None, "hdu": 0}
    right = [
        replace(amplifier(), name="L", data=Box(0, 0, 40, 40), serial_overscan=Box(40, 0, 12, 40), **plain),
        replace(amplifier(), name="R", data=Box(64, 0, 40, 40), serial_overscan=Box(52, 0, 12, 40), **plain),
    ]  # type: ignore[arg-type]
    frame = np.random.default_rng(2).normal(OFFSET, 2, (40, 104))
    frame[:, :40] += LIGHT
    frame[:, 64:] += 0.8 * LIGHT
    for one, other in (right, right[::-1]):
        assert fit(one, [other], frame.astype(np.float32), False).misfits == []
    left = replace(right[0], data=Box(3, 0, 40, 40), serial_overscan=Box(43, 0, 12, 40))
    found = fit(left, [right[1]], frame.astype(np.float32), False)
    assert found.misfits == ["data has 3 columns without light at its right (columns 41 to 43)"]
    assert proposal(left, [right[1]], found)["data"] == [0, 0, 40, 40]
    assert proposal(left, [right[1]], found)["serial_overscan"] == [40, 0, 12, 40]


@pytest.mark.parametrize(
    ("light", "subtracted", "overscan", "misfit"),
    [
        (0.0, False, True, "as bright as the data"),
        (0.0, True, True, ""),
        (0.0, False, False, ""),
    ],
)
def test_without_light_nothing_is_judged(light: float, subtracted: bool, overscan: bool, misfit: str) -> None:
    none = {} if overscan else {"serial_overscan": None, "parallel_overscan": None}
    found = fit(amplifier(**none), [], image(light, offset=0.0 if subtracted else OFFSET), subtracted)
    assert not found.judged
    assert (misfit in " ".join(found.misfits)) if misfit else (found.misfits == [] and len(found.notes) == 1)


def test_neither_a_gradient_nor_a_bad_column_nor_a_dim_border_is_an_edge() -> None:
    """A whole frame in the light: falling to a tenth, with a dead column, a dim first row; no overscan is declared."""
    one = replace(amplifier(serial_overscan=None, parallel_overscan=None), data=Box(0, 0, *RAW))
    frame = OFFSET + LIGHT * np.linspace(1, 0.1, RAW[0]) * np.linspace(1, 0.4, RAW[1])[:, None]
    frame += np.random.default_rng(3).normal(0, 5, frame.shape)
    frame[:, 30] = OFFSET
    frame[0] -= 0.4 * (frame[0] - OFFSET)
    for subtracted in (False, True):
        found = fit(one, [], (frame - OFFSET * subtracted).astype(np.float32), subtracted)
        assert found.misfits == []
        assert found.lit == [0, 0, *RAW]
