"""Base of the kernels that correct raw frames: camera, corrections, open frames, calibrations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.camera import geometry
from kernels.camera.geometry import Detector
from kernels.fits import identity
from kernels.fits.raw import Frames
from kernels.isr.channel import Frame
from kernels.isr.reader import Reader
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.scratch import Scratch


class FrameKernel(gang.Kernel):
    """Base of kernels with ``isr`` in their ``config`` and ``raw`` frames of one detector in each task."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.camera = geometry.camera(job.camera)
        self.isr = IsrConfig.from_plain(job.config["isr"])
        self.frames, self.scratch = Frames(), Scratch()
        self._calibrations: dict[tuple[object, ...], Calibrations] = {}
        self._readers: dict[int, list[Reader]] = {}
        self._flagged: dict[int, list[NDArray[np.bool_] | None]] = {}

    @property
    def stamp(self) -> str:
        """Mark of this attempt's temporary files."""
        return f"{self.job.run}.{self.job.attempt}"

    def detector(self, task: Task) -> Detector:
        """Return the task's detector, as the camera file describes it."""
        assert task.detector is not None
        return self.camera.detectors[task.detector]

    def raws(self, task: Task) -> list[File]:
        """List the task's raw frames."""
        return [self.job.files[key] for key in task.inputs["raw"]]

    def require_identity(self, task: Task) -> None:
        """Require that the task's frames are still those of its detector, where the job has their identity.

        Raises
        ------
        DataError
            A frame is another detector's.
        """
        if "identity" in self.job.config:
            for file in self.raws(task):
                identity.require(file.path, self.job.config["identity"], self.detector(task))

    def groups(self, task: Task) -> list[list[int]]:
        """Group the amplifiers that are corrected together: each alone, or all where there is crosstalk."""
        numbers = list(range(len(self.detector(task).amplifiers)))
        return [numbers] if self.isr.crosstalk else [[n] for n in numbers]

    def calibrations(self, task: Task) -> Calibrations:
        """Open the task's calibrations; keeps those of one detector, since a rank's tasks are in order.

        Raises
        ------
        DataError
            One cannot be read, or is in another unit than the frames.
        """
        key = (task.detector, *(tuple(keys) for role, keys in sorted(task.inputs.items()) if role != "raw"))
        if key not in self._calibrations:
            self._readers, self._flagged = {}, {}
            self.frames.forget()
            detector = self.detector(task)
            self._calibrations = {
                key: Calibrations.open(
                    self.camera, detector, self.isr, lambda role: self.job.files[task.inputs[role][0]].path
                )
            }
        return self._calibrations[key]

    def readers(self, task: Task) -> list[Reader]:
        """Make one reader for each group of amplifiers."""
        calibrations, number = self.calibrations(task), self.detector(task).id
        if number not in self._readers:
            groups = self.groups(task)
            self._readers[number] = [
                Reader(self.frames, self.scratch, g, self.isr, self.camera.unit, calibrations) for g in groups
            ]
        return self._readers[number]

    def corrected(self, task: Task, file: File, dark_time: float) -> Iterator[tuple[Frame, NDArray[np.bool_] | None]]:
        """Yield each amplifier of a single frame, corrected, and the flags [y, x] of the calibrations (`None` without).

        Pixels are valid until the next call.
        """
        readers, number = self.readers(task), self.detector(task).id
        if number not in self._flagged:
            calibrations, amplifiers = self.calibrations(task), self.detector(task).amplifiers
            flags = calibrations.flags
            self._flagged[number] = [calibrations.flagged(a.target) if flags else None for a in amplifiers]
        for reader in readers:
            for frame in reader.frame(file, dark_time):
                yield frame, self._flagged[number][frame.channel.number]
