"""Kills, everywhere a run can be killed, then a restart: nothing is lost, nothing is done twice, the bits are the same.

Items 7 (driver killed at any commit point), 8 (crash during recovery) and 23 (half-written output) of the list of
faults, and of 1 what concerns a kernel outside of Dask.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fitsio
import pytest

from campaign.events import read
from campaign.killpoints import DRIVER, KERNEL
from campaign.repository import open_repository
from tests.conftest import Demo

CHAIN = "LSSTComCam/calib/DM-00000"
#: Of a run on this machine: nobody queues anything.
HERE = [point for point in DRIVER if point not in ("job-queued", "index-written")]
#: Nothing is planned yet: the same command does it.
NOTHING_PLANNED = ("folder-made", "claim-written")


class Killed:
    """A run of the demo's bias that is killed somewhere, with a home of its own."""

    def __init__(self, demo: Demo, folder: Path, name: str) -> None:
        self.demo, self.name = demo, name
        self.run_collection = f"{CHAIN}/{name}/run"
        self.folder = folder / "submit"
        shutil.copytree(demo.folder / "repo" / "campaign" / "cameras", folder / "home" / "cameras")
        self.variables = {"CAMPAIGN_HOME": str(folder / "home"), "RERUN": name}

    def submit(self, kill: str = "") -> subprocess.CompletedProcess[str]:
        chosen = {"outputRun": self.run_collection, "output": self.run_collection.removesuffix("/run")}
        chosen["submitPath"] = str(self.folder)
        settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        more = {"CAMPAIGN_KILL_AT": kill} if kill else {}
        return self.demo.run("submit", "bps_bias", "--ranks", "2", *settings, **self.variables, **more)

    def restart(self, kill: str = "") -> subprocess.CompletedProcess[str]:
        more = {"CAMPAIGN_KILL_AT": kill} if kill else {}
        return self.demo.run("restart", str(self.folder), **self.variables, **more)

    def left_running(self) -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return [line for line in found if f"{self.folder}/" in line]

    def require_whole(self) -> None:
        """The products are those of the undisturbed run, each made once, and nothing else is left."""
        begin = "2024-12-08T22:00:00"
        with open_repository(str(self.demo.folder / "repo")) as repository:
            made = {d.data_id["detector"]: Path(d.path) for d in repository.datasets("bias", [self.run_collection])}
            mosaics = repository.datasets("biasMosaic8", [self.run_collection])
            assert repository.chain(self.run_collection.removesuffix("/run"))[0] == self.run_collection
            for detector, path in made.items():
                where = {"instrument": "LSSTComCam", "detector": detector}
                known = repository.find_dataset("bias", where, [CHAIN], begin, begin)
                assert known is not None
                assert images(path) == images(Path(known.path)), detector
        assert len(made) == 9
        assert len(mosaics) == 1
        events = read(self.folder / "journal")
        published = Counter(e.task for e in events if e.event == "published")
        assert set(published.values()) == {1}
        assert len(published) == 9 + 2
        assert not list(made[0].parent.rglob(".*.tmp"))
        assert self.left_running() == []
        listed = (Path(self.variables["CAMPAIGN_HOME"]) / "runs.jsonl").read_text().splitlines()
        home = [json.loads(line) for line in listed]
        assert [run["output_run"] for run in home] == [self.run_collection]
        again = self.demo.run("restart", str(self.folder), "--check", "--json", **self.variables)
        plain = json.loads(again.stdout)
        assert sum(group["left"] for group in plain["groups"]) == 0
        assert (plain["damaged"], plain["stale"]) == ({}, {})


def images(path: Path) -> list[bytes]:
    return [fitsio.read(path, hdu).tobytes() for hdu in ("IMAGE", "MASK", "VARIANCE")]


@pytest.fixture
def killed(demo: Demo, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Killed]:
    yield Killed(demo, tmp_path, f"killed.{abs(hash(request.node.name)):x}")


@pytest.mark.parametrize("point", HERE)
def test_item_07_a_driver_killed_at_a_commit_point(killed: Killed, point: str) -> None:
    answer = killed.submit(point)
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    if point in NOTHING_PLANNED:
        assert "submit the template again" in killed.restart().stderr
        answer = killed.submit()
    else:
        answer = killed.restart()
    assert answer.returncode == 0, answer.stderr
    killed.require_whole()


@pytest.mark.parametrize("point", KERNEL)
def test_item_23_a_kernel_killed_in_the_middle_of_a_product(killed: Killed, point: str) -> None:
    answer = killed.submit(f"{point}:2")
    assert answer.returncode == 0, answer.stderr  # what is lost by no fault of its own is tried again
    events = read(killed.folder / "journal")
    assert [e.detail["causes"] for e in events if e.event == "retry"] == [["infrastructure"]]
    killed.require_whole()


def test_item_08_a_crash_during_recovery(killed: Killed) -> None:
    assert killed.submit("job-ended").returncode == -signal.SIGKILL
    for point in ("run-started", "job-submitting", "tasks-settled", "products-ingested", "output-chained"):
        assert killed.restart(point).returncode == -signal.SIGKILL, point
    assert killed.restart().returncode == 0
    killed.require_whole()
