"""Mean and noise from pairs of like frames, whose common structure cancels in the difference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.camera import geometry
from kernels.errors import KernelError
from kernels.fits.raw import Frames
from kernels.isr.overscan import serial_region
from kernels.isr.reader import Reader
from kernels.jobs.job import Job, Task
from kernels.jobs.scratch import Scratch
from kernels.statistics.sample import clipped_mean

KERNEL: Final = "pairs"

#: Largest side of the central square of an amplifier that is used, pixel.
SIDE = 512
NSIGMA, PASSES = 5.0, 3


#: Least light of the fainter frame of a pair, relative to the brighter one.
ALIKE = 0.5


def matched(levels: Sequence[float], light: bool) -> list[tuple[int, int]]:
    """Pair frames of nearly equal level: as many pairs as possible, with the smallest differences.

    Parameters
    ----------
    levels : sequence of `float`
        Levels, ADU; above the bias where there is ``light``.

    Returns
    -------
    pairs : `list` [(`int`, `int`)]
        Indices, the fainter frame first.
    """
    usable = [k for k, level in enumerate(levels) if np.isfinite(level) and (level > 0 or not light)]
    order = sorted(usable, key=levels.__getitem__)
    line = [levels[k] for k in order]
    best: list[tuple[int, float, list[tuple[int, int]]]] = [(0, 0.0, [])]  # of the first n: unpaired, cost, pairs
    for n, level in enumerate(line):
        left, cost, pairs = best[n]
        choices = [(left + 1, cost, pairs)]
        if n and (not light or line[n - 1] >= ALIKE * level):
            left, cost, pairs = best[n - 1]
            choices.append((left, cost + level - line[n - 1], [*pairs, (order[n - 1], order[n])]))
        best.append(min(choices, key=lambda choice: choice[:2]))
    return best[-1][2]


def measure(job: Job, task: Task, frames: Frames) -> list[dict[str, Any]]:
    """Measure levels of the frames of a group, and the variance of the differences of pairs.

    A pair of flats is scaled to its common mean first, so that a change of the
    lamp or of the exposure time does not count as noise.

    Returns
    -------
    rows : `list` [`dict`]
        One a pair and amplifier: ``detector``, ``amplifier``, ``means`` (of both
        frames, ADU, above the overscan where there is one, less the task's
        ``offsets``), ``variance`` (half that of the difference, ADU^2),
        ``noise`` (ADU, without the part of the overscan's own noise), and the
        task's ``group`` and its ``type``.
    """
    camera = geometry.camera(job.camera)
    assert task.detector is not None
    detector, isr, rows = camera.detectors[task.detector], IsrConfig.from_plain(job.config["isr"]), []
    group = task.parameters["group"]
    light, offsets = group[0] == "flat", task.parameters.get("offsets", {})
    for k, amplifier in enumerate(detector.amplifiers):
        reader = Reader(frames, Scratch(), [k], isr, "adu", Calibrations(detector))
        nx, ny, region = amplifier.data.nx, amplifier.data.ny, serial_region(amplifier, isr)
        extra = np.pi / 2 / region.nx if region else 0.0  # variance of the median of a row's overscan
        bottom, top = max(0, (ny - SIDE) // 2), min(ny, (ny + SIDE) // 2)
        columns = slice(max(0, (nx - SIDE) // 2), min(nx, (nx + SIDE) // 2))
        offset = float(offsets.get(amplifier.name, 0.0))
        images = []
        for key in task.inputs["raw"]:
            with suppress(KernelError):  # the summary leaves out frames that cannot be read
                images.append(reader.frame(job.files[key], 0.0, bottom, top)[0].pixels[:, columns] - np.float32(offset))
        means = [clipped_mean(image, None, NSIGMA, PASSES)[0] for image in images]
        for a, b in matched(means, light):
            first, second, mean = images[a].astype(np.float64), images[b].astype(np.float64), (means[a] + means[b]) / 2
            difference = first * (mean / means[a]) - second * (mean / means[b]) if light else first - second
            sigma = clipped_mean(difference.astype(np.float32), None, NSIGMA, PASSES)[1]
            rows.append(
                {
                    "detector": detector.id,
                    "amplifier": amplifier.name,
                    "means": [means[a], means[b]],
                    "variance": sigma**2 / 2,
                    "noise": sigma / (2 * (1 + extra)) ** 0.5,
                }
            )
    return [row | {"group": group, "type": group[0]} for row in rows]


def _share(job: Job, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    with Frames() as frames:
        return [row for task in tasks for row in measure(job, task, frames)]


def execute(job: Job, comm: Any) -> int:
    """Measure every task's frames; rank 0 writes all rows to ``config["result"]`` (JSON)."""
    rank, size = (comm.rank, comm.size) if comm else (0, 1)
    mine = _share(job, job.tasks[rank::size])
    found = comm.gather(mine, root=0) if comm else [mine]
    if found is not None:
        rows = sorted((r for share in found for r in share), key=lambda r: (r["group"], r["detector"], r["amplifier"]))
        Path(job.config["result"]).write_text(json.dumps(rows))
    return 0
