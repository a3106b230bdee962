"""Which detectors a selection is about, what is missing of it, and which inputs are unlike the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaign import camera, envfile, judging, levels
from campaign.errors import ConfigurationError
from campaign.inputs import absent, for_purpose, names_detectors
from campaign.repository_records import Raw, Selection

LSSTCAM = camera.load("LSSTCam")
COMCAM = camera.load("LSSTComCam")


def selection(detectors: list[int]) -> Selection:
    return Selection((), tuple(Raw(1, d, "", "", 1) for d in detectors))


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("instrument='LSSTCam' and detector in (0..8)", True),
        ("detector=4", True),
        ("detector.purpose='GUIDER'", True),
        ("detector < 9", True),
        ("instrument='LSSTCam' and detector != 12", False),
        ("exposure.obs_id='detector=3'", False),
        ("exposure.day_obs=20241208", False),
    ],
)
def test_only_a_condition_that_names_detectors_brings_in_others_than_science(query: str, named: bool) -> None:
    assert names_detectors(query) is named
    everything = selection(sorted(LSSTCAM.by_id))
    assert len(for_purpose(everything, LSSTCAM, query).detectors) == (205 if named else 189)


def test_a_detector_without_any_raw_is_named() -> None:
    some = selection([0, 1, 2, 3, 5, 6, 7, 8])
    assert absent(some, COMCAM, "instrument='LSSTComCam'") == ["R22_S11"]
    assert absent(some, COMCAM, "detector != 4") == []
    assert absent(selection(list(range(9))), COMCAM, "") == []


def named(found: list[levels.Finding]) -> list[levels.Finding]:
    """Those about an exposure: the noises here are not those of the camera file, and that is said too."""
    return [f for f in found if f.exposure is not None]


def test_a_dead_amplifier_does_not_hide_the_odd_exposure() -> None:
    rows = [
        levels.Row(exposure, 0, name, 0.0 if name == "C00" else level, 0.0 if name == "C00" else 5.0, 0.0)
        for exposure, level in enumerate([0.1, -0.1, 0.0, 0.2, 900.0])
        for name in ("C00", "C01", "C02")
    ]
    found = judging.judge(rows, "bias", dict.fromkeys(range(5), 0.0), COMCAM)
    assert [f.exposure for f in found] == [4, None]  # the last: a noise of 0 is not the camera file's
    assert found[1].amplifiers[0] == "C00"
    assert "lit bias" in found[0].why


@pytest.mark.parametrize(("jump", "told"), [(30.0, False), (300.0, True), (-300.0, True)])
def test_a_night_whose_bias_level_has_jumped_is_told_with_its_exposures(jump: float, told: bool) -> None:
    """Each amplifier has a level of its own, which wanders by some ADU; the overscan takes all of it out."""
    dates = {n: f"2024-12-0{6 if n < 4 else 7}T2{n % 4}:00:00" for n in range(7)}
    rows = [
        levels.Row(n, detector, f"C0{k}", 0.0, 4.0, 0.0, 20000.0 + 1000 * k + n + jump * (n > 3))
        for n in range(7) for detector in (0, 4) for k in range(3)
    ]  # fmt: skip
    found = named(judging.judge(rows, "bias", dict.fromkeys(range(7), 0.0), COMCAM, levels.nights(dates)))
    assert [f.exposure for f in found] == ([4, 5, 6] if told else [])
    if told:
        assert found[0].detectors == (0, 4)
        noises = (jump + 2.5) / 4
        why = f"its bias level, of the night 2024-12-07, is {noises:+.0f} noises from that of 2024-12-06"
        assert found[0].why == why


def test_one_exposure_whose_bias_level_has_jumped_is_told() -> None:
    rows = [
        levels.Row(n, 0, f"C0{k}", 0.0, 4.0, 0.0, 20000.0 + 1000 * k + 300 * (n == 2))
        for n in range(5) for k in range(3)
    ]  # fmt: skip
    dates = {n: f"2024-12-06T2{n % 4}:00:00" for n in range(5)}
    (found,) = named(judging.judge(rows, "bias", dict.fromkeys(range(5), 0.0), COMCAM, levels.nights(dates)))
    assert found.exposure == 2 and "+75 noises" in found.why


def test_a_night_begins_at_noon() -> None:
    night = levels.nights({1: "2024-12-06T23:00:00", 2: "2024-12-07T03:00:00", 3: "2024-12-07T12:00:00"})
    assert night == {1: "2024-12-06", 2: "2024-12-06", 3: "2024-12-07"}


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", ".hidden", "a b"])
def test_a_camera_is_not_called_like_a_path(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        camera.build({**COMCAM.model_dump(), "name": name}, "evil.yaml")


def test_home_is_expanded_in_a_file_of_variables(tmp_path: Path) -> None:
    path = tmp_path / "env.sh"
    path.write_text("export REPO=~/repo OTHER=a~/b\n")
    found = envfile.read(path, {"HOME": "/people/me"})
    assert (found["REPO"], found["OTHER"]) == ("/people/me/repo", "a~/b")
