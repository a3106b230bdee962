"""Resources of ranks: CPU time of one and of two, and their memory."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from campaign.errors import ConfigurationError
from campaign.jobs.launch import cores, mpiexec
from tests.benchmarks import jobs
from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, Skipped, ratio
from tests.benchmarks.process import module, run


@dataclass(frozen=True)
class Ranks:
    """Resources that the ranks of a job used: CPU, second, and peak memory, MiB."""

    cpu: list[float]
    peak: list[float]

    def __str__(self) -> str:
        return " + ".join(f"{cpu:.2f}" for cpu in self.cpu) + f" s, {max(self.peak):.0f} MiB"


def _run(bench: Bench, job: Path, ranks: int, how: str) -> Ranks:
    folder = jobs.fresh(bench.data.folder / "ranks")
    line = module("rank", how, folder, job)
    if ranks > 1:
        python = line.index(sys.executable)
        line = [mpiexec(), "-n", str(ranks), *line[: python + 2], "-m", "mpi4py", *line[python + 2 :]]
    run(line)
    reports = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
    return Ranks([r["cpu"] for r in reports], [r["peak_mib"] for r in reports])


def _need_two() -> None:
    try:
        mpiexec()
    except ConfigurationError as error:
        raise Skipped(str(error)) from error
    if cores() < 2:
        raise Skipped("this process may use one core; two are needed")


def ranks(bench: Bench) -> Iterator[Result]:
    """CPU time of one rank against the sum of two, and how evenly these share."""
    _need_two()
    detectors = bench.data.detectors

    def job(ranks: int) -> Callable[[], Ranks]:
        return lambda: _run(bench, jobs.lsst(bench.data, detectors, ranks), ranks, "loaded")

    turns = bench.alternate(3, {"1 rank": job(1), "2 ranks": job(2)})
    parts = {name: [sum(used.cpu) for used in samples] for name, samples in turns.items()}
    what = f"{len(detectors)} x {bench.data.frames} raws to biases"
    yield Result(
        f"CPU of 1 rank / sum of 2, {what}",
        ratio(parts["1 rank"], parts["2 ranks"]),
        bar=BARS["CPU of 1 rank / sum of 2"],
        parts=parts,
        parts_unit="CPU s",
        condition="interpreter, imports, MPI's start and the loading of compiled code left out; waiting counts",
    )
    busiest = [max(used.cpu) / sum(used.cpu) for used in turns["2 ranks"]]
    yield Result(
        f"busiest of 2 ranks' share, {what}",
        statistics.median(busiest),
        bar=BARS["busiest of 2 ranks"],
        parts={"share": busiest},
    )
    peaks = {name: [max(used.peak) for used in samples] for name, samples in turns.items()}
    highest = max(max(samples) for samples in peaks.values())
    yield Result(f"VmHWM of a rank, {what}", highest, "MiB", BARS["memory of a rank"], peaks, "MiB")


def memory(bench: Bench) -> Iterator[Result]:
    """Peak memory of a rank: few and many frames of one detector, one rank and two."""
    _need_two()
    for many in (False, True):
        n = bench.data.many if many else bench.data.frames
        parts: dict[str, list[float]] = {}
        for count in (1, 2):
            job = jobs.lsst(bench.data, bench.data.detectors[:1], count, many)
            used = _run(bench, job, count, "plain")
            bench.say(f"  N={n}, {count} ranks: {used}")
            parts[f"{count} ranks" if count > 1 else "1 rank"] = [max(used.peak)]
        yield Result(
            f"VmHWM of a rank, N={n}",
            max(value for samples in parts.values() for value in samples),
            "MiB",
            bar=BARS["memory of a rank"],
            parts=parts,
            parts_unit="MiB",
            condition="one detector, the larger of 1 and 2 ranks; many frames are the same ones under five names each",
        )
