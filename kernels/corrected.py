"""Corrected frames on disk, for the pipelines that ask for them: one (exposure, detector) a task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from kernels import gang, geometry, product
from kernels.geometry import Amplifier, Detector
from kernels.isr import Reader, Window
from kernels.isrconfig import IsrConfig
from kernels.job import Job, Task
from kernels.product import BAD, PLANES, Card, Product
from kernels.publish import publish
from kernels.raw import Frames


class Correct:
    """The quantum kernel of an ISR task that writes.

    ``config``: ``isr``, ``permissions``.  Task: input ``raw`` (one file) and
    the calibrations that ``isr`` asks for, parameters ``exposures``,
    ``dates``, ``exposure_times``, ``dark_times`` (one each), output
    ``postISRCCD``: IMAGE in the camera's unit, MASK with SAT and BAD, VARIANCE.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._camera = geometry.camera(job.camera)
        self._isr = IsrConfig.from_plain(job.config["isr"])
        self._frames = Frames()

    def weights(self, task: Task) -> Sequence[float]:
        """One piece: a frame is read once."""
        return [1.0]

    def _product(self, task: Task, role: str, wanted: bool) -> Product | None:
        return Product.open(self._job.files[task.inputs[role][0]].path, self._camera.unit) if wanted else None

    def compute(self, task: Task, piece: int) -> Any:
        """Image, mask and variance [y, x] of the assembled detector."""
        assert task.detector is not None
        detector = self._camera.detectors[task.detector]
        bias, dark = self._product(task, "bias", self._isr.bias), self._product(task, "dark", self._isr.dark)
        shape = detector.size[::-1]
        image, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        mask = np.full(shape, 1 << PLANES["NO_DATA"], np.int32)
        for amplifier in detector.amplifiers:
            reader = Reader(self._frames, detector, amplifier, self._isr, self._camera.unit, bias, dark)
            window = reader.window(0, amplifier.data.ny, 0)
            pixels = self._read(task, reader, window)
            at = amplifier.target.slices
            saturated = ~np.isfinite(pixels)
            image[at], variance[at] = np.nan_to_num(pixels), reader.variance(np.nan_to_num(pixels))
            mask[at] = np.where(saturated, 1 << PLANES["SAT"], 0)
            for applied in filter(None, (bias, dark)):
                mask[at] |= applied.read(window.inner, "MASK") & BAD
        return image, mask, variance

    def _read(self, task: Task, reader: Reader, window: Window) -> Any:
        file = self._job.files[task.inputs["raw"][0]]
        return reader.read(file, float(task.parameters["dark_times"][0]), window).pixels

    def finish(self, task: Task, results: Sequence[Any]) -> dict[str, Any]:
        """Publish the corrected frame."""
        assert task.detector is not None
        image, mask, variance = results[0]
        cards = self._cards(task, self._camera.detectors[task.detector])
        write = partial(product.write, cards=cards, image=image, mask=mask, variance=variance)
        stamp = f"{self._job.run}.{self._job.attempt}"
        return {"postISRCCD": publish(task.outputs["postISRCCD"], write, stamp, self._job.config["permissions"])}

    def _cards(self, task: Task, detector: Detector) -> list[Card]:
        parameters, unit = task.parameters, self._camera.unit
        return [
            ("OBSTYPE", "corrected frame", ""),
            ("INSTRUME", self._camera.name, ""),
            ("DETECTOR", detector.id, ""),
            ("DETNAME", detector.name, ""),
            ("EXPID", parameters["exposures"][0], "exposure"),
            ("DATE-BEG", parameters["dates"][0], "TAI"),
            ("TIMESYS", "TAI", ""),
            ("EXPTIME", float(parameters["exposure_times"][0]), "s"),
            ("DARKTIME", float(parameters["dark_times"][0]), "s"),
            ("BUNIT", unit, "unit of IMAGE; VARIANCE is its square"),
            ("CALUNIT", unit, "unit of the frame"),
            *((f"ISR_{key.upper()}", value, "") for key, value in self._job.config["isr"].items()),
            *(card for amplifier in detector.amplifiers for card in _amplifier_cards(amplifier)),
            *((key, value, "") for key, value in task.provenance.items()),
        ]


def _amplifier_cards(amplifier: Amplifier) -> list[Card]:
    return [
        (f"AMP_{amplifier.name}_GAIN", amplifier.gain, "electron / ADU"),
        (f"AMP_{amplifier.name}_READNOISE", amplifier.read_noise, "electron"),
    ]


def execute(job: Job, comm: Any) -> int:
    """Correct every task's frame; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Correct(job))
