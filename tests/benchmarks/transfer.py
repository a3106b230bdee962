"""Covariances of flats in pairs, a core, beside Fourier transforms of the same frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from campaign.jobs.file import JobFile, JobTask
from tests.benchmarks import jobs
from tests.benchmarks.bars import BARS
from tests.benchmarks.curve_process import DECODE, FFT, FIT, MEASURE
from tests.benchmarks.harness import Bench, Result, ratio
from tests.benchmarks.process import ask, avx2_environment, module, run_kernel
from tests.benchmarks.transfer_process import DIRECT, MASKED, ONE, WHOLE

ROWS, QUICK_ROWS = 1962, 200
UNIT = "ns a pixel and pair"


def covariances(bench: Bench) -> Iterator[Result]:
    """Covariances of one amplifier to 10 lags, here and as compiled for AVX2."""
    line = module("transfer_process", str(QUICK_ROWS if bench.quick else ROWS))
    for where, env in (("", None), (", AVX2", avx2_environment(bench.data.folder))):
        samples: dict[str, list[float]] = json.loads(ask(line, env))
        yield Result(
            f"direct sums / float32 FFT{where}",
            ratio(samples[DIRECT], samples[ONE]),
            "",
            BARS["covariances / float32 FFT"],
            samples,
            UNIT,
            "CPU time of one core; one amplifier without its edges, a column and 0.1 % masked; the FFT is scipy's, "
            "padded to its next fast length, of the difference alone and forward and back once, which counts no masks",
        )
        yield Result(f"whole measurement / float32 FFT with masks{where}", ratio(samples[WHOLE], samples[MASKED]))


#: Settings of the curve, as its pipeline has them.
CURVE: dict[str, Any] = {
    "matching": "TIME", "flux": "CCOBFLUX", "side": 10, "nsigma": 5.5, "passes": 3, "least_pixels": 10000, "edge": 20,
    "model": "EXACT", "outlier_cut": 5.0, "outlier_rounds": 2, "outlier_signal": 50000.0, "outlier_gap": 9000.0,
    "outlier_scaled": True, "rolloff": False, "rolloff_share": 0.01, "least_mean": 0.0, "most_mean": 1e6,
}  # fmt: skip
TABLES = ("crosstalk", "linearizer")


def _tables(bench: Bench, detector: int) -> dict[str, Path]:
    """Write a detector's crosstalk and linearizer, as the simulator knows them."""
    folder = jobs.fresh(bench.data.folder / "tables")
    paths = {kind: folder / f"{kind}.fits" for kind in TABLES}
    config = {"seed": 1, "rates": {"crosstalk": 2e-4, "nonlinearity": 0.01}}
    task = JobTask(f"truth:{detector}", detector, outputs={kind: str(path) for kind, path in paths.items()})
    plain = bench.data.camera.plain([detector])
    job = JobFile("truth_products", "benchmark", 1, str(folder / "journal"), plain, config, {}, [task])
    run_kernel(job.write(folder / "job.json"), 1)
    return paths


def ptc(bench: Bench) -> Iterator[Result]:
    """Photon transfer curve of one detector: decoded, corrected, measured and fitted."""
    data, detector = bench.data, bench.data.detectors[0]
    flats = [str(path) for path in data.lit(detector)["flat"]]
    tables = _tables(bench, detector)
    files = {path: {"path": path} for path in flats} | {kind: {"path": str(path)} for kind, path in tables.items()}
    parameters = {"exposures": list(range(1, len(flats) + 1)), "exposure_times": [10.0] * len(flats)}
    folder = jobs.fresh(data.folder / "ptc")
    inputs = {"raw": flats, **{kind: [kind] for kind in TABLES}}
    task = JobTask(f"ptc:{detector}", detector, inputs, {"ptc": str(folder / "ptc.fits")}, parameters)
    isr = {**jobs.LSST_ISR, "saturation": True, "crosstalk": True, "linearity": True}
    config = {**CURVE, "isr": isr, "permissions": {}}
    plain = data.camera.plain([detector])
    job = JobFile("ptc", "benchmark", 1, str(folder / "journal"), plain, config, files, [task]).write(
        folder / "job.json"
    )
    samples: dict[str, list[float]] = json.loads(ask(module("curve_process", job, str(len(flats) // 2))))
    whole = [one + samples[FIT][0] for one in samples[MEASURE]]
    peer = [one + other for one, other in zip(samples[DECODE], samples[FFT], strict=True)]
    yield Result(
        f"photon transfer curve / decoding and float32 FFT, 1 x {len(flats)} flats",
        ratio(whole, peer),
        "",
        BARS["ptc / decode and FFT"],
        samples,
        UNIT,
        "CPU time of one core; overscans, crosstalk and linearity corrected; the fit is spread over 100 pairs; the FFT "
        "is forward and back once, of each amplifier's difference alone",
    )
