"""Base of the kernels that correct raw frames: camera, corrections, open frames, calibrations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.camera import geometry
from kernels.camera.geometry import Box, Detector
from kernels.errors import JobError
from kernels.fits import identity
from kernels.fits.raw import Frames
from kernels.isr.channel import Canvas, Channel, Frame
from kernels.isr.reader import Reader
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.scratch import Scratch


class FrameKernel(gang.Kernel):
    """Base of kernels with ``isr`` in their ``config`` and ``raw`` frames of one detector in each task.

    Raises
    ------
    JobError
        A setting of ``isr`` is unknown, or needs whole frames, which the kernel never has.
    """

    #: Corrections of whole frames, by upstream's switches, that a kernel which assembles each frame makes.
    WHOLE: Sequence[str] = ()
    #: Whether the kernel compares the sums of the frames that it reads in parts; see `kernels.fits.raw.Frames`.
    SUMS = False

    def __init__(self, job: Job) -> None:
        self.job = job
        self.camera = geometry.camera(job.camera)
        self.isr = IsrConfig.from_plain(job.config["isr"])
        if lacking := [switch for switch in self.isr.whole if switch not in self.WHOLE]:
            how = "has no part for it" if self.WHOLE else "corrects them in parts"
            what = f"{', '.join(lacking)} needs whole frames, the kernel {job.kernel} {how}"
            raise JobError(f"{what}: leave it to a step of the signature removal alone (doWrite)")
        self.frames, self.scratch = Frames(sums=self.SUMS), Scratch()
        self._calibrations: dict[tuple[object, ...], Calibrations] = {}
        self._readers: dict[int, list[Reader]] = {}
        self._flagged: dict[int, NDArray[np.bool_] | None] = {}

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

    def require_inputs(self, task: Task) -> None:
        """Require whole calibrations, and frames that are still the detector's, where the job has their identity.

        Raises
        ------
        DataError
            A frame is another detector's, or a calibration is corrupt.
        """
        if "identity" in self.job.config:
            for file in self.raws(task):
                identity.require(file.path, self.job.config["identity"], self.detector(task))
        self.calibrations(task).verify()

    def groups(self, task: Task) -> list[list[int]]:
        """Group the amplifiers that are corrected together: each alone, or all where there is crosstalk."""
        numbers = list(range(len(self.detector(task).amplifiers)))
        return [numbers] if self.isr.crosstalk else [[n] for n in numbers]

    def calibrations(self, task: Task) -> Calibrations:
        """Open the task's calibrations; keeps those of one detector, since a rank's tasks are in order.

        Their pixels are not verified: that is for the rank that publishes (`require_inputs`), not for all that help it.

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

    def corrected(
        self, task: Task, file: File, dark_time: float, canvas: Canvas | None = None
    ) -> Iterator[tuple[Frame, NDArray[np.bool_] | None]]:
        """Yield each amplifier of a single frame, corrected, and the flags [y, x] of the calibrations (`None` without).

        Pixels are valid until the next step.  With a canvas they are NaN where flagged: see `Reader.frame`.
        """
        readers, flags = self.readers(task), self.flags(task)
        Channel.calibrate([channel for reader in readers for channel in reader.channels])
        for reader in readers:
            for frame in reader.frame(file, dark_time, canvas=canvas):
                yield frame, None if flags is None else flags[frame.channel.amplifier.target.slices]

    def canvas(self, task: Task, image: NDArray[np.float32] | None = None) -> Canvas:
        """Make a canvas with the flags of the calibrations, and an image of the detector [y, x], float32, or none."""
        flags = self.flags(task)
        return Canvas(image, np.empty((0, 0), np.bool_) if flags is None else flags)

    def flags(self, task: Task) -> NDArray[np.bool_] | None:
        """Flag the detector's pixels [y, x] that are BAD in any of the calibrations; `None` if none can flag any."""
        detector, calibrations = self.detector(task), self.calibrations(task)
        if detector.id not in self._flagged:
            whole = calibrations.flagged(Box(0, 0, *detector.size)) if calibrations.flags else None
            self._flagged[detector.id] = None if whole is None else np.ascontiguousarray(whole)
        return self._flagged[detector.id]
