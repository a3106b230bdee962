"""Item 4: Slurm does not answer for a while, with a gang running; refusals before anything runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from campaign.journal.events import read
from campaign.schedulers.slurm import Slurm
from slurm.commands import call, queue
from slurm.development import Cluster
from slurm.settings import Scheduler
from tests.campaign.test_runner_slurm import Running, blocked, make, only
from tests.faults.conftest import Operator

SITE = """\
name: usdf
fraction: 0.25
roles: [archive, processing]
scheduler: {{conf: "{conf}", interface: lo, node_cores: 2{more}}}
{rest}
"""


@pytest.mark.parametrize("seconds", [15, pytest.param(60, marks=pytest.mark.soak)])
def test_item_04_the_controller_is_away(new_cluster: Callable[..., Cluster], tmp_path: Path, seconds: int) -> None:
    """Unknown is not failed, nothing is submitted twice, and the run continues once Slurm is back."""
    own = new_cluster("away", nodes=1, cpus=2)
    plan = make(tmp_path / "a", "r-away")
    group = plan.groups[1]
    hurt, mend = blocked(only(plan, type(group)(**{**vars(group), "ranks": 1})), "0:1")
    running = Running(hurt, Slurm("usdf", Scheduler(conf=own.conf, interface="lo"), 2))
    rank = int(running.detail("started", "combine:1")["pid"])
    os.kill(own.daemons["slurmctld"], signal.SIGSTOP)
    time.sleep(seconds)
    outcome = running.runner.outcome
    assert (outcome.failed, outcome.skipped) == ({}, {})
    assert sum(e.event == "submitted" for e in read(hurt.journal)) == 1
    mend()
    os.kill(own.daemons["slurmctld"], signal.SIGCONT)
    os.kill(rank, signal.SIGKILL)  # it waits for a frame that is there by now
    running.end(90)
    assert running.runner.outcome.done
    published = [e.task for e in read(hurt.journal) if e.event == "published"]
    assert sorted(published) == ["combine:0", "combine:1", "combine:2"]


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def site(conf: str, more: str = "", rest: str = "") -> None:
        folder = tmp_path / "sites"
        folder.mkdir()
        (folder / "usdf.yaml").write_text(SITE.format(conf=conf, more=more, rest=rest))
        monkeypatch.setenv("CAMPAIGN_SITES", str(folder))

    return site


class TestRefused:
    """Exit 4, with Slurm's words, nothing left behind and nothing queued."""

    def test_no_cluster_is_up(self, operator: Operator, at: Callable[..., None], tmp_path: Path) -> None:
        at(str(tmp_path / "none.conf"))
        for how in (("--site", "usdf"), ("--sites", "usdf")):
            said = operator.refuse(4, "submit", "bps_bias", "--ranks", "2", *how, TAG="nocluster")
            assert "usdf, its Slurm" in said
            assert "campaign sites up usdf" in said
        assert operator.run("submit", "bps_bias", "--site", "usdf", "--dry-run", TAG="nocluster").code == 0

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (", partition: nosuch", "invalid partition"),
            (", reservation: nosuch", "reservation"),
            (", constraint: nosuch", "feature"),
        ],
    )
    def test_sbatch_refuses(
        self, operator: Operator, at: Callable[..., None], cluster: Cluster, more: str, words: str
    ) -> None:
        at(cluster.conf, more)
        answer = operator.submit(f"refused-{words.split()[-1]}", "--site", "usdf")
        assert answer.code == 4, answer
        assert words in answer.err.lower()
        assert "campaign sites ping usdf looks closer" in answer.err
        assert not [one for one in queue(cluster.access) if one.living and "cpBias" in one.name]

    def test_over_the_limit_of_the_partition(
        self, operator: Operator, at: Callable[..., None], new_cluster: Callable[..., Cluster]
    ) -> None:
        own = new_cluster("short", nodes=1)
        call(own.access, ["scontrol", "update", "PartitionName=main", "MaxTime=5"])
        at(own.conf)
        answer = operator.submit("overlimit", "--site", "usdf", "--set", "requestWalltime=60")
        assert answer.code == 4, answer
        assert "PartitionTimeLimit" in answer.err or "time limit" in answer.err
        assert not [one for one in queue(own.access) if one.living]

    def test_a_site_without_its_python(self, operator: Operator, at: Callable[..., None], cluster: Cluster) -> None:
        at(cluster.conf, rest='python: "/nowhere/bin/python"')
        for ranks in ("1", "2"):
            more = ("--site", "usdf", "--ranks", ranks, "--set", "numberOfRetries=0")
            answer = operator.run("submit", "bps_bias", *more, TAG=f"nopython{ranks}")
            assert answer.code == 1, answer
            assert "/nowhere/bin/python: No such file or directory" in answer.err
            assert operator.products(f"nopython{ranks}") == []

    def test_fractions_that_do_not_sum_to_one(self, operator: Operator, at: Callable[..., None]) -> None:
        at("", rest="")
        Path(os.environ["CAMPAIGN_SITES"], "usdf.yaml").write_text("name: usdf\nfraction: 0.15\n")
        said = operator.refuse(3, "submit", "bps_bias", "--site", "usdf", TAG="fractions")
        assert "0.9" in said
        assert "usdf" in said
