"""Covariances of flats in pairs, a core, beside Fourier transforms of the same frames."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, ratio
from tests.benchmarks.process import ask, avx2_environment, module
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
