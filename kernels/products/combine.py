"""Combine raw frames into a calibration: read, correct, clip and publish, without a corrected frame on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.focalplane import radius_mm
from kernels.camera.geometry import Box, Detector
from kernels.errors import DataError
from kernels.fits import product
from kernels.fits.product import BAD, DARKENED, Card
from kernels.isr.cosmic import CosmicConfig
from kernels.isr.framekernel import FrameKernel
from kernels.isr.load import SPAN
from kernels.isr.noise import Look, look
from kernels.isr.reader import Exposures, Reader, oriented, target
from kernels.isr.subtracted import Coefficients, Subtracted
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.publish import publish_all
from kernels.products import levels
from kernels.products.bench import Bench
from kernels.products.flatlevels import LIT, means_of, scales_of
from kernels.products.header import product_cards
from kernels.products.reduce import FEW_INPUTS, Stacker, Statistics
from kernels.statistics import clip, network
from kernels.statistics.binning import binned
from kernels.statistics.percentiles import percentiles
from kernels.statistics.weighted import weighted_mean

KERNEL: Final = "combine"

F32 = NDArray[np.float32]

#: Compressed bytes of all frames that a piece reads at once.
PIECE_BYTES = 16 << 20
#: No file is taken to be packed tighter than this: it may be unpacked as it is read.
TIGHTEST = 16
#: Switches of `kernels.calibrations.config.IsrConfig` that run code of their own.
EVERY_CORRECTION = ("bias", "dark", "crosstalk", "linearity", "deferred", "defects", "ptc", "parallel")


@dataclass(frozen=True)
class Piece:
    """Data rows ``[first, last)`` of a group of amplifiers, and the bytes that they take in all files."""

    amplifiers: Sequence[int]
    first: int
    last: int
    bytes: float


@dataclass(frozen=True)
class Taken:
    """How an amplifier's frames were taken.

    Parameters
    ----------
    weights : `numpy.ndarray` [frame], float64
        In the mean, sum 1.
    offset : `float`
        Signal that counts as the electronics', without shot noise; job's unit.
    """

    weights: NDArray[np.float64]
    offset: float


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
    samples : `numpy.ndarray` [frame, sampled row, SAMPLED], float64
        What `kernels.isr.load.sample` says.
    saturated, blank, rejected : `numpy.ndarray` [frame], int64
        Saturated pixels, those that hold no value, and such as were left out as cosmic rays.
    used : `int`
        Input values that the image was made of.
    taken : `Taken`
        How its frames were.
    """

    amplifier: int
    box: Box
    image: F32
    variance: F32
    samples: NDArray[np.float64]
    saturated: NDArray[np.int64]
    blank: NDArray[np.int64]
    rejected: NDArray[np.int64]
    used: int
    taken: Taken


@dataclass(frozen=True)
class Inputs:
    """What became of a detector's input pixels, as fractions.

    Parameters
    ----------
    rejected : `numpy.ndarray` [exposure], float64
        Left out as cosmic rays.
    rejected_by_amplifier, unused : `numpy.ndarray` [amplifier], float64
        The same, and all that the image was not made of: masked, rejected or clipped.
    dead : `tuple` [`int`]
        Amplifiers that are off in all exposures, or answer no light.
    blank : `int`
        Pixels of all inputs that hold no value.
    """

    rejected: NDArray[np.float64]
    rejected_by_amplifier: NDArray[np.float64]
    unused: NDArray[np.float64]
    dead: tuple[int, ...]
    blank: int


