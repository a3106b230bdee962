"""Flats beside biases of as many frames: measured, combined, and the whole step beside fitsio's mere reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.benchmarks import jobs
from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, ratio
from tests.benchmarks.process import run_kernel
from tests.benchmarks.whole import reading

CONDITION = "1 rank each; whole processes; bias and dark subtracted, scaled by each exposure's own mean"


def _steps(bench: Bench, detectors: Sequence[int]) -> dict[str, Callable[[], float]]:
    """Measure and combine the flats of some detectors, CPU s; the calibrations that they need are made first."""
    folder = bench.data.folder
    run_kernel(jobs.write_biases(bench.data, detectors, folder / jobs.BIAS.name), 1)
    calibrations = {jobs.BIAS: folder / jobs.BIAS.name}
    run_kernel(jobs.lit(bench.data, detectors, jobs.DARK, calibrations), 1)
    calibrations[jobs.DARK] = folder / jobs.DARK.name

    def made(step: jobs.Step) -> float:
        more = {} if step is jobs.MEASURE else {jobs.MEASURE: folder / jobs.MEASURE.name}
        return run_kernel(jobs.lit(bench.data, detectors, step, {**calibrations, **more}), 1).cpu

    return {"flat_measure": lambda: made(jobs.MEASURE), "flat combine": lambda: made(jobs.FLAT)}


def flat(bench: Bench) -> Iterator[Result]:
    """One detector: measuring, combining, and a bias."""
    detectors = bench.data.detectors[:1]
    runs = _steps(bench, detectors)
    turns = bench.alternate(3, {**runs, "bias": lambda: run_kernel(jobs.lsst(bench.data, detectors), 1).cpu})
    both = [one + other for one, other in zip(*(turns[name] for name in runs), strict=True)]
    number = f"1 x {bench.data.frames} raws"
    yield Result(
        f"flat, measured and combined / bias, {number}",
        ratio(both, turns["bias"]),
        "",
        BARS["flat / bias"],
        turns,
        "CPU s",
        CONDITION,
    )
    measured = {name: turns[name] for name in runs}
    yield Result(
        f"flat_measure / flat combine, {number}",
        ratio(*measured.values()),
        "",
        BARS["flat_measure / combine"],
        measured,
        "CPU s",
        CONDITION,
    )


def nine_flats(bench: Bench) -> Iterator[Result]:
    """All detectors of LSSTComCam."""
    detectors = bench.data.detectors
    runs = _steps(bench, detectors)
    frames = [path for d in detectors for path in bench.data.lit(d)["flat"]]
    turns = bench.alternate(1, {**runs, "fitsio only reads": reading(bench, frames)})
    both = [one + other for one, other in zip(*(turns[name] for name in runs), strict=True)]
    what = f"{len(detectors)} x {bench.data.frames} flats, measured and combined / fitsio reads them once"
    yield Result(
        what, ratio(both, turns["fitsio only reads"]), "", BARS["nine flats / fitsio reads"], turns, "CPU s", CONDITION
    )
