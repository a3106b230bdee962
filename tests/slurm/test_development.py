"""Private clusters: quick to come and go, found by anybody, with nothing left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest

from slurm import development
from slurm.development import Cluster, ClusterError, down, living, up
from tests import strangers

NAMES = ("usdf", "frdf", "ukdf")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("slurm_here")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder of clusters; whatever a test leaves there ends with it."""
    yield tmp_path
    for file in list(tmp_path.glob("**/cluster.lock")):
        down(file.parent)


def run(cluster: Cluster, *line: str) -> str:
    environment = {**os.environ, "SLURM_CONF": cluster.conf}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def alive(conf: str) -> list[str]:
    """Look with other eyes than the code's: whatever has the cluster's configuration in environment or command."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            state = (folder / "status").read_text().split("State:")[1].split()[0]
            texts = [(folder / name).read_bytes().replace(b"\0", b" ").decode() for name in ("environ", "cmdline")]
        except OSError:
            continue
        if state not in "ZX" and any(conf in text for text in texts):
            found.append(f"{folder.name} {texts[1]}")
    return found


def parallel(function: Callable[[str], Cluster | None], names: Sequence[str]) -> tuple[list[Cluster | None], float]:
    begin = time.monotonic()
    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(function, names))
    return done, time.monotonic() - begin


def until(condition: Callable[[], object], patience: float = 10.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_three_clusters_come_and_go(root: Path, tmp_path: Path) -> None:
    found, took = parallel(lambda name: up(root / name, name), NAMES)
    clusters = [cluster for cluster in found if cluster]
    assert took <= 3.0
    assert living(root) == sorted(clusters, key=lambda c: c.name)
    jobs: list[int] = []
    for cluster in clusters:
        nodes = run(cluster, "sinfo", "-h", "-N", "-o", "%N %T %c %m").splitlines()
        assert nodes == [f"{cluster.name}{n} idle 4 8000" for n in (1, 2, 3, 4)]
        # One that runs, one that went away from it, and one that threw its environment away.
        started = f"sleep 101 & setsid sleep 102 & env -i sleep 103 & touch '{tmp_path}/{cluster.name} runs'; wait"
        jobs.append(int(run(cluster, "sbatch", "--parsable", "-o", "/dev/null", "--wrap", started)))
    # MPI names a job's shared memory by its id: at least 5000 jobs of a cluster are nobody else's.
    assert min(abs(a - b) for a, b in combinations(jobs, 2)) >= 5000
    until(lambda: all((tmp_path / f"{name} runs").exists() for name in NAMES))
    sleepers = [pid for cluster in clusters for pid in development.processes(cluster) if is_sleeping(pid)]
    assert len(sleepers) == 9
    assert len(alive(clusters[0].conf)) >= 8  # six daemons, the job and its step: other eyes see them too

    _, took = parallel(lambda name: down(root / name), NAMES)
    assert took <= 2.0
    assert [alive(cluster.conf) for cluster in clusters] == [[], [], []]
    assert not any(is_sleeping(pid) for pid in sleepers)
    assert living(root) == []
    assert {file.name for file in (root / "usdf").iterdir()} == {"cluster.lock", "log"}


def is_sleeping(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "Name:\tsleep\n" in status and "State:\tZ" not in status


def test_another_shell_finds_it_and_a_shell_of_the_operator_survives(root: Path) -> None:
    cluster = up(root / "a", "a", nodes=1)
    assert up(root / "a", "a", nodes=1) == cluster
    code = f"from pathlib import Path; from slurm.development import *; print(*living(Path({str(root)!r})))"
    line = [sys.executable, "-P", "-c", code]
    said = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert said.stdout.strip() == str(cluster)
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "SLURM_CONF": cluster.conf}) as shell:
        down(root / "a")
        assert shell.poll() is None
        shell.kill()


def test_another_shape_wants_it_down_first(root: Path) -> None:
    up(root / "a", "a", nodes=1)
    with pytest.raises(ClusterError, match="a is up with 1 nodes of 4 cores: down first"):
        up(root / "a", "a", nodes=2)


@pytest.mark.parametrize("folder", ["a blank, a 'quote' and #", "l" * 90])
def test_a_path_that_slurm_does_not_take(root: Path, folder: str) -> None:
    cluster = up(root / folder, "a", nodes=1)
    assert run(cluster, "srun", "hostname").strip()
    assert living(root) == [cluster]
    assert root not in Path(cluster.run).parents
    down(root / folder)
    assert not Path(cluster.run).exists()
    assert alive(cluster.conf) == []


def test_what_a_crash_left_is_cleaned(root: Path) -> None:
    first = up(root / "a", "a", nodes=1)
    os.kill(first.daemons["slurmctld"], signal.SIGKILL)
    until(lambda: not first.alive)
    assert living(root) == []
    second = up(root / "a", "a", nodes=1)
    assert set(first.daemons.values()).isdisjoint(second.daemons.values())
    assert len(alive(second.conf)) == 4  # slurmctld are two processes

    (root / "a" / "cluster.json").unlink()  # somebody removed the folder under the daemons
    down(root / "a")
    assert alive(second.conf) == []
    assert not Path(second.run).exists()


def test_a_process_of_another_program_is_not_ended(root: Path) -> None:
    cluster = up(root / "a", "a", nodes=1)
    with subprocess.Popen(["sleep", "60"]) as other:
        state = json.loads((root / "a" / "cluster.json").read_text())
        state["daemons"]["a1"] = other.pid  # as after a reboot: the number belongs to another process
        (root / "a" / "cluster.json").write_text(json.dumps(state))
        assert living(root) == []
        down(root / "a")
        assert other.poll() is None
        other.kill()
    assert alive(cluster.conf) == []


def test_a_daemon_that_ends_says_why_and_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(development, "MUNGE_FILES", {**development.MUNGE_FILES, "key-file": "no-such"})
    with pytest.raises(ClusterError, match=r"munged of cluster a ended: .*no-such"):
        up(root / "a", "a", nodes=1)
    assert alive(str(root / "a")) == []
    assert {file.name for file in (root / "a").iterdir()} == {"cluster.lock", "log"}


@pytest.mark.parametrize("name", ["", "US DF", "a;b", "1a", "a" * 21])
def test_a_name_that_is_none(root: Path, name: str) -> None:
    with pytest.raises(ClusterError, match="is no name of a cluster"):
        up(root / "a", name)


NOBODY = """
import os, pwd, sys
from pathlib import Path
import jinja2.runtime, jinja2.ext, encodings.idna
from slurm.commands import call
from slurm.development import processes, up, down

user = pwd.getpwnam("nobody")
os.setgroups([]), os.setgid(user.pw_gid), os.setuid(user.pw_uid)  # after the imports: Python itself may be root's
folder = Path(sys.argv[1])
cluster = up(folder, "u", nodes=2)
print(*call(cluster.access, ["srun", "-N2", "id", "-un"]).split(), len(processes(cluster)) >= 5, cluster.run)
down(folder)
print(processes(cluster))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test here runs as a plain user already")
def test_a_plain_user() -> None:
    """Up, a job on two nodes, down, as a user that may do nothing."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o777)
        line = [sys.executable, "-P", "-B", "-W", "error", "-c", NOBODY, f"{place}/u"]
        done = subprocess.run(
            line, capture_output=True, text=True, cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [f"nobody nobody True {place}/u/slurm", "[]"]


def test_nobody_else_reaches_a_private_cluster(cluster: Cluster) -> None:
    """Nodes without root run all jobs as the operator, so munge, which admits jobs, serves nobody else."""
    assert not Path(cluster.run).stat().st_mode & 0o077
    ports = set(strangers.listening(*cluster.daemons.values()))
    assert {host for host, _ in ports} == {"127.0.0.1"}