def inputs_cards(detector: Detector, inputs: Inputs, cosmic: bool) -> list[Card]:
    """Cards that say what became of the input pixels."""
    names = " ".join(detector.amplifiers[k].name for k in inputs.dead) or "none"
    cards: list[Card] = [("DEADAMPS", names, "off in all inputs, or without light")]
    if cosmic:
        cards += [
            (f"CPP_INPUT_CR_{n}", round(float(f), 7), "rejected as cosmic rays") for n, f in enumerate(inputs.rejected)
        ]
    for k, amplifier in enumerate(detector.amplifiers):
        if cosmic:
            part = round(float(inputs.rejected_by_amplifier[k]), 7)
            cards.append((f"AMP_{amplifier.name}_CR", part, "of the input pixels rejected as cosmic rays"))
        part = round(float(inputs.unused[k]), 7)
        cards.append((f"AMP_{amplifier.name}_UNUSED", part, "of the input pixels masked, rejected or clipped"))
    return [*cards, ("NBLANK", inputs.blank, "pixels of the inputs that hold no value")] if inputs.blank else cards


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
    task's outputs, the type by default), `kernels.products.reduce.Statistics`'
    (``statistic``, ``nsigma``, ``passes``, ``ddof``, ``variance``, ``weighting``), ``isr`` (`IsrConfig`),
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
        self._looks: dict[tuple[str, int], list[Look]] = {}
        self._subtracted: dict[str, Subtracted] = {}
        self._taken: dict[int, Taken] = {}

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
        seen = self._look(task, reader)
        halo = self._cosmic.halo if self._cosmic else 0
        rows = reader.rows(exposures, what.first, what.last, halo)
        step = reader.step(len(exposures.files), halo)
        stackers = [
            Stacker(channel, exposures, self._statistics, self._cosmic, task.parameters.get("weights"), look)
            for channel, look in zip(reader.channels, seen, strict=True)
        ]
        boxes = [target(channel.amplifier, what.first, what.last) for channel in reader.channels]
        images = [self._planes(task, box) for box in boxes]
        for start, blocks in rows.blocks(what.first, what.last, step):
            for channel, planes, stacker, block in zip(reader.channels, images, stackers, blocks, strict=True):
                at = slice(start - what.first, start - what.first + block.core.stop - block.core.start)
                for plane, reduced in zip(planes, stacker.reduce(block), strict=True):
                    oriented(plane, channel.amplifier)[at] = reduced
        patches = []
        for k, (channel, stacker) in enumerate(zip(reader.channels, stackers, strict=True)):
            if not self._statistics.plain:
                coefficients = Coefficients.of(exposures, channel.number, stacker.weights)
                self._bias_and_dark(task).add(images[k][1], boxes[k], coefficients)
            taken = Taken(stacker.weights, stacker.noise.offset)
            counts = rows.saturated[k], rows.blank[k], stacker.rejected
            patches.append(Patch(channel.number, boxes[k], *images[k], rows.samples(k), *counts, stacker.used, taken))
        return patches

    def _bias_and_dark(self, task: Task) -> Subtracted:
        if task.task not in self._subtracted:  # one task at a time
            self._subtracted = {task.task: Subtracted(self.calibrations(task), task.provenance)}
        return self._subtracted[task.task]

    def _look(self, task: Task, reader: Reader) -> Sequence[Look | None]:
        """A band of the group's rows, where something is to be learnt from it before the frames are combined."""
        exposures, kind = self._open(task), self._statistics.kind
        offset = kind != "bias" and len(exposures.files) < FEW_INPUTS and not all(c.zeroed for c in reader.channels)
        if not (offset or self._cosmic or self._statistics.weighs(exposures, task.parameters.get("weights"))):
            return [None] * len(reader.channels)
        key = (task.task, reader.channels[0].number)
        if key not in self._looks:
            self._looks = {key: look(reader, exposures)}
        return self._looks[key]

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
        image, variance, mask, inputs = self._assemble(task, results)
        bad = self._require_good(task, mask, inputs.dead)
        if radius := float(self._config.get("vignette_mm", 0.0)):
            mask[radius_mm(self.detector(task))[2] > radius] |= DARKENED
        scales = self._open(task).scales.astype(np.float64)
        cards = product_cards(self.job, task, self.camera, calibrations.detector, image, mask, scales)
        cards += self._definition(task, calibrations.detector)
        cards += inputs_cards(calibrations.detector, inputs, bool(self._cosmic))
        files = {
            name: (task.outputs[name], partial(product.write, cards=cards, image=image, mask=mask, variance=variance))
        }
        for name, binning in self._config.get("bins", {}).items():
            small = binned(image, binning, mask)
            files[name] = task.outputs[name], partial(product.write, cards=cards, image=small)
        published = publish_all(files, self.stamp, self._config.get("permissions", {}))
        off = [calibrations.detector.amplifiers[k].name for k in inputs.dead]
        about = {"bad_pixels": bad, **({"dead_amplifiers": off} if off else {})}
        about |= {"blank_pixels": inputs.blank} if inputs.blank else {}
        return {"inputs_used": len(task.inputs["raw"]), **about, **published}

    def _definition(self, task: Task, detector: Detector) -> list[Card]:
        """What VARIANCE holds, and how the frames were weighted: means over the amplifiers."""
        exposures, taken = self._open(task), self._taken
        each = [Coefficients.of(exposures, k, t.weights) for k, t in taken.items()]
        mean = Coefficients(float(np.mean([c.bias for c in each])), float(np.mean([c.dark for c in each])))
        cards = self._bias_and_dark(task).cards(mean, self._statistics.plain)
        if self._statistics.weighs(exposures, task.parameters.get("weights")):
            cards.append(("WEIGHTS", "noise", "1 / (read noise^2 + dark current) x time^2"))
            weights = np.mean([t.weights for t in taken.values()], axis=0)
            cards += [(f"CPP_INPUT_WEIGHT_{n}", float(w), "of the weighted mean") for n, w in enumerate(weights)]
        cards += [
            (f"AMP_{detector.amplifiers[k].name}_OFFSET", t.offset, "taken to have no shot noise")
            for k, t in taken.items()
            if t.offset
        ]
        return cards

    def _require_good(self, task: Task, mask: NDArray[np.int32], dead: Collection[int]) -> int:
        """Count the bad pixels; refuse a detector that hardly has others.

        An amplifier that is off is all bad, and does not speak for the others.
        """
        bad, most = int(np.count_nonzero(mask)), float(self._config.get("max_bad", 1.0))
        off = sum(a.target.nx * a.target.ny for k, a in enumerate(self.detector(task).amplifiers) if k in dead)
        share = (bad - off) / (mask.size - off) if off < mask.size else 1.0
        if share > most:
            applied = [self.job.files[keys[0]].path for role, keys in task.inputs.items() if role != "raw"]
            what = f"{100 * share:.1f} % of its pixels have no good value, maxBadFraction is {most:g}"
            where = ", ".join(applied) or "no calibration"
            raise DataError(f"detector {self.detector(task).name}", f"{what}; applied: {where}")
        return bad

    def _assemble(self, task: Task, results: Iterable[list[Patch]]) -> tuple[F32, F32, NDArray[np.int32], Inputs]:
        """Place the row blocks; fill what has no good input with the median of the rest and flag it BAD."""
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
        found, self._taken = levels.Found(detector), {}
        used = np.zeros(len(detector.amplifiers), np.int64)
        for patches in results:
            for patch in patches:
                self._taken.setdefault(patch.amplifier, patch.taken)
                at = patch.box.slices
                if not np.may_share_memory(patch.image, image):  # another rank's
                    image[at], variance[at] = patch.image, patch.variance
                if calibrations.flags:
                    mask[at][calibrations.flagged(patch.box)] = BAD
                hollow |= bool(np.isnan(patch.variance).any())
                found.add(patch.amplifier, patch.samples, patch.saturated, patch.blank, patch.rejected)
                used[patch.amplifier] += patch.used
        self._assembled = {}
        inputs = self._tabulate(task, found, used)
        if self._config["type"] == "flat" and (unlit := _hide_unlit(detector, image)):
            hollow, inputs = True, replace(inputs, dead=tuple(sorted({*inputs.dead, *unlit})))
        if hollow:
            _fill(image, variance, mask)
        return image, variance, mask, inputs

    def _tabulate(self, task: Task, found: levels.Found, used: NDArray[np.int64]) -> Inputs:
        """Write the inputs table; refuse a frame that is there twice.

        Raises
        ------
        DataError
            Two frames have the same pixels.
        """
        detector, exposures, whole = self.detector(task), task.parameters["exposures"], found.frame()
        rows = levels.table(detector, whole, exposures, levels.Light.of(self.job, task))
        levels.write(levels.path_of(self.job, task), rows)
        for row in rows:
            path = self.raws(task)[exposures.index(row[0])].path
            levels.require_different(path, row[0], row[-1], f"amplifier {row[2]} of {detector.name}")
        pixels = np.array([a.data.nx * a.data.ny for a in detector.amplifiers])
        rejected = np.array([whole[k][1][levels.REJECTED] for k in range(len(pixels))])
        return Inputs(
            rejected.sum(axis=0) / pixels.sum(),
            rejected.sum(axis=1) / pixels / len(exposures),
            1 - used / pixels / len(exposures),
            tuple(k for k in range(len(pixels)) if not whole[k][0][:, :, SPAN].any()),
            sum(int(whole[k][1][levels.BLANK].sum()) for k in range(len(pixels))),
        )


