"""Corrected frames on disk, for pipelines that ask for them: one exposure and detector a task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Amplifier, Box, Detector
from kernels.fits import product
from kernels.fits.product import BAD, PLANES, Card
from kernels.isr.channel import Exposures
from kernels.isr.framekernel import FrameKernel
from kernels.isr.noise import Noise, look
from kernels.isr.subtracted import Coefficients, Subtracted
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.header import corrections
from kernels.products.redistribute import redistribute

KERNEL: Final = "correct"


class Correct(FrameKernel):
    """The quantum kernel of an ISR task with ``doWrite``.

    ``config``: ``isr``, ``permissions``.  Task: input ``raw`` (one file) and
    the calibrations that ``isr`` asks for, parameters ``exposures``,
    ``dates``, ``exposure_times``, ``dark_times`` (one each), output
    ``postISRCCD``: IMAGE in the camera's unit, MASK with SAT and BAD, VARIANCE
    of the charge as it was gathered, over the flat if ``isr`` asks for one.
    """

    WHOLE = ("doBrighterFatter", "doFlat")

    def compute(self, task: Task, piece: int) -> Any:
        """Correct the frame: image, mask and variance [y, x] of the assembled detector, and cards of what was done."""
        shape, dark_time = self.detector(task).size[::-1], float(task.parameters["dark_times"][0])
        image, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        mask = np.full(shape, 1 << PLANES["NO_DATA"], np.int32)
        noises, subtracted = self._noises(task, dark_time), Subtracted(self.calibrations(task), task.provenance)
        for frame, bad in self.corrected(task, self.raws(task)[0], dark_time):
            box = frame.channel.amplifier.target
            masked, at = ~np.isfinite(frame.pixels), box.slices
            image[at] = np.where(masked, 0, frame.pixels)
            variance[at] = noises[frame.channel.number].variance(image[at])
            subtracted.add(variance[at], box, Coefficients(1.0, dark_time))
            why = 1 << PLANES["SAT"] if frame.empty is None else np.where(frame.empty, BAD, 1 << PLANES["SAT"])
            mask[at] = np.where(masked, why, 0) | (0 if bad is None else np.where(bad, BAD, 0))
        kernels, flat = self.calibrations(task).kernels, self.calibrations(task).flat
        cards = redistribute(image, mask, kernels, self.isr, self.camera.unit) if kernels else []
        if flat:
            flatten(image, mask, variance, flat)
        return image, mask, variance, cards

    def _noises(self, task: Task, dark_time: float) -> dict[int, Noise]:
        """Model each amplifier's noise; an offset of the electronics left in the frame is estimated from the frame."""
        found, light = {}, dark_time > 0
        for reader in self.readers(task):
            whole = Exposures.plain(self.raws(task), [dark_time], len(self.detector(task).amplifiers))
            offset = light and not all(channel.zeroed for channel in reader.channels)
            seen = look(reader, whole) if offset else [None] * len(reader.channels)
            for channel, band in zip(reader.channels, seen, strict=True):
                noise = Noise.of(channel, light)
                found[channel.number] = replace(noise, offset=band.offset(noise)) if band else noise
        return found

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Publish the corrected frame."""
        self.require_inputs(task)
        ((image, mask, variance, more),) = results
        calibrations = self.calibrations(task)
        cards = [*self._cards(task, calibrations.detector), *more, *calibrations.left_out]
        write = partial(product.write, cards=cards, image=image, mask=mask, variance=variance)
        return {"postISRCCD": publish(task.outputs["postISRCCD"], write, self.stamp, self.job.config["permissions"])}

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


def flatten(
    image: NDArray[np.float32], mask: NDArray[np.int32], variance: NDArray[np.float32], flat: product.Product
) -> None:
    """Divide by a flat, in place; its own variance is added, and a pixel without response is BAD.

    Parameters
    ----------
    image, variance : `numpy.ndarray` [y, x], float32
        In the frame's unit, and its square.
    mask : `numpy.ndarray` [y, x], int32
        Bits of `kernels.fits.product.PLANES`.
    """
    box = Box(0, 0, *image.shape[::-1])
    response = np.asarray(flat.read(box), np.float32)
    good = np.isfinite(response) & (response > 0)
    response = np.where(good, response, np.float32(1))
    own = np.nan_to_num(np.asarray(flat.read(box, "VARIANCE"), np.float32)) if flat.has("VARIANCE") else np.float32(0)
    image /= response
    variance += image**2 * own
    variance /= response**2
    mask |= np.where(good, 0, BAD)


def _amplifier_cards(amplifier: Amplifier) -> list[Card]:
    return [
        (f"AMP_{amplifier.name}_GAIN", amplifier.gain, "electron / ADU"),
        (f"AMP_{amplifier.name}_READNOISE", amplifier.read_noise, "electron"),
    ]


def execute(job: Job, comm: Any) -> int:
    """Correct every task's frame; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Correct(job))
