"""Sites: their files, the development clusters that stand in for them, and the proofs that they work."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.home import Home, versions
from campaign.schedulers.local import LocalScheduler
from campaign.schedulers.slurm import SlurmScheduler, _default
from campaign.sites.model import Site, check_release, clusters_folder, find, from_plain, load, plain
from campaign.sites.probe import configuration
from slurm.development import Cluster
from slurm.settings import Scheduler
from templates import ROOT
from tests.campaign import loopback
from tests.conftest import apart

NAMES = ("frdf", "ukdf", "usdf")


def written(folder: Path, **files: str) -> Home:
    """Make a home with site files."""
    (folder / "sites").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / "sites" / f"{name}.yaml").write_text(text)
    return Home(folder)


# Files


def test_the_packaged_sites(tmp_path: Path) -> None:
    sites = load({}, Home(tmp_path))
    assert {name: site.fraction for name, site in sites.items()} == {
        "usdf": 0.25,
        "frdf": 0.50,
        "ukdf": 0.25,
        "local": None,
    }
    assert [name for name, site in sites.items() if "archive" in site.roles] == ["usdf"]
    assert sites["local"].scheduler == LocalScheduler()
    assert sites["usdf"].scheduler == SlurmScheduler()
    assert sites["usdf"].python == sys.executable


def test_every_setting_of_slurm_is_one_of_the_files_and_the_defaults_agree() -> None:
    ours = {f.name for f in fields(Scheduler)} - {"environment", "python"}  # the site's own
    assert set(SlurmScheduler.model_fields) == ours
    settings = SlurmScheduler()
    assert {name: getattr(settings, name) for name in ours} == {name: getattr(Scheduler(), name) for name in ours}


def test_ones_own_file_is_laid_over_the_packaged_one(tmp_path: Path) -> None:
    own = """
name: usdf
raw_root: ${DATA}/raws
repository: /repo/main
scratch: $HOME/a blank
python: /opt/drp/bin/python
release: 1.2.3
environment: {OMP_NUM_THREADS: 1, GREETING: "it's $HOME; no"}
scheduler:
  partition: milano
  account: rubin:production
  constraint: "intel&ssd"
  memory: mem-per-cpu
  setup: ["module load gcc"]
  extra: [--exclusive, --licenses=sps:1]
  conf: $DATA/slurm.conf
