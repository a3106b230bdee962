"""Times the decoder and its peers in turns: ``decoder_process FOLDER WIDTH HEIGHT ROUNDS`` prints JSON, Mpixel/s."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Box
from kernels.fits.raw import Frames
from kernels.jobs.job import File
from tests.benchmarks.decoder_peers import peers

ROWS = 64
NOISES = {"bias": (1000.0, 5.0), "flat": (30000.0, 170.0)}
TYPES = {"u16": np.uint16, "i32": np.int32}


def image(kind: str, pixel: str, shape: tuple[int, int]) -> NDArray[Any]:
    """Pixels of a kind of frame."""
    level, noise = NOISES[kind]
    values = np.float32(noise) * np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return np.rint(values + np.float32(level)).astype(TYPES[pixel])


def decoder(path: str, shape: tuple[int, int]) -> Callable[..., None]:
    """Read the tiles and decode them by blocks of rows into one block; copy that into an image where one is given."""
    (height, width), frames, file = shape, Frames(), File(path)
    box = Box(0, 0, width, height)
    amplifier = Amplifier("A", 1, (width, height), box, None, None, box, False, False, 1.0, 1.0, np.inf)
    block = np.empty((1, ROWS, width), np.int32)

    def run(image: NDArray[np.int32] | None = None) -> None:
        stack = frames.stack([file], amplifier, 0, height)
        for first in range(0, height, ROWS):
            stack.rows(first, first + ROWS, block)
            if image is not None:
                image[first : first + ROWS] = block[0]

    return run


def main() -> None:
    """Print Mpixel/s by kind of frame and by reader."""
    folder, width, height, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:])
    shape = (height // ROWS * ROWS, width)
    answer: dict[str, dict[str, list[float]]] = {}
    for pixel in TYPES:
        for kind in NOISES:
            path = str(folder / f"{pixel}-{kind}.fits")
            with fitsio.FITS(path, "rw", clobber=True) as fits:
                fits.write(None)
                fits.write(image(kind, pixel, shape), compress="RICE", tile_dims=(1, width))
            ours, decoded = decoder(path, shape), np.zeros(shape, np.int32)
            ours(decoded)  # this also loads and warms all
            runs = {"kernels.fits.rice": ours, **peers(path)}
            for name in runs.keys() - {"kernels.fits.rice"}:
                if not np.array_equal(decoded, runs[name]()):
                    raise SystemExit(f"{path}: {name} reads other pixels")
            speeds: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(rounds):
                for name, run in runs.items():
                    began = time.process_time()
                    run()
                    speeds[name].append(shape[0] * width / 1e6 / (time.process_time() - began))
            answer[f"{pixel}, {kind}"] = speeds
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
