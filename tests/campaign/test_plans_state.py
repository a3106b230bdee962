"""States of a campaign's steps, by its journal and those of the runs; decisions, and who may take them."""

from __future__ import annotations

import getpass
import json
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from campaign.campaigns.decide import gates_of, shown, standings, token, waiting_gate
from campaign.campaigns.document import Campaign
from campaign.campaigns.driver import Chosen, Driver
from campaign.campaigns.state import StepState, following, keep_document, look
from campaign.errors import CampaignError, TasksFailed, UsageError
from campaign.home import Home, typed_line
from campaign.journal import claim
from campaign.journal.books import Books
from campaign.journal.history import history
from campaign.planning.usage import Seen, Work, expected
from campaign.upkeep.uses import Uses
from tests.campaign.test_plans import STEPS, VARIABLES, loaded, written

GATED = {"bias": {**STEPS["bias"], "gate": True}, "dark": STEPS["dark"]}


class Made:
    """A campaign with hand-made books and runs."""

    def __init__(self, folder: Path, steps: Any = GATED) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        self.campaign: Campaign = loaded(written(folder, steps))
        self.books = Books(self.home.path / "campaigns" / self.campaign.name)

    def begin(self, step: str = "bias", rerun: str = "20250207a", nonce: str = "n") -> None:
        keep_document(self.books, self.campaign.path.read_text(), self.campaign.chosen_variables, False)
        self.books.write("begun", step, rerun=rerun, log="x", command="submit", nonce=f"{nonce}-{step}")

    def run(self, step: str, name: str, state: str, rerun: str = "20250207a", nonce: str | None = "n") -> Path:
        """Make a run with this last event; without a nonce, as an earlier release listed it."""
        folder = self.folder / name
        (folder / "journal").mkdir(parents=True)
        line = {"v": 1, "t": "2025-02-07T00:00:00.000Z", "run": name, "task": "", "attempt": 1, "site": "", "token": 1}
        line |= {"event": "done", "detail": {"state": state}}
        (folder / "journal" / "driver.jsonl").write_text(json.dumps(line, separators=(",", ":")) + "\n")
        output = self.campaign.config(step, rerun).output
        names: dict[str, Any] = {**dict.fromkeys(("template", "ticket", "product"), "x"), "detectors": [0]}
        names |= {} if nonce is None else {"nonce": nonce and f"{nonce}-{step}"}
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


@contextmanager
def clock(minutes: int) -> Iterator[None]:
    """Give everything written within the context the time of a wrong clock."""
    wrong = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with patch("campaign.home.now", return_value=wrong), patch("campaign.journal.books.now", return_value=wrong):
        yield


def test_only_what_the_campaign_began_is_its_own(made: Made) -> None:
    made.run("bias", "r-1", "done", nonce="")
    assert made.look()["bias"].state == "ready"  # somebody's, of the same names
    made.begin()
    assert made.look()["bias"].state == "ready"
    made.run("bias", "r-2", "done")
    made.run("bias", "r-3", "done", nonce="")
    assert (made.look()["bias"].state, made.look()["bias"].run) == ("gate", "r-2")


@pytest.mark.parametrize("minutes", [-20, 20])
def test_whose_a_run_is_no_clock_tells(made: Made, minutes: int) -> None:
    """A second machine, whose clock is wrong, resumes the campaign; the run listed last is the newest."""
    with clock(minutes):
        made.run("bias", "r-0", "done", nonce="")
    made.begin()
    with clock(minutes):
        made.begin(nonce="m")
        made.run("bias", "r-1", "failed", nonce="m")
    assert (made.look()["bias"].state, made.look()["bias"].run) == ("failed", "r-1")
    made.run("bias", "r-2", "done")
    assert (made.look()["bias"].state, made.look()["bias"].run) == ("gate", "r-2")


