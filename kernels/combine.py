"""Combine raw frames into a calibration: read, correct, clip and publish, without a corrected frame on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import clip, gang, levels, product
from kernels.binning import binned
from kernels.cosmic import CosmicConfig, cosmic_rays
from kernels.framekernel import FrameKernel, flagged
from kernels.geometry import Box, Detector
from kernels.header import product_cards
from kernels.isr import Reader
from kernels.job import File, Job, Task
from kernels.normalise import scales_of
from kernels.product import BAD, Product
from kernels.publish import publish_all

#: Below this many inputs the scatter says little, and the variance is propagated.
FEW_INPUTS = 5
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Piece:
    """Rows ``[first, last)`` of one amplifier's data section."""

    amplifier: int
    first: int
    last: int


@dataclass(frozen=True)
class Part:
    """What one piece gives: images [y, x] in the detector's orientation, and the inputs' levels."""

    box: Box
    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    bad: NDArray[np.bool_]
    samples: list[NDArray[np.float64]]
    saturated: list[int]


@dataclass(frozen=True)
class Inputs:
    """A task's frames, what they are divided by (``scales[exposure, amplifier]``), and what corrects them."""

    files: list[File]
    scales: NDArray[np.float64]
    calibrations: tuple[Product | None, Product | None]


def cut(detector: Detector, n_inputs: int, block_bytes: int) -> list[Piece]:
    """Cut a detector into row blocks whose cube of inputs fits into ``block_bytes``."""
    pieces: list[Piece] = []
    if not n_inputs:
        return pieces
    for k, amplifier in enumerate(detector.amplifiers):
        rows = max(1, block_bytes // (4 * n_inputs * amplifier.raw[0]))
        height = amplifier.data.ny
        pieces += [Piece(k, first, min(first + rows, height)) for first in range(0, height, rows)]
    return pieces


class Combine(FrameKernel):
    """The gang kernel.

    ``config``: ``type`` (bias | dark | flat), ``statistic``, ``nsigma``,
    ``passes``, ``isr`` (`IsrConfig`), ``cosmic`` (`CosmicConfig` or absent),
    ``bins`` (binning by output), ``inputs_table`` (a folder), ``permissions``,
    ``block_bytes``.  Task parameters: ``exposures``, ``dark_times`` (second),
    ``dates``, ``exposure_times``, and ``scales`` or an input
    ``flatNormalization``.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._config = job.config
        self._cosmic = CosmicConfig(**job.config["cosmic"]) if job.config.get("cosmic") else None
        self._inputs: dict[str, Inputs] = {}

    def _pieces(self, task: Task) -> list[Piece]:
        block = int(self._config.get("block_bytes", BLOCK_BYTES))
        return cut(self.detector(task), len(task.inputs["raw"]), block)

    def _scales(self, task: Task) -> NDArray[np.float64]:
        detector = self.detector(task)
        if "flatNormalization" in task.inputs:
            path = self.job.files[task.inputs["flatNormalization"][0]].path
            return scales_of(path, detector, task.parameters["exposures"])
        one = np.asarray(task.parameters["scales"], np.float64)
        return np.repeat(one[:, np.newaxis], len(detector.amplifiers), axis=1)

    def _open(self, task: Task) -> Inputs:
        if task.task not in self._inputs:  # one task at a time: a rank's pieces are in order
            self._inputs = {task.task: Inputs(self.raws(task), self._scales(task), self.calibrations(task))}
        return self._inputs[task.task]

    def weights(self, task: Task) -> Sequence[float]:
        """Cost of each row block: its pixels times the number of frames."""
        widths = [a.raw[0] for a in self.detector(task).amplifiers]
        return [float((p.last - p.first) * widths[p.amplifier] * len(task.inputs["raw"])) for p in self._pieces(task)]

    def compute(self, task: Task, piece: int) -> Part:
        """Read, correct and combine one row block of all frames."""
        inputs, rows = self._open(task), self._pieces(task)[piece]
        reader = self.reader(task, self.detector(task).amplifiers[rows.amplifier], inputs.calibrations)
        window = reader.window(rows.first, rows.last, self._cosmic.halo if self._cosmic else 0)
        blocks = [
            reader.read(file, dark_time, window)
            for file, dark_time in zip(inputs.files, task.parameters["dark_times"], strict=True)
        ]
        scales = inputs.scales[:, rows.amplifier].astype(np.float32)[:, np.newaxis, np.newaxis]
        image, variance = self._clip(reader, np.stack([b.pixels for b in blocks]), scales, window.core)
        bad = flagged(inputs.calibrations, window.inner)
        return Part(window.inner, image, variance, bad, [b.samples for b in blocks], [b.saturated for b in blocks])

    def _clip(
        self, reader: Reader, cube: NDArray[np.float32], scales: NDArray[np.float32], core: slice
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image and variance [y, x] of the rows that count, from ``cube[n, y, x]`` in the job's unit."""
        few = len(cube) < FEW_INPUTS
        variances = reader.variance(cube) / scales**2 if few else None
        scaled = cube / scales
        if self._cosmic:
            typical, _ = _combine(scaled, None, "MEDIAN", 0.0, 0)
            expected = typical * scales
            sigma = np.sqrt(reader.variance(expected))
            for n in range(len(cube)):
                scaled[n][cosmic_rays(cube[n] - expected[n], sigma[n], self._cosmic)] = np.nan
        return _combine(
            scaled[:, core],
            variances[:, core] if variances is not None else None,
            self._config["statistic"],
            float(self._config["nsigma"]),
            int(self._config["passes"]),
        )

    def finish(self, task: Task, results: Sequence[Part]) -> dict[str, Any]:
        """Assemble the detector and publish the calibration, its binned images and the inputs table."""
        detector, kind = self.detector(task), self._config["type"]
        image, variance, mask = self._assemble(detector, results)
        self._table(task, detector, results)
        cards = product_cards(self.job, task, self.camera, detector, image, mask, self._inputs[task.task].scales)
        stamp, permissions = f"{self.job.run}.{self.job.attempt}", self._config.get("permissions", {})
        files = {
            kind: (task.outputs[kind], partial(product.write, cards=cards, image=image, mask=mask, variance=variance))
        }
        for name, binning in self._config.get("bins", {}).items():
            small = binned(np.where(mask == 0, image, np.nan).astype(np.float32), binning)
            files[name] = task.outputs[name], partial(product.write, cards=cards, image=small)
        published = publish_all(files, stamp, permissions)
        return {"inputs_used": len(task.inputs["raw"]), "bad_pixels": int(np.count_nonzero(mask)), **published}

    def _assemble(
        self, detector: Detector, results: Sequence[Part]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """Place the row blocks; fill what has no good input with the median of the rest and flag it BAD."""
        shape = detector.size[::-1]
        image, variance = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        bad = np.zeros(shape, np.bool_)
        for part in results:
            image[part.box.slices], variance[part.box.slices] = part.image, part.variance
            bad[part.box.slices] = part.bad
        hollow = ~(np.isfinite(image) & np.isfinite(variance))
        bad |= hollow
        for plane in (image, variance):
            plane[hollow] = np.median(plane[~bad]) if not bad.all() else 0.0
        return image, variance, np.where(bad, BAD, 0).astype(np.int32)

    def _table(self, task: Task, detector: Detector, results: Sequence[Part]) -> None:
        """Write this detector's part of the inputs table."""
        pieces, rows = self._pieces(task), []
        for k, amplifier in enumerate(detector.amplifiers):
            parts = [p for p, piece in zip(results, pieces, strict=True) if piece.amplifier == k]
            for n, exposure in enumerate(task.parameters["exposures"]):
                saturated = sum(p.saturated[n] for p in parts)
                rows.append(levels.row(exposure, detector, amplifier, [p.samples[n] for p in parts], saturated))
        levels.write(levels.path_of(self.job, task), rows)


def _combine(
    cube: NDArray[np.float32], variances: NDArray[np.float32] | None, statistic: str, nsigma: float, passes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image and variance [y, x] of ``cube[n, y, x]``."""
    n, ny, nx = cube.shape
    image, variance = np.empty(ny * nx, np.float32), np.empty(ny * nx, np.float32)
    flat = np.ascontiguousarray(cube).reshape(n, -1)
    spread = np.empty((0, 0), np.float32) if variances is None else np.ascontiguousarray(variances).reshape(n, -1)
    clip.combine(flat, spread, clip.STATISTICS[statistic], nsigma, passes, image, variance, np.empty(ny * nx, np.int16))
    return image.reshape(ny, nx), variance.reshape(ny, nx)


def execute(job: Job, comm: Any) -> int:
    """Combine every task's frames; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Combine(job))
