"""Cost of a raw by what is made of it: a dark, or the deferred charge of a flat, beside a bias of as many frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks import jobs
from tests.benchmarks.harness import Bench, Result, ratio
from tests.benchmarks.process import run_kernel
from tests.benchmarks.whole import reading

CONDITION = "1 rank each; whole processes; a bias subtracted"


def _against_bias(bench: Bench, step: jobs.Step, frames: Sequence[Path], condition: str) -> Iterator[Result]:
    """Measure a step on one detector, a bias of as many frames, and a process that only reads the step's frames."""
    data, detectors = bench.data, bench.data.detectors[:1]
    run_kernel(jobs.write_biases(data, detectors, data.folder / jobs.BIAS.name), 1)
    calibrations = {jobs.BIAS: data.folder / jobs.BIAS.name}
    turns = bench.alternate(
        3,
        {
            step.name: lambda: run_kernel(jobs.lit(data, detectors, step, calibrations, {detectors[0]: frames}), 1).cpu,
            "bias": lambda: run_kernel(jobs.lsst(data, detectors), 1).cpu,
            "fitsio only reads": reading(bench, frames),
        },
    )
    what = f"1 x {len(frames)} raws"
    yield Result(
        f"{step.name} / bias, {what}", ratio(turns[step.name], turns["bias"]), "", None, turns, "CPU s", condition
    )
    parts = {name: [cpu / len(frames) for cpu in turns[name]] for name in (step.name, "bias")}
    yield Result(
        f"{step.name} / fitsio reads its raws, {what}",
        ratio(turns[step.name], turns["fitsio only reads"]),
        parts=parts,
        parts_unit="CPU s a raw",
    )


def dark(bench: Bench) -> Iterator[Result]:
    """Combine darks of one detector."""
    yield from _against_bias(bench, jobs.DARK, bench.data.darks, CONDITION)


def cti(bench: Bench) -> Iterator[Result]:
    """Measure deferred charge by flats of one detector."""
    flats = bench.data.lit(bench.data.detectors[0])["flat"]
    yield from _against_bias(bench, jobs.CTI, flats, f"{CONDITION}; tables are written, no image")
