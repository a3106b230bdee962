"""What a campaign's steps have come to, by its journal and the runs'; decisions, and who may take them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from campaign import claim
from campaign.errors import CampaignError, UsageError
from campaign.home import Home
from campaign.plans import Campaign
from campaign.plans_run import Chosen, Driver
from campaign.plans_state import Books, StepState, following, keep_plan, look, waiting_gate
from campaign.uses import Uses
from tests.campaign.test_plans import STEPS, VARIABLES, loaded, written

GATED = {"bias": {**STEPS["bias"], "gate": True}, "dark": STEPS["dark"]}


class Made:
    """A campaign with hand-made books and runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        self.campaign: Campaign = loaded(written(folder, GATED))
        self.books = Books(self.home.path / "campaigns" / self.campaign.name)

    def run(self, step: str, name: str, state: str, rerun: str = "20250207a") -> Path:
        """A run whose driver said this last."""
        folder = self.folder / name
        (folder / "journal").mkdir(parents=True)
        line = {"v": 1, "t": "2025-02-07T00:00:00.000Z", "run": name, "task": "", "attempt": 1, "site": "", "token": 1}
        line |= {"event": "done", "detail": {"state": state}}
        (folder / "journal" / "driver.jsonl").write_text(json.dumps(line, separators=(",", ":")) + "\n")
        output = self.campaign.config(step, rerun).output
        names = dict.fromkeys(("template", "ticket", "product"), "x")
        self.home.add_run(
            {"run": name, "output": output, "output_run": f"{output}/{name}", "submit_path": str(folder), **names}
        )
        return folder

    def look(self) -> dict[str, StepState]:
        return look(self.campaign, self.home, self.books.lines())

    def driver(self) -> Driver:
        return Driver(self.campaign, self.home, self.books, Chosen(), print)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def begin(made: Made, step: str = "bias", rerun: str = "20250207a") -> None:
    made.books.write("begun", step, rerun=rerun, log="x", command="submit")


def test_only_what_the_campaign_began_is_its_own(made: Made) -> None:
    made.run("bias", "r-1", "done")
    assert made.look()["bias"].state == "ready"  # somebody's, of the same names
    begin(made)
    assert made.look()["bias"].state == "ready"
    made.run("bias", "r-2", "done")
    assert (made.look()["bias"].state, made.look()["bias"].run) == ("gate", "r-2")


@pytest.mark.parametrize("state", ["cancelled", "drained", "failed"])
def test_a_step_that_ended_otherwise_ends_the_drive(made: Made, state: str) -> None:
    """Once it was tried by this driver; nothing would become of it by waiting."""
    begin(made)
    made.run("bias", "r-1", state)
    made.books.write("failed", "bias", error="somebody cancelled it", code=1)
    states, driver = made.look(), made.driver()
    assert states["bias"].state == ("failed" if state == "failed" else "left")
    assert states["bias"].note == "somebody cancelled it"
    assert not driver._ended(states["bias"], states)
    driver._tried.add("bias")
    assert driver._ended(states["bias"], states)
    assert driver._ended(replace(states["bias"], name="dark"), states)  # what it needs is not met


def test_a_process_that_has_not_listed_its_run_yet(made: Made) -> None:
    begin(made)
    made.books.write("process", "bias", process=asdict(claim.mine()))
    assert made.look()["bias"].state == "running"
    made.run("bias", "r-1", "failed")  # a restart that has not claimed it yet
    assert made.look()["bias"].state == "running"
    made.books.write("process", "bias", process=asdict(replace(claim.mine(), started="1")))
    assert made.look()["bias"].state == "failed"


def test_a_driver_on_another_machine_is_not_waited_for(made: Made) -> None:
    begin(made)
    folder = made.run("bias", "r-1", "failed")
    owner = replace(claim.mine(), host="elsewhere")
    (folder / claim.NAME).write_text(json.dumps(asdict(owner)))
    states = made.look()
    assert states["bias"].state == "running"
    assert "elsewhere" in states["bias"].note and f"remove {claim.NAME}" in states["bias"].note
    assert made.driver()._ended(states["bias"], states)


def test_scratch_space_that_was_cleared_takes_nothing_back(made: Made) -> None:
    begin(made)
    folder = made.run("bias", "r-1", "done")
    states, driver = made.look(), made.driver()
    driver._note_made(states)
    driver._note_made(states)
    assert [line["run"] for line in made.books.lines() if line["event"] == "made"] == ["r-1"]
    made.books.write("accepted", "bias", run="r-1", reason="good")
    shutil.rmtree(folder)
    assert made.look()["bias"].state == "made"  # to be certified
    made.books.write("certified", "bias", run="r-1", target="calib/bias")
    assert made.look()["bias"].state == "done"
    assert made.look()["dark"].state == "ready"


