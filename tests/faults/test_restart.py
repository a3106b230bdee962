"""Restarts, and requests to a run: items 20 and 26 of the list of faults."""

from __future__ import annotations

import ast
import errno
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from campaign.errors import AGAIN, TransientError
from campaign.journal import claim
from campaign.journal.events import read
from tests.faults.conftest import CALIB, Operator
from tests.faults.test_kill_points import SHORT, TASKS, Killed

PATIENCE_S = 30.0


@pytest.fixture
def killed(operator: Operator, request: pytest.FixtureRequest) -> Killed:
    return Killed(operator, "".join(letter if letter.isalnum() else "_" for letter in request.node.name))


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)
    return found


def events(run: Killed, name: str, task: str | None = None) -> list[Any]:
    folder = run.folder / "journal"
    return [e for e in read(folder) if e.event == name and task in (None, e.task)] if folder.is_dir() else []


class TestOneAtATime:
    """The folder of a run names its maker; nobody else makes it meanwhile."""

    @pytest.mark.parametrize("turn", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 50))])
    def test_item_20_two_operators_start_the_same_step(self, operator: Operator, turn: int, tmp_path: Path) -> None:
        names = {"outputRun": f"{CALIB}/twice{turn}/run", "output": f"{CALIB}/twice{turn}"}
        settings = [word for key, value in names.items() for word in ("--set", f"{key}={value}")]
        line = ("submit", "bps_bias", "--ranks", "1", *settings, "--set", SHORT, "--set")
        both = [operator.start(*line, f"submitPath={tmp_path / str(n)}") for n in range(2)]
        said = [process.communicate(timeout=120)[1] for process in both]
        codes = [process.returncode for process in both]
        assert sorted(codes) == [0, 4], said
        loser = said[codes.index(4)]
        assert "output run" in loser
        assert "is being made by" in loser or "made it" in loser or "was left unfinished" in loser
        assert not (tmp_path / str(codes.index(4))).exists()

    def test_item_26_a_claim_whose_owner_lives(self, killed: Killed) -> None:
        assert killed.submit("job-submitting") == -signal.SIGKILL
        claim.write(killed.folder)  # this very process has it
        assert killed.restart(apart=True) == 4
        me = claim.mine()
        assert f"the run is being made by {me.user} on {me.host} (process {me.pid}) since" in killed.err

    def test_item_26_a_claim_of_another_machine(self, killed: Killed) -> None:
        assert killed.submit("job-submitting") == -signal.SIGKILL
        path = killed.folder / claim.NAME
        path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
        assert killed.restart() == 4
        assert "this machine cannot see whether that process lives" in killed.err
        assert "on elsewhere" in killed.err

    @pytest.mark.soak
    def test_a_restart_asks_again_once_it_has_the_claim(self, killed: Killed, tmp_path: Path) -> None:
        """Another has made everything since it looked: nothing of that is made again, or forgotten."""
        assert killed.submit("job-ended") == -signal.SIGKILL
        held = tmp_path / "held"
        more = {"CAMPAIGN_HOLD_AT": f"restart-looked@{held}"}
        with killed.operator.start("restart", str(killed.folder), **more) as late:
            wait_for(held.exists)
            assert killed.restart() == 0, killed.err
            held.unlink()
            _, said = late.communicate(timeout=120)
        assert late.returncode == 0, said
        killed.require_whole(TASKS)

    def test_a_process_that_has_come_to_the_number_is_another(self, killed: Killed) -> None:
        assert killed.submit("job-submitting") == -signal.SIGKILL
        claim.write(killed.folder)
        path = killed.folder / claim.NAME
        path.write_text(json.dumps({**json.loads(path.read_text()), "started": "1"}))
        assert killed.restart() == 0, killed.err
        killed.require_whole(TASKS)


