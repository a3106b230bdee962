"""The statistics themselves, a core, on blocks that lie in cache; peers beside them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from functools import partial

from tests.benchmarks.bars import BARS
from tests.benchmarks.harness import Bench, Result, Skipped, ratio
from tests.benchmarks.process import ask, avx2_environment, module

#: Statistic, frames, and the peer that the bar is a ratio to.
KERNELS = (("clip", 20, "numpy nanmean"), ("median", 20, "bottleneck nanmedian"), ("clip", 100, "numpy nanmean"))
LABELS = {"clip": "clipped mean with variance and count", "median": "median alone"}
OURS, WHOLE = "kernels.statistics.clip", "with variance and count"
UNIT = "Mpix x frames/s"
Speeds = dict[str, list[float]]


def _speeds(statistic: str, frames: int, peers: bool, env: Mapping[str, str] | None = None) -> Speeds:
    line = module("kernel_process", statistic, str(frames), "peers" if peers else "alone")
    answer: Speeds = json.loads(ask(line, env))
    return answer


def kernel(bench: Bench) -> Iterator[Result]:
    """Clipped mean and median of 20 frames, clipped mean of 100."""
    lacking = set()
    for statistic, frames, peer in KERNELS:
        speeds = _speeds(statistic, frames, peers=True)
        bench.say(
            f"  {statistic} N={frames}: " + ", ".join(f"{k} {statistics.median(v):.0f}" for k, v in speeds.items())
        )
        if peer in speeds:
            yield Result(
                f"{LABELS[statistic]}, N={frames} / {peer}",
                ratio(speeds[OURS], speeds[peer]),
                bar=BARS[f"{statistic} of {frames} / {peer}"],
                parts=speeds,
                parts_unit=UNIT,
                condition="one core, float32, 0.1 % masked, blocks in cache, copied each time; peers give no variance "
                "and count, numpy's mean does not clip",
            )
        else:
            lacking.add(peer)
        if WHOLE in speeds:  # a product needs these; the bar is for the median alone
            parts = {WHOLE: speeds[WHOLE]}
            yield Result(f"{statistic} {WHOLE}, N={frames}", statistics.median(speeds[WHOLE]), UNIT, None, parts, UNIT)
    if lacking:
        raise Skipped(f"without {', '.join(lacking)}: pip install '.[bench]'")


def avx2(bench: Bench) -> Iterator[Result]:
    """The same as compiled for processors without AVX-512."""
    env = avx2_environment(bench.data.folder)

    def typical(statistic: str, frames: int, env: Mapping[str, str] | None) -> float:
        return statistics.median(_speeds(statistic, frames, False, env)[OURS])

    for statistic, frames, _ in KERNELS:
        typical(statistic, frames, env)  # compiles
        here, there = partial(typical, statistic, frames, None), partial(typical, statistic, frames, env)
        turns = bench.alternate(3, {"this processor": here, "AVX2": there})
        yield Result(
            f"AVX2 / this processor, {statistic}, N={frames}",
            ratio(turns["AVX2"], turns["this processor"]),
            "",
            BARS["AVX2 / this processor"],
            turns,
            UNIT,
            "compiled for x86-64-v3 (haswell) on the same machine",
        )
