"""Exposures, amplifiers and groups of exposures that are named, and healthy tables in which nothing is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from campaign.camera import model as camera
from campaign.quality import judging, series
from campaign.quality.levels import Finding, Row
from campaign.quality.outlying import groups

LSSTCAM = camera.load("LSSTCam")
COMCAM = camera.load("LSSTComCam")
Change = Callable[[int, int, str], dict[str, Any]]


def noises(of: camera.Camera) -> dict[tuple[int, str], float]:
    return {
        (d.id, a.name): noise / gain
        for d in of.detectors
        for a, noise, gain in zip(of.types[d.type].amplifiers, d.read_noises, d.gains, strict=True)
    }


def table(
    n: int, change: Change = lambda *_: {}, kind: str = "bias", of: camera.Camera = COMCAM, seed: int = 1
) -> list[Row]:
    """Make a healthy table, every value within its error; ``change`` replaces values of a row, or adds (``+``)."""
    rng, rows = np.random.default_rng(seed), []
    lamp = 1 + 0.01 * rng.normal(size=n)
    for (detector, name), noise in noises(of).items():
        if detector not in of.detector_ids("SCIENCE"):
            continue
        light = {"bias": 0.0, "dark": 2.0, "flat": 20000.0 * rng.uniform(0.9, 1.1)}[kind]
        for e in range(n):
            plain = {
                "level": light * (lamp[e] if kind == "flat" else 1) + 0.025 * noise * rng.normal(),
                "noise": noise * (1 + 0.011 * rng.normal()), "saturated": 0.0, "overscan": 2e4 + 2 * rng.normal(),
                "noise_error": noise * 0.011, "shape": 0.05 * noise * rng.normal(), "shape_error": 0.2 * noise,
            }  # fmt: skip
            for key, value in change(e, detector, name).items():
                plain[key.rstrip("+")] = plain[key.rstrip("+")] + value if key.endswith("+") else value
            rows.append(Row(e + 1, detector, name, **plain))
    return rows


def judged(rows: list[Row], kind: str = "bias", of: camera.Camera = COMCAM) -> list[Finding]:
    return judging.judge(rows, kind, dict.fromkeys({r.exposure for r in rows}, 0.0), of)


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_nothing_is_named_of_healthy_frames(kind: str, n: int) -> None:
    for seed in range(3):
        assert judged(table(n, kind=kind, seed=seed), kind) == []


def one(exposure: int, detector: int | None = None, amplifier: str | None = None, **change: Any) -> Change:
    """Change one exposure (from 0), detector and amplifier; `None`: all."""
    changed = {key.replace("_more", "+"): value for key, value in change.items()}

    def of(e: int, d: int, a: str) -> dict[str, Any]:
        return changed if e == exposure and detector in (None, d) and amplifier in (None, a) else {}

    return of


@pytest.mark.parametrize(
    ("kind", "change", "detectors", "amplifiers", "why"),
    [
        ("bias", one(4, level_more=5.0), 9, 0, "level +"),
        ("bias", one(4, 3, "C05", level_more=5.0), 1, 1, "level of amplifier C05 of detector 3 +"),
        ("bias", one(4, 3, "C05", noise_more=1.5), 1, 1, "noise of amplifier C05 of detector 3 +"),
        ("bias", one(4, 3, noise_more=1.0), 1, 0, "noise +"),
        ("bias", one(4, 3, "C05", overscan_more=400.0), 1, 1, "bias level of amplifier C05 of detector 3 +"),
        ("bias", one(4, 3, "C05", constant=1.0), 1, 1, "amplifier C05 of detector 3 is off"),
        ("bias", one(4, 3, same_as=2), 1, 16, "it has the very pixels of exposure 2"),
        ("bias", one(4, 3, "C05", saturated=0.2), 1, 0, "20.0 % of amplifier C05 saturated"),
        ("dark", one(4, 3, "C05", rejected=0.03), 1, 1, "3.0 % of amplifier C05 rejected as cosmic rays"),
        ("dark", one(4, 3, shape=9.0), 1, 0, "shape +"),
        ("flat", one(4, 3, "C05", shape=-900.0), 1, 1, "shape of amplifier C05 of detector 3 -"),
        ("flat", one(4, 3, "C05", level_more=-400.0), 1, 1, "level of amplifier C05 of detector 3 -"),
        ("flat", one(4, 3, "C05", level=20.0), 1, 1, "amplifier C05 of detector 3 answers no light"),
    ],
)  # fmt: skip
def test_an_odd_exposure_is_named_with_its_amplifier(
    kind: str, change: Change, detectors: int, amplifiers: int, why: str
) -> None:
    (found,) = judged(table(8, change, kind), kind)
    assert found.exposure == 5
    assert (len(found.detectors), len(found.amplifiers)) == (detectors, amplifiers)
    assert found.why.startswith(why), found.why


def test_one_track_in_a_small_amplifier_is_a_healthy_dark() -> None:
    small = COMCAM.scaled(16)  # 3904 pixels an amplifier
    assert judged(table(8, one(4, 3, "C05", rejected=0.025), "dark", small), "dark", small) == []
    (found,) = judged(table(8, one(4, 3, "C05", rejected=0.2), "dark", small), "dark", small)
    assert found.why.startswith("20.0 % of amplifier C05 rejected")


@pytest.mark.parametrize(
    ("kind", "column", "step"),
    [("bias", "level", 4.0), ("bias", "overscan", 300.0), ("bias", "noise", 2.0), ("flat", "shape", 800.0)],
)
@pytest.mark.parametrize("n", [6, 10])
def test_two_halves_are_two_groups(kind: str, column: str, step: float, n: int) -> None:
    (found,) = judged(table(n, lambda e, d, a: {f"{column}+": step * (e % 2)}, kind), kind)
    assert found.exposure is None and len(found.detectors) == 9
    odd, even = (", ".join(str(e) for e in range(k, n + 1, 2)) for k in (1, 2))
    assert found.why.startswith(f"2 groups of exposures by {'bias level' if column == 'overscan' else column}, ")
    assert found.why.endswith(f" ADU apart: {odd}; {even}")


def test_an_amplifier_that_is_always_off_is_said_once() -> None:
    off = {"level": 0.0, "noise": 0.0, "overscan": 0.0, "constant": 1.0, "noise_error": 0.0, "shape_error": 0.0}
    (found,) = judged(table(6, lambda e, d, a: off if (d, a) == (3, "C05") else {}))
    assert (found.exposure, found.detectors, found.amplifiers) == (None, (3,), ("C05",))
    assert found.why == "amplifier C05 of detector 3 is off: its rows hold one value each, in 6 of 6 exposures"


@pytest.mark.parametrize("factor", [1 / 3, 3.0])
def test_a_camera_file_with_a_wrong_read_noise_is_told(factor: float) -> None:
    d = COMCAM.detectors[0]
    wrong = d.model_copy(update={"read_noises": tuple(n * factor for n in d.read_noises)})
    other = COMCAM.model_copy(update={"detectors": (wrong, *COMCAM.detectors[1:])})
    (found,) = judged(table(6), of=other)
    assert (found.exposure, found.detectors, len(found.amplifiers)) == (None, (d.id,), 16)
    assert "is not the camera file's read noise" in found.why


def test_a_scatter_beyond_the_errors_names_nobody() -> None:
    """Levels of a camera without a stable bias: few of them do not tell how far is far."""
    rng = np.random.default_rng(3)
    for n in (4, 5, 8, 12):
        drift = 3 * rng.normal(size=n)
        assert judged(table(n, lambda e, d, a, drift=drift: {"level+": float(drift[e])})) == []


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0, 0.1, 50, 50.2, 0.3, 50.1], [[0, 1, 4], [2, 5, 3]]),
        ([0, 0.1, 50, 50.2, 100, 100.1], [[0, 1], [2, 3], [4, 5]]),
        ([0, 10, 20, 30, 40, 50], []),  # a drift
        ([0, 0.1, 0.2, 0.1, 0.3, 50], []),  # the odd one
        ([0, 0, 50], []),
    ],
)
def test_heaps(values: list[float], wanted: list[list[int]]) -> None:
    assert groups(np.array(values, float), 6.0) == wanted


@pytest.mark.soak
@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_healthy_tables_of_a_whole_focal_plane(n: int, kind: str) -> None:
    for seed in range(3):
        assert judged(table(n, kind=kind, of=LSSTCAM, seed=seed), kind, LSSTCAM) == []


@pytest.mark.parametrize(("scale", "judged_"), [(64, False), (16, True)])
def test_shapes_of_a_few_pixels_are_not_judged(scale: int, judged_: bool) -> None:
    scaled = camera.load("LSSTCam").scaled(scale)
    made = series.Table([1], [(94, "C04")], {})
    assert series.resolved(made, scaled).all() == judged_
