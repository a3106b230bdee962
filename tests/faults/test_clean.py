"""Remains of a ticket: uncertified runs are removed, with their files; certified and running ones stay."""

from __future__ import annotations

import getpass
import json
import signal
import socket
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from campaign.butler.repository import open_repository
from campaign.journal import claim
from campaign.journal import plan as plans
from campaign.upkeep.clean import ELSEWHERE
from tests.faults.conftest import Operator


def ticket(operator: Operator, name: str) -> tuple[str, Path, Path]:
    """A ticket's name; where its products, and its submit folders, lie."""
    calib = f"LSSTComCam/calib/{name}"
    return name, operator.repo / calib, operator.scratch / "submit" / calib


def shown(operator: Operator, name: str, *more: str) -> dict[str, Any]:
    answer = operator.run("clean", name, "--json", *more)
    assert answer.code == 0, answer.err
    return dict(json.loads(answer.out))


def kept(found: dict[str, Any]) -> list[str]:
    return [one["kept"].partition(" ")[0] for one in found["runs"]]


def test_what_was_not_certified_goes(operator: Operator) -> None:
    name, products, folders = ticket(operator, "DM-00077")
    for tag, rerun in (("good", "20241208a"), ("bad", "20241208a"), ("good", "20241208b")):
        assert operator.submit(tag, TICKET=name, RERUN=rerun).code == 0
        if (tag, rerun) == ("good", "20241208a"):
            chain = f"LSSTComCam/calib/{name}/good"
            assert operator.run("certify", "bps_bias", "--chain", chain, TICKET=name, TAG=tag).code == 0
    before = operator.left()
    found = shown(operator, name)
    assert operator.left() == before  # only shown
    assert kept(found) == ["certified", "", ""]
    assert all(one["bytes"] > 100_000 and one["state"] == "done" for one in found["runs"])
    assert f"campaign clean {name} --yes removes them" in operator.run("clean", name).out

    assert kept(shown(operator, name, "--yes")) == ["certified", "", ""]
    assert len(list(products.rglob("bias_*.fits"))) == 2
    assert not (products / "bad").exists()
    assert [path.name for path in folders.glob("*/*")] == ["biasGen.20241208a"]
    left = shown(operator, name)["runs"]
    assert [one["output_run"] for one in left] == [found["runs"][0]["output_run"]]
    with open_repository(str(operator.repo)) as repository:
        names = repository.collections(f"LSSTComCam/calib/{name}/*")
        assert not [one for one in names if "/bad" in one or "20241208b" in one]
        assert repository.datasets("bias", [f"LSSTComCam/calib/{name}/good/biasGen.20241208a"])
    assert operator.submit("bad", TICKET=name).code == 0  # as if it had never been


@pytest.mark.parametrize("point", ["run-registered", "job-ended"])
def test_what_a_killed_submission_has_left_goes(operator: Operator, point: str) -> None:
    """Products, too, that the journal alone knows."""
    name, products, folders = ticket(operator, f"DM-0008{len(point)}")
    more = {"TICKET": name, "TAG": "t", "CAMPAIGN_KILL_AT": point}
    with operator.start("submit", "bps_bias", "--ranks", "1", **more) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert bool(list(products.rglob("*.fits"))) == (point == "job-ended")
    (one,) = shown(operator, name, "--yes")["runs"]
    assert (one["state"], one["kept"]) == ("lost", "")
    assert not list(folders.rglob("plan.json"))
    assert not products.exists()
    assert "no run of ticket" in operator.refuse(2, "clean", name)


def test_a_run_whose_submission_was_killed_before_it_was_listed(operator: Operator) -> None:
    """The next submission beside it lists it."""
    name, _, folders = ticket(operator, "DM-00083")
    with operator.start(
        "submit", "bps_bias", "--ranks", "1", TICKET=name, TAG="t", CAMPAIGN_KILL_AT="run-registered"
    ) as process:
        process.communicate()
    (lost,) = folders.glob("*/*/*")
    while datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ") in str(lost):  # a RUN is named by its second
        time.sleep(0.05)
    again = operator.submit("t", TICKET=name)
    assert again.code == 0 and f"listed      {plans.load(lost / 'plan.json').run}, of a submission" in again.err
    assert [one["state"] for one in shown(operator, name)["runs"]] == ["lost", "done"]


def test_what_another_home_lists_stays(operator: Operator, tmp_path: Path) -> None:
    """Whether a campaign waits for it, that home alone knows."""
    name, products, folders = ticket(operator, "DM-00082")
    assert operator.submit("t", TICKET=name).code == 0
    other = {"CAMPAIGN_HOME": str(tmp_path / "other")}
    answer = operator.run("clean", name, "--yes", "--json", **other)
    (one,) = json.loads(answer.out)["runs"]
    who = f" of {getpass.getuser()} on {socket.gethostname()}"
    assert (one["kept"], one["state"], one["submit_path"]) == (ELSEWHERE.format(who), "elsewhere", "")
    refused = operator.refuse(4, "clean", name, "--yes", "--force", one["run"], **other)
    assert who in refused and "give the command with that home" in refused
    output_run = f"outputRun={one['output_run']}"
    refused = operator.refuse(
        4, "submit", "bps_bias", "--ranks", "1", "--set", output_run, TICKET=name, TAG="t", **other
    )
    assert f"it is run {one['run']}{who}, which another home" in refused
    assert len(list(products.rglob("bias_*.fits"))) == 2
    assert kept(shown(operator, name, "--yes")) == [""]
    assert not products.exists() and not list(folders.rglob("plan.json"))


def test_a_run_whose_folder_the_repository_names(operator: Operator, tmp_path: Path) -> None:
    """As repositories made before do: the folder is found from any home."""
    name, products, folders = ticket(operator, "DM-00085")
    assert operator.submit("t", TICKET=name).code == 0
    (folder,), (one,) = folders.glob("*/*/*"), shown(operator, name)["runs"]
    with closing(sqlite3.connect(operator.repo / "gen3.sqlite3")) as database, database:
        before = (f"{one['run']} {folder}", one["output_run"])
        assert database.execute("update collection set doc = ? where name = ?", before).rowcount == 1
    output_run = f"outputRun={one['output_run']}"
    refused = operator.refuse(4, "submit", "bps_bias", "--ranks", "1", "--set", output_run, TICKET=name, TAG="t")
    assert f"exists already: run {one['run']} made it" in refused
    assert operator.run("restart", one["run"]).code == 0
    other = {"CAMPAIGN_HOME": str(tmp_path / "other")}
    (seen,) = json.loads(operator.run("clean", name, "--json", **other).out)["runs"]
    assert (seen["kept"], seen["submit_path"]) == (ELSEWHERE.format(""), str(folder))
    assert operator.run("clean", name, "--yes", "--force", one["run"], **other).code == 0
    assert not products.exists() and not folder.exists()


def test_what_is_being_made_stays(operator: Operator) -> None:
    name, _, folders = ticket(operator, "DM-00079")
    assert operator.submit("t", TICKET=name).code == 0
    (folder,) = folders.glob("*/*/*")
    claim.write(folder)
    assert kept(shown(operator, name, "--yes")) == ["made"]
    claim.release(folder)
    assert kept(shown(operator, name, "--yes")) == [""]


def test_a_ticket_that_there_is_not(operator: Operator) -> None:
    assert "no run of ticket 'DM-99999'" in operator.refuse(2, "clean", "DM-99999", "--yes")
    assert "no run of ticket '*'" in operator.refuse(2, "clean", "*", "--yes")