def _hide_unlit(detector: Detector, image: F32) -> list[int]:
    """Make of amplifiers that answer no light what has no good input; name them."""
    found = [percentiles(image, None, a.target, (50,)) for a in detector.amplifiers]
    brightest = max((float(median) for (median,), good in found if good), default=0.0)
    unlit = [k for k, ((median,), good) in enumerate(found) if good and median < LIT * brightest]
    for k in unlit:
        image[detector.amplifiers[k].target.slices] = np.nan
    return unlit


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


def warm(bench: Bench) -> None:
    """Combine a few pixels in every way: statistics of all sizes, corrections, cosmic rays."""
    for n in (*network.SIZES, network.STRAIGHT + 1):
        for statistic in clip.STATISTICS.keys() - {"WEIGHTED"}:
            cube = network.workspace(n, 1)
            cube[:n] = 1
            width = cube.shape[1]
            image, variance, count = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
            clip.collapse(cube, n, clip.Rule(statistic), image, variance, count)
            weighted_mean(cube, n, np.ones(n), image, variance, count)
    every = {"raw": bench.raws, **{role: [path] for role, path in bench.calibrations.items()}}
    for cosmic in ({}, {"cosmic": {"grow": 2}}):
        for isr in ({"serial": "meanclip"}, dict.fromkeys(EVERY_CORRECTION, True)):
            bench.run(execute, every, "dark", type="dark", isr=isr, bins={"darkBin8": 8}, **cosmic)
    bench.run(execute, {"raw": bench.raws[:3]}, "bias", type="bias", isr={})
