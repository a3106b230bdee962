"""Detectors of a selection, missing parts, and inputs unlike the others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from campaign.butler.records import ExposureRecord, Raw, Selection
from campaign.camera import model as camera
from campaign.errors import ConfigurationError
from campaign.kinds.draft import GroupDraft
from campaign.kinds.isr import OF_FRAMES
from campaign.kinds.table import kinds
from campaign.pipeline.makers import some
from campaign.pipeline.model import load
from campaign.planning.freeze import _require_whole
from campaign.planning.inputs import absent, allowed, for_purpose, names_detectors, problems
from campaign.quality import judging, levels
from campaign.template import envfile
from templates import ROOT

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


@pytest.mark.parametrize("several", [False, True])
def test_flats_of_two_filters_are_refused_by_their_ids_unless_the_pipeline_allows_them(several: bool) -> None:
    flats = [
        ExposureRecord("LSSTComCam", n, str(n), "flat", "", "", 20241208, n, name, name[0], 1.0, 1.0, "", "")
        for n, name in enumerate(["r_03"] * 8 + ["g_01"] * 2)
    ]
    raws = tuple(Raw(one.id, 4, str(Path(__file__)), "", 1) for one in flats)
    environment = {"CP_PIPE_DIR": f"{ROOT}/cp_pipe"}
    options = "--config cpPtcExtract:allowSeveralFilters=true" if several else ""
    pipeline = load(f"{ROOT}/cp_pipe/pipelines/LSSTComCam/cpPtc.yaml", "LSSTComCam", environment, options)
    found = problems(Selection(tuple(flats), raws), allowed(kinds()["ptc"], pipeline), False)
    why = "frames of several filters: 8 in r_03, 2 in g_01; g_01 is exposure 8, 9"
    assert found == ([] if several else [why])
    # what is not asked for is not in the runs' digests either
    assert ("allowSeveralFilters" in pipeline.tasks["cpPtcExtract"].config) is several


@pytest.mark.parametrize("product", ["Bias", "Flat", "Ptc", "Crosstalk", "Sky", "Fringe"])
@pytest.mark.parametrize("switch", ["", "doBinnedExposures"])
def test_corrections_of_whole_frames_are_refused_where_frames_are_corrected_in_parts(product: str, switch: str) -> None:
    environment = {"CP_PIPE_DIR": f"{ROOT}/cp_pipe"}
    path = f"{ROOT}/cp_pipe/pipelines/any/cp{product}.yaml"
    plain = load(path, "LSSTComCam", environment, "")
    (isr,) = some(plain, "isr")
    pipeline = load(path, "LSSTComCam", environment, f"--config {isr.label}:{switch}=true" if switch else "")
    draft = GroupDraft(isr.label, "combine", "gang", {"isr": {}}, [], whole=OF_FRAMES[:3])
    if switch:
        with pytest.raises(ConfigurationError, match=f"{switch} needs whole frames"):
            _require_whole([draft], pipeline)
    else:
        _require_whole([draft], pipeline)


def named(found: list[levels.Finding]) -> list[levels.Finding]:
    """Select the findings about an exposure; others report that the noises differ from the camera file's."""
    return [f for f in found if f.exposure is not None]


def test_a_dead_amplifier_does_not_hide_the_odd_exposure() -> None:
    rows = [
        levels.Row(exposure, 0, name, 0.0 if name == "C00" else level, 0.0 if name == "C00" else 5.0, 0.0)
        for exposure, level in enumerate([0.1, -0.1, 0.0, 0.2, 900.0])
        for name in ("C00", "C01", "C02")
    ]
    found = judging.judge(rows, "bias", dict.fromkeys(range(5), 0.0), COMCAM)
    assert [f.exposure for f in found] == [4, None]  # the last finding: a noise of 0 is not the camera file's
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


#: Text after ``A=``, and its value in a shell.
ASSIGNED = [
    ("~/repo", "/people/me/repo"), ("a~/b", "a~/b"), ('"~/x"', "~/x"), ("a:~/b", "a:/people/me/b"), ("'~'", "~"),
    ("$X", "ex"), ("${X}y", "exy"), ('"$X y"', "ex y"), ("'$X'", "$X"), (r"\$X", "$X"), (r'"\$X"', "$X"),
    (r"'\$X'", r"\$X"), (r'"\a\"\\"', r"\a" + '"\\'), (r"\a\'", "a'"), ("a'b'\"c\"", "abc"), ("'$(date)`'", "$(date)`"),
    ("a#b # c", "a#b"), ("a\\\nb", "ab"), ('"a\\\n b"', "a b"), ("'a\\\nb'", "a\\\nb"), ("", ""), ('"a\nb"', "a\nb"),
    ("1; B=2", "1"), ("$", "$"), ('"a$"', "a$"), ("$X$X", "exex"), ("'a\r\nb'", "a\r\nb"), ("é漢", "é漢"),
]  # fmt: skip


@pytest.mark.processes
@pytest.mark.parametrize(("text", "value"), ASSIGNED)
def test_a_file_of_variables_is_read_as_a_shell_reads_it(tmp_path: Path, text: str, value: str) -> None:
    path, base = tmp_path / "env.sh", {"HOME": "/people/me", "X": "ex"}
    path.write_bytes(f"A={text}\nC=3 D=$C; export C=4 E=$C HOME; export A\n".encode())
    found = envfile.read(path, base)
    assert (found["A"], found["D"], found["C"], found["E"]) == (value, "3", "4", "3")
    line = ["sh", "-c", '. "$0"; printf "%s|" "$A" "$D" "$C" "$E"', str(path)]
    assert subprocess.run(line, env=base, capture_output=True, check=True).stdout.decode() == f"{value}|3|4|3|"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=$(date)", ":2: 'A=$(date)' is not NAME=value"), ("A=`date`", "is for a shell to run"),
        ("A=${X:-y}", "for a shell to work out"), ("A=$1", "for a shell to work out"), ("A=a|b", "| is for a shell"),
        ("A=1 X", ":2: 'X' is not NAME=value"), ("export A B", "'B' is not NAME=value"), ("A=$Y", "$Y is used before"),
        ("A='x", ":2: a quote is not closed"), ('A="x\\', ":2: a quote is not closed"), ("A='\0'", "NUL"),
        ("A=" + "x" * 140_000, "longer than the 131072 bytes"),
    ],
)  # fmt: skip
def test_what_a_file_of_variables_cannot_hold(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "env.sh"
    path.write_text(f"X=1\n{text}\n")
    with pytest.raises(ConfigurationError) as caught:
        envfile.read(path, {"A": ""})
    assert words in str(caught.value)


def test_a_file_of_variables_whose_lines_end_as_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "env.sh"
    path.write_bytes(b"export A=1\r\nB='x\r\ny'\r\n")
    assert envfile.read(path, {}) == {"A": "1", "B": "x\ny"}
