"""``campaign submit --site``: a site makes the same products as this machine; impossible jobs are refused; ^C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fitsio
import pytest

from campaign.butler.repository import open_repository
from slurm.commands import call, queue
from slurm.development import Cluster
from tests.conftest import Demo

pytestmark = pytest.mark.processes

TEMPLATE = Path(__file__).parents[1] / "data" / "bps_isr.yaml"
CHAIN = "LSSTComCam/calib/DM-00000"
PATIENCE_S = 30
#: Only one of the sites' shares is listed here.
SITE = """\
name: usdf
fraction: 0.25
roles: [archive, processing]
scheduler: {{conf: "{conf}", interface: lo, node_cores: 2{more}}}
"""


@pytest.fixture
def at(cluster: Cluster, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The variables that make the cluster the site usdf."""

    def sites(more: str = "") -> dict[str, str]:
        folder = tmp_path / "sites"
        folder.mkdir()
        (folder / "usdf.yaml").write_text(SITE.format(conf=cluster.conf, more=more))
        return {"CAMPAIGN_SITES": str(folder)}

    return sites


def apart(demo: Demo, folder: Path) -> dict[str, str]:
    """A home of its own, for runs that end badly: the demo's runs are looked at by others."""
    shutil.copytree(demo.folder / "repo" / "campaign" / "cameras", folder / "home" / "cameras")
    return {"CAMPAIGN_HOME": str(folder / "home")}


def living(cluster: Cluster) -> list[str]:
    return [one.name for one in queue(cluster.access) if one.living]


def images(path: Path) -> list[bytes]:
    return [fitsio.read(path, hdu).tobytes() for hdu in ("IMAGE", "MASK", "VARIANCE")]


def test_a_site_makes_the_bias_that_this_machine_makes(
    demo: Demo, cluster: Cluster, at: Callable[..., dict[str, str]]
) -> None:
    run = f"{CHAIN}/demo/isr/at-usdf"
    rerun = ["--set", f"outputRun={run}", "--set", f"output={run[:-8]}"]
    answer = demo.run("submit", str(TEMPLATE), "--site", "usdf", "--ranks", "4", "--json", *rerun, **at())
    assert answer.returncode == 0, answer.stderr
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    (job,) = [e["detail"]["job"] for e in events if e["event"] == "queued" and e["task"] == "cpBiasCombine"]
    said = call(cluster.access, ["scontrol", "--oneliner", "show", "job", job])
    assert "NumNodes=2" in said
    assert "TimeLimit=00:20:00" in said
    assert "MinMemoryNode=6000M" in said  # two ranks of 3000 MiB
    begin = "2024-12-08T22:00:00"
    with open_repository(str(demo.folder / "repo")) as repository:
        made = {d.data_id["detector"]: Path(d.path) for d in repository.datasets("bias", [run])}
        frames = list(repository.datasets("postISRCCD", [run]))
        for detector, path in made.items():
            known = repository.find_dataset(
                "bias", {"instrument": "LSSTComCam", "detector": detector}, [CHAIN], begin, begin
            )
            assert known is not None
            assert images(path) == images(Path(known.path))
    assert len(made) == 9
    assert len(frames) == 90


