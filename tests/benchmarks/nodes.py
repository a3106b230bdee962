"""A whole LSSTCam, small frames, on a private Slurm cluster of a hundred nodes: driver, start of ranks, bytes read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from campaign.jobs.launch import cores
from campaign.simulation import demo
from campaign.simulation.simulate import Places
from slurm import development
from slurm.development import Cluster
from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, Skipped, ratio
from tests.benchmarks.jobs import fresh
from tests.benchmarks.process import LONGEST_S, ask, environment, module, run
from tests.benchmarks.submission import again

CAMERA, SCALE, DAY, EXPOSURES = "LSSTCam", 64, 20241206, 5
NODES, QUICK_NODES = 100, 4
#: Detectors of the small submission; what the large one takes beyond it is the tasks'.
FEW, QUICK_DETECTORS = 3, 12
#: Memory of a rank, and of a node, MiB.
RANK_MIB, NODE_MIB = 2000, 4000
#: Patience with a hundred daemons on one machine, second.
PATIENCE_S = 180.0


@contextmanager
def cluster(bench: Bench, nodes: int) -> Iterator[Cluster]:
    """Start a cluster whose nodes have one core each."""
    if lacking := development.missing():
        raise Skipped(f"no {lacking}: make slurm-deps")
    folder, development.START = bench.data.folder / "nodes", PATIENCE_S
    try:
        yield development.up(folder, "bench", nodes=nodes, cpus=1, memory_mib=NODE_MIB)
    finally:
        development.down(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _repository(bench: Bench) -> Places:
    places = Places(bench.data.folder / "tiny" / "repo")
    if not places.repository.exists():
        bench.say(f"simulating {EXPOSURES} biases of {CAMERA} at scale {SCALE}")
        line = [sys.executable, "-P", "-m", "campaign", "simulate", places.repository, "--camera", CAMERA]
        line += ["--scale", SCALE, "--bias", EXPOSURES, "--dark", 0, "--flat", 0, "--day-obs", DAY, "--ranks", cores()]
        line += [word for d in range(QUICK_DETECTORS) for word in ("--detector", d)] if bench.quick else []
        run([str(word) for word in line])
    return places


def _variables(places: Places, one: Cluster, which: str, turn: int) -> dict[str, str]:
    """What the operator exports; the site file asks for a rank a node, or leaves the number to the work."""
    sites = places.repository.parent / "sites"
    sites.mkdir(exist_ok=True)
    ranks = f"node_cores: 1, ranks: {len(one.nodes)}" if which != "free" else f"node_cores: {len(one.nodes)}"
    scheduler = f'{{conf: "{one.conf}", interface: lo, {ranks}}}'
    (sites / "usdf.yaml").write_text(
        f"name: usdf\nfraction: 0.25\nroles: [archive, processing]\nscheduler: {scheduler}\n"
    )
    exports = {key: value.replace(demo.CAMERA, CAMERA) for key, value in demo.variables(places).items()}
    if which == "few":
        exports["SELECTION_BIAS"] += f" and detector in (0..{FEW - 1})"
    return environment(**exports | {"CAMPAIGN_SITES": str(sites), "RERUN": f"{which}{turn}"})


def _submit(places: Places, one: Cluster, which: str, turns: Iterator[int]) -> float:
    """Submit to the cluster; CPU of the driver and of Slurm's commands, second."""
    line = [sys.executable, "-P", "-m", "campaign", "submit", "bps_bias", "--site", "usdf"]
    return run(line, _variables(places, one, which, next(turns))).cpu


def _worth(places: Places, one: Cluster) -> int:
    """Ranks that the work is worth, by the product's rule and the runs so far."""
    line = [sys.executable, "-P", "-m", "campaign", "check", "bps_bias", "--site", "usdf", "--json"]
    return max(int(row["ranks"]) for row in json.loads(ask(line, _variables(places, one, "free", 0)))["cost"])


def _job(places: Places) -> tuple[Path, dict[str, Any]]:
    """The largest job that combines."""
    found = [path for path in (places.repository.parent / "scratch").rglob("jobs/*.json")]
    path = max(found, key=lambda path: path.stat().st_size)
    return path, json.loads(path.read_text())


def _ranks(bench: Bench, one: Cluster, job: Path, ranks: int, how: str) -> list[dict[str, float]]:
    """Run a job on the cluster as a submission does, each rank telling what it used."""
    folder = fresh(bench.data.folder / "ranks")
    line = module("rank", how, folder, again(job, folder, ranks))
    python = line.index(sys.executable)
    line = [*line[: python + 2], "-m", "mpi4py", *line[python + 2 :]]
    srun = [
        "srun",
        "--mpi=pmi2",
        "--kill-on-bad-exit=1",
        "--ntasks",
        str(ranks),
        "--mem-per-cpu",
        str(RANK_MIB),
        "--chdir",
        str(folder),
        *line,
    ]
    env = environment(SLURM_CONF=one.conf, PATH=os.pathsep.join((os.environ["PATH"], *development.SYSTEM_PATH)))
    done = subprocess.run(srun, env=env, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{done.stderr[-500:]}\nsrun ended with {done.returncode}")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def nodes(bench: Bench) -> Iterator[Result]:
    """Driver CPU a task, the share of the ranks' start, and bytes read of those of the raws."""
    places = _repository(bench)
    with cluster(bench, QUICK_NODES if bench.quick else NODES) as one:
        turns = iter(range(1000))
        runs = {which: partial(_submit, places, one, which, turns) for which in ("few", "all")}
        spent = bench.alternate(2, runs)
        path, job = _job(places)
        tasks, most = len(job["tasks"]), job["ranks"]
        said = f"{tasks} detectors x {EXPOSURES} raws at scale {SCALE}, {len(one.nodes)} Slurm nodes"
        yield Result(
            "CPU of the driver, a task",
            (min(spent["all"]) - min(spent["few"])) / (tasks - FEW),
            "s",
            BARS["nodes: driver"],
            spent,
            "CPU s",
            f"{said}, {most} ranks; CPU beyond that of {FEW} detectors, Slurm's commands included",
        )
        ranks = _worth(places, one)
        plain, loaded = (_ranks(bench, one, path, ranks, how) for how in ("plain", "loaded"))
    whole, work = [sum(one["whole_cpu"] for one in plain)], [sum(one["cpu"] for one in loaded)]
    share = {"whole ranks": whole, "the job, all loaded": work}
    said += f"; {ranks} ranks, as many as the work is worth"
    yield Result(
        "ranks' CPU before the first pixel", 1 - ratio(work, whole), "", BARS["nodes: start-up"], share, "CPU s", said
    )
    raws, file = sum(file["bytes"] for file in job["files"].values()) / 1e6, path.stat().st_size / 1e6
    read = sum(one["read"] for one in loaded) / 1e6
    parts = {"read": [read], "raws": [raws], f"read by {most} ranks": [read + (most - ranks) * file]}
    yield Result("bytes read / bytes of the raws", read / raws, "", BARS["nodes: bytes"], parts, "MB",
                 "the job file, which each rank reads, included")  # fmt: skip