class TestRedone:
    """Changed products are reported, and made again."""

    @pytest.fixture
    def made(self, killed: Killed) -> Killed:
        assert killed.submit() == 0, killed.err
        return killed

    def product(self, made: Killed, detector: int) -> Path:
        (event,) = [e for e in events(made, "published", f"cpBiasCombine:{detector}")]
        return Path(event.detail["bias"]["path"])

    def require_again(self, made: Killed, tasks: int) -> None:
        assert made.products(made.name) == made.undisturbed()
        assert len(events(made, "published")) == TASKS + tasks
        assert made._ended("restart", str(made.folder), "--check", "--json", kill="") == 0
        assert sum(group["left"] for group in json.loads(made.out)["groups"]) == 0

    def test_nothing_is_done_twice(self, made: Killed) -> None:
        assert made.restart() == 0, made.err
        assert len(events(made, "published")) == TASKS

    def test_a_product_that_is_gone_or_cut_is_made_again(self, made: Killed) -> None:
        self.product(made, 0).unlink()
        with self.product(made, 1).open("r+b") as file:
            file.truncate(2880)
        assert made._ended("restart", str(made.folder), "--check", kill="") == 0
        assert "is gone" in made.out
        assert "has 2880 bytes" in made.out
        assert made.restart() == 0, made.err
        self.require_again(made, 2)

    def test_a_changed_byte_is_found_by_verify_alone(self, made: Killed) -> None:
        path = self.product(made, 1)
        content = bytearray(path.read_bytes())
        content[-3000] ^= 1
        path.write_bytes(content)
        assert made._ended("restart", str(made.folder), kill="") == 0
        assert len(events(made, "published")) == TASKS
        assert made._ended("restart", str(made.folder), "--verify", kill="") == 0, made.err
        self.require_again(made, 1)

    def test_other_code_is_refused_and_redone_where_that_is_wanted(self, made: Killed) -> None:
        path = made.folder / "env.json"
        known = json.loads(path.read_text())
        known["release"]["kernels"] = "0" * 64
        path.write_text(json.dumps(known))
        assert made.restart() == 4
        assert f"{TASKS} finished tasks would be made otherwise today" in made.err
        assert "the code has changed: kernels" in made.err
        assert len(events(made, "published")) == TASKS
        assert made._ended("restart", str(made.folder), "--redo-stale", kill="") == 0, made.err
        self.require_again(made, TASKS)

    def test_another_configuration_is_told(self, made: Killed) -> None:
        path = made.folder / "order.json"
        order = json.loads(path.read_text())
        order["overrides"]["extraQgraphOptions"] = "--config cpBiasCombine:combine=MEDIAN"
        path.write_text(json.dumps(order))
        assert made.restart() == 4
        assert "the configuration of cpBiasCombine has changed" in made.err
        assert made._ended("restart", str(made.folder), "--redo-stale", kill="") == 0, made.err
        assert made.products(made.name) != made.undisturbed()
        config = json.loads(sorted((made.folder / "jobs").glob("cpBiasCombine.*.json"))[-1].read_text())["config"]
        assert config["statistic"] == "MEDIAN"
        assert made.restart() == 0, made.err  # and now it is

    def test_a_changed_input_is_told(self, made: Killed) -> None:
        raw = made.operator.raw(0, 1)
        content = raw.read_bytes()
        try:
            raw.write_bytes(content + b"\0" * 2880)
            assert made.restart() == 4
            assert "cpBiasCombine:1" in made.err
            assert f"{raw} has {len(content) + 2880} bytes, it had {len(content)}" in made.err
        finally:
            raw.write_bytes(content)

    def test_a_certified_product_is_never_made_again(self, made: Killed) -> None:
        line = ("--repo", str(made.operator.repo), "--source", made.run_collection, "--type", "bias")
        dates = ("--begin-date", "1990-01-01T00:00:00", "--end-date", "1991-01-01T00:00:00", "--no-chain")
        code = made._ended("certify", *line, "--target", f"{CALIB}/certified", *dates, kill="")
        assert code == 0, made.err
        path = self.product(made, 0)
        path.rename(path.with_suffix(".away"))
        assert made.restart() == 4
        assert "is certified in" in made.err
        path.with_suffix(".away").rename(path)


