"""Verify a combined image: frames that it corrects are measured, and so is the image; rows of statistics as Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import ptc
from kernels.calibrations.applied import Calibrations
from kernels.camera.geometry import Box
from kernels.errors import JobError
from kernels.fits.product import BAD, Product
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.publish import publish
from kernels.verification import parquet
from kernels.verification import warm as compiled
from kernels.verification.applied import Applied, means
from kernels.verification.evaluate import evaluate
from kernels.verification.frame import Frame, Overscans, overscans
from kernels.verification.images import Image, pictured
from kernels.verification.rows import Rows, join
from kernels.verification.stack import Share, share, stacked

KERNEL: Final = "verify"

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Kinds of images that are verified, each with those that are applied to its frames before.
KINDS: Final = ("bias", "dark", "flat")
#: Day 0 of the Modified Julian date.
_MJD_0: Final = datetime(1858, 11, 17)


def mjd(date: str) -> float:
    """Convert a date (ISO-8601) to a Modified Julian date."""
    return (datetime.fromisoformat(date) - _MJD_0).total_seconds() / 86400


@dataclass(frozen=True)
class Used:
    """Products of one detector, and what all its frames share of them."""

    calibrations: Calibrations
    applied: Sequence[Applied]
    #: [amplifier]: Dark current, in the frames' unit per second; mean of the flat; a00 of the ptc, 1/electron.
    dark: F64 | float
    response: F64 | float
    a00: F64 | None
    #: [y, x]: Flat; NaN where nothing can be divided by it.  `None` without.
    flat: F32 | None


class Verify(FrameKernel):
    """The gang kernel: a piece is an exposure of a detector.

    ``config``: ``kind`` (bias | dark | flat), ``isr``, ``permissions``.  Task: inputs ``raw`` and the calibrations that
    ``isr`` asks for, that of the kind among them; parameters ``exposures``, ``dates``, ``dark_times`` (second).  The
    output, of any type, has the rows of all exposures, of their stack, and of the image.

    Raises
    ------
    JobError
        The kind is unknown, or its image is not applied.
    """

    WHOLE = ("doFlat",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._kind = str(job.config.get("kind"))
        if self._kind not in KINDS:
            raise JobError(f"kind {self._kind!r} cannot be verified, only {', '.join(KINDS)}")
        if not getattr(self.isr, self._kind):
            raise JobError(f"a {self._kind} is verified by frames that it corrects: isr.{self._kind} is off")
        self._used: dict[tuple[str, ...], Used] = {}

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh all exposures alike."""
        return [1.0] * len(task.inputs["raw"])

    def compute(self, task: Task, piece: int) -> tuple[Rows, Share]:
        """Correct one frame in memory, and measure it."""
        file, parameters, used = self.raws(task)[piece], task.parameters, self._products(task)
        seconds = float(parameters["dark_times"][piece])
        image, saturated = self._corrected(task, file, seconds)
        if used.flat is not None:
            image /= used.flat
        frame = Frame(
            int(parameters["exposures"][piece]), self._kind, used.calibrations.detector, image, self.isr,
            self.camera.scale, self.camera.unit, seconds, mjd(parameters["dates"][piece]), used.applied,
            self._overscans(task, file), saturated if self.isr.saturation else None, used.dark, used.response,
            used.a00, used.calibrations.deferrals,
        )  # fmt: skip
        return evaluate(frame), share(frame)

    def _corrected(self, task: Task, file: File, seconds: float) -> tuple[F32, list[int]]:
        """Give the frame [y, x], NaN where masked, and the numbers of saturated pixels [amplifier]."""
        detector = self.detector(task)
        image = np.full(detector.size[::-1], np.nan, np.float32)
        saturated = [0] * len(detector.amplifiers)
        for part, _ in self.corrected(task, file, seconds, self.canvas(task, image)):
            saturated[part.channel.number] = int(part.saturated[0])
        return image, saturated

    def _overscans(self, task: Task, file: File) -> list[Overscans]:
        amplifiers = self.detector(task).amplifiers
        return [overscans(self.frames.rows(file, a, 0, a.raw[1]), a) for a in amplifiers]

    def _products(self, task: Task) -> Used:
        """Read what the frames of a detector share; keeps that of one task, since a rank's tasks are in order."""
        key = (task.task, *(name for role in sorted(task.inputs) if role != "raw" for name in task.inputs[role]))
        if key not in self._used:
            of = self.calibrations(task)
            detector, flat = of.detector, None
            dark: F64 | float = 0.0
            response: F64 | float = 1.0
            if of.dark:
                dark = means(detector, *_pixels(of.dark, detector.size))
            if of.flat:
                flat, bad = _pixels(of.flat, detector.size)
                flat = np.where(bad | ~(flat > 0), np.float32(np.nan), flat)
                response = means(detector, flat, bad)
            a00 = ptc.a00(self.job.files[task.inputs["ptc"][0]].path, self.camera, detector) if self.isr.ptc else None
            self._used = {key: Used(of, self._applied(task, of), dark, response, a00, flat)}
        return self._used[key]

    def _applied(self, task: Task, of: Calibrations) -> list[Applied]:
        """Describe the images that correct the frames; a dark had this bias subtracted if its header names it."""
        found = []
        for kind in KINDS:
            product: Product | None = getattr(of, kind)
            if product is not None:
                bias = str(product.header.get("CALIB_BIAS_ID", ""))
                found.append(Applied.of(kind, product.header, bias in task.inputs.get("bias", ())))
        return found

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Join the rows of all exposures, measure their stack and the image, and publish."""
        self.require_inputs(task)
        each = list(results)
        began = min(map(mjd, task.parameters["dates"]))
        image = self._image(task)
        rows = join([*(rows for rows, _ in each), stacked([one for _, one in each], began), pictured(image, began)])
        known = len(image.made_of.inputs)
        about = {**task.provenance, "RUNID": self.job.run, "RUNTASK": task.task, "DETECTOR": self.detector(task).id}
        inside = sum(image.made_of.role(e) == "construction" for e in task.parameters["exposures"])
        said = [] if known else [f"the {self._kind} names no inputs: every exposure counts as independent of it"]
        (type_,) = task.outputs
        write = partial(parquet.write, rows=rows, about=about)
        made = publish(task.outputs[type_], write, self.stamp, self.job.config["permissions"])
        return {type_: made, "construction": inside, "exposures": len(each), **({"look_at": said} if said else {})}

    def _image(self, task: Task) -> Image:
        """Read the image that is verified."""
        of, used = self.calibrations(task), self._products(task)
        product: Product = getattr(of, self._kind)
        box = Box(0, 0, *of.detector.size)
        pixels, bad = _pixels(product, of.detector.size)
        made_of = next(one for one in used.applied if one.kind == self._kind)
        variance = np.asarray(product.read(box, "VARIANCE"), np.float32) if product.has("VARIANCE") else None
        if variance is not None and self._kind == "dark" and made_of.same_bias and of.bias and of.bias.has("VARIANCE"):
            # A frame has the same bias subtracted, and the dark, which has it too, adds it again.
            own = np.asarray(of.bias.read(box, "VARIANCE"), np.float32)
            variance = np.maximum(variance - own * np.float32(np.mean(1 / np.array(made_of.scales or [1.0])) ** 2), 0)
        defects = None if of.defects is None else of.defects.mask(box)
        return Image(self._kind, of.detector, pixels, variance, bad, defects, self.isr, made_of, self.camera.unit)


def _pixels(product: Product, size: Sequence[int]) -> tuple[F32, NDArray[np.bool_]]:
    """Read an image [y, x], and its BAD pixels."""
    box = Box(0, 0, size[0], size[1])
    return np.asarray(product.read(box), np.float32), product.flagged(box, BAD)


def execute(job: Job, comm: Any) -> int:
    """Verify every task's image; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Verify(job))


def warm(bench: Any) -> None:
    """Compile everything for the types in use."""
    compiled.compile_all()