def waiting(made: Made) -> dict[str, Any]:
    begin(made)
    made.run("bias", "r-1", "done")
    made.books.write("gate", "bias", run="r-1", rerun="20250207a")
    return waiting_gate(made.home, "bias", None)[1]


def test_the_next_rerun_is_one_that_nobody_has_used(made: Made) -> None:
    line = waiting(made)
    assert following(made.home, made.books, line, None) == "20250207b"
    made.run("dark", "r-b", "done", "20250207b")  # another campaign's
    assert following(made.home, made.books, line, None) == "20250207c"
    assert following(made.home, made.books, line, "mine") == "mine"
    for wrong, words in (
        ("20250207a", "there are runs"),
        ("20250207b", "there are runs"),
        ("../b", "may hold letters"),
    ):
        with pytest.raises(UsageError, match=words):
            following(made.home, made.books, line, wrong)


def test_a_run_that_was_rejected_is_never_taken_again(made: Made) -> None:
    waiting(made)
    made.books.write("rejected", "bias", run="r-1", reason="dark", rerun="20250207a")
    assert made.look()["bias"].state == "ready"


def test_another_run_than_the_one_looked_at_is_not_decided_on(made: Made) -> None:
    waiting(made)
    assert waiting_gate(made.home, "bias", None, "r-1")[1]["run"] == "r-1"
    with pytest.raises(UsageError, match="bias waits with run r-1, not with r-0"):
        waiting_gate(made.home, "bias", None, "r-0")


def test_plan_and_variables_stay_what_they_were(tmp_path: Path) -> None:
    books = Books(tmp_path / "books")
    keep_plan(books, "steps", VARIABLES, False)
    keep_plan(books, "steps", VARIABLES, False)
    other = {**VARIABLES, "SELECTION_BIAS": "1=1"}
    with pytest.raises(CampaignError, match=r"\$SELECTION_BIAS has changed since the campaign was begun"):
        keep_plan(books, "steps", other, False)
    with pytest.raises(CampaignError, match=r"the plan, \$SELECTION_BIAS have changed"):
        keep_plan(books, "others", other, False)
    keep_plan(books, "others", other, True)
    keep_plan(books, "others", other, False)


def test_a_line_is_whole_or_not_there(tmp_path: Path) -> None:
    """After one that was killed in the middle of its line."""
    books = Books(tmp_path)
    books.write("begun", "bias", rerun="a")
    with books.journal.open("a") as file:
        file.write('{"t": "2025-')
    books.write("accepted", "bias", run="r", reason="fine")
    assert [line["event"] for line in books.lines()] == ["begun", "accepted"]


def test_a_line_of_statistics_that_cannot_be_read_keeps_nobody_from_work(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.add_usage({"label": "a"})
    with home.usage_file.open("a") as file:
        file.write('{"label": \n')
    home.add_usage({"label": "b"})
    assert [line["label"] for line in home.usage()] == ["a", "b"]


class Bare:
    """Of a repository what is asked here: nothing is certified."""

    def certified(self) -> dict[str, tuple[str, ...]]:
        return {}

    def made_from(self, run: str) -> set[str]:
        return set()


def test_a_campaigns_runs_are_used_by_it(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "REPO"):
        monkeypatch.delenv(name, raising=False)  # another shell's

    def used() -> dict[str, str]:
        found = Uses(Bare(), made.home).of(made.home.runs())  # type: ignore[arg-type]
        return {run.rpartition("/")[2]: use.text for run, use in found.items()}

    keep_plan(made.books, made.campaign.path.read_text(), made.campaign.chosen_variables, changed=False)
    begin(made)
    made.run("bias", "r-1", "failed")
    made.run("dark", "r-2", "done")  # somebody's
    name = made.campaign.name
    assert used() == {"r-1": f"step bias of campaign {name}, which failed"}
    made.books.write("rejected", "bias", run="r-1", rerun="20250207b")
    begin(made, rerun="20250207b")
    made.run("bias", "r-3", "done", "20250207b")  # no driver has seen it yet
    assert used() == {"r-3": f"waited for at the gate bias of campaign {name}"}
    made.books.write("accepted", "bias", run="r-3", reason="flat")
    assert used() == {"r-3": f"step bias of campaign {name}, which is made, to be certified"}