"""
    sites = load({"DATA": "/data", "HOME": "/people/me"}, written(tmp_path, usdf=own))
    site = sites["usdf"]
    assert (site.fraction, site.roles) == (0.25, ("archive", "processing"))  # as packaged
    assert (site.raw_root, site.scratch, site.release) == ("/data/raws", "/people/me/a blank", "1.2.3")
    assert site.environment == {"OMP_NUM_THREADS": "1", "GREETING": "it's $HOME; no"}
    assert site.scheduler == SlurmScheduler(
        partition="milano",
        account="rubin:production",
        constraint="intel&ssd",
        memory="mem-per-cpu",
        setup=("module load gcc",),
        extra=("--exclusive", "--licenses=sps:1"),
        conf="/data/slurm.conf",
    )
    assert site.python == "/opt/drp/bin/python"
    assert from_plain(json.loads(json.dumps(plain(site)))) == site
    assert sites["frdf"] == load({}, Home(tmp_path / "none"))["frdf"]


def test_a_new_site_without_fraction_and_packaged_ones_that_take_no_part(tmp_path: Path) -> None:
    mine = "name: mine\nroles: [processing]\n"
    assert load({}, written(tmp_path, mine=mine))["mine"].fraction is None
    alone = {name: f"name: {name}\nfraction: 0\n" for name in NAMES}
    sites = load({}, written(tmp_path, mine=mine + "fraction: 1\n", **alone))
    assert {name for name, site in sites.items() if site.fraction} == {"mine"}


def test_a_folder_or_a_file_in_place_of_the_homes(tmp_path: Path) -> None:
    home = written(tmp_path / "home", usdf="name: usdf\nrelease: 1\n".replace("1", "'1'"))
    written(tmp_path / "other", frdf="name: frdf\nrelease: '2'\n")
    for place in (tmp_path / "other" / "sites", tmp_path / "other" / "sites" / "frdf.yaml"):
        sites = load({"CAMPAIGN_SITES": str(place)}, home)
        assert (sites["usdf"].release, sites["frdf"].release) == ("", "2")
    with pytest.raises(ConfigurationError, match=r"CAMPAIGN_SITES: .*/nowhere is not there"):
        load({"CAMPAIGN_SITES": str(tmp_path / "nowhere")}, home)


BAD = {
    "no name": ("fraction: 0.2", "name: a site needs one"),
    "bad name": ("name: US-DF", "1: name: 'US-DF' is not right"),
    "unknown key": ("name: usdf\nfractoin: 0.2", "2: fractoin: there is no such setting\n  -> did you mean fraction?"),
    "unknown key of the scheduler": ("name: usdf\nscheduler:\n  partitoin: x", "3: scheduler.partitoin: there is no"),
    "key twice": ("name: usdf\nrelease: '1'\nrelease: '2'", "3: release: given twice"),
    "not YAML": ("name: [", "not YAML"),
    "text for a fraction": ("name: usdf\nfraction: a lot", "2: fraction: 'a lot' is not right\n  -> allowed: is not"),
    "yes for a fraction": ("name: usdf\nfraction: yes", "2: fraction: 'yes' is not right"),
    "fraction above one": ("name: usdf\nfraction: 1.5", "2: fraction: 1.5 is not right"),
    "no number for a fraction": ("name: usdf\nfraction: .nan", "2: fraction: nan is not right"),
    "sum of 0.9": (
        "name: frdf\nfraction: 0.4",
        "2: fraction: the processing sites sum to 0.9, not 1 (frdf 0.4, ukdf 0.25, usdf 0.25)",
    ),
    "sum too exact": ("name: frdf\nfraction: 0.500000002", "sum to 1.000000002, not 1"),
    "fraction without the role": ("name: frdf\nroles: [archive]", "fraction: frdf has 0.5, and no role of processing"),
    "unknown role": ("name: usdf\nroles:\n  - archive\n  - boss", "4: roles.1: 'boss' is not right"),
    "one role, not a list": ("name: usdf\nroles: archive", "2: roles: 'archive' is not right"),
    "other scheduler": (
        "name: usdf\nscheduler: pbs",
        "2: scheduler: 'pbs' is not right\n  -> allowed: none, or its settings",
    ),
    "a command for a partition": ("name: usdf\nscheduler: {partition: a;reboot}", "scheduler.partition: 'a;reboot'"),
    "a variable for an account": ("name: usdf\nscheduler: {account: $USER}", "scheduler.account: '$USER'"),
    "a line for a qos": ('name: usdf\nscheduler: {qos: "a\\nb"}', "scheduler.qos: 'a\\nb' is not right"),
    "backquotes for a constraint": ("name: usdf\nscheduler: {constraint: '`id`'}", "scheduler.constraint: '`id`'"),
    "an option of two words": ("name: usdf\nscheduler: {extra: ['-p x']}", "scheduler.extra.0: '-p x' is not right"),
    "text for memory": ("name: usdf\nscheduler: {memory: 4G}", "scheduler.memory: '4G' is not right"),
    "text for a number": ("name: usdf\nscheduler: {max_array: '10'}", "scheduler.max_array: '10' is not right"),
    "a variable that is none": ("name: usdf\nenvironment: {A-B: x}", "environment.A-B: 'A-B' is not right"),
    "true for a variable": ("name: usdf\nenvironment: {A: true}", "environment.A: True is not right"),
    "relative path": ("name: usdf\nscratch: here/there", "2: scratch: 'here/there' is not right"),
    "unset variable": ("name: usdf\nscratch: $NOWHERE/x", "2: scratch: $NOWHERE is not set\n  -> export NOWHERE"),
    "ssh without a host": ("name: usdf\ntransport: ssh", "2: host: transport ssh needs one"),
    "an option for a host": ("name: usdf\nhost: -oProxyCommand=id", "2: host: '-oProxyCommand=id' is not right"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_gets_one_error_with_file_and_key(tmp_path: Path, case: str) -> None:
    text, said = BAD[case]
    home = written(tmp_path, own=text)
    with pytest.raises(ConfigurationError) as caught:
        load({}, home)
    assert str(tmp_path / "sites" / "own.yaml") in str(caught.value) or case == "fraction without the role"
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_two_sites_with_one_name(tmp_path: Path) -> None:
    home = written(tmp_path, a="name: mine", b="\nname: mine")
    with pytest.raises(ConfigurationError) as caught:
        load({}, home)
    folder = tmp_path / "sites"
    assert f"{folder / 'b.yaml'}:2: name: mine is also the name of {folder / 'a.yaml'}:1" in str(caught.value)


def test_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)2 problems.*2: fraction.*3: scratch"):
        load({}, written(tmp_path, own="name: usdf\nfraction: 2\nscratch: x"))


def test_an_unknown_site(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no site 'usdff'\n  -> did you mean usdf?"):
        find(load({}, Home(tmp_path)), "usdff")


def test_another_release_is_refused_or_warned_of() -> None:
    ours = versions()["drp-campaign"]
    sites = [Site(name="a", release="0.0.1"), Site(name="b", release=ours), Site(name="c")]
    with pytest.raises(SubmissionRefused, match=rf"^a has drp-campaign 0.0.1, this is {ours}\n"):
        check_release(sites)
    assert check_release(sites, override=True) == [f"a has drp-campaign 0.0.1, this is {ours}"]


# Clusters


@dataclass(frozen=True)
class Answer:
    """Result of a command."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """A shell of an operator."""

    home: Path

    def run(self, *arguments: str, **more: str) -> Answer:
        begin = time.monotonic()
        other = "PYTHONPATH" in more  # another release
        line = [sys.executable, "-P", "-m", "campaign", *arguments] if other else apart("campaign", *arguments)
        done = subprocess.run(line, capture_output=True, text=True, env=self.environment(**more), timeout=120)
        return Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - begin)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("REPO", "CAMPAIGN_SITES", "SLURM_CONF")}
        return {**kept, "CAMPAIGN_HOME": str(self.home), **more}


def running(conf: str) -> list[int]:
    """Find the processes with a cluster's configuration in their environment or command, zombies left out."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and "State:\tZ" not in (folder / "status").read_text():
                text = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
                found += [int(folder.name)] if conf.encode() in text else []
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def shell(slurm_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """An operator with three sites up, in a folder with a blank."""
    shell = Shell(tmp_path_factory.mktemp("an operator") / "home")
    shell.home.mkdir()
    answer = shell.run("sites", "up", "--json", "--nodes", "2", "--memory", "2000")
    try:
        assert answer.code == 0, answer.err
        yield shell
    finally:
        shell.run("sites", "down")


def test_up_and_down_of_three_sites_of_four_nodes(slurm_here: None, tmp_path: Path) -> None:
    shell = Shell(tmp_path / "my home")
    shell.home.mkdir()
    up = shell.run("sites", "up", "--json")
    assert up.code == 0, up.err
    clusters = {c["name"]: c for c in up.document["clusters"]}
    assert {name: len(c["nodes"]) for name, c in clusters.items()} == dict.fromkeys(NAMES, 4)

    listed = {site["name"]: site for site in shell.run("sites", "--json").document["sites"]}
    for name, cluster in clusters.items():
        site = listed[name]
        folder = shell.home / "clusters" / name
        assert site["scheduler"]["conf"] == cluster["conf"]
        assert (site["repository"], site["scratch"]) == (str(folder / "repo"), str(folder / "scratch"))
        assert (site["scheduler"]["node_cores"], site["scheduler"]["node_memory_mib"]) == (4, 8000)
        assert (folder / "repo" / "butler.yaml").exists()
        assert (folder / "scratch").is_dir()
        assert len(running(cluster["conf"])) >= 6
    again = shell.run("sites", "up", "usdf", "--json")
    assert again.document["clusters"] == [clusters["usdf"]]

    down = shell.run("sites", "down")
    assert down.code == 0, down.err
    assert [running(cluster["conf"]) for cluster in clusters.values()] == [[], [], []]
    assert shell.run("sites", "--json").document["sites"][0]["scheduler"]["conf"] is None
    assert up.seconds <= 3.0 * slowness()
    assert down.seconds <= 2.0 * slowness()


def slowness() -> float:
    """How many times more than a core's worth others ask of this machine."""
    return max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def test_ping_proves_every_site(shell: Shell) -> None:
    answer = shell.run("sites", "ping", "--json")
    assert answer.code == 0, answer.err
    proofs = {site["site"]: {p["what"]: p for p in site["proofs"]} for site in answer.document["sites"]}
    assert set(proofs) == set(NAMES)
    for name, found in proofs.items():
        assert list(found) == ["scheduler", "scratch", "job", "gang", "repository", "release", "configuration"]
        assert all(proof["ok"] for proof in found.values())
        assert found["repository"]["found"] == str(shell.home / "clusters" / name / "repo")
        assert list((shell.home / "clusters" / name / "scratch" / "ping").iterdir()) == []


@pytest.mark.processes
def test_ping_of_this_machine(tmp_path: Path) -> None:
    home = written(tmp_path, local=f"name: local\nscratch: {tmp_path / 'a b'}\n")
    answer = Shell(home.path).run("sites", "ping", "local")
    assert answer.code == 0, answer.err
    assert "ran on" in answer.out


@pytest.mark.processes
def test_ping_of_this_machine_without_a_scratch_of_its_own(tmp_path: Path) -> None:
    """The packaged site `local`: its runs work in the step's scratch, and so does its proof."""
    answer = Shell(tmp_path / "home").run("sites", "ping", "local")
    assert answer.code == 0, answer.err
    assert "none of its own: the step's" in answer.out and "ran on" in answer.out


@pytest.mark.parametrize("repo", ["", "one", "two"])
def test_clusters_are_the_users_whatever_the_repository(repo: str, tmp_path: Path) -> None:
    environment = {"XDG_DATA_HOME": str(tmp_path), "REPO": str(tmp_path / repo)}
    assert clusters_folder(environment) == tmp_path / "drp-campaign" / "clusters"
    assert clusters_folder({**environment, "CAMPAIGN_HOME": "/here"}) == Path("/here/clusters")


def test_ping_names_all_that_fails_over_all_sites(shell: Shell, tmp_path: Path) -> None:
    """A partition that is not there, scratch that is a file, a repository that is none: one command names them."""
    (tmp_path / "file").touch()
    home = written(
        tmp_path,
        usdf="name: usdf\nscheduler: {partition: milano}\n",
        frdf=f"name: frdf\nscratch: {tmp_path / 'file'}\n",
        ukdf=f"name: ukdf\nrepository: {tmp_path}\npython: /no/such/python\n",
    )
    answer = shell.run("sites", "ping", CAMPAIGN_SITES=str(home.path / "sites"))
    assert answer.code == 4
    lines = answer.err.splitlines()
    assert "error: frdf: scratch: " + f"{tmp_path / 'file'}: Not a directory" in lines
    assert any(line.startswith("usdf: scheduler: ") and "milano" in line for line in lines)
    assert any(line.startswith("ukdf: job: ") and "/no/such/python" in line for line in lines)
    assert f"ukdf: repository: no Butler repository at {tmp_path}" in lines
    assert sum(line.startswith("  -> ") for line in lines) == 4
    kept = list((shell.home / "clusters" / "ukdf" / "scratch" / "ping").glob("*"))
    assert {file.suffix for file in kept} == {".sh", ".log"}
    assert all(str(file.with_suffix("")) in answer.err for file in kept)
    for file in kept:
        file.unlink()


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ("{launcher: srun-pmix}", "gang: "),
        ("{setup: ['srun() { command srun --mpi=none -n 2 \"${@:5}\"; }']}", "gang: 2 ranks see a world of 1"),
    ],
)
def test_a_launcher_of_another_mpi_is_seen(shell: Shell, tmp_path: Path, scheduler: str, said: str) -> None:
    """A launcher that Slurm lacks, and one that starts every rank alone."""
    home = written(tmp_path, usdf=f"name: usdf\nscheduler: {scheduler}\n")
    answer = shell.run("sites", "ping", "usdf", CAMPAIGN_SITES=str(home.path / "sites"))
    assert answer.code == 4
    assert answer.err.startswith(f"error: usdf: {said}")


