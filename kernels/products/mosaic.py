"""Focal-plane mosaics: binned detectors at their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera import geometry
from kernels.camera.geometry import Box, Camera, Detector
from kernels.fits import product
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish

KERNEL: Final = "mosaic"


def places(camera: Camera, detectors: Sequence[Detector], binning: int) -> tuple[tuple[int, int], list[Box]]:
    """Place the detectors on the mosaic.

    Parameters
    ----------
    detectors : sequence of `Detector`
    binning : `int`
        pixel.

    Returns
    -------
    shape : `tuple` [`int`, `int`]
        Height and width of the mosaic.
    boxes : `list` [`Box`]
        One a detector; x to the right and y up, as in the focal plane.
    """
    pitch = min(d.pixel_um for d in detectors) * 1e-3 * binning
    boxes = []
    for detector in detectors:
        size = [-(-n // binning) for n in detector.size]
        if round(detector.yaw_deg / 90) % 2:
            size.reverse()
        x, y = (at / pitch - n / 2 for at, n in zip(detector.position_mm, size, strict=True))
        boxes.append(Box(round(x), round(y), size[0], size[1]))
    left, bottom = min(b.x0 for b in boxes), min(b.y0 for b in boxes)
    boxes = [Box(b.x0 - left, b.y0 - bottom, b.nx, b.ny) for b in boxes]
    return (max(b.y1 for b in boxes), max(b.x1 for b in boxes)), boxes


class Mosaic(gang.Kernel):
    """The serial kernel.

    Task: inputs ``binned`` (one a detector), parameters ``detectors`` (their
    ids, in the inputs' order) and ``binning`` (pixel), one output.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._camera = geometry.camera(job.camera)

    def compute(self, task: Task, piece: int) -> NDArray[np.float32]:
        """Place the detectors; NaN between them."""
        detectors = [self._camera.detectors[d] for d in task.parameters["detectors"]]
        shape, boxes = places(self._camera, detectors, int(task.parameters["binning"]))
        canvas = np.full(shape, np.nan, np.float32)
        for key, detector, box in zip(task.inputs["binned"], detectors, boxes, strict=True):
            size = [-(-n // int(task.parameters["binning"])) for n in detector.size]
            small = product.read(self._job.files[key].path, Box(0, 0, size[0], size[1]))
            turned = np.rot90(small, -round(detector.yaw_deg / 90))  # rows go up, so that rot90() turns clockwise
            there = canvas[box.slices]
            canvas[box.slices] = np.where(np.isfinite(turned), turned, there)
        return canvas

    def finish(self, task: Task, results: Iterable[NDArray[np.float32]]) -> dict[str, Any]:
        """Publish the mosaic."""
        (mosaic,) = results
        cards = [
            ("INSTRUME", self._camera.name, ""),
            ("BINNING", int(task.parameters["binning"]), "pixels of the detector"),
            ("NDETECT", len(task.inputs["binned"]), "detectors"),
            ("RUNID", self._job.run, ""),
            *((key, value, "") for key, value in task.provenance.items()),
        ]
        (name, path), stamp = next(iter(task.outputs.items())), f"{self._job.run}.{self._job.attempt}"
        write = publish(path, lambda p: product.write(p, cards, mosaic), stamp, self._job.config["permissions"])
        return {name: write}


def execute(job: Job, comm: Any) -> int:
    """Make every mosaic; return the number that failed."""
    return gang.execute(job, comm, Mosaic(job))
