"""Mean and noise from pairs of equal frames: the difference knows nothing of what both share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernels import geometry
from kernels.calibrations import Calibrations
from kernels.errors import KernelError
from kernels.isr import Reader
from kernels.isrconfig import IsrConfig
from kernels.job import Job, Task
from kernels.overscan import serial_region
from kernels.raw import Frames
from kernels.sample import clipped_mean
from kernels.scratch import Scratch

#: Side of the central square of an amplifier that is used at most, pixel.
SIDE = 512
NSIGMA, PASSES = 5.0, 3


def measure(job: Job, task: Task, frames: Frames) -> list[dict[str, Any]]:
    """Mean level and half the variance of the difference, by amplifier.

    The pair is scaled to its common mean first, so that a lamp that changed a
    little does not count as noise.

    Returns
    -------
    rows : `list` [`dict`]
        ``detector``, ``amplifier``, ``mean`` (ADU, over the overscan where
        there is one), ``variance`` (ADU^2) and ``noise`` (ADU, less what the
        overscan's own noise adds to it), and the task's ``group``.
    """
    camera = geometry.camera(job.camera)
    assert task.detector is not None
    detector, isr, rows = camera.detectors[task.detector], IsrConfig.from_plain(job.config["isr"]), []
    for k, amplifier in enumerate(detector.amplifiers):
        reader = Reader(frames, Scratch(), [k], isr, "adu", Calibrations(detector))
        nx, ny, region = amplifier.data.nx, amplifier.data.ny, serial_region(amplifier, isr)
        extra = np.pi / 2 / region.nx if region else 0.0  # what the median of a row's overscan adds
        bottom, top = max(0, (ny - SIDE) // 2), min(ny, (ny + SIDE) // 2)
        columns = slice(max(0, (nx - SIDE) // 2), min(nx, (nx + SIDE) // 2))
        first, second = (
            reader.frame(job.files[key], 0.0, bottom, top)[0].pixels[:, columns].astype(np.float64)
            for key in task.inputs["raw"]
        )
        means = [clipped_mean(f.astype(np.float32), None, NSIGMA, PASSES)[0] for f in (first, second)]
        mean = sum(means) / 2
        light = task.parameters["group"][0] == "flat" and mean > 0
        difference = (first * mean / means[0] - second * mean / means[1]) if light else first - second
        _, sigma, _ = clipped_mean(difference.astype(np.float32), None, NSIGMA, PASSES)
        rows.append(
            {
                "detector": detector.id,
                "amplifier": amplifier.name,
                "mean": mean,
                "variance": sigma**2 / 2,
                "noise": sigma / (2 * (1 + extra)) ** 0.5,
            }
        )
    kind = {"group": task.parameters["group"], "type": task.parameters["group"][0]}
    return [row | kind for row in rows]


def _share(job: Job, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    with Frames() as frames:
        return [row for task in tasks for row in _attempt(job, task, frames)]


def _attempt(job: Job, task: Task, frames: Frames) -> list[dict[str, Any]]:
    try:
        return measure(job, task, frames)
    except KernelError:  # a summary shows what can be measured
        return []


def execute(job: Job, comm: Any) -> int:
    """Measure every task's pair; rank 0 writes all rows to ``config["result"]`` (JSON)."""
    rank, size = (comm.rank, comm.size) if comm else (0, 1)
    mine = _share(job, job.tasks[rank::size])
    found = comm.gather(mine, root=0) if comm else [mine]
    if found is not None:
        rows = sorted((r for share in found for r in share), key=lambda r: (r["group"], r["detector"], r["amplifier"]))
        Path(job.config["result"]).write_text(json.dumps(rows))
    return 0
