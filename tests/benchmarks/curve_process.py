"""Times a photon transfer curve's parts, ns of CPU a pixel and pair: ``curve_process JOB PAIRS`` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy import fft

from kernels.jobs.job import load
from kernels.response.transfercurve import TransferCurve
from kernels.transfer import curve
from tests.kernels.flats import MIXED, drawn, truth

MEASURE, DECODE, FFT, FIT = "measured pair", "decoded only", "float32 FFT", "fit"
#: Pairs of a real curve, over which the time of the fits is spread.
PAIRS = 100


def main() -> None:
    """Print the samples, in turns."""
    kernel, pairs = TransferCurve(load(sys.argv[1])), int(sys.argv[2])
    (task,) = kernel.job.tasks
    detector, readers, raws = kernel.detector(task), kernel.readers(task), kernel.raws(task)
    pixels = detector.size[0] * detector.size[1]
    rng, (width, height) = (
        np.random.default_rng(1),
        (detector.amplifiers[0].target.nx, detector.amplifiers[0].target.ny),
    )
    image = rng.normal(0, 150, (height, width)).astype(np.float32)
    size = [fft.next_fast_len(n + kernel.settings.measure.side, real=True) for n in image.shape]
    block = np.empty((1, 64, max(a.raw[0] for a in detector.amplifiers)), np.int32)

    def decode(k: int) -> None:
        for file in (raws[2 * k], raws[2 * k + 1]):
            for reader in readers:
                for channel, stack in zip(reader.channels, reader.stacks([file], 0, reader.height), strict=True):
                    y0 = channel.amplifier.data.y0
                    for first in range(y0, y0 + reader.height, 64):
                        last = min(first + 64, y0 + reader.height)
                        stack.rows(first, last, block[:, : last - first, : channel.amplifier.raw[0]])

    def transform(_: int) -> None:
        for _ in detector.amplifiers:
            spectrum = fft.rfft2(image, s=size)
            fft.irfft2(spectrum * spectrum.conj(), s=size)

    runs: dict[str, Callable[[int], object]] = {
        MEASURE: lambda k: kernel.compute(task, k), DECODE: decode, FFT: transform,
    }  # fmt: skip
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(pairs):
        for name, run in runs.items():
            began = time.process_time()
            run(k)
            if k:  # the first one compiles, and reads the calibrations
                samples[name].append((time.process_time() - began) / pixels * 1e9)
    points = drawn(rng, MIXED, truth(MIXED), 1.5, image.size)
    curve.fit(points)
    began = time.process_time()
    curve.fit(points)
    samples[FIT] = [(time.process_time() - began) / image.size / PAIRS * 1e9]
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