def test_a_refusal_of_slurm_ends_the_submission(
    demo: Demo, cluster: Cluster, at: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    more = {**at(", partition: nosuch"), **apart(demo, tmp_path)}
    answer = demo.run("submit", "bps_bias", "--site", "usdf", "--ranks", "2", **more)
    assert answer.returncode == 4
    assert "invalid partition" in answer.stderr
    assert not [name for name in living(cluster) if "cpBias" in name]


def test_what_can_be_known_of_a_refusal_is_known_before_anything_is_claimed(
    demo: Demo, cluster: Cluster, at: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """A template of the site's own with a fault; see tests/faults for Slurm's own refusals."""
    (tmp_path / "own.sh.j2").write_text('{% extends "slurm.sh.j2" %}\n{% block setup %}\n{% if %}')
    more = {**at(f', template: "{tmp_path}/own.sh.j2"'), **apart(demo, tmp_path), "SCRATCH": str(tmp_path / "scratch")}
    for how in ("--site", "--sites"):
        answer = demo.run("submit", "bps_bias", how, "usdf", "--ranks", "2", **more, RERUN="claimless")
        assert answer.returncode == 4, answer.stderr
        assert "own.sh.j2, line 3: " in answer.stderr
        assert "campaign sites ping usdf looks closer" in answer.stderr
    assert not list(tmp_path.glob("scratch/submit/**/plan.json"))
    with open_repository(str(demo.folder / "repo")) as repository:
        assert not [name for name in repository.collections() if "claimless" in name]


def test_a_controller_that_is_gone_is_told_soon(
    demo: Demo, new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    own = new_cluster("usdf", nodes=1)
    os.kill(own.daemons["slurmctld"], signal.SIGKILL)
    (tmp_path / "usdf.yaml").write_text(SITE.format(conf=own.conf, more=""))
    more = {"CAMPAIGN_SITES": str(tmp_path / "usdf.yaml"), **apart(demo, tmp_path)}
    began = time.monotonic()
    answer = demo.run("submit", "bps_bias", "--site", "usdf", **more)
    assert time.monotonic() - began < 25
    assert answer.returncode == 4, answer.stderr
    assert answer.stderr.startswith("error: usdf, its Slurm: no Slurm answers: ")
    assert "campaign sites up usdf" in answer.stderr
    assert "campaign sites ping usdf" in answer.stderr


def test_an_account_that_a_partition_does_not_take(
    demo: Demo, new_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    own = new_cluster("usdf", nodes=1)
    call(own.access, ["scontrol", "update", "PartitionName=main", "AllowAccounts=rubin"])
    (tmp_path / "usdf.yaml").write_text(SITE.format(conf=own.conf, more=""))
    more = {"CAMPAIGN_SITES": str(tmp_path / "usdf.yaml"), **apart(demo, tmp_path)}
    answer = demo.run("submit", "bps_bias", "--site", "usdf", **more, RERUN="noaccount")
    assert answer.returncode == 4, answer.stderr
    assert "the job could never run: Job's account not known" in answer.stderr
    assert living(own) == []


@pytest.mark.parametrize(
    ("more", "asked", "ranks", "by"),
    [
        ("", [], 1, "work"),
        (", ranks: 5", [], 5, "site file"),
        (", ranks: 50", [], 9, "tasks"),
        (", ranks: 5", ["--ranks", "12"], 12, "--ranks"),
    ],
)
def test_a_gang_is_as_large_as_the_site_says(
    demo: Demo, tmp_path: Path, more: str, asked: list[str], ranks: int, by: str
) -> None:
    """Sized for the site, not for this machine; a dry run asks nobody."""
    (tmp_path / "usdf.yaml").write_text(SITE.format(conf=tmp_path / "no.conf", more=more))
    line = ["submit", "bps_bias", "--site", "usdf", "--dry-run", "--json", *asked]
    answer = demo.run(*line, CAMPAIGN_SITES=str(tmp_path / "usdf.yaml"))
    assert answer.returncode == 0, answer.stderr
    groups = json.loads(answer.stdout)["groups"]
    assert {(g["ranks"], g["ranks_by"]) for g in groups if g["kind"] == "gang"} == {(ranks, by)}
    assert {g["ranks"] for g in groups if g["kind"] == "serial"} == {1}


def test_a_site_that_is_none_is_refused(demo: Demo) -> None:
    answer = demo.run("submit", "bps_bias", "--site", "nowhere")
    assert answer.returncode == 2
    assert "there is no site 'nowhere'" in answer.stderr


def test_an_interrupt_cancels_what_waits(demo: Demo, new_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    own = new_cluster("usdf", nodes=1)
    call(own.access, ["scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test"])
    (tmp_path / "usdf.yaml").write_text(SITE.format(conf=own.conf, more=""))
    line = [sys.executable, "-P", "-m", "campaign", "submit", "bps_bias", "--site", "usdf", "--ranks", "2"]
    own_home = apart(demo, tmp_path / "own")
    variables = {
        **os.environ,
        **demo.variables,
        **own_home,
        "CAMPAIGN_SITES": str(tmp_path / "usdf.yaml"),
        "RERUN": "stopped",
    }
    process = subprocess.Popen(line, env=variables, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        until = time.monotonic() + PATIENCE_S
        while not living(own):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "nothing is left running" in said
    assert living(own) == []


def test_the_template_asks_for_resources(demo: Demo, tmp_path: Path) -> None:
    path = tmp_path / TEMPLATE.name
    shutil.copy(TEMPLATE, path)
    answer = demo.run("submit", str(path), "--dry-run", "--json", "--set", "requestCpus=2")
    assert answer.returncode == 0, answer.stderr
    groups = {g["label"]: g["resources"] for g in json.loads(answer.stdout)["groups"]}
    assert groups["cpBiasIsr"] == {"memory_mib": 1024, "cores": 2, "minutes": 30}
    assert groups["cpBiasCombine"] == {"memory_mib": 3000, "cores": 2, "minutes": 20}
    assert groups["cpBiasMosaic8"] == {"memory_mib": 2048, "cores": 2, "minutes": 10}  # by what the demo took
    answer = demo.run("submit", str(path), "--dry-run", "--set", "memoryLimit=1000")
    assert answer.returncode == 4
    assert "memoryLimit is 1000 MiB" in answer.stderr