def test_the_runs_of_an_earlier_release_are_still_the_campaigns(made: Made) -> None:
    """Neither the runs nor their begin had a nonce: time distinguished them."""
    with clock(-1):
        made.run("bias", "r-1", "done", nonce=None)
    made.books.write("begun", "bias", rerun="20250207a", log="x", command="submit")
    assert made.look()["bias"].state == "ready"
    made.run("bias", "r-2", "failed", nonce=None)
    assert (made.look()["bias"].state, made.look()["bias"].run) == ("failed", "r-2")
    made.books.write("begun", "bias", rerun="20250207a", log="x", command="restart", nonce="")
    made.run("bias", "r-3", "done", nonce="")  # by hand
    assert (made.look()["bias"].state, made.look()["bias"].run) == ("failed", "r-2")
    made.begin()
    made.run("bias", "r-4", "done")
    assert (made.look()["bias"].state, made.look()["bias"].run) == ("gate", "r-4")


@pytest.mark.parametrize("state", ["cancelled", "drained", "failed"])
def test_a_step_that_ended_otherwise_ends_the_drive(made: Made, state: str) -> None:
    """Once it was tried by this driver; nothing would become of it by waiting."""
    made.begin()
    made.run("bias", "r-1", state)
    made.books.write("failed", "bias", error="somebody cancelled it", code=1)
    states, driver = made.look(), made.driver()
    assert states["bias"].state == ("failed" if state == "failed" else "left")
    assert states["bias"].note == "somebody cancelled it"
    assert not driver._ended(states["bias"], states)
    driver._tried.add("bias")
    assert driver._ended(states["bias"], states)
    assert driver._ended(replace(states["bias"], name="dark"), states)  # its needs are not met


@pytest.mark.processes
@pytest.mark.parametrize("jobs", [1, 2])
def test_steps_that_do_not_need_one_another_are_made_at_the_same_time(tmp_path: Path, jobs: int) -> None:
    """As many as the operator allows, each by a process of its own; here all fail, for there is no repository."""
    made = Made(tmp_path, {"bias": STEPS["bias"], "dark": {**STEPS["dark"], "needs": []}})
    with pytest.raises(TasksFailed):
        Driver(made.campaign, made.home, made.books, Chosen(jobs=jobs), print).run()
    said = [f"{line['event']} {line['step']}" for line in made.books.lines() if line["event"] in ("begun", "failed")]
    if jobs == 1:
        assert said == ["begun bias", "failed bias", "begun dark", "failed dark"]
    else:
        assert said[:2] == ["begun bias", "begun dark"] and sorted(said[2:]) == ["failed bias", "failed dark"]


def test_a_process_that_has_not_listed_its_run_yet(made: Made) -> None:
    made.begin()
    made.books.write("process", "bias", process=asdict(claim.mine()))
    assert made.look()["bias"].state == "running"
    made.run("bias", "r-1", "failed")  # a restart that has not claimed it yet
    assert made.look()["bias"].state == "running"
    made.books.write("process", "bias", process=asdict(replace(claim.mine(), started="1")))
    assert made.look()["bias"].state == "failed"


def test_a_driver_on_another_machine_is_not_waited_for(made: Made) -> None:
    made.begin()
    folder = made.run("bias", "r-1", "failed")
    owner = replace(claim.mine(), host="elsewhere")
    (folder / claim.NAME).write_text(json.dumps(asdict(owner)))
    states = made.look()
    assert states["bias"].state == "running"
    assert "elsewhere" in states["bias"].note and f"remove {claim.NAME}" in states["bias"].note
    assert made.driver()._ended(states["bias"], states)


def test_scratch_space_that_was_cleared_takes_nothing_back(made: Made) -> None:
    made.begin()
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


def waiting(made: Made) -> None:
    """No driver has reported that it waits."""
    made.begin()
    made.run("bias", "r-1", "done")