@pytest.fixture
def other_release(tmp_path: Path) -> Path:
    """An installation with a changed pipeline and a changed kernel, which calls itself 9.9."""
    place = tmp_path / "other"
    for package in ("campaign", "kernels", "slurm", "templates"):
        shutil.copytree(ROOT.parent / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    about = place / "drp_campaign-9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: drp-campaign\nVersion: 9.9\n")
    with (place / "templates" / "defaults.yaml").open("a") as file:
        file.write("# changed\n")
    with (place / "kernels" / "combine.py").open("a") as file:
        file.write("# changed\n")
    return place


def test_another_release_at_a_site_is_refused_and_override_warns(
    shell: Shell, other_release: Path, tmp_path: Path
) -> None:
    """The release of the site's jobs counts, not that of a file."""
    changed = f"environment: {{PYTHONPATH: '{other_release}'}}\n"
    local = f"name: local\nscratch: {tmp_path / 'scratch'}\n" + changed
    environment = {"CAMPAIGN_SITES": str(written(tmp_path, usdf="name: usdf\n" + changed, local=local).path / "sites")}
    answer = shell.run("sites", "ping", "usdf", **environment)
    assert answer.code == 4
    assert f"error: usdf: release: drp-campaign 9.9, not {versions()['drp-campaign']}; kernels " in answer.err
    assert "\nusdf: configuration: the packaged templates differ" in answer.err
    warned = shell.run("sites", "ping", "local", "--override", **environment)
    assert warned.code == 0
    assert warned.err.startswith("warning: local: release: drp-campaign 9.9")


