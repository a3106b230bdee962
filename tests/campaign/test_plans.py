"""Plan files: all mistakes are reported before anything runs; variables; drawings."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from datetime import date, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from campaign.camera import model as camera
from campaign.campaigns.decide import waiting_gate
from campaign.campaigns.document import Campaign, load, locate, read
from campaign.campaigns.draw import Row, svg
from campaign.campaigns.driver import Chosen, chosen_steps
from campaign.campaigns.state import StepState, keep_document, next_rerun
from campaign.cli.root import environment
from campaign.errors import CampaignError, UsageError
from campaign.home import Home
from campaign.journal.books import Books
from campaign.pipeline.svg import columns
from campaign.planning.reads import differences, draw, reads
from campaign.simulation.blocks import exposures, problems
from tests.conftest import ROOT, typed

EXPORTS = ROOT / "tests" / "dmtn222" / "exports.sh"
SHELL = {"REPO": "/nowhere/repo", "SCRATCH": "/nowhere/scratch", "HOME": "/nowhere"}
VARIABLES = {
    "INSTRUMENT": "LSSTComCam",
    "TICKET": "DM-1",
    "TAG": "t",
    "RERUN": "20250207a",
    "CERT_RERUN": "20250207a",
    "START_DATE": "2025-02-07T00:00:00",
    "USER_CALIB_PREFIX": "",
    "RAW_COLLECTION": "LSSTComCam/raw/all",
    "CALIB_COLLECTIONS": "LSSTComCam/calib",
    "SELECTION_BIAS": "instrument='$INSTRUMENT' and exposure.observation_type='bias'",
    "SELECTION_DARK": "instrument='$INSTRUMENT' and exposure.observation_type='dark'",
}
STEPS: dict[str, Any] = {
    "bias": {"template": "bps_bias", "certify": True},
    "dark": {"template": "bps_dark", "needs": ["bias"], "gate": True},
}


def written(folder: Path, steps: Any = STEPS, **more: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"variables": VARIABLES, "steps": steps, **more}, sort_keys=False))
    return path


def loaded(path: Path, env: Path | None = None, **shell: str) -> Campaign:
    return load(str(path), env, {**SHELL, **shell})


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({**STEPS, "bias": {"template": "bps_bias", "needs": ["dark"]}}, "the steps need one another: "),
        ({**STEPS, "dark": {"template": "bps_dark", "needs": ["bais"]}}, "step dark needs bais, which is no step"),
        (
            {**STEPS, "again": {"template": "bps_bias"}},
            "steps bias and again write one collection: LSSTComCam/calib/DM-1/",
        ),
        ({**STEPS, "dark": {"template": "bps_drak"}}, "step dark: there is no template 'bps_drak.yaml'"),
        ({**STEPS, "dark": {"template": "bps_dark", "gates": True}}, "unknown key steps dark gates"),
        ({**STEPS, "dark": {"needs": ["bias"]}}, "steps dark template is missing"),
        (
            {**STEPS, "x": {"template": "bps_flat_q"}},
            "step x: there is no template 'bps_flat_q.yaml'\n    -> bps_flat is one for each band: "
            "bps_flat_u, bps_flat_g, bps_flat_r, bps_flat_i, bps_flat_z, bps_flat_y",
        ),
        ({**STEPS, "x": {"template": "bps_flat_g"}}, "step x: the variable SELECTION_FLAT_g is not set"),
        ({**STEPS, "dark": {"template": "bps_dark", "certify": {"chain": "append"}}}, "'prepend' or 'redefine'"),
    ],
)
def test_what_is_wrong_with_the_steps(steps: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(CampaignError) as caught:
        loaded(written(tmp_path, steps))
    assert words in str(caught.value)
    assert str(tmp_path / "mine.yaml") in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [("", "the plan is empty"), ("- 1", "the plan holds a list")])
def test_what_is_no_plan_at_all(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(CampaignError, match=words):
        read(tmp_path / "mine.yaml")


def test_what_no_step_can_do_without_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(CampaignError) as caught:
        load(str(written(tmp_path)), None, {"HOME": "/nowhere"})
    assert str(caught.value).count("the variable REPO is not set") == 1
    assert "steps bias, dark: the variable SCRATCH is not set" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SELECTION_BIAS", "instrument='$INSTRUMNET'", "$INSTRUMNET is not set\n    -> did you mean INSTRUMENT?"),
        ("SELECTION_BIAS", "$SELECTION_BIAS", "is used by itself"),
        ("SELECTION_BIAS", "exposure.day_obs=1 and and exposure.seq_num=1", "SELECTION_BIAS: "),
        ("TAG", "", "variable TAG is not set"),
    ],
)
def test_what_is_wrong_with_the_variables(name: str, value: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"variables": {**VARIABLES, name: value}, "steps": STEPS}))
    with pytest.raises(CampaignError) as caught:
        loaded(path)
    assert words in str(caught.value)


def test_the_shell_goes_over_the_plan_and_a_file_over_both(tmp_path: Path) -> None:
    """As if the shell had read the file; for a submission, a check and a certification."""
    env = tmp_path / "env.sh"
    lines = ["TAG=filed", "TICKET=DM-7", "SELECTION_DARK=\"instrument='$INSTRUMENT' and \\\n  exposure.id > 1\""]
    lines += ["REPO=/repo/$INSTRUMENT", "SCRATCH=$SCRATCH/x", r"OTHER='\$INSTRUMENT'\$INSTRUMENT"]
    env.write_text("".join(f"export {line}\n" for line in lines))
    shell = {**SHELL, "TICKET": "DM-9", "INSTRUMENT": "LATISS", "CERT_RERUN": "shell"}
    campaign = load(str(written(tmp_path)), env, shell)
    with patch.dict(os.environ, shell, clear=True):
        submission = environment(str(env))
    for found in (campaign.environment, submission):
        assert (found["TAG"], found["TICKET"], found["CERT_RERUN"]) == ("filed", "DM-7", "shell")
        assert (found["REPO"], found["SCRATCH"]) == ("/repo/LATISS", "/nowhere/scratch/x")
        assert found["SELECTION_DARK"] == "instrument='LATISS' and   exposure.id > 1"
        assert found["OTHER"] == r"\$INSTRUMENT$INSTRUMENT"
    assert campaign.environment["SELECTION_BIAS"].startswith("instrument='LATISS'")
    assert campaign.name == "mine.DM-7.filed.20250207a"
    assert campaign.config("dark", "20250207c").output.endswith("DM-7/filed/darkGen.20250207c")


def test_a_certification_is_looked_at_before_anything_runs(tmp_path: Path) -> None:
    """Dates, target, and use of the step's settings."""
    output = "LSSTComCam/calib/DM-1/t/biasOtherGen.20250207a"
    two = {"bias": STEPS["bias"], "other": {**STEPS["bias"], "set": {"output": output}}}
    assert loaded(written(tmp_path, two)).target("other") == "LSSTComCam/calib/DM-1/t/biasOther.20250207a"
    dated = {**STEPS["bias"], "certify": {"begin": date(2025, 2, 7), "end": datetime(2025, 3, 1, 12)}}
    certify = loaded(written(tmp_path, {"bias": dated})).steps["bias"].certify
    assert certify is not None and (certify.begin, certify.end) == ("2025-02-07", "2025-03-01T12:00:00")
    same = {**two, "third": {**STEPS["bias"], "set": {"output": "LSSTComCam/calib/DM-1/t/bias.20250207b"}}}
    for steps, shell, words in (
        ({"bias": {**dated, "certify": {"end": "nonsense"}}}, {}, "nonsense"),
        ({"bias": {**dated, "certify": {"end": "2001-01-01"}}}, {}, "would end at 2001-01-01"),
        (STEPS, {"CERT_RERUN": ""}, "CERT_RERUN='' is empty"),
        (same, {}, "steps bias and third write one collection: LSSTComCam/calib/DM-1/t/bias.20250207a"),
    ):
        with pytest.raises(CampaignError) as caught:
            loaded(written(tmp_path, steps), **shell)
        assert words in str(caught.value)


