"""Kinds of schedulers: the packaged ones, and one of another distribution's, from its site file to a job's end."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaign import plugins
from campaign.errors import ConfigurationError
from campaign.home import Home
from campaign.jobs.death import Death
from campaign.problems import Problems
from campaign.running.placement import backend_of
from campaign.schedulers import table
from campaign.sites.model import Site, from_plain, load, plain
from tests.conftest import ROOT

BATCH = """
from typing import ClassVar

from campaign.schedulers.local import Local
from campaign.schedulers.protocol import Installation, Scheduler
from campaign.schedulers.values import FilePath, Whole, Word


class Batch(Scheduler):
    expanded: ClassVar[tuple[str, ...]] = ("spool",)
    lane: Word
    spool: FilePath = ""
    depth: Whole = 3

    def backend(self, there: Installation, slots: int) -> Local:
        own = {"LANE": self.lane, "SPOOL": self.spool}
        return Local(Installation(there.name, there.python, {**there.environment, **own}))
"""
POINTS = (
    "[drp_campaign.schedulers]\nbatch = batch_of_theirs:Batch\nbroken = batch_of_theirs:Nothing\nodd = json:loads\n"
    "leaving = leaves:Batch\n"
)
SITE = "name: mine\nscheduler: {{kind: {kind}, {settings}}}\n"


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another distribution, installed as a folder on the path."""
    place = tmp_path / "site-packages"
    about = place / "batch_of_theirs-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: batch-of-theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    (place / "batch_of_theirs.py").write_text(BATCH)
    (place / "leaves.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(str(place))
    for cached in (table.kind, table._points, plugins.entries):
        cached.cache_clear()
    yield
    for cached in (table.kind, table._points, plugins.entries):
        cached.cache_clear()
    sys.modules.pop("batch_of_theirs", None)


def site(folder: Path, kind: str = "batch", settings: str = "lane: fast") -> Site:
    (folder / "sites").mkdir(exist_ok=True)
    (folder / "sites" / "mine.yaml").write_text(SITE.format(kind=kind, settings=settings))
    return load({"DATA": "/data"}, Home(folder))["mine"]


def test_what_is_packaged_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][table.GROUP]
    assert declared == {point.name: point.value for point in table._PACKAGED}


@pytest.mark.processes
def test_another_scheduler_runs_jobs(tmp_path: Path) -> None:
    mine = site(tmp_path, settings="lane: fast, spool: $DATA/spool, ranks: 7")
    assert from_plain(json.loads(json.dumps(plain(mine)))) == mine
    assert plain(mine)["scheduler"]["kind"] == "batch"
    (tmp_path / "shown.py").write_text("import os, sys\nprint(os.environ['LANE'], os.environ['SPOOL'], *sys.argv[1:])")
    log = tmp_path / "job.log"
    mine = Site(name="mine", scheduler=mine.scheduler, environment={"PYTHONPATH": str(tmp_path)})
    death = backend_of(mine, 1).job(["shown", "a word"], 1, log, "job-1", {}, lambda *_: None)
    assert (death, log.read_text()) == (Death(code=0), "fast /data/spool a word\n")


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("batsch", "lane: x", "mine.yaml:2: there is no scheduler 'batsch'\n  -> did you mean batch?"),
        ("broken", "lane: x", "2: broken of batch-of-theirs 1.0 cannot be used: AttributeError: "),
        ("leaving", "lane: x", "2: leaving of batch-of-theirs 1.0 cannot be used: SystemExit: 0"),
        (
            "odd",
            "lane: x",
            "odd of batch-of-theirs 1.0 cannot be used: json:loads is no type",
        ),
        ("batch", "lane: 'a b'", "2: scheduler.lane: 'a b' is not right\n  -> allowed: letters, digits"),
        ("batch", "lane: x, partition: y", "2: scheduler.partition: there is no such setting"),
        ("batch", "lane: x, spool: $NOWHERE/x", "2: scheduler.spool: $NOWHERE is not set"),
        ("slurm", "partition: main, lane: x", "2: scheduler.lane: there is no such setting"),
    ],
)
def test_settings_are_checked_by_their_kind(tmp_path: Path, kind: str, settings: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        site(tmp_path, kind, settings)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["[x]\nsky = :::\n", "[drp_campaign.schedulers]\nsky\n", "\udcff\udcfe"])
def test_entry_points_that_cannot_be_read_have_an_owner(tmp_path: Path, text: str) -> None:
    about = tmp_path / "site-packages" / "torn-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\nVersion: 2.0\n")
    (about / "entry_points.txt").write_bytes(
        text.replace("[x]", "[drp_campaign.schedulers]").encode(errors="surrogateescape")
    )
    with pytest.raises(ConfigurationError, match="the entry points of torn cannot be read: .*\n.*pip uninstall torn"):
        site(tmp_path, "local", "")


@pytest.mark.parametrize("name", ["slurm", "batch"])
def test_a_name_that_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    """Else jobs would silently go by another scheduler."""
    about = tmp_path / "site-packages" / "again-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: again\nVersion: 2.0\n")
    (about / "entry_points.txt").write_text(f"[drp_campaign.schedulers]\n{name} = again:Batch\n")
    with pytest.raises(ConfigurationError, match=f"{name} of .* cannot be used: there is a scheduler of that name"):
        site(tmp_path, "local", "")


def test_all_that_is_wrong_with_a_site_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Problems) as caught:
        site(tmp_path, settings="depth: 0\n  more: 1}\nfraction: a lot\nroles: {x: y".replace("\n  more: 1}", "}"))
    assert all(key in str(caught.value) for key in ("scheduler.lane", "scheduler.depth", "fraction", "roles"))