@pytest.mark.processes
def test_the_release_of_the_site_file_is_compared_too(tmp_path: Path) -> None:
    home = written(tmp_path, local=f"name: local\nscratch: {tmp_path}\nrelease: 0.0.1\n")
    answer = Shell(home.path).run("sites", "ping", "local")
    assert answer.code == 4
    assert answer.err.startswith(f"error: local: release: its file says 0.0.1, not {versions()['drp-campaign']}\n")


def test_a_job_that_cannot_start_is_cancelled(shell: Shell, tmp_path: Path) -> None:
    """Nothing is left in the queue, neither after the wait nor after ^C."""
    own = "name: usdf\nscheduler: {extra: [--begin=now+1hour]}\n"
    environment = {"CAMPAIGN_SITES": str(written(tmp_path, usdf=own).path / "sites")}
    answer = shell.run("sites", "ping", "usdf", "--wait", "4", **environment)
    assert answer.code == 4
    assert re.search(r"has not ended in 4 s: job \d+: PENDING", answer.err)

    line = [sys.executable, "-P", "-m", "campaign", "sites", "ping", "usdf"]
    with subprocess.Popen(line, env=shell.environment(**environment), stderr=subprocess.PIPE, text=True) as process:
        until_queued(shell, 1)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        process.communicate(timeout=20)
        assert process.returncode == 130
        assert time.monotonic() - begin < 5
    until_queued(shell, 0)


