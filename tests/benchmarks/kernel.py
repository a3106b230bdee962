"""The statistics themselves, a core, on blocks that lie in cache; peers beside them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from functools import partial

from tests.benchmarks.harness import Bar, Bench, Result, ratio
from tests.benchmarks.machine import simd
from tests.benchmarks.process import ask, avx2_environment, module

#: Statistic, frames, bar on AVX-512 and the next bar, Mpixel x frames / s a core.
KERNELS = (("clip", 20, 1000, 1458), ("median", 20, 2500, 3083), ("clip", 100, 400, 800))
LABELS = {"clip": "clipped mean with variance and count", "median": "median alone"}
AVX2_SHARE = 0.6
OURS, WHOLE = "kernels.statistics.clip", "with variance and count"
UNIT = "Mpix x frames/s"
Speeds = dict[str, list[float]]


def _speeds(statistic: str, frames: int, peers: bool, env: Mapping[str, str] | None = None) -> Speeds:
    line = module("kernel_process", statistic, str(frames), "peers" if peers else "alone")
    answer: Speeds = json.loads(ask(line, env))
    return answer


def kernel(bench: Bench) -> Iterator[Result]:
    """Clipped mean and median of 20 frames, clipped mean of 100."""
    wide = "avx512f" in simd()
    for statistic, frames, limit, then in KERNELS:
        share = 1.0 if wide else AVX2_SHARE
        speeds = _speeds(statistic, frames, peers=True)
        bench.say(
            f"  {statistic} N={frames}: " + ", ".join(f"{k} {statistics.median(v):.0f}" for k, v in speeds.items())
        )
        yield Result(
            f"{LABELS[statistic]}, N={frames}",
            statistics.median(speeds[OURS]),
            UNIT,
            Bar(limit * share, then * share, least=True),
            speeds,
            UNIT,
            "one core, float32, 0.1 % masked, blocks in cache, copied each time; peers give no "
            "variance and count" + ("" if wide else "; no AVX-512 here: the bar is 0.6 of that for AVX-512"),
        )

        if WHOLE in speeds:  # a product needs these; the bar is for the median alone
            parts = {WHOLE: speeds[WHOLE]}
            yield Result(f"{statistic} {WHOLE}, N={frames}", statistics.median(speeds[WHOLE]), UNIT, None, parts, UNIT)


def avx2(bench: Bench) -> Iterator[Result]:
    """The same as compiled for processors without AVX-512."""
    env = avx2_environment(bench.data.folder)

    def typical(statistic: str, frames: int, env: Mapping[str, str] | None) -> float:
        return statistics.median(_speeds(statistic, frames, False, env)[OURS])

    for statistic, frames, _, _ in KERNELS:
        typical(statistic, frames, env)  # compiles
        here, there = partial(typical, statistic, frames, None), partial(typical, statistic, frames, env)
        turns = bench.alternate(3, {"this processor": here, "AVX2": there})
        yield Result(
            f"AVX2 / this processor, {statistic}, N={frames}",
            ratio(turns["AVX2"], turns["this processor"]),
            "",
            Bar(AVX2_SHARE, least=True),
            turns,
            UNIT,
            "compiled for x86-64-v3 (haswell) on the same machine",
        )
