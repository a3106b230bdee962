"""A small world that is hurt: a repository, its scratch and home under one path, put back for every try.

Runs are recorded with absolute paths.  So a world always stands at the same
place, and a try begins with a copy of a stage that was prepared there.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from slurm.commands import queue
from tests.campaign import loopback

if TYPE_CHECKING:
    from slurm.development import Cluster

TICKET = "DM-00000"
CHAIN = f"LSSTComCam/calib/{TICKET}"
#: In the environment of every process that a world has started, directly or not.
MARK = "SOAK_WORLD"
#: Time of a command on a busy machine, second; one that takes longer hangs.
PATIENCE_S = 240.0
TINY = ("--scale", "64", "--seed", "3", "--detector", "0", "--detector", "1", "--flat", "0")
NUMBERS = (*TINY, "--bias", "3", "--dark", "3")
LATER = (*TINY, "--bias", "0", "--dark", "1", "--day-obs", "20241210")
PLAN = f"""\
description: A bias, and with it a dark.
variables:
  INSTRUMENT: LSSTComCam
  TICKET: {TICKET}
  TAG: plan
  RERUN: 20241208a
  CERT_RERUN: 20241208a
  START_DATE: 2024-12-01T00:00:00
  USER_CALIB_PREFIX: ""
  RAW_COLLECTION: LSSTComCam/raw/all
  CALIB_COLLECTIONS: LSSTComCam/calib
  SELECTION_BIAS: instrument='LSSTComCam' and exposure.observation_type='bias'
  SELECTION_DARK: instrument='LSSTComCam' and exposure.observation_type='dark'
steps:
  bias: {{template: bps_bias, gate: true, certify: true}}
"""
DARK = "  dark: {template: bps_dark, needs: [bias], certify: true}\n"


@dataclass(frozen=True)
class Answer:
    """Result of a command."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        last = "\n    ".join((self.err or self.out).strip().splitlines()[-6:])
        return f"campaign {' '.join(self.words)}: exit {self.code}\n    {last}"


@dataclass
class World:
    """A repository with all that belongs to it.

    Parameters
    ----------
    base : `Path`
        Holds the world, the stages, and raws that no try changes.
    more : `dict`
        Further variables of its operator.
    jobs : callable
        Names of the jobs that its Slurm has, where it has one.
    """

    base: Path
    more: dict[str, str] = field(default_factory=dict)
    jobs: Callable[[], list[str]] = list
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _said: dict[int, Path] = field(default_factory=dict)

    @property
    def here(self) -> Path:
        """State that a try may change."""
        return self.base / "world"

    @property
    def repo(self) -> Path:
        return self.here / "repo"

    @property
    def raws(self) -> Path:
        """Frames of three biases and three darks."""
        return self.base / "source-raw"

    @property
    def later(self) -> Path:
        """Frames of one more dark."""
        return self.base / "later-raw"

    @property
    def plan(self) -> Path:
        """A plan of a bias and a dark."""
        return self.base / "two.yaml"

    @property
    def one(self) -> Path:
        """The plan without its dark."""
        return self.base / "one.yaml"

    @property
    def camera(self) -> Path:
        return self.base / "camera.yaml"

    @property
    def environment(self) -> dict[str, str]:
        """The operator's variables."""
        own = variables(Places(self.repo)) | {"TICKET": TICKET, MARK: str(self.base), "TMPDIR": str(self.base / "tmp")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CAMPAIGN_")}
        return {**kept, **own, "CAMPAIGN_SITES": str(self.base / "sites"), **self.more}

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """Start a command with its output in files, so that nobody needs to read it meanwhile."""
        if words[0] == "run":  # the plan sets its own TAG unless the shell has another
            more.setdefault("TAG", "plan")
        stem = self.base / "said" / str(next(self._numbers))
        with stem.with_suffix(".out").open("w") as out, stem.with_suffix(".err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "campaign", *words],
                env={**self.environment, **more},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                cwd=self.base,
                start_new_session=True,
            )
        self._said[process.pid] = stem
        return process

    def ended(self, process: subprocess.Popen[str], *words: str) -> Answer:
        """Wait for a command's end; kill one that hangs, with its children."""
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.quieten()
        code, stem = process.wait(), self._said[process.pid]
        return Answer(words, code, *(stem.with_suffix(f".{name}").read_text() for name in ("out", "err")))

    def run(self, *words: str, **more: str) -> Answer:
        """Run a command to its end."""
        return self.ended(self.start(*words, **more), *words)

    def running(self) -> dict[int, str]:
        """Processes of this world that live, with their command lines."""
        found = {}
        mark = f"{MARK}={self.base}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0") and _lives(entry):
                        words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                        found[int(entry.name)] = words.decode(errors="replace").strip()
        found.pop(os.getpid(), None)
        return found

    def left_running(self, patience: float = 5.0) -> dict[int, str]:
        """List processes that still run after a time to notice their end."""
        until = time.monotonic() + patience
        while (found := self.running()) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def quieten(self) -> None:
        """End whatever there is of this world."""
        while found := self.running():
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    # Stages

    def clear(self) -> None:
        """Have nothing."""
        shutil.rmtree(self.here, ignore_errors=True)
        self.here.mkdir()

    def prepare(self, name: str, make: Callable[[], None]) -> None:
        """Begin a try at a stage; it is made when it is wanted first."""
        stage = self.base / "stages" / name
        if not stage.exists():
            self.clear()
            make()
            assert not self.left_running()
            stage.parent.mkdir(exist_ok=True)
            shutil.copytree(self.here, stage)
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(stage, self.here)

    def folders(self) -> list[Path]:
        """Submit folders of runs that are planned."""
        return sorted(path.parent for path in (self.here / "scratch").rglob("plan.json"))

    def runs(self) -> list[dict[str, Any]]:
        """The list of runs."""
        return listed(self.repo / "campaign" / "runs.jsonl")