def test_the_next_rerun_is_one_that_nobody_has_used(made: Made) -> None:
    waiting(made)
    assert following(made.home, made.books, "r-1", "20250207a", None) == "20250207b"
    made.run("dark", "r-b", "done", "20250207b")  # another campaign's
    assert following(made.home, made.books, "r-1", "20250207a", None) == "20250207c"
    assert following(made.home, made.books, "r-1", "20250207a", "mine") == "mine"
    for wrong, words in (
        ("20250207a", "there are runs"),
        ("20250207b", "there are runs"),
        ("../b", "may hold letters"),
    ):
        with pytest.raises(UsageError, match=words):
            following(made.home, made.books, "r-1", "20250207a", wrong)


def test_a_run_that_was_rejected_is_never_taken_again(made: Made) -> None:
    waiting(made)
    made.books.write("rejected", "bias", run="r-1", reason="dark", rerun="20250207a")
    assert made.look()["bias"].state == "ready"


def test_what_plan_says_of_a_gate_accept_says_too(made: Made) -> None:
    """Whether somebody drives the campaign or not."""
    waiting(made)
    assert made.look()["bias"].state == "gate"
    assert [gate.run for gate in gates_of(standings(made.home)[0])] == ["r-1"]
    for run in (None, "r-1", "r-", made.campaign.config("bias", "20250207a").output + "/r-1"):
        assert waiting_gate(made.home, "bias", None, run).run == "r-1"
    with pytest.raises(UsageError, match="no gate dark waits for a decision: .*waits for what it needs: bias"):
        waiting_gate(made.home, "dark", None)
    with pytest.raises(UsageError, match="no gate bais waits .*\n.*known: bias"):
        waiting_gate(made.home, "bais", None)
    made.books.write("accepted", "bias", run="r-1", reason="flat")
    with pytest.raises(UsageError, match=f"accepted by {getpass.getuser()} at 20.*: flat"):
        waiting_gate(made.home, "bias", None)


@pytest.mark.parametrize(
    ("state", "words"),
    [("done", ""), ("failed", "run r-1 failed"), ("drained", "run r-1 was left unfinished")],
)
def test_another_run_than_the_one_looked_at_is_not_decided_on(made: Made, state: str, words: str) -> None:
    made.begin()
    made.run("bias", "r-0", "done", nonce="")
    made.run("bias", "r-1", state)
    said = "bias waits with run r-1, not with r-0" if state == "done" else "no campaign waits with run r-0"
    with pytest.raises(UsageError, match=said):
        waiting_gate(made.home, "bias", None, "r-0")
    with pytest.raises(UsageError, match="no run 'r-x'"):
        waiting_gate(made.home, "bias", None, "r-x")
    if words:
        with pytest.raises(UsageError, match=words):
            waiting_gate(made.home, "bias", None, "r-1")
    made.books.write("rejected", "bias", run="r-1", reason="dark", rerun="20250207b")
    with pytest.raises(UsageError, match="was rejected by .*: dark"):
        waiting_gate(made.home, "bias", None, "r-1")


def test_what_was_shown_is_accepted_and_nothing_else(tmp_path: Path) -> None:
    made = Made(tmp_path, {n: {**GATED[n], "needs": [], "gate": True} for n in GATED})
    waiting(made)
    first = gates_of(standings(made.home)[0])
    made.begin("dark")
    made.run("dark", "r-2", "done")
    both = gates_of(standings(made.home)[0])
    assert [gate.run for gate in both] == ["r-1", "r-2"]
    gates, notes = shown(made.home, token(first))
    assert [gate.run for gate in gates] == ["r-1"]
    assert [note for note in notes if "dark of mine" in note and "was not shown" in note] == notes
    made.books.write("accepted", "bias", run="r-1", reason="flat")
    gates, notes = shown(made.home, token(both))
    assert [gate.run for gate in gates] == ["r-2"] and "accepted by" in notes[0]
    made.books.write("rejected", "dark", run="r-2", reason="bright", rerun="20250207b")
    for wrong in (token(both), "", "0123-4567"):
        with pytest.raises(UsageError):
            shown(made.home, wrong)