def until_queued(shell: Shell, jobs: int) -> None:
    conf = shell.run("sites", "--json").document["sites"][-1]["scheduler"]["conf"]
    end = time.monotonic() + 20
    while True:
        said = subprocess.run(["squeue", "-h"], env={**os.environ, "SLURM_CONF": conf}, capture_output=True, text=True)
        if said.returncode == 0 and len(said.stdout.splitlines()) == jobs:
            return
        assert time.monotonic() < end, said
        time.sleep(0.05)


@pytest.mark.processes
def test_a_host_that_is_not_reached_is_named(tmp_path: Path) -> None:
    own = "name: usdf\ntransport: ssh\nhost: nowhere.invalid\n"
    answer = Shell(written(tmp_path, usdf=own).path).run("sites", "ping", "usdf")
    assert answer.code == 4
    assert answer.err.startswith("error: usdf: host: nowhere.invalid: ")


OVER_SSH = """\
name: {name}
transport: ssh
host: {host}
ssh_options: ["-F", "{config}"]
python: "{python}"
scratch: "{scratch}"
environment: {{PYTHONPATH: "{path}"}}
scheduler: {scheduler}
"""


def test_ping_over_ssh(cluster: Cluster, tmp_path: Path) -> None:
    """Sites with Slurm, without Slurm, with a wrong interpreter, without one: through a real sshd."""
    if why := loopback.lacking():
        pytest.skip(why)
    with loopback.server(tmp_path / "sshd") as there:
        common = {"host": there.host, "config": there.options[1], "scratch": tmp_path / "scratch", "path": ROOT.parent}
        slurm = f'{{conf: "{cluster.conf}", interface: lo}}'
        pythons = {"usdf": sys.executable, "local": sys.executable, "frdf": "/bin/false", "ukdf": "/nowhere/python"}
        files = {
            name: OVER_SSH.format(name=name, python=python, scheduler=slurm if name == "usdf" else "none", **common)
            for name, python in pythons.items()
        }
        shell = Shell(written(tmp_path, **files).path)
        good = shell.run("sites", "ping", "usdf", "local", "--json")
        bad = shell.run("sites", "ping", "frdf", "ukdf")
    assert good.code == 0, good.err
    proofs = {site["site"]: {p["what"]: p for p in site["proofs"]} for site in good.document["sites"]}
    assert list(proofs["usdf"]) == [
        "host", "scheduler", "scratch", "job", "gang", "repository", "release", "configuration"
    ]  # fmt: skip
    assert list(proofs["local"]) == ["host", "scratch", "job", "repository", "release", "configuration"]
    assert "ran on" in proofs["usdf"]["job"]["found"]
    assert bad.code == 4
    assert "frdf: host: elsewhere: it said nothing (exit code 1)" in bad.err
    assert "ukdf: host: elsewhere: env: " in bad.err
    assert "/nowhere/python" in bad.err
    assert "No such file or directory" in bad.err


