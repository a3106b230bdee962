"""Arrays within a site's limits: nothing left out, nothing twice, never too many."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm import arrays
from slurm.arrays import Part
from slurm.commands import SlurmError, find, queue, submit
from slurm.development import Cluster
from slurm.scripts import Resources, Scheduler, ScriptError, array_script, write_commands
from slurm.states import State
from slurm.watcher import Watcher

SMALL = Resources(memory_mib=50, minutes=5)


@given(st.integers(0, 5000), st.integers(1, 2000), st.integers(1, 2000))
def test_a_split_covers_all_within_the_limits(count: int, max_array: int, max_submit: int) -> None:
    parts = arrays.split(count, max_array, max_submit)
    assert [n for part in parts for n in part] == list(range(count))
    sizes = {len(part) for part in parts}
    assert not sizes or (min(sizes) > 0 and max(sizes) <= min(max_array, max_submit))
    assert not sizes or max(sizes) - min(sizes) <= 1
    if count <= min(max_array, max_submit):
        assert len(parts) == bool(count)


def test_an_array_over_the_sites_limit_is_refused(tmp_path: Path) -> None:
    commands = write_commands(tmp_path / "all.commands", [["true"]] * 4)
    with pytest.raises(ScriptError, match="big: an array of 4; the site's max_array is 3"):
        array_script("big", commands, range(4), tmp_path / "big.log", SMALL, Scheduler(max_array=3))


def test_every_element_runs_once_with_its_own_words(cluster: Cluster, tmp_path: Path) -> None:
    site = Scheduler(conf=cluster.conf, max_array=3, max_submit=4)
    words = ["plain", "two words", "it's", '$HOME "x" `id` \\', "ü", "a;b&c|d"]
    out = tmp_path / "out is here"
    out.mkdir()
    lines = [["bash", "-c", 'echo "$1" >> "$2"; exit "$3"', "-", w, f"{out}/{n}", str(n)] for n, w in enumerate(words)]
    announced: list[Part] = []
    parts = arrays.prepare("run-words-1", lines, tmp_path / "logs of it" / "words.log", SMALL, site)
    assert [part.name for part in parts] == ["run-words-1-p0", "run-words-1-p1", "run-words-1-p2"]
    with Watcher(site.access, interval=0.3) as watcher:
        statuses = arrays.run(parts, watcher, site, announced.append)
    assert announced == parts
    assert [(out / str(n)).read_text() for n in range(len(words))] == [f"{word}\n" for word in words]
    assert [status.state for status in statuses] == [State.DONE] + [State.FAILED] * 5
    assert [status.exit_code for status in statuses] == [f"{n}:0" for n in range(6)]
    assert {status.reason for status in statuses[1:]} == {"failed"}
    assert all(log.exists() for part in parts for log in part.logs)


def test_a_living_array_is_adopted_and_a_refused_one_takes_the_others_along(cluster: Cluster, tmp_path: Path) -> None:
    site = Scheduler(conf=cluster.conf, max_array=2)
    parts = arrays.prepare("run-adopt-1", [["sleep", "1.5"]] * 2, tmp_path / "adopt.log", SMALL, site)
    job = submit(site.access, parts[0].script)
    announced: list[Part] = []
    with Watcher(site.access, interval=0.3) as watcher:
        statuses = arrays.run(parts, watcher, site, announced.append)
        assert announced == []
        assert [(status.job, status.state) for status in statuses] == [(f"{job}_{n}", State.DONE) for n in range(2)]

        parts = arrays.prepare("run-refuse-1", [["sleep", "60"]] * 4, tmp_path / "refuse.log", SMALL, site)
        parts[1].script.write_text(parts[1].script.read_text().replace("--time", "--partition=nowhere\n#SBATCH --time"))
        with pytest.raises(SlurmError, match="nowhere"):
            arrays.run(parts, watcher, site)
    assert find(site.access, ["run-refuse-1-p0"]) == {"run-refuse-1-p0": []}
    assert [one.slurm for one in queue(site.access) if one.name == "run-refuse-1-p0"] == ["CANCELLED"] * 2