def test_the_record_of_a_ticket_has_decisions_and_commands_that_can_be_given(made: Made) -> None:
    """For a submission by a plan also the variables, and the person who decided."""
    made.begin()
    folder = made.run("bias", "r-1", "done")
    typed_as = ["/somewhere/campaign/__main__.py", "submit", "bps_bias", "--set", "outputRun={output}/a b"]
    with patch.object(sys, "argv", typed_as):
        made.home.record("submit", "DM-1", {"run": "r-1", "submit_path": str(folder)})
    lines = made.home.history_file.read_text()
    made.home.history_file.write_text(lines + lines.replace('"line":"campaign ', '"line":"__main__.py '))
    made.home.record("submit", "DM-2", {"run": "r-9"})
    with patch.object(sys, "argv", ["campaign", "accept", "bias", "--reason", "it's flat"]):
        made.books.write("accepted", "bias", run="r-1", reason="it's flat", line=typed_line())
    made.books.write("rejected", "bias", run="r-1", reason="no, dark", rerun="20250207b")  # an earlier release's
    text = history(made.home, "DM-1")
    who = f"By {getpass.getuser()} on {socket.gethostname()}"
    blocks = [block.strip() for block in text.split("```")[1::2]]
    given = [shlex.split(block) for block in blocks]
    submitted = ["RERUN=20250207a", "campaign", *typed_as[1:]]
    assert given[1:] == [
        submitted, submitted, ["campaign", "accept", "bias", "--reason", "it's flat"],
        ["campaign", "reject", "bias", "--run", "r-1", "--reason", "no, dark"],
    ]  # fmt: skip
    assert f"SELECTION_BIAS={VARIABLES['SELECTION_BIAS']}".replace("$INSTRUMENT", "LSSTComCam") in given[0]
    assert f"{who}, for step bias of campaign {made.campaign.name}:" in text
    assert "- reason: it's flat" in text and "- made next as RERUN: 20250207b" in text and "r-9" not in text
    assert text.count(f"{who}:") == 2


def test_plan_and_variables_stay_what_they_were(tmp_path: Path) -> None:
    books = Books(tmp_path / "books")
    keep_document(books, "steps", VARIABLES, False)
    keep_document(books, "steps", VARIABLES, False)
    other = {**VARIABLES, "SELECTION_BIAS": "1=1"}
    with pytest.raises(CampaignError, match=r"\$SELECTION_BIAS has changed since the campaign was begun"):
        keep_document(books, "steps", other, False)
    with pytest.raises(CampaignError, match=r"the plan, \$SELECTION_BIAS have changed"):
        keep_document(books, "others", other, False)
    keep_document(books, "others", other, True)
    keep_document(books, "others", other, False)


def test_a_line_is_whole_or_not_there(tmp_path: Path) -> None:
    """After a process that was killed in the middle of its line."""
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


def test_a_run_that_was_restarted_counts_once(tmp_path: Path) -> None:
    home, work = Home(tmp_path), Work(tasks=1, frames=10, mpixels=16.0, ranks=1, frame=4)
    seen = Seen(**vars(work), label="bias", instrument="X", cpu_s=5.0, wall_s=5.0, rss_mib=100)
    for run in ("a", "a", "b", "a"):
        home.add_usage({"run": run, **vars(seen)})
    assert expected(home, "X", {"bias": work})["bias"].runs == 2


class Bare:
    """A repository's answer here: nothing is certified."""

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

    keep_document(made.books, made.campaign.path.read_text(), made.campaign.chosen_variables, changed=False)
    made.begin()
    made.run("bias", "r-1", "failed")
    made.run("dark", "r-2", "done")  # somebody's
    name = made.campaign.name
    assert used() == {"r-1": f"step bias of campaign {name}, which failed"}
    made.books.write("rejected", "bias", run="r-1", rerun="20250207b")
    made.begin(rerun="20250207b")
    made.run("bias", "r-3", "done", "20250207b")  # no driver has seen it yet
    assert used() == {"r-3": f"waited for at the gate bias of campaign {name}"}
    made.books.write("accepted", "bias", run="r-3", reason="flat")
    assert used() == {"r-3": f"step bias of campaign {name}, which is made, to be certified"}
