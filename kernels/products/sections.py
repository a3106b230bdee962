"""Comparison of frames with a camera file: position of its sections in the light, noise of its amplifiers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera import geometry
from kernels.camera.geometry import Amplifier, Box, Detector
from kernels.errors import KernelError
from kernels.fits.raw import Frames
from kernels.jobs.job import File, Job, Task
from kernels.jobs.publish import PublishError, reason
from kernels.statistics.edges import Fit, fit, proposal
from kernels.statistics.sample import clipped_mean

KERNEL: Final = "sections"

F32 = NDArray[np.float32]

#: Largest number of frames averaged, and pixels of a picture along its longer side.
MOST, PICTURE = 5, 1000
#: Columns of an overscan next to the data that carry deferred charge.
LATE = 3
NSIGMA, PASSES = 5.0, 3


def _mean(frames: Frames, files: Sequence[File], amplifier: Amplifier) -> F32 | None:
    """Average the whole HDU over some frames, ADU; `None` without frames."""
    total: F32 | None = None
    for file in files[:MOST]:
        image = frames.rows(file, amplifier, 0, amplifier.raw[1]).astype(np.float32)
        total = image if total is None else total + image
    return None if total is None else total / np.float32(min(len(files), MOST))


def reduced(image: F32) -> tuple[F32, int]:
    """Bin an image by means of ``step`` x ``step`` pixels until it can be drawn; return it and the step."""
    step = -(-max(image.shape) // PICTURE)
    if step == 1:
        return image, 1
    ny, nx = (-(-n // step) for n in image.shape)
    padded = np.pad(image, ((0, ny * step - image.shape[0]), (0, nx * step - image.shape[1])), mode="edge")
    return padded.reshape(ny, step, nx, step).mean(axis=(1, 3)), step


def _noise(
    amplifier: Amplifier, frames: Frames, unlit: Sequence[File], lit: Sequence[File]
) -> tuple[float | None, str]:
    """Measure an amplifier's read noise, ADU, and name its source.

    The source is the difference of two frames without light; else the overscan of one frame, less its rows' levels.
    """
    box = amplifier.data
    if len(unlit) > 1:
        one, two = (frames.rows(f, amplifier, box.y0, box.y1)[:, box.x0 : box.x1] for f in unlit[:2])
        return _sigma((one - two).astype(np.float32)) / 2**0.5, "the difference of two frames"
    overscan = amplifier.serial_overscan
    if overscan is None or overscan.nx < LATE + 5:
        return None, ""
    late = Box(overscan.x0 + LATE, overscan.y0, overscan.nx - LATE, overscan.ny)
    if overscan.x0 < amplifier.data.x0:
        late = Box(overscan.x0, overscan.y0, overscan.nx - LATE, overscan.ny)
    rows = frames.rows([*unlit, *lit][0], amplifier, late.y0, late.y1)[:, late.x0 : late.x1].astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return _sigma(rows) * (late.nx / (late.nx - 1)) ** 0.5, "the overscan of a frame"


def _sigma(values: F32) -> float:
    return float(clipped_mean(values, None, NSIGMA, PASSES)[1])


def _row(
    amplifier: Amplifier, others: Sequence[Amplifier], found: Fit, noise: tuple[float | None, str]
) -> dict[str, Any]:
    row = {"amplifier": amplifier.name, "hdu": amplifier.hdu, **asdict(found)}
    row["proposal"] = proposal(amplifier, others, found) if found.misfits and found.judged else None
    row |= {"noise_adu": noise[0], "noise_from": noise[1], "gain": amplifier.gain, "read_noise": amplifier.read_noise}
    return row


def examine(job: Job, task: Task, detector: Detector, frames: Frames) -> dict[str, Any]:
    """Examine the frames of a detector.

    Task: inputs ``raw``, parameter ``lit`` (whether each frame should have light).

    Returns
    -------
    found : `dict`
        ``detector``; ``frames``, numbers with light and without; ``amplifiers``: the fields of
        `kernels.statistics.edges.Fit`, ``proposal`` (boxes; `None` where all is well), ``noise_adu``, ``noise_from``,
        and the camera file's ``gain`` and ``read_noise``; ``pictures``: ``hdu``, ``path`` (npy) and ``step`` of each
        HDU's reduced mean frame.
    """
    files = [job.files[key] for key in task.inputs["raw"]]
    lit = [file for file, light in zip(files, task.parameters["lit"], strict=True) if light]
    unlit = [file for file, light in zip(files, task.parameters["lit"], strict=True) if not light]
    by_hdu: dict[str | int, list[Amplifier]] = defaultdict(list)
    for amplifier in detector.amplifiers:
        by_hdu[amplifier.hdu].append(amplifier)
    rows, pictures = [], []
    for number, (hdu, some) in enumerate(by_hdu.items()):
        bright, offset = _mean(frames, lit, some[0]), _mean(frames, unlit, some[0])
        shown = offset if bright is None else bright
        assert shown is not None
        if bright is not None and offset is not None:
            bright = bright - offset
        for amplifier in some:
            others = [a for a in some if a is not amplifier]
            found = Fit() if bright is None else fit(amplifier, others, bright, offset is not None)
            clean = not any(text.startswith("serial_overscan") for text in found.misfits)
            noise = _noise(amplifier, frames, unlit, lit) if clean or len(unlit) > 1 else (None, "")
            rows.append(_row(amplifier, others, found, noise))
        small, step = reduced(shown)
        path = f"{job.config['folder']}/{detector.id}.{number}.npy"
        np.save(path, small)
        pictures.append({"hdu": hdu, "path": path, "step": step})
    return {
        "detector": detector.id,
        "frames": {"lit": len(lit), "unlit": len(unlit)},
        "amplifiers": sorted(rows, key=lambda row: [a.name for a in detector.amplifiers].index(row["amplifier"])),
        "pictures": pictures,
    }


def _attempt(job: Job, task: Task, camera: geometry.Camera) -> dict[str, Any]:
    assert task.detector is not None
    try:
        with Frames() as frames:
            return examine(job, task, camera.detectors[task.detector], frames)
    except KernelError as error:
        return {"detector": task.detector, "error": str(error)}


def execute(job: Job, comm: Any) -> int:
    """Examine every task's detector; rank 0 writes the results to ``config["result"]`` (JSON).

    Raises
    ------
    PublishError
        A picture or the result cannot be written.
    """
    rank, size = (comm.rank, comm.size) if comm else (0, 1)
    camera = geometry.camera(job.camera)
    try:
        mine = [_attempt(job, task, camera) for task in job.tasks[rank::size]]
        found = comm.gather(mine, root=0) if comm else [mine]
        if found is not None:
            answers = sorted((one for share in found for one in share), key=lambda one: int(one["detector"]))
            Path(job.config["result"]).write_text(json.dumps(answers))
    except OSError as error:
        folder = Path(job.config["folder"])
        raise PublishError(f"{folder}: cannot be written: {reason(error, folder)}") from error
    return sum("error" in one for one in mine)
