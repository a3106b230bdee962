"""Header translation: real frames, rules, and errors about frames that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaign.camera import model as cameras
from campaign.camera.observation import Observation
from campaign.camera.translation import Overrides, TranslationError, lsst_id, timestamp_id, timestamp_seq_num, translate
from kernels.products.headers import read

COMCAM = cameras.load("LSSTComCam")
HEADER: dict[str, Any] = {
    "INSTRUME": "COMCAM",
    "IMGTYPE": "FLAT",
    "FILTER": "r_03",
    "EXPTIME": 2.5,
    "DARKTIME": 2.6,
    "DATE-OBS": "2024-12-09T01:02:03.456",
    "DAYOBS": "20241208",
    "SEQNUM": 696,
    "CONTRLLR": "O",
    "OBSID": "CC_O_20241208_000696",
    "RAFTBAY": "R22",
    "CCDSLOT": "S21",
}


AS_IT_IS = Overrides()


def hdus(camera: cameras.Camera, detector: int = 0) -> list[dict[str, Any]]:
    """HDUs of a frame as the camera file describes them."""
    kind = camera.types[camera.by_id[detector].type]
    primary = {"hdu": 0, "extname": None, "shape": [], "datasec": None}
    amplifiers = [
        {"hdu": n + 1, "extname": a.hdu, "shape": list(a.raw), "datasec": str(a.data)}
        for n, a in enumerate(kind.amplifiers)
    ]
    return [primary, *amplifiers]


def say(overrides: Overrides = AS_IT_IS, **changes: Any) -> Observation:
    """Translate a ComCam header with some keywords (``_`` for ``-``) changed, or removed by `None`."""
    changed = {**HEADER, **{k.replace("_", "-"): v for k, v in changes.items()}}
    return translate(
        COMCAM, "/raw/f.fits", {k: v for k, v in changed.items() if v is not None}, hdus(COMCAM), overrides
    )


def real(path: Path, name: str, overrides: Overrides = AS_IT_IS) -> Observation:
    camera = cameras.load(name)
    frame = read(str(path), camera.translation.wanted())
    return translate(camera, str(path), frame["headers"], frame["hdus"], overrides)


def test_a_header_becomes_an_observation() -> None:
    assert say() == Observation(
        id_from="DAYOBS and SEQNUM",
        path="/raw/f.fits",
        instrument="LSSTComCam",
        exposure=2024120800696,
        detector=7,
        day_obs=20241208,
        seq_num=696,
        obs_id="CC_O_20241208_000696",
        observation_type="flat",
        observation_reason="unknown",
        science_program="unknown",
        physical_filter="r_03",
        exposure_time=2.5,
        dark_time=2.6,
        begin="2024-12-09T01:02:03.456",
    )


@pytest.mark.parametrize(
    ("sample", "name", "expected"),
    [
        ("3019032200002-R10-S22-det035.fits", "LSSTCam", (3019032200002, 35, "flat", "SDSSi", 1.0, None)),
        ("3019053000001-R22-S00-det000.fits", "LSSTComCam", (3019053000001, 0, "bias", "unknown", 0.0, 0.398)),
        ("30211212000310-R22-S22-det098.fits", "LSSTCam", (3021121200310, 98, "flat", "SDSSi", 7.83172, 8.143)),
    ],
)
def test_real_frames_of_the_lsst_cameras(
    sample: str, name: str, expected: tuple[Any, ...], frames: Callable[[str], Path]
) -> None:
    o = real(frames("lsst_headers") / sample, name)
    assert (o.exposure, o.detector, o.observation_type, o.physical_filter, o.exposure_time, o.dark_time) == expected


@pytest.mark.parametrize("name", ["LSSTCam", "LSSTComCam", "LATISS"])
@pytest.mark.parametrize(
    ("sample", "instrument"),
    [
        ("2023103100227-R21-S01-det010.fits", "LSST-UCDCam"),
        ("3023073000237-R22-S01-det001.fits", "LSST-UCDCam-ITL"),
    ],
)
def test_real_frames_of_a_test_stand_are_another_cameras(
    sample: str, instrument: str, name: str, frames: Callable[[str], Path]
) -> None:
    with pytest.raises(TranslationError, match=f"INSTRUME is '{instrument}': a frame of another camera") as caught:
        real(frames("lsst_headers") / sample, name)
    accepted = cameras.load(name).translation.accept["INSTRUME"]
    assert caught.value.do == f"{name} accepts {', '.join(accepted)}"


def test_real_frames_without_exposure_numbers(frames: Callable[[str], Path]) -> None:
    paths = sorted(frames("stl1001e").iterdir())
    observations = [real(p, "STL1001E") for p in paths]
    assert len({o.exposure for o in observations}) == len({(o.day_obs, o.seq_num) for o in observations}) == len(paths)
    first = observations[0]
    assert (first.exposure, first.day_obs, first.seq_num) == (170908204508464, 20170908, 31508464)
    assert first.begin == "2017-09-08T20:45:45.464"  # TAI - UTC was 37 s
    types = [o.observation_type for o in observations]
    assert {t: types.count(t) for t in types} == {"bias": 10, "dark": 16, "science": 10}
    assert {o.physical_filter for o in observations} == {"Visible"}
    assert {o.exposure_time for o in observations if o.observation_type == "dark"} == {10, 20, 30, 60, 150, 300}
    assert real(paths[-1], "STL1001E", Overrides(type="flat")).observation_type == "flat"


def test_real_frames_with_hierarchical_keywords(frames: Callable[[str], Path]) -> None:
    observations = [real(p, "EFOSC2") for p in sorted(frames("efosc2").iterdir())]
    found = [(o.day_obs, o.observation_type, o.observation_reason, o.physical_filter) for o in observations]
    assert found == (
        [(20220126, "bias", "IMAGE", "Free")] * 5
        + [(20220126, "flat", "SPECTRUM", "Free")] * 3
        + [(20220127, "flat", "IMAGE", "g#782")] * 3
        + [(20220129, "flat", "SPECTRUM", "Free")] * 3
    )
    assert observations[0].dark_time == 0.0615


@pytest.mark.parametrize(
    ("day_obs", "controller", "expected"),
    [
        (20190322, "C", 3019032200310),
        (20231004, "C", 3023100400310),
        (20231005, "C", 2023100500310),
        (20190322, "O", 2019032200310),
    ],
)
def test_lsst_exposure_ids(day_obs: int, controller: str, expected: int) -> None:
    assert lsst_id(day_obs, 310, controller) == expected


INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)).map(
    lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)
)


@given(INSTANTS, INSTANTS)
def test_timestamp_ids_keep_the_order_of_time(one: datetime, two: datetime) -> None:
    """Whatever else is ingested: distinct to the millisecond, within 64 bits, ascending."""
    assert (timestamp_id(one) < timestamp_id(two)) == (one < two)
    assert 0 < timestamp_id(one) < 2**63


@given(INSTANTS)
def test_sequence_numbers_tell_the_time_since_noon(begin: datetime) -> None:
    noon = (begin - timedelta(hours=12)).replace(hour=12, minute=0, second=0, microsecond=0)
    assert timestamp_seq_num(begin) * timedelta(milliseconds=1) == begin - noon


@pytest.mark.parametrize("label", ["flat", "Flat", " FLAT  ", "SFLAT"])
def test_types_are_compared_whatever_the_case(label: str) -> None:
    assert say(IMGTYPE=label).observation_type == "flat"


def test_the_next_keyword_serves_where_the_first_is_missing_or_blank() -> None:
    assert say(IMGTYPE=None, TESTTYPE="DARK").observation_type == "dark"
    assert say(IMGTYPE="  ", TESTTYPE="DARK").observation_type == "dark"


def test_what_a_header_need_not_have() -> None:
    o = say(FILTER=None, DARKTIME=None, OBSID=None)
    assert (o.physical_filter, o.dark_time, o.obs_id) == ("unknown", None, "LSSTComCam_2024120800696")
    assert say(REASON="daily", PROGRAM="BLOCK-1").science_program == "BLOCK-1"


def test_overrides_stand_in_for_the_header() -> None:
    o = say(Overrides("bias", "i_06", 20241209), IMGTYPE="LIGHT", FILTER="nothing", DAYOBS=None)
    assert (o.observation_type, o.physical_filter, o.day_obs, o.exposure) == ("bias", "i_06", 20241209, 2024120900696)


def test_a_filter_may_go_by_another_name() -> None:
    assert say(FILTER="r").physical_filter == "r_03"


def test_a_time_with_a_zone_is_taken_to_utc() -> None:
    assert say(DATE_OBS="2024-12-09T01:02:03.456-03:00").begin == "2024-12-09T04:02:03.456"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"INSTRUME": "LSST-UCDCam"}, "INSTRUME is 'LSST-UCDCam': a frame of another camera.*COMCAM, ComCam, LSSTComCam"),
    ({"INSTRUME": None}, "the header has no INSTRUME"),
    (
        {"IMGTYPE": "FALT"},
        "IMGTYPE or TESTTYPE is 'FALT', which is no known observation type.*--type.*bias, dark, flat",
    ),
    ({"IMGTYPE": None}, "the header has no IMGTYPE or TESTTYPE, which tells the observation type"),
    ({"FILTER": "r_30"}, "FILTER is 'r_30': LSSTComCam has no filter 'r_30'.*did you mean r_03"),
    ({"EXPTIME": "3,2E-05"}, "EXPTIME is '3,2E-05', not a number of seconds"),
    ({"EXPTIME": -1.0}, "EXPTIME is '-1.0', not a number of seconds"),
    ({"EXPTIME": None}, "the header has no EXPTIME"),
    ({"DARKTIME": "nan"}, "DARKTIME is 'nan', not a number of seconds"),
    ({"DATE_OBS": "2024-12-08"}, "DATE-OBS is '2024-12-08', not a date and time"),
    ({"DATE_OBS": "08/12/24T1"}, "DATE-OBS is '08/12/24T1', not a date and time"),
    ({"DAYOBS": "20241308"}, "day_obs 20241308 is not a date"),
    ({"DAYOBS": "2024-12-08"}, "DAYOBS is '2024-12-08', not a whole number"),
    ({"SEQNUM": 100000}, "sequence number 100000 has more than 5 digits"),
    ({"SEQNUM": 1.5}, "SEQNUM is '1.5', not a whole number"),
    ({"CONTRLLR": "X"}, "controller is 'X'; known are O, C"),
    ({"CCDSLOT": "S33"}, "'R22_S33': LSSTComCam has no such detector"),
    ({"CCDSLOT": None}, "the header has no {RAFTBAY}_{CCDSLOT}, which tells the detector"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_header_that_does_not_fit_is_told_why(changes: dict[str, Any], message: str) -> None:
    say()
    with pytest.raises(TranslationError, match=f"(?s)^/raw/f.fits: .*{message}"):
        say(**changes)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(type="falt"), "no observation type 'falt'\n.*did you mean flat"),
        (Overrides(filter="r_30"), "LSSTComCam has no filter 'r_30'\n.*did you mean r_03"),
        (Overrides(day_obs=20240231), "day_obs 20240231 is not a date"),
    ],
)
def test_an_override_that_is_not_known_is_refused(overrides: Overrides, message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        say(overrides)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [544, 2048]}, r"HDU Segment10 is 544x2048 pixels, LSSTComCam R22_S21 .* has 576x2048"),
        ({"shape": []}, r"HDU Segment10 is no image, LSSTComCam R22_S21 .* has 576x2048 pixels"),
        ({"datasec": "[11:522,1:2002]"}, r"HDU Segment10 has DATASEC \[11:522,1:2002\], .* has \[4:512,1:2000\]"),
        ({"extname": "Other"}, "there is no HDU Segment10, which holds amplifier C10 of LSSTComCam R22_S21"),
    ],
)
def test_a_frame_of_another_size_is_told_both(change: dict[str, Any], message: str) -> None:
    boxes = hdus(COMCAM)
    boxes[1].update(change)
    with pytest.raises(TranslationError, match=message):
        translate(COMCAM, "/raw/f.fits", HEADER, boxes)


def test_a_frame_at_another_scale_is_refused() -> None:
    with pytest.raises(TranslationError, match=r"HDU Segment10 is 98x173 pixels, .*scale 1\) has 576x2048"):
        translate(COMCAM, "/raw/f.fits", HEADER, hdus(COMCAM.scaled(16)))


def test_every_keyword_of_the_table_is_asked_for() -> None:
    assert set(COMCAM.translation.wanted()) == set(HEADER) | {"TESTTYPE", "REASON", "PROGRAM"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"EXPTIME": "1_0"}, "EXPTIME is '1_0', not a number of seconds"),
        ({"EXPTIME": "nan"}, "EXPTIME is 'nan', not a number of seconds"),
        ({"EXPTIME": "\u0661\u0660"}, "not a number of seconds"),
        ({"EXPTIME": 1e30}, "no exposure lasts"),
        ({"DARKTIME": 1e30}, "no exposure lasts"),
        ({"SEQNUM": "\u0661"}, "not a whole number"),
        ({"SEQNUM": "1_0"}, "not a whole number"),
        ({"DATE_OBS": "0001-01-01T00:00:00"}, "a repository holds the years 1971 to 2098"),
        ({"DATE_OBS": "9999-12-31T23:59:59.9"}, "a repository holds the years 1971 to 2098"),
        ({"DATE_OBS": "2024-W49-7T21:00"}, "not a date and time"),
        ({"DATE_OBS": "20241209T010203"}, "not a date and time"),
    ],
)
def test_numbers_and_times_that_only_python_takes_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(TranslationError, match=what):
        say(**changes)


def test_a_number_with_fits_own_exponent_is_one() -> None:
    assert say(EXPTIME="1.5D1").exposure_time == 15.0


@pytest.mark.parametrize(
    ("day", "given", "notes"),
    [
        ("20241208", None, ()),
        ("20241210", None, ()),
        ("20141208", None, ("DAYOBS is 20141208, 3653 days off DATE-OBS 2024-12-09",)),
        ("20241208", 20141208, ()),
    ],
)
def test_a_day_that_is_not_the_exposures_is_told(day: str, given: int | None, notes: tuple[str, ...]) -> None:
    assert say(Overrides(day_obs=given), DAYOBS=day).notes == notes


def test_what_is_odd_about_the_pixels_is_told_or_refused() -> None:
    """Beyond 32 bits: a note; of an unreadable HDU, or of a name that is there twice, nothing can be made."""
    boxes = hdus(COMCAM)
    boxes[3]["beyond"] = [2, 4294950308.0]
    told = translate(COMCAM, "/raw/f.fits", HEADER, boxes, after=5)
    what = "HDU Segment12: 2 pixels beyond 32 bits (4294950308) are masked"
    assert told.notes == (
        f"{what}; if these are negative, say signed: true in the camera file",
        "5 bytes after its last HDU are not read",
    )
    boxes[4]["unreadable"] = "HDU Segment13 holds float32"
    with pytest.raises(TranslationError, match="HDU Segment13 holds float32"):
        translate(COMCAM, "/raw/f.fits", HEADER, boxes)
    boxes[4] = {**boxes[4], "unreadable": None, "extname": "SEGMENT12"}
    with pytest.raises(TranslationError, match="HDUs 3, 4 are all called Segment12") as caught:
        translate(COMCAM, "/raw/f.fits", HEADER, boxes)
    assert caught.value.do == "give the HDU's number in the camera file"
