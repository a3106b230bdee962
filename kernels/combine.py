"""Combine raw frames into a calibration: read, correct, clip and publish, without a corrected frame on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import gang, levels, product
from kernels.binning import binned
from kernels.cosmic import CosmicConfig
from kernels.errors import DataError
from kernels.focalplane import radius_mm
from kernels.framekernel import FrameKernel
from kernels.geometry import Box, Detector
from kernels.header import product_cards
from kernels.isr import Exposures, oriented, target
from kernels.job import File, Job, Task
from kernels.normalise import means_of, scales_of
from kernels.percentiles import percentiles
from kernels.product import BAD, DARKENED
from kernels.publish import publish_all
from kernels.reduce import Stacker, Statistics

F32 = NDArray[np.float32]

#: Compressed bytes of all frames that a piece reads at once.
PIECE_BYTES = 16 << 20
#: No file is taken to be packed tighter than this: it may be unpacked as it is read.
TIGHTEST = 16


@dataclass(frozen=True)
class Piece:
    """Data rows ``[first, last)`` of a group of amplifiers, and the bytes that they take in all files."""

    amplifiers: Sequence[int]
    first: int
    last: int
    bytes: float


@dataclass(frozen=True)
class Patch:
    """What a piece gives of one amplifier.

    Parameters
    ----------
    amplifier : `int`
        Its number.
    box : `Box`
        Where the pixels lie on the assembled detector.
    image, variance : `numpy.ndarray` [y, x], float32
        In the detector's orientation; NaN where no input is good.  Views of
        the assembled planes where this rank assembles the detector.
    samples : `numpy.ndarray` [frame, sampled row, 3], float64
        Median signal and noise variance, ADU and ADU^2.
    saturated, blank : `numpy.ndarray` [frame], int64
        Saturated pixels, and those that hold no value.
    """

    amplifier: int
    box: Box
    image: F32
    variance: F32
    samples: NDArray[np.float64]
    saturated: NDArray[np.int64]
    blank: NDArray[np.int64]


def cut(detector: Detector, groups: Sequence[Sequence[int]], files: Sequence[File], limit: int) -> list[Piece]:
    """Cut a detector into row blocks of amplifiers that take at most ``limit`` bytes of all files."""
    pieces: list[Piece] = []
    for group in groups if files else ():
        amplifiers = [detector.amplifiers[k] for k in group]
        height = amplifiers[0].data.ny
        whole = sum(4 * a.raw[0] * height for a in amplifiers)
        share = len(group) / len(detector.amplifiers)
        total = sum(whole if file.bytes is None else max(file.bytes * share, whole / TIGHTEST) for file in files)
        number = min(height, max(1, -int(-total // limit)))
        edges = [height * k // number for k in range(number + 1)]
        pieces += [Piece(group, first, last, total * (last - first) / height) for first, last in pairwise(edges)]
    return pieces


class Combine(FrameKernel):
    """The gang kernel.

    ``config``: ``type`` (bias | dark | flat), ``product`` (its name among the
    task's outputs, the type by default), `kernels.reduce.Statistics`'
    (``statistic``, ``nsigma``, ``passes``, ``ddof``), ``isr`` (`IsrConfig`),
    ``cosmic`` (`CosmicConfig` or absent), ``bins`` (binning by output),
    ``inputs_table`` (a folder), ``permissions``, ``piece_bytes``, ``max_bad``
    (the fraction of a detector above which its bad pixels are an error).  Task
    parameters: ``exposures``, ``dark_times`` (second), ``dates``,
    ``exposure_times``, ``scales`` (by exposure) or an input
    ``flatNormalization`` or ``flatMeasure`` (each exposure by its own mean),
    and where wanted ``offsets`` (by exposure, in the job's unit) and
    ``weights`` (by exposure, of the statistic WEIGHTED).
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._config = job.config
        self._statistics = Statistics.from_plain(job.config)
        self._cosmic = CosmicConfig(**job.config["cosmic"]) if job.config.get("cosmic") else None
        self._exposures: dict[str, Exposures] = {}
        self._assembled: dict[str, tuple[F32, F32]] = {}
        self._lent = 0
        self._cut: dict[str, list[Piece]] = {}

    def _pieces(self, task: Task) -> list[Piece]:
        if task.task not in self._cut:
            limit = int(self._config.get("piece_bytes", PIECE_BYTES))
            self._cut[task.task] = cut(self.detector(task), self.groups(task), self.raws(task), limit)
        return self._cut[task.task]

    def _open(self, task: Task) -> Exposures:
        if task.task not in self._exposures:  # one task at a time: a rank's pieces are in order
            detector = self.detector(task)
            shape = (len(task.inputs["raw"]), len(detector.amplifiers))
            if "flatNormalization" in task.inputs:
                path = self.job.files[task.inputs["flatNormalization"][0]].path
                scales = scales_of(path, detector, task.parameters["exposures"])
            elif "flatMeasure" in task.inputs:
                path = self.job.files[task.inputs["flatMeasure"][0]].path
                scales = np.broadcast_to(means_of(path, task.parameters["exposures"])[:, np.newaxis], shape)
            else:
                scales = np.broadcast_to(np.asarray(task.parameters["scales"], np.float64)[:, np.newaxis], shape)
            offsets = np.asarray(task.parameters.get("offsets", np.zeros(shape[0])), np.float64)[:, np.newaxis]
            self._require_scales(task, scales, offsets)
            self._exposures = {
                task.task: Exposures(
                    self.raws(task),
                    np.asarray(task.parameters["dark_times"], np.float32),
                    scales.astype(np.float32),
                    np.broadcast_to(offsets, shape).astype(np.float32),
                )
            }
        return self._exposures[task.task]

    def _require_scales(self, task: Task, scales: NDArray[np.float64], offsets: NDArray[np.float64]) -> None:
        """Refuse what nothing can be divided by."""
        wrong = np.flatnonzero(~((np.isfinite(scales) & (scales > 0)).all(axis=1) & np.isfinite(offsets).all(axis=1)))
        if wrong.size:
            n = int(wrong[0])
            path, exposure = self.raws(task)[n].path, task.parameters["exposures"][n]
            what = f"scale {float(scales[n].min()):g} and offset {float(offsets[n, 0]):g}"
            raise DataError(path, f"exposure {exposure} has {what}: it cannot be divided by that; leave it out")

    def weights(self, task: Task) -> Sequence[float]:
        """Cost of each row block: the bytes that are read for it."""
        return [piece.bytes for piece in self._pieces(task)]

    def compute(self, task: Task, piece: int) -> list[Patch]:
        """Read, correct and combine one row block of all frames; a patch is good until the next one."""
        exposures, what = self._open(task), self._pieces(task)[piece]
        reader = next(r for r in self.readers(task) if [c.number for c in r.channels] == list(what.amplifiers))
        halo = self._cosmic.halo if self._cosmic else 0
        rows = reader.rows(exposures, what.first, what.last, halo)
        step = reader.step(len(exposures.files), halo)
        stackers = [
            Stacker(channel, exposures, self._statistics, self._cosmic, task.parameters.get("weights"))
            for channel in reader.channels
        ]
        boxes = [target(channel.amplifier, what.first, what.last) for channel in reader.channels]
        images = [self._planes(task, box) for box in boxes]
        for start, blocks in rows.blocks(what.first, what.last, step):
            for channel, planes, stacker, block in zip(reader.channels, images, stackers, blocks, strict=True):
                at = slice(start - what.first, start - what.first + block.core.stop - block.core.start)
                for plane, reduced in zip(planes, stacker.reduce(block), strict=True):
                    oriented(plane, channel.amplifier)[at] = reduced
        return [
            Patch(channel.number, boxes[k], *images[k], rows.samples(k), rows.saturated[k], rows.blank[k])
            for k, channel in enumerate(reader.channels)
        ]

    def _planes(self, task: Task, box: Box) -> tuple[F32, F32]:
        """Where image and variance of a box go: into the detector that is being assembled, or beside it."""
        if task.task in self._assembled:
            image, variance = (plane[box.slices] for plane in self._assembled[task.task])
            return image, variance
        start, shape = self._lent, self.detector(task).size[::-1]
        self._lent += (
            box.nx * box.ny
        )  # what is lent stays until its owner takes it: pieces of one detector, side by side
        memory = (self.scratch.array(name, shape, np.float32).reshape(-1) for name in ("image", "variance"))
        image, variance = (plane[start : self._lent].reshape(box.ny, box.nx) for plane in memory)
        return image, variance

    def finish(self, task: Task, results: Iterable[list[Patch]]) -> dict[str, Any]:
        """Assemble the detector and publish the calibration, its binned images and the inputs table.

        Raises
        ------
        DataError
            Too much of it is bad, or a frame is another detector's.
        """
        self.require_identity(task)
        name, calibrations = self._config.get("product", self._config["type"]), self.calibrations(task)
        image, variance, mask, blank = self._assemble(task, results)
        bad = self._require_good(task, mask)
        if radius := float(self._config.get("vignette_mm", 0.0)):
            mask[radius_mm(self.detector(task))[2] > radius] |= DARKENED
        scales = self._open(task).scales.astype(np.float64)
        cards = product_cards(self.job, task, self.camera, calibrations.detector, image, mask, scales)
        cards += [("NBLANK", blank, "pixels of the inputs that hold no value")] if blank else []
        files = {
            name: (task.outputs[name], partial(product.write, cards=cards, image=image, mask=mask, variance=variance))
        }
        for name, binning in self._config.get("bins", {}).items():
            small = binned(image, binning, mask)
            files[name] = task.outputs[name], partial(product.write, cards=cards, image=small)
        published = publish_all(files, self.stamp, self._config.get("permissions", {}))
        return {
            "inputs_used": len(task.inputs["raw"]),
            "bad_pixels": bad,
            **({"blank_pixels": blank} if blank else {}),
            **published,
        }

    def _require_good(self, task: Task, mask: NDArray[np.int32]) -> int:
        """Count the bad pixels; refuse a detector that hardly has others."""
        bad, most = int(np.count_nonzero(mask)), float(self._config.get("max_bad", 1.0))
        if bad > most * mask.size:
            applied = [self.job.files[keys[0]].path for role, keys in task.inputs.items() if role != "raw"]
            what = f"{100 * bad / mask.size:.1f} % of its pixels have no good value, maxBadFraction is {most:g}"
            where = ", ".join(applied) or "no calibration"
            raise DataError(f"detector {self.detector(task).name}", f"{what}; applied: {where}")
        return bad

    def _assemble(self, task: Task, results: Iterable[list[Patch]]) -> tuple[F32, F32, NDArray[np.int32], int]:
        """Place the row blocks; fill what has no good input with the median of the rest and flag it BAD.

        The last that is returned is the number of pixels, of all inputs, that hold no value.
        """
        detector, calibrations = self.detector(task), self.calibrations(task)
        if self._lent:
            self.scratch.drop("image", "variance")
            self._lent = 0
        image, variance = (self.scratch.array(n, detector.size[::-1], np.float32) for n in ("image", "variance"))
        self._assembled = {task.task: (image, variance)}
        mask = np.zeros(image.shape, np.int32)  # hardly a page of it is ever touched
        hollow = sum(a.target.nx * a.target.ny for a in detector.amplifiers) != image.size
        if hollow:
            image[:], variance[:] = np.nan, np.nan
        found = levels.Found(detector)
        for patches in results:
            for patch in patches:
                at = patch.box.slices
                if not np.may_share_memory(patch.image, image):  # another rank's
                    image[at], variance[at] = patch.image, patch.variance
                if calibrations.flags:
                    mask[at][calibrations.flagged(patch.box)] = BAD
                hollow |= bool(np.isnan(patch.variance).any())
                found.add(patch.amplifier, patch.samples, patch.saturated, patch.blank)
        self._assembled = {}
        levels.write(levels.path_of(self.job, task), found.rows(task.parameters["exposures"]))
        if hollow:
            _fill(image, variance, mask)
        return image, variance, mask, found.blank


def _fill(image: F32, variance: F32, mask: NDArray[np.int32]) -> None:
    """Flag BAD what has no good input, and give it the median of the good pixels."""
    hollow = np.isnan(image) | np.isnan(variance)
    mask[hollow] = BAD
    for plane in (image, variance):
        (median,), _ = percentiles(plane, mask, Box(0, 0, plane.shape[1], plane.shape[0]), (50,))
        plane[hollow] = median


def execute(job: Job, comm: Any) -> int:
    """Combine every task's frames; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Combine(job))
