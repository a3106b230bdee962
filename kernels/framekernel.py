"""What every kernel that corrects raw frames begins with: camera, corrections, open frames, calibrations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import geometry
from kernels.geometry import Amplifier, Box, Detector
from kernels.isr import Reader, Window
from kernels.isrconfig import IsrConfig
from kernels.job import File, Job, Task
from kernels.product import BAD, Product
from kernels.raw import Frames


@dataclass(frozen=True)
class Whole:
    """An amplifier to be read whole: how, where, and what the calibrations flag BAD there [y, x]."""

    amplifier: Amplifier
    reader: Reader
    window: Window
    bad: NDArray[np.bool_]


class FrameKernel:
    """Base of the kernels whose ``config`` has ``isr`` and whose tasks have ``raw`` frames of one detector."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.camera = geometry.camera(job.camera)
        self.isr = IsrConfig.from_plain(job.config["isr"])
        self.frames = Frames()
        self._opened: dict[tuple[object, ...], list[Whole]] = {}

    @property
    def stamp(self) -> str:
        """Tells this attempt's temporary files from another's."""
        return f"{self.job.run}.{self.job.attempt}"

    def detector(self, task: Task) -> Detector:
        """The task's detector."""
        assert task.detector is not None
        return self.camera.detectors[task.detector]

    def raws(self, task: Task) -> list[File]:
        """The task's raw frames."""
        return [self.job.files[key] for key in task.inputs["raw"]]

    def calibrations(self, task: Task) -> tuple[Product | None, Product | None]:
        """The bias and the dark that correct the task's frames.

        Raises
        ------
        DataError
            One cannot be read, or is in another unit than the frames.
        """

        def product(role: str, wanted: bool) -> Product | None:
            return Product.open(self.job.files[task.inputs[role][0]].path, self.camera.unit) if wanted else None

        return product("bias", self.isr.bias), product("dark", self.isr.dark)

    def reader(self, task: Task, amplifier: Amplifier, calibrations: tuple[Product | None, Product | None]) -> Reader:
        """A reader of one amplifier."""
        return Reader(self.frames, self.detector(task), amplifier, self.isr, self.camera.unit, *calibrations)

    def whole(self, task: Task) -> list[Whole]:
        """The amplifiers of a task's detector, with the calibrations that correct them: read once a detector."""
        key = (task.detector, *task.inputs.get("bias", ()), *task.inputs.get("dark", ()))
        if key not in self._opened:  # one detector at a time: a rank's tasks are in order
            calibrations = self.calibrations(task)
            self._opened = {key: [self._whole(task, a, calibrations) for a in self.detector(task).amplifiers]}
        return self._opened[key]

    def _whole(self, task: Task, amplifier: Amplifier, calibrations: tuple[Product | None, Product | None]) -> Whole:
        reader = self.reader(task, amplifier, calibrations)
        window = reader.window(0, amplifier.data.ny, 0)
        return Whole(amplifier, reader, window, flagged(calibrations, window.inner))


def flagged(calibrations: tuple[Product | None, ...], box: Box) -> NDArray[np.bool_]:
    """Pixels [y, x] of a box that any of the calibrations flags BAD."""
    bad = np.zeros((box.ny, box.nx), np.bool_)
    for applied in filter(None, calibrations):
        bad |= (applied.read(box, "MASK") & BAD) != 0
    return bad
