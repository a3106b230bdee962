"""From compressed raws to published biases, whole process, against processes that only read the same frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.benchmarks import jobs
from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, Skipped, ratio
from tests.benchmarks.machine import available_gib
from tests.benchmarks.process import Usage, module, run, run_kernel

#: Memory of ccdproc for 20 frames of 16 Mpixel, with a margin.
CCDPROC_GIB = 6.0


def _list(bench: Bench, frames: Sequence[Path]) -> Path:
    path = bench.data.folder / "list.txt"
    path.write_text("".join(f"{frame}\n" for frame in frames))
    return path


def _cpu(samples: Sequence[Usage]) -> list[float]:
    return [used.cpu for used in samples]


def reading(bench: Bench, frames: Sequence[Path]) -> Callable[[], float]:
    """Read frames through fitsio, CPU s."""
    listed = _list(bench, frames)
    return lambda: run(module("reader", listed)).cpu


def _against_fitsio(bench: Bench, detectors: Sequence[int], usual: int, bar: str) -> Iterator[Result]:
    frames = [path for d in detectors for path in bench.data.raws(d)]
    parts = bench.alternate(
        usual,
        {
            "biases": lambda: run_kernel(jobs.lsst(bench.data, detectors), 1).cpu,
            "fitsio only reads": reading(bench, frames),
        },
    )
    yield Result(
        f"{len(detectors)} x {bench.data.frames} raws to published biases / fitsio reads them",
        ratio(parts["biases"], parts["fitsio only reads"]),
        bar=BARS[bar],
        parts=parts,
        parts_unit="CPU s",
        condition="1 rank; start-up, image, mask, variance, checksums and fsync included; frames in the page cache",
    )


def nine_detectors(bench: Bench) -> Iterator[Result]:
    """All detectors of LSSTComCam."""
    yield from _against_fitsio(bench, bench.data.detectors, 3, "nine biases / fitsio reads")


def one_detector(bench: Bench) -> Iterator[Result]:
    """One detector."""
    yield from _against_fitsio(bench, bench.data.detectors[:1], 5, "one bias / fitsio reads")


def ccdproc(bench: Bench) -> Iterator[Result]:
    """One detector, against ccdproc's combine."""
    try:
        import ccdproc as _  # noqa: F401
    except ImportError as error:
        raise Skipped(f"{error}: pip install '.[bench]'") from error
    if not bench.quick and available_gib() < CCDPROC_GIB:
        raise Skipped(f"{available_gib():.1f} GiB of memory are free, ccdproc wants {CCDPROC_GIB:g}")
    detectors = bench.data.detectors[:1]
    listed, output = _list(bench, bench.data.raws(detectors[0])), bench.data.folder / "ccdproc.fits"
    turns = bench.alternate(
        3,
        {
            "biases": lambda: run_kernel(jobs.lsst(bench.data, detectors), 1),
            "ccdproc": lambda: run(module("ccdproc_peer", listed, output)),
        },
    )
    output.unlink()
    parts = {name: _cpu(samples) for name, samples in turns.items()}
    yield Result(
        f"ccdproc.combine fed by fitsio / ours, 1 x {bench.data.frames} raws",
        ratio(parts["ccdproc"], parts["biases"]),
        bar=BARS["ccdproc / ours"],
        parts=parts,
        parts_unit="CPU s",
        condition="whole process; ccdproc: trimmed float32 frames, average, sigma clip 3 sigma, no overscan, one image "
        "written",
    )