class TestControl:
    """Pause, resume, drain, cancel, detach."""

    def started(self, killed: Killed, *more: str, how: Mapping[str, Any] | None = None) -> Any:
        """A run that is being made, paused before its first job."""
        killed.folder.parent.mkdir(parents=True, exist_ok=True)
        chosen = {
            "outputRun": killed.run_collection,
            "output": f"{CALIB}/{killed.name}",
            "submitPath": str(killed.folder),
        }
        settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        return killed.operator.start("submit", "bps_bias", "--ranks", "2", *settings, "--set", SHORT, *more, how=how)

    def test_pause_resume_cancel_and_restart(self, killed: Killed) -> None:
        with self.started(killed) as process:
            wait_for(lambda: (killed.folder / claim.NAME).exists())
            (killed.folder / "pause").touch()  # before its first job, which the command may come too late for
            assert killed._ended("pause", str(killed.folder), kill="") == 0, killed.err
            assert "asked to pause" in killed.err
            wait_for(lambda: events(killed, "started", ""))
            assert killed._ended("cancel", str(killed.folder), kill="") == 0, killed.err
            assert killed.out.startswith("cancelled")
            _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, said
        assert "nothing is left running" in said
        assert killed.left_running() == []
        assert killed._ended("resume", str(killed.folder), kill="") == 4
        assert "nobody makes this run" in killed.err
        assert killed.restart() == 0, killed.err
        killed.require_whole(TASKS)

    def test_an_interrupt_drains_and_another_ends(self, killed: Killed) -> None:
        with self.started(killed) as process:
            wait_for(lambda: (killed.folder / claim.NAME).exists())
            (killed.folder / "pause").touch()
            wait_for(lambda: events(killed, "started", ""))
            time.sleep(0.3)  # until signals are heard, which follows that line
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, said
        assert "draining: nothing more is started" in said
        assert f"drained: 0 of {TASKS} tasks are made" in said
        assert f"campaign restart {json.loads((killed.folder / 'plan.json').read_text())['run']}" in said
        assert killed.restart() == 0, killed.err
        killed.require_whole(TASKS)

    @pytest.mark.parametrize("nohup", [False, pytest.param(True, marks=pytest.mark.soak)])
    def test_a_terminal_is_closed(self, killed: Killed, nohup: bool) -> None:
        """The run drains, and finished products are recorded; if the signal is ignored, it continues to its end."""
        ours, theirs = pty.openpty()

        def own_terminal() -> None:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)

        how = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "text": False}
        more: dict[str, Any] = {"start_new_session": True, "preexec_fn": own_terminal}
        with self.started(killed, how={**how, **more}) as process:
            os.close(theirs)
            wait_for(lambda: (killed.folder / claim.NAME).exists())
            (killed.folder / "pause").touch()
            wait_for(lambda: events(killed, "started", ""))
            time.sleep(0.3)  # until signals are heard, which follows that line
            os.close(ours)
            if nohup:
                time.sleep(0.3)
                (killed.folder / "pause").unlink()
            assert process.wait(PATIENCE_S) == (0 if nohup else 130)
        last = events(killed, "done" if nohup else "failed", "")[-1]
        assert last.detail["state"] == ("done" if nohup else "drained")
        assert not (killed.folder / claim.NAME).exists()
        assert killed.left_running() == []
        assert killed.restart() == 0, killed.err
        killed.require_whole(TASKS)

    def test_a_run_in_the_background(self, killed: Killed) -> None:
        with self.started(killed, "--detach") as process:
            out, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        assert "follow it   campaign status" in out
        wait_for(lambda: events(killed, "done", ""))
        wait_for(lambda: not killed.left_running())
        killed.require_whole(TASKS)

    def test_what_a_dead_driver_has_left_is_cancelled(self, killed: Killed) -> None:
        assert killed.submit("job-ended") == -signal.SIGKILL
        assert killed._ended("cancel", str(killed.folder), "--json", kill="") == 0, killed.err
        assert json.loads(killed.out)["state"] == "cancelled"
        assert killed.left_running() == []


@pytest.mark.parametrize(
    ("error", "do"),
    [
        (TransientError("the server is gone", do=AGAIN), ""),
        pytest.param(OSError(errno.ENOSPC, "No space", "a.jsonl"), "make room, then ", marks=pytest.mark.soak),
    ],
    ids=["database", "disk"],
)
def test_what_fails_once_a_run_is_claimed_is_resumed(killed: Killed, error: Exception, do: str) -> None:
    """The same command again would make another run."""
    with patch("campaign.butler.repository.Repository.ingest_products", side_effect=error):
        assert killed.submit() == 75, killed.err
    run = json.loads((killed.folder / "plan.json").read_text())["run"]
    assert f"-> {do}campaign restart {run} resumes it, and keeps what is made" in killed.err
    assert killed.restart() == 0, killed.err
    killed.require_whole(TASKS)


def test_looking_at_a_run_loads_neither_the_butler_nor_dask(killed: Killed) -> None:
    assert killed.submit() == 0, killed.err
    run = json.loads((killed.folder / "plan.json").read_text())["run"]
    code = (
        "import sys; from campaign.cli.root import main\ntry: main(sys.argv[1:])\nfinally: print(sorted(sys.modules))"
    )
    for command in (("restart", run, "--check"), ("status", run)):
        line = [sys.executable, "-P", "-c", code, *command]
        done = subprocess.run(line, env={**os.environ, **killed.operator.variables}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        loaded = {name.partition(".")[0] for name in ast.literal_eval(done.stdout.splitlines()[-1])}
        assert "campaign" in loaded
        assert not loaded & {"lsst", "dask", "distributed", "numba", "PIL", "mpi4py"}
