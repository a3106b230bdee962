"""Times covariances of an amplifier's pair of flats, ns a pixel: ``transfer_process ROWS`` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy import fft

from kernels.transfer import covariance

COLUMNS, SAMPLES = 472, 7
DIRECT, WHOLE = "direct sums with exact counts", "whole measurement: means, difference, clip, sums"
ONE, MASKED = "float32 FFT and inverse of the difference alone", "float32 FFT as masks need it: 2 forward, 3 inverse"


def main() -> None:
    """Print the samples, in turns."""
    rng, shape = np.random.default_rng(1), (int(sys.argv[1]), COLUMNS)
    first, second = (rng.normal(30000, 150, shape).astype(np.float32) for _ in range(2))
    good = rng.random(shape) > 1e-3
    good[:, 100] = False
    means, rule = (float(first.mean()), float(second.mean())), covariance.Rule()
    made = covariance.difference((first, second), good, means, rule)
    pixels, mask = np.where(good, first - second, np.float32(0)), good.astype(np.float32)
    size = [fft.next_fast_len(n + rule.side, real=True) for n in shape]

    def one() -> None:
        spectrum = fft.rfft2(pixels, s=size)
        fft.irfft2(spectrum * spectrum.conj(), s=size)

    def masked() -> None:
        spectrum, of_mask = fft.rfft2(pixels, s=size), fft.rfft2(mask, s=size)
        for product in (spectrum * spectrum.conj(), spectrum * of_mask.conj(), of_mask * of_mask.conj()):
            fft.irfft2(product, s=size)

    runs: dict[str, Callable[[], object]] = {
        DIRECT: lambda: made.covariances(made.sums()),
        ONE: one,
        MASKED: masked,
        WHOLE: lambda: covariance.measure((first, second), good, rule),
    }
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(SAMPLES + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if turn:  # the first one compiles
                samples[name].append((time.process_time() - began) / first.size * 1e9)
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
