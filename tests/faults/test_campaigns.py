"""A campaign whose driver is ended in every way that an operator has; decisions while nobody drives it."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from campaign.butler.repository import open_repository
from campaign.campaigns.decide import require_products, waiting_gate
from campaign.errors import SubmissionRefused
from campaign.home import Home
from campaign.journal.books import Books
from tests.faults.conftest import Operator

PATIENCE_S = 90.0
TAG = "at-gates"


class Planned:
    """Make a plan of one step with a gate, in a folder whose name has a blank."""

    def __init__(self, operator: Operator, folder: Path) -> None:
        self.operator, self.path = operator, folder / "my plans" / "one.yaml"
        names = [n for n in operator.variables if n not in ("REPO", "SCRATCH") and "FLAT" not in n]
        variables = {name: operator.variables[name] for name in names}
        steps = {"bias": {"template": "bps_bias", "gate": True, "certify": True}}
        self.path.parent.mkdir()
        self.path.write_text(yaml.safe_dump({"variables": variables, "steps": steps}))
        self.env = self.path.with_suffix(".sh")
        # Over the plan's, and the shell's; valid when no frame of the other tests was taken.
        self.env.write_text(f"TAG='{TAG}'\nSTART_DATE=2030-01-01T00:00:00\n")
        self.home = Home(operator.repo / "campaign")

    @property
    def line(self) -> tuple[str, ...]:
        return "run", str(self.path), "--env", str(self.env), "--ranks", "1"

    @property
    def books(self) -> Books:
        (journal,) = (path for name, path in self.home.campaigns.items() if f".{TAG}." in name)
        return Books(journal.parent)

    def said(self, event: str) -> list[dict[str, Any]]:
        known = any(f".{TAG}." in name for name in self.home.campaigns)
        return [line for line in self.books.lines() if line["event"] == event] if known else []

    def ended(self, sign: signal.Signals, when: Callable[[], Any]) -> str:
        """Start a driver, end it by a signal, twice where a shell would, and give its output."""
        process = self.operator.start(*self.line)
        until = time.monotonic() + PATIENCE_S
        while not when() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(sign)
        if sign == signal.SIGHUP:
            time.sleep(0.2)
            process.send_signal(sign)
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, err
        return err


def test_a_driver_is_ended_and_a_person_decides_without_it(operator: Operator, tmp_path: Path) -> None:
    planned = Planned(operator, tmp_path)
    err = planned.ended(signal.SIGTERM, lambda: planned.said("process"))
    assert "draining: no more steps are begun" in err and "Traceback" not in err
    (do,) = (line for line in err.splitlines() if line.endswith(" resumes"))
    assert shlex.split(do.removesuffix(" resumes"))[1:] == ["campaign", *planned.line]
    assert "nothing that was begun here is left running" in err
    assert not subprocess.run(["pgrep", "-f", f"submit bps_bias.*{TAG}"], capture_output=True).stdout
    assert operator.run("accept", "bias", "--reason", "x").code == 2  # nothing waits

    err = planned.ended(signal.SIGHUP, lambda: planned.said("gate"))
    assert "waits for a person to look" in err and "0 of 1 step is done" in err
    runs = [run for run in planned.home.runs() if f"/{TAG}/" in run["output"]]
    assert len(runs) == 1 and runs[0]["nonce"] in {line["nonce"] for line in planned.said("begun")}
    run = runs[0]

    shown = json.loads(operator.run("status", "--waiting", "--json").out)
    assert [one["run"] for one in shown["waiting"]] == [run["run"]]
    assert " waits for a person" in operator.run("plan", *planned.line[1:4], "--quick").out
    told = operator.run("status", "--waiting").out
    accept = f"campaign accept bias --run {run['run']} --reason '...'"
    assert f"    then        {accept}" in told and "picture     " in told
    refuse_what_is_gone(operator, planned, run)
    done = operator.run("accept", "--all-shown", shown["shown"], "--reason", "it's flat")
    assert done.code == 0, done.err
    assert f"nobody drives {shown['waiting'][0]['campaign']} now: {shlex.join(['campaign', *planned.line])}" in done.err
    for words in (("bias",), ("bias", "--run", run["run"][:-1])):
        said = operator.run("accept", *words, "--reason", "again")
        assert said.code == 2 and "accepted by" in said.err and "it's flat" in said.err
    done = operator.run(*planned.line)
    assert done.code == 0 and "1 of 1 step is done" in done.err
    text = operator.run("history", "DM-00000").out
    assert "for step bias of campaign one.DM-00000" in text and "- reason: it's flat" in text


def refuse_what_is_gone(operator: Operator, planned: Planned, run: dict[str, Any]) -> None:
    """A product is, or all of them are: it is not accepted, and may be rejected."""
    gate = waiting_gate(planned.home, "bias", None)
    product = next(path for path in operator.products(TAG) if path.name.startswith("bias_"))
    away = product.rename(product.with_suffix(".away"))
    said = operator.run("accept", "bias", "--run", run["run"], "--reason", "unseen")
    assert said.code == 4 and "bias of detector 0 is not there any more" in said.err
    assert f"campaign reject bias --run {run['run']} --reason '...' has it made again" in said.err
    away.rename(product)
    content = product.read_bytes()
    product.write_bytes(content[:-2880])
    said = operator.run("accept", "bias", "--reason", "unseen")
    assert said.code == 4 and f"{len(content)} were published" in said.err
    product.write_bytes(content)
    assert not planned.said("accepted")
    with open_repository(str(operator.repo)) as repository:
        require_products(gate, planned.home, repository)
    nowhere = Home(planned.path.parent)
    nowhere.add_run({**run, "output_run": f"{run['output']}/removed"})
    with open_repository(str(operator.repo)) as repository, pytest.raises(SubmissionRefused, match="detector 0, 1 is"):
        require_products(gate, nowhere, repository)
