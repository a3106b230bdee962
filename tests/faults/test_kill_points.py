"""Kills, everywhere a run can be killed, then a restart: nothing is lost, nothing is done twice, the bits are the same.

Items 7 (driver killed at any commit point), 8 (crash during recovery) and 23 (half-written output) of the list of
faults, and of 1 what concerns a kernel outside of Dask.
"""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from pathlib import Path

import fitsio
import pytest

from campaign.butler.repository import open_repository
from campaign.home import Home
from campaign.journal.events import read
from campaign.killpoints import DECISIONS, DRIVER, KERNEL
from kernels import killpoints
from tests.conftest import COMBINED
from tests.faults.conftest import CALIB, Operator

#: Two biases by a gang, and a mosaic by a job that needs them.
TASKS = 3
SHORT = f"{COMBINED[1]},cpBiasBin64,cpBiasMosaic64"
#: Of a run of gangs on this machine.
ELSEWHERE = ("job-queued", "quanta-submitted", "share-committed")
HERE = [point for point in DRIVER if point not in ELSEWHERE]
TURNS = pytest.mark.parametrize("turn", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 3))])
#: Nothing is planned yet: the same command does it.
NOTHING_PLANNED = ("folder-made", "claim-written")


class Killed:
    """A bias of two detectors whose run is killed at a point."""

    def __init__(self, operator: Operator, name: str, template: str = "bps_bias", *options: str) -> None:
        self.operator, self.name, self.template, self.options = operator, name, template, options
        self.run_collection = f"{CALIB}/{name}/run"
        self.folder = operator.scratch / name

    def submit(self, kill: str = "", name: str = "", **more: str) -> int:
        name = name or self.name
        chosen = {"outputRun": f"{CALIB}/{name}/run", "output": f"{CALIB}/{name}"}
        chosen["submitPath"] = str(self.folder.with_name(name))
        settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        settings += ["--set", SHORT] * (self.template == "bps_bias")
        return self._ended("submit", self.template, "--ranks", "2", *self.options, *settings, kill=kill, **more)

    def restart(self, kill: str = "", apart: bool = False, **more: str) -> int:
        return self._ended("restart", str(self.folder), kill=kill, apart=apart, **more)

    def _ended(self, *arguments: str, kill: str, apart: bool = False, **more: str) -> int:
        """The exit code of a command; of a process of its own, where that is killed at a point, or it matters."""
        if not kill and not apart:
            answer = self.operator.run(*arguments, **more)
            self.out, self.err = answer.out, answer.err
            return answer.code
        with self.operator.start(*arguments, **more, CAMPAIGN_KILL_AT=kill) as process:
            self.out, self.err = process.communicate(timeout=120)
        return process.returncode

    def products(self, name: str) -> dict[str, list[bytes]]:
        """Pixels by place below the RUN."""
        run = self.operator.repo / CALIB / name / "run"
        return {path.name.partition("_LSSTComCam_calib")[0]: images(path) for path in sorted(run.rglob("*.fits"))}

    def undisturbed(self) -> dict[str, list[bytes]]:
        """Products of the same run without a kill; made once."""
        name = f"undisturbed.{self.template.split('/')[-1].split('.')[0]}"
        if not (self.operator.repo / CALIB / name).exists():
            options, self.options = self.options, ()
            assert self.submit(name=name) == 0, self.err
            self.options = options
        return self.products(name)

    def left_running(self) -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return [line for line in found if f"{self.folder}/" in line]

    def require_whole(self, tasks: int) -> None:
        """The products are those of the undisturbed run, each made once, and nothing else is left."""
        assert self.products(self.name) == self.undisturbed()
        files = [path for path in (self.operator.repo / CALIB / self.name).rglob("*") if path.is_file()]
        assert self.operator.recorded(self.name) == len(files), files
        assert [path for path in self.folder.rglob(".*") if path.is_file()] == []
        with open_repository(str(self.operator.repo)) as repository:
            assert repository.chain(f"{CALIB}/{self.name}")[0] == self.run_collection
        events = read(self.folder / "journal")
        published = Counter(e.task for e in events if e.event == "published")
        assert set(published.values()) == {1}
        assert len(published) == tasks
        assert self.left_running() == []
        runs = (self.operator.repo / "campaign" / "runs.jsonl").read_text().splitlines()
        assert sum(json.loads(line).get("output_run") == self.run_collection for line in runs) == 1
        assert self._ended("restart", str(self.folder), "--check", "--json", kill="") == 0
        plain = json.loads(self.out)
        assert sum(group["left"] for group in plain["groups"]) == 0
        assert (plain["damaged"], plain["stale"]) == ({}, {})


def images(path: Path) -> list[bytes]:
    """Pixels of a product's planes; a mosaic has one alone."""
    with fitsio.FITS(path) as file:
        return [hdu.read().tobytes() for hdu in file if hdu.has_data()]


@pytest.fixture
def killed(operator: Operator, request: pytest.FixtureRequest) -> Killed:
    return Killed(operator, re.sub(r"\W+", "_", request.node.name))


@TURNS
@pytest.mark.parametrize("point", HERE)
def test_item_07_a_driver_killed_at_a_commit_point(killed: Killed, point: str, turn: int) -> None:
    assert killed.submit(point, CAMPAIGN_NONCE="n") == -signal.SIGKILL, killed.err
    if point in NOTHING_PLANNED:
        assert killed.restart() == {"folder-made": 2, "claim-written": 3}[point]
        assert "no run" in killed.err
        assert killed.submit() == 0, killed.err
    else:
        if point == "job-submitting":  # like the remains of a rank that dies while writing its inputs table
            (killed.folder / "inputs").mkdir()
            (killed.folder / "inputs" / ".cpBiasCombine_0.csv.1.tmp").touch()
        assert killed.restart() == 0, killed.err
    killed.require_whole(TASKS)
    (run,) = (r for r in Home(killed.operator.repo / "campaign").runs() if r["output_run"] == killed.run_collection)
    assert run["nonce"] == ("" if point in NOTHING_PLANNED else "n")  # it is the campaign's step's still


@TURNS
@pytest.mark.parametrize("point", KERNEL)
def test_item_23_a_kernel_killed_in_the_middle_of_a_product(killed: Killed, point: str, turn: int) -> None:
    assert killed.submit(f"{point}:1") == 0, killed.err  # tasks lost without a fault of their own are tried again
    died = [e.detail["cause"] for e in read(killed.folder / "journal") if e.event == "died"]
    assert died[0] == "infrastructure"
    killed.require_whole(TASKS)


def test_item_08_a_crash_during_recovery(killed: Killed) -> None:
    assert killed.submit("job-ended") == -signal.SIGKILL
    for point in ("run-started", "job-submitting", "tasks-settled", "products-ingested", "output-chained"):
        assert killed.restart(point) == -signal.SIGKILL, point
    assert killed.restart() == 0
    killed.require_whole(TASKS)


def test_every_listed_point_is_passed_somewhere_and_every_passed_one_is_listed() -> None:
    """A point that a change has lost would have its tests wait, or pass, for nothing."""
    assert killpoints.POINTS == KERNEL
    for package, listed in (("campaign", DRIVER | DECISIONS), ("kernels", KERNEL)):
        sources = (Path(__file__).parents[2] / package).rglob("*.py")
        passed = {point for source in sources for point in re.findall(r'\breach\("([\w-]+)"\)', source.read_text())}
        assert passed == set(listed), package
