"""Times a statistic on a block in cache: ``kernel_process clip|median FRAMES peers|alone`` prints JSON."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kernels.statistics import clip
from kernels.statistics.network import workspace

#: Bytes of the block: this and the kernel's copy stay in a second-level cache of 1 MiB.
BLOCK_BYTES = 1 << 18
NAN_SHARE = 1e-3
#: A sample is not shorter than this, nor taken less often, second.
SAMPLE_S, SAMPLES = 0.1, 7
OURS = "kernels.statistics.clip"
Cube = NDArray[np.float32]
Run = Callable[[], object]


def block(frames: int) -> Cube:
    """A cube [frame, pixel] of bias-like noise with some pixels masked."""
    rng = np.random.default_rng(1)
    pixels = BLOCK_BYTES // (4 * frames) // 64 * 64
    cube = np.float32(1000) + np.float32(5) * rng.standard_normal((frames, pixels), dtype=np.float32)
    cube[rng.random(cube.shape) < NAN_SHARE] = np.nan
    return cube


def ours(statistic: str, block: Cube) -> dict[str, Run]:
    """Measure this project's kernels; they sort in place, so each turn begins with a copy, which is measured, too."""
    frames, pixels = block.shape
    cube = workspace(frames, pixels)
    width = cube.shape[1]
    image, variance, count = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
    source = np.where(np.isnan(block), np.float32(np.inf), block)

    def copy() -> None:
        cube[:frames, :pixels] = source

    def collapse(rule: clip.Rule) -> None:
        copy()
        clip.collapse(cube, frames, rule, image, variance, count)

    def median() -> None:
        copy()
        clip.median(cube, frames, image)

    kernels: dict[str, dict[str, Run]] = {
        "clip": {OURS: lambda: collapse(clip.Rule("MEANCLIP"))},
        "median": {OURS: median, "with variance and count": lambda: collapse(clip.Rule("MEDIAN"))},
    }
    return {**kernels[statistic], "the copy alone": copy}


def peers(statistic: str, cube: Cube) -> dict[str, Run]:
    """Measure other libraries with such a statistic of an array in memory; those not installed are left out."""
    runs: dict[str, Run] = {}
    if statistic == "median":
        runs["numpy nanmedian"] = lambda: np.nanmedian(cube, axis=0)
        try:
            import bottleneck
        except ImportError:
            return runs
        return {**runs, "bottleneck nanmedian": lambda: bottleneck.nanmedian(cube, axis=0)}
    runs["numpy nanmean"] = lambda: np.nanmean(cube, axis=0)
    try:
        from astropy.stats import SigmaClip
    except ImportError:
        return runs
    clipper = SigmaClip(sigma=3.0, maxiters=3)
    return {**runs, "astropy SigmaClip": lambda: np.nanmean(clipper(cube, axis=0, masked=False), axis=0)}


def _sample(run: Run, times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        run()
    return time.process_time() - began


def main() -> None:
    """Print the speeds, in turns."""
    statistic, frames, with_peers = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "peers"
    warnings.simplefilter("ignore")
    cube = block(frames)
    runs = {**ours(statistic, cube), **(peers(statistic, cube) if with_peers else {})}
    times = {}
    for name, run in runs.items():
        run()
        times[name] = max(1, int(SAMPLE_S / max(_sample(run, 1), 1e-6)))
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(SAMPLES):
        for name, run in runs.items():
            speeds[name].append(cube.size * times[name] / 1e6 / _sample(run, times[name]))
    print(json.dumps(speeds))


if __name__ == "__main__":
    main()
