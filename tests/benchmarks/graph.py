"""The graph of a whole survey night's calibration from a template and a repository, beside lsst-pipe-base's builder."""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import graph_data
from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, ratio
from tests.benchmarks.process import ask, module

#: 200 exposures of 189 detectors.
EXPOSURES = 200


def _repository(bench: Bench) -> Path:
    """The folder of a repository with the raws; made once."""
    many = 4 if bench.quick else EXPOSURES
    folder = bench.data.folder / f"graph-{many}"
    if not folder.exists():
        bench.say(f"ingesting {many} exposures of all detectors of {graph_data.CAMERA}")
        ask(module("graph_data", folder, str(many)))
    return folder


def _planned(folder: Path) -> dict[str, Any]:
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    said: dict[str, Any] = json.loads(ask(module("graph_process", folder)))
    return said


def graph(bench: Bench) -> Iterator[Result]:
    """CPU and memory of a plan; CPU of the peer's graph."""
    folder = _repository(bench)
    runs = {"ours": lambda: _planned(folder)}
    if importlib.util.find_spec("lsst.pipe") is not None:
        runs["lsst-pipe-base"] = lambda: json.loads(ask(module("graph_peer", folder)))
    found = bench.alternate(3, runs)
    first = found["ours"][0]
    quanta = f"{first['tasks']} quanta"
    cpu = {name: [one["cpu_s"] for one in some] for name, some in found.items()}
    yield Result(
        f"graph of {quanta} from template and repository, CPU",
        statistics.median(cpu["ours"]),
        "s",
        BARS["graph: CPU"],
        cpu,
        "s",
        f"the Butler is imported; plan.json, {first['plan_mb']:.0f} MB, takes {first['written_cpu_s']:.2g} s more",
    )
    more = [one["more_mb"] for one in found["ours"]]
    yield Result(
        f"graph of {quanta}, memory",
        statistics.median(more),
        "MB",
        BARS["graph: memory"],
        {"ours": more},
        "MB",
        f"more than the {first['before_mb']:.0f} MB of before, the text of plan.json included",
    )
    if "lsst-pipe-base" in cpu:
        yield Result(
            f"graph of {quanta}: lsst-pipe-base / ours, CPU",
            ratio(cpu["lsst-pipe-base"], cpu["ours"]),
            parts=cpu,
            parts_unit="s",
            condition="its AllDimensionsQuantumGraphBuilder, of isr, combine and one mosaic; neither writes",
        )