def listed(file: Path) -> list[dict[str, Any]]:
    """The lines of a list of runs that were not taken back."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    gone = {line["run"] for line in lines if line.get("cleaned")}
    return [line for line in lines if line["run"] not in gone]


def _lives(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


def make(base: Path, more: Mapping[str, str] | None = None) -> World:
    """Make a world's raws, camera, plan and sites."""
    world = World(base.resolve(), dict(more or {}))
    for name in ("tmp", "sites", "said"):
        (world.base / name).mkdir()
    world.clear()
    for name, numbers in (("source", NUMBERS), ("later", LATER)):
        done = world.run("simulate", str(world.base / name), *numbers)
        assert done.code == 0, done
    shutil.copy(world.base / "source" / "campaign" / "cameras" / "LSSTComCam.yaml", world.camera)
    world.plan.write_text(PLAN + DARK)
    world.one.write_text(PLAN)
    write_sites(world, "sites", "")
    return world


def write_sites(world: World, folder: str, more: str) -> None:
    """Make three sites of this machine; ``more`` sets their transport."""
    (world.base / folder).mkdir(exist_ok=True)
    for name, fraction in {"usdf": 0.5, "frdf": 0.25, "ukdf": 0.25}.items():
        text = f'name: {name}\nfraction: {fraction}\nscheduler: none\nscratch: "{world.here / "sites" / name}"\n{more}'
        (world.base / folder / f"{name}.yaml").write_text(text)


def by_slurm(world: World, cluster: Cluster) -> None:
    """A site with a Slurm of its own."""
    folder = world.base / "sites-slurm"
    folder.mkdir()
    lines = ["name: slurm", f'scratch: "{world.here / "scratch"}"']
    lines += [f'environment: {{{MARK}: "{world.base}"}}']
    lines += [f'scheduler: {{conf: "{cluster.conf}", interface: lo, node_cores: 2}}']
    (folder / "slurm.yaml").write_text("\n".join(lines) + "\n")
    world.jobs = lambda: [one.name for one in queue(cluster.access) if one.living]


def over_ssh(world: World, server: loopback.Server) -> None:
    """The same sites, each reached by ssh."""
    lines = [
        "transport: ssh",
        f"host: {server.host}",
        f"ssh_options: {json.dumps(list(server.options))}",
        f"python: {json.dumps(sys.executable)}",
        f"environment: {{{MARK}: {json.dumps(str(world.base))}}}",
    ]
    write_sites(world, "sites-ssh", "\n".join(lines) + "\n")
