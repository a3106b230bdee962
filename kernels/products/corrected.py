"""Corrected frames on disk, for pipelines that ask for them: one exposure and detector a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.config import WHOLE as SWITCHES
from kernels.camera.geometry import Amplifier, Box, Detector
from kernels.fits import product
from kernels.fits.product import BAD, PLANES, Card
from kernels.isr.channel import Exposures, Frame
from kernels.isr.framekernel import FrameKernel
from kernels.isr.noise import Noise, look
from kernels.isr.subtracted import Coefficients, Subtracted
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.publish import Writer, publish_all
from kernels.products import fringing
from kernels.products.header import corrections
from kernels.products.redistribute import redistribute
from kernels.products.wholeframe import INTRP, UNUSABLE, WholeFrame, finished, flatten
from kernels.statistics.binning import binned

KERNEL: Final = "correct"
SAT, SUSPECT, NO_DATA = (1 << PLANES[name] for name in ("SAT", "SUSPECT", "NO_DATA"))


class Correct(FrameKernel):
    """The quantum kernel of an ISR task with ``doWrite``.

    ``config``: ``isr``, ``permissions``, optional ``bins`` (binning by dataset
    type).  Task: input ``raw`` (one file) and the calibrations that ``isr``
    asks for, parameters ``exposures``, ``dates``, ``exposure_times``,
    ``dark_times`` (one each).  Outputs: the frame (IMAGE in the camera's unit,
    MASK, VARIANCE), and its bins: means of the usable pixels that are not
    interpolated, NaN where there are none.
    """

    WHOLE = tuple(SWITCHES.values())

    def compute(self, task: Task, piece: int) -> Any:
        """Correct the frame; give it, and cards of what was done."""
        shape, dark_time = self.detector(task).size[::-1], float(task.parameters["dark_times"][piece])
        frame = WholeFrame(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int32))
        frame.mask[:] = NO_DATA
        calibrations, file = self.calibrations(task), self.raws(task)[piece]
        boxes = {}
        for part, bad in self.corrected(task, file, dark_time):
            boxes[part.channel.number] = part.channel.amplifier.target
            _place(frame, part, bad)
        cards = []
        if self.isr.suspect:
            cards += _suspect(frame, calibrations.detector)
        if calibrations.kernels:
            cards += redistribute(frame.image, frame.mask, calibrations.kernels, self.isr, self.camera.unit)
        self._add_variance(task, file, frame, boxes, dark_time)
        if calibrations.flat:
            cards += flatten(frame, calibrations.flat)
        if calibrations.fringe:
            how = fringing.rule(self.isr, self.camera.scale, task.parameters["exposures"][piece], task.detector or 0)
            cards += fringing.subtract(frame, calibrations.fringe, how, self.camera.scale, self.camera.unit)
        return frame, [*cards, *finished(frame, self.isr)]

    def _add_variance(
        self, task: Task, file: File, frame: WholeFrame, boxes: Mapping[int, Box], dark_time: float
    ) -> None:
        """Add the variance of the charge, and that of the subtracted calibrations."""
        noises, subtracted = self._noises(task, file, dark_time), Subtracted(self.calibrations(task), task.provenance)
        for number, box in boxes.items():
            frame.variance[box.slices] = noises[number].variance(frame.image[box.slices])
        subtracted.add(frame.variance, [(box, Coefficients(1.0, dark_time)) for box in boxes.values()])

    def _noises(self, task: Task, file: File, dark_time: float) -> dict[int, Noise]:
        """Model each amplifier's noise; an offset of the electronics left in the frame is estimated from the frame."""
        found, light = {}, dark_time > 0
        for reader in self.readers(task):
            whole = Exposures.plain([file], [dark_time], len(self.detector(task).amplifiers))
            offset = light and not all(channel.zeroed for channel in reader.channels)
            seen = look(reader, whole) if offset else [None] * len(reader.channels)
            for channel, band in zip(reader.channels, seen, strict=True):
                noise = Noise.of(channel, light)
                found[channel.number] = replace(noise, offset=band.offset(noise)) if band else noise
        return found

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Publish the corrected frame and its bins."""
        self.require_inputs(task)
        ((frame, more),) = results
        calibrations, bins = self.calibrations(task), self.job.config.get("bins", {})
        cards = [*self._cards(task, calibrations.detector), *more, *calibrations.left_out]
        left = None if not bins else frame.mask & (UNUSABLE | INTRP)
        files: dict[str, tuple[str, Writer]] = {}
        for name, path in task.outputs.items():
            planes = {"image": binned(frame.image, bins[name], left)} if name in bins else vars(frame)
            files[name] = path, partial(product.write, cards=cards, **planes)
        return dict(publish_all(files, self.stamp, self.job.config["permissions"]))

    def _cards(self, task: Task, detector: Detector) -> list[Card]:
        parameters, unit = task.parameters, self.camera.unit
        return [
            ("OBSTYPE", "corrected frame", ""),
            ("INSTRUME", self.camera.name, ""),
            ("DETECTOR", detector.id, ""),
            ("DETNAME", detector.name, ""),
            ("EXPID", parameters["exposures"][0], "exposure"),
            ("DATE-BEG", parameters["dates"][0], "TAI"),
            ("TIMESYS", "TAI", ""),
            ("EXPTIME", float(parameters["exposure_times"][0]), "s"),
            ("DARKTIME", float(parameters["dark_times"][0]), "s"),
            ("BUNIT", unit, "unit of IMAGE; VARIANCE is its square"),
            ("CALUNIT", unit, "unit of the frame"),
            *corrections(detector, self.job.config["isr"]),
            *(card for amplifier in detector.amplifiers for card in _amplifier_cards(amplifier)),
            *((key, value, "") for key, value in task.provenance.items()),
        ]


def _place(frame: WholeFrame, part: Frame, bad: NDArray[np.bool_] | None) -> None:
    """Put an amplifier at its place; masked pixels are 0."""
    masked, at = ~np.isfinite(part.pixels), part.channel.amplifier.target.slices
    frame.image[at] = np.where(masked, 0, part.pixels)
    why = SAT if part.empty is None else np.where(part.empty, BAD, SAT)
    frame.mask[at] = np.where(masked, why, 0) | (0 if bad is None else np.where(bad, BAD, 0))
    if part.suspect is not None:
        frame.mask[at] |= np.where(part.suspect, SUSPECT, 0).astype(np.int32)


def _suspect(frame: WholeFrame, detector: Detector) -> list[Card]:
    """Count the suspect pixels; an amplifier all of whose pixels are saturated or suspect is BAD, as upstream's."""
    full = []
    for amplifier in detector.amplifiers:
        there = frame.mask[amplifier.target.slices]
        if ((there & (SAT | SUSPECT)) != 0).all():
            there |= BAD
            full.append(amplifier.name)
    return [
        ("NSUSPECT", int(np.count_nonzero(frame.mask & SUSPECT)), "pixels from the turnoff of the ptc on: SUSPECT"),
        ("FULLAMPS", " ".join(full) or "none", "all saturated or suspect: BAD"),
    ]


def _amplifier_cards(amplifier: Amplifier) -> list[Card]:
    return [
        (f"AMP_{amplifier.name}_GAIN", amplifier.gain, "electron / ADU"),
        (f"AMP_{amplifier.name}_READNOISE", amplifier.read_noise, "electron"),
    ]


def execute(job: Job, comm: Any) -> int:
    """Correct every task's frame; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Correct(job))
