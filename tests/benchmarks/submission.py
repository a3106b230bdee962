"""A whole ``campaign submit`` of a bias against its kernel job alone."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.jobs.launch import cores
from campaign.simulation.demo import variables
from campaign.simulation.simulate import Places
from tests.benchmarks import bars, jobs
from tests.benchmarks.harness import Bench, Result
from tests.benchmarks.process import environment, run, run_kernel


@dataclass
class _Submissions:
    """Submits repeatedly, each time into a new run, and repeats the job of the last run."""

    bench: Bench
    count: int = 0

    def submit(self) -> float:
        """Submit; wall time, second."""
        self.count += 1
        rerun = {"RERUN": f"20241208{chr(ord('a') + self.count)}"}
        env = environment(**variables(Places(self.bench.data.repository)) | rerun)
        line = [sys.executable, "-P", "-m", "campaign", "submit", "bps_bias", "--ranks", str(cores())]
        return run(line, env).wall

    def job(self) -> float:
        """Run the combine job of the last submission alone; wall time, second."""
        folder = jobs.fresh(self.bench.data.folder / "products")
        found = [
            p for p in (self.bench.data.folder / "scratch").rglob("jobs/*.json") if _plain(p)["kernel"] == "combine"
        ]
        path = again(max(found, key=lambda path: path.stat().st_mtime_ns), folder)
        return run_kernel(path, _plain(path)["ranks"]).wall


def _plain(path: Path) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(path.read_text())
    return plain


def again(job: Path, folder: Path, ranks: int | None = None) -> Path:
    """Write a submission's job once more, for its or so many ranks, with places below ``folder`` for all it makes."""
    plain = _plain(job)
    plain["ranks"] = ranks or plain["ranks"]
    plain |= {
        "journal": str(folder / "journal"),
        "config": plain["config"] | {"inputs_table": str(folder / "table")},
    }
    for number, task in enumerate(plain["tasks"]):
        task["outputs"] = {kind: str(folder / f"{kind}-{number}.fits") for kind in task["outputs"]}
    path = folder / "job.json"
    path.write_text(json.dumps(plain))
    return path


def submission(bench: Bench) -> Iterator[Result]:
    """Wall time of both, with the time that a submission may always take left out of the ratio."""
    both = _Submissions(bench)
    turns = bench.alternate(3, {"campaign submit": both.submit, "its kernel job": both.job})
    whole, alone = (statistics.median(samples) for samples in turns.values())
    yield Result(
        f"campaign submit / its kernel job, {len(bench.data.detectors)} x {bench.data.frames} raws",
        whole / alone,
        bar=bars.submit(alone),
        parts=turns,
        parts_unit="s wall",
        condition=f"{cores()} ranks; the bar is {bars.SUBMIT[0]} x job + {bars.SUBMIT[1]:g} s (then "
        f"{bars.SUBMIT_THEN[0]} x job + {bars.SUBMIT_THEN[1]:g} s), as a ratio",
    )