@pytest.mark.processes
def test_sites_that_are_not_set_up_say_how(tmp_path: Path) -> None:
    """Without clusters and without files of one's own."""
    answer = Shell(tmp_path).run("sites", "ping", "ukdf", PATH="/nonexistent")
    assert answer.code == 4
    assert answer.err.startswith("error: ukdf: scheduler: no sinfo on PATH")
    assert "`campaign sites up ukdf` starts a cluster here" in answer.err


@pytest.mark.processes
@pytest.mark.parametrize(("command", "code"), [("ping", 2), ("up", 2), ("down", 2)])
def test_a_site_that_is_none(tmp_path: Path, command: str, code: int) -> None:
    answer = Shell(tmp_path).run("sites", command, "usfd")
    assert answer.code == code
    assert answer.err.count("\n") == 2
    assert "usfd" in answer.err


@pytest.mark.processes
@pytest.mark.parametrize("own", ["scheduler: none", "scheduler: {conf: /etc/slurm/slurm.conf}"])
def test_no_cluster_for_a_site_that_has_its_own(tmp_path: Path, own: str) -> None:
    answer = Shell(written(tmp_path, usdf=f"name: usdf\n{own}\n").path).run("sites", "up", "usdf")
    assert answer.code == 2
    assert answer.err.startswith("error: the site file of usdf says where its jobs go\n")
    assert not (tmp_path / "clusters").exists()


@pytest.mark.processes
def test_a_bad_file_stops_the_command(tmp_path: Path) -> None:
    home = written(tmp_path, frdf="name: frdf\nfraction: 0.4\n")
    answer = Shell(home.path).run("sites")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith(f"error: {tmp_path}/sites/frdf.yaml:2: fraction: ")


def test_the_digest_of_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from campaign.sites import probe as sites_probe

    (tmp_path / "sites").mkdir()
    (tmp_path / "a.yaml").write_text("1")
    monkeypatch.setattr(sites_probe, "ROOT", tmp_path)
    first = configuration()
    (tmp_path / "sites" / "usdf.yaml").write_text("each its own")
    assert configuration() == first
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    assert configuration() != first


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("short short up\ndebug* debug up\n", ("debug", "up")),
        ("short short up\nlong long down\n", ("short", "up")),
        ("a*b a*b up\n", ("a*b", "up")),
    ],
)
def test_the_partition_that_jobs_go_to_is_named_without_sinfos_star(lines: str, found: tuple[str, str]) -> None:
    assert tuple(_default([line.split() for line in lines.splitlines()])) == found