def test_the_technotes_exports_are_taken_as_they_are(tmp_path: Path) -> None:
    plan = load("dmtn-222", None, SHELL)
    own = tmp_path / "exports.sh"
    own.write_text(EXPORTS.read_text() + "export TAG=mine\n")
    other = load("dmtn-222", own, SHELL)
    for name in plan.file.variables:
        if name not in ("TAG", "CALIB_COLLECTIONS"):
            assert other.environment[name].split() == plan.environment[name].split(), name
    assert other.environment["TAG"] == "mine"
    assert other.config("bias", "20250207a").in_collections == plan.config("bias", "20250207a").in_collections


CTI = "exposure.day_obs=20240806 and \\\n    "


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        (f"{CTI}exposure.science_program='BLOCK-T68' and \\\n    exposure.observation_reason='comcam_ptc'",
         f"{CTI}and exposure.science_program='BLOCK-T68'", "SELECTION_PTC_CTI: "),
        ("export TAG=DP1", "export REPO=/repo\nexport TAG=$REP0", "before it is set\n  -> did you mean $REPO?"),
        ("20241119 and exposure.seq_num in (21..36)\"", "20241119", "a quote is not closed"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_exports_is_pointed_at(good: str, bad: str, words: str, tmp_path: Path) -> None:
    text, env = EXPORTS.read_text(), tmp_path / "exports.sh"
    assert good in text
    env.write_text(text.replace(good, bad))
    with pytest.raises(CampaignError) as caught:
        load("dmtn-222", env, SHELL)
    assert words in str(caught.value)


def test_steps_between_two(tmp_path: Path) -> None:
    campaign = load("dmtn-222", None, SHELL)
    assert chosen_steps(campaign, Chosen(first="bias", last="dark")) == ["bias", "dark"]
    assert chosen_steps(campaign, Chosen(last="darkBootstrap")) == ["biasBootstrap", "darkBootstrap"]
    assert chosen_steps(campaign, Chosen(first="flat_y")) == ["flat_y"]
    with pytest.raises(UsageError, match="no step baas"):
        chosen_steps(campaign, Chosen(first="baas"))
    with pytest.raises(UsageError, match="no step is between"):
        chosen_steps(campaign, Chosen(first="flat_u", last="flat_g"))


def test_a_rerun_is_followed_by_the_next_letter() -> None:
    assert next_rerun("20250207a") == "20250207b"
    for wrong in ("20250207", "20250207z"):
        with pytest.raises(UsageError, match="does not end in a letter"):
            next_rerun(wrong)


def test_the_drawing_has_every_step_and_every_need(tmp_path: Path) -> None:
    campaign = load("dmtn-222", None, SHELL)
    rows = {
        n: Row(StepState(n, "done", "a"), 12.0, 3.0, stale=("ptc was <a>",) * (n == "bias")) for n in campaign.order
    }
    root = ET.fromstring(svg(campaign, rows))
    texts = [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert all(any(text.split()[:1] == [name] for text in texts) for name in campaign.steps)
    paths = list(root.iter("{http://www.w3.org/2000/svg}path"))
    assert len(paths) == 2 * sum(len(step.needs) for step in campaign.steps.values())
    needs = {name: campaign.steps[name].needs for name in campaign.order}
    assert [len(names) for names in columns(needs)] == [1, 1, 1, 1, 1, 1, 1, 6]
    assert "12 s CPU, stale" in texts


@pytest.mark.parametrize("instrument", ["LSSTCam", "LSSTComCam", "LATISS"])
def test_what_the_pipelines_read_is_drawn_beside_figure_2(instrument: str) -> None:
    real = reads(instrument, {})
    assert {"bias", "ptc", "linearizer", "crosstalk", "defects"} <= set(real["dark"])
    assert real["defects"] == ("biasBootstrap", "darkBootstrap", "flatBootstrap")
    assert ("cti" in real["bias"]) is (instrument == "LSSTComCam")
    names = list(real)
    assert all(names.index(n) < names.index(name) for name, needs in real.items() for n in needs)
    odd = {d.product: d for d in differences(real)}
    assert "bias" in odd["defects"].less and "bias" in odd["dark"].more
    texts = [e.text for e in ET.fromstring(draw(instrument, real)).iter("{http://www.w3.org/2000/svg}text")]
    assert "DMTN-222, figure 2" in texts and odd["dark"].text in texts and texts.count("bias") == 2


def test_the_simulations_blocks_do_not_contradict_one_another() -> None:
    file = read(locate("dmtn-222"))
    assert file.simulation is not None
    assert list(problems(file.simulation, file.variables)) == []
    shots, wanted = exposures(file.simulation, camera.load("LSSTComCam"))
    counts = {name: len(ids) for name, ids in wanted.items()}
    assert counts == {
        "SELECTION_BIAS": 20, "SELECTION_DARK": 20, "SELECTION_FLAT_BOOTSTRAP": 20, "SELECTION_PTC_CTI": 90,
        **{f"SELECTION_FLAT_{b}": n for b, n in zip("ugrizy", (20, 20, 20, 23, 21, 16), strict=True)},
    }  # fmt: skip
    decoys = {s.exposure for s in shots} - set().union(*wanted.values())
    assert 0.015 < len(decoys) / len(shots) < 0.03
    ramp = sorted(s.electrons for s in shots if s.reason == "comcam_ptc" and s.electrons)
    assert (ramp[0], ramp[79], ramp[-1]) == (100.0, 10000.0, 100000.0)


def test_blocks_that_overlap_or_are_for_nothing(tmp_path: Path) -> None:
    block = {"type": "bias", "day_obs": 20241206, "first": 1, "count": 3}
    blocks = [block, {**block, "first": 3, "for": ["SELECTION_BAIS"]}]
    file = read(written(tmp_path, simulation={"camera": "LSSTComCam", "exposures": blocks}))
    assert file.simulation is not None
    assert list(problems(file.simulation, file.variables)) == [
        "blocks 1 and 2 both have exposure 3 of 20241206", "block 2 is for SELECTION_BAIS, which is no variable"
    ]  # fmt: skip
    with pytest.raises(CampaignError, match="simulation exposures 0 day_obs"):
        read(written(tmp_path, simulation={"camera": "LSSTComCam", "exposures": [{**block, "day_obs": 20241399}]}))


def test_a_gate_that_nobody_waits_at(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(UsageError, match="no gate bias waits"):
        waiting_gate(home, "bias", None)
    keys = ("template", "ticket", "output", "product")
    for name in ("one", "two"):
        books, folder = Books(tmp_path / "campaigns" / name), tmp_path / name
        keep_document(books, yaml.safe_dump({"steps": {"bias": {"template": "x", "gate": True}}}), {}, False)
        books.write("begun", "bias", rerun="20250207a", command="submit", nonce=name)
        books.write("made", "bias", run=name)
        home.add_run(
            dict.fromkeys(keys, "x") | {"run": name, "output_run": name, "nonce": name, "submit_path": str(folder)}
        )
    with pytest.raises(UsageError, match="2 campaigns wait at bias: one, two"):
        waiting_gate(home, "bias", None)
    assert waiting_gate(home, "bias", "two").state.rerun == "20250207a"
    assert waiting_gate(home, "bias", None, "one").campaign == "one"
    with pytest.raises(UsageError, match="no gate bais waits .*\n.*known: bias"):
        waiting_gate(home, "bais", None)
    (tmp_path / "campaigns" / "one" / "plan.yaml").write_text("steps: [")
    assert waiting_gate(home, "bias", None).campaign == "two"


def test_half_a_line_was_never_said(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.write("accepted", "bias", run="r", reason="fine")
    with books.journal.open("a") as file:
        file.write('{"t": "2025-')
    assert [line["event"] for line in books.lines()] == ["accepted"]


def test_one_driver_at_a_time(tmp_path: Path) -> None:
    books = Books(tmp_path)
    with books.driving(), pytest.raises(CampaignError, match="the campaign is being run by"), Books(tmp_path).driving():
        pass


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    done = typed("plan", str(written(tmp_path)), environment={**SHELL, "REPO": str(tmp_path / "none")})
    assert done.returncode == 3
    assert f"no Butler repository at {tmp_path / 'none'}" in done.stderr
