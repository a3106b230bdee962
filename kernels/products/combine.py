"""Combine raw frames into a calibration: read, correct, clip and publish, without a corrected frame on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.focalplane import radius_mm
from kernels.camera.geometry import Detector
from kernels.errors import DataError
from kernels.fits import product
from kernels.fits.product import DARKENED, Card
from kernels.isr.blanks import oriented
from kernels.isr.channel import Exposures, target
from kernels.isr.cosmic import CosmicConfig
from kernels.isr.framekernel import FrameKernel
from kernels.isr.noise import Look, look
from kernels.isr.reader import Reader
from kernels.isr.subtracted import Coefficients, Subtracted
from kernels.jobs import gang
from kernels.jobs.job import File, Job, Task
from kernels.jobs.publish import publish_all
from kernels.products.assembly import Assembly, Patch, Planes, Taken, inputs_cards
from kernels.products.bench import Bench
from kernels.products.flatlevels import means_of, scales_of
from kernels.products.header import product_cards
from kernels.products.pieces import PIECE_BYTES, Piece, cut
from kernels.products.reduce import FEW_INPUTS, Stacker, Statistics
from kernels.products.underlay import Underlay, excess
from kernels.statistics import clip, network
from kernels.statistics.binning import binned
from kernels.statistics.weighted import weighted_mean

KERNEL: Final = "combine"

F32 = NDArray[np.float32]

#: Switches of `kernels.calibrations.config.IsrConfig` that run code of their own.
EVERY_CORRECTION = ("bias", "dark", "crosstalk", "linearity", "deferred", "defects", "ptc", "parallel")


def _require_scales(
    task: Task, raws: Sequence[File], scales: NDArray[np.float64], offsets: NDArray[np.float64]
) -> None:
    """Refuse scales that are not finite or not above 0, and offsets that are not finite."""
    wrong = np.flatnonzero(~((np.isfinite(scales) & (scales > 0)).all(axis=1) & np.isfinite(offsets).all(axis=1)))
    if wrong.size:
        n = int(wrong[0])
        path, exposure = raws[n].path, task.parameters["exposures"][n]
        what = f"scale {float(scales[n].min()):g} and offset {float(offsets[n, 0]):g}"
        raise DataError(path, f"exposure {exposure} has {what}: it cannot be divided by that; leave it out")


def _require_good(job: Job, task: Task, detector: Detector, whole: Assembly, dead: Collection[int]) -> int:
    """Count the bad pixels; refuse a detector with too many of them, dead amplifiers left out."""
    (bad, share), most = whole.bad(detector, dead), float(job.config.get("max_bad", 1.0))
    if share > most:
        applied = [job.files[keys[0]].path for role, keys in task.inputs.items() if role != "raw"]
        what = f"{100 * share:.1f} % of its pixels have no good value, maxBadFraction is {most:g}"
        where = ", ".join(applied) or "no calibration"
        raise DataError(f"detector {detector.name}", f"{what}; applied: {where}")
    return bad


class Combine(FrameKernel):
    """The gang kernel.

    ``config``: ``type`` (bias | dark | flat | fringe), ``product`` (its name among the
    task's outputs, by default the type), the settings of `kernels.products.reduce.Statistics`
    (``statistic``, ``nsigma``, ``passes``, ``ddof``, ``variance``, ``weighting``), ``isr`` (`IsrConfig`),
    ``cosmic`` (`CosmicConfig` or absent), ``bins`` (binning by output),
    ``inputs_table`` (a folder), ``permissions``, ``piece_bytes``, ``max_bad``
    (largest accepted fraction of bad pixels of a detector).  Task
    parameters: ``exposures``, ``dark_times`` (second), ``dates``,
    ``exposure_times``; ``scales`` (by exposure), or an input
    ``flatNormalization`` or ``flatMeasure`` (each exposure by its own mean), or
    ``fringeMeasure`` (by its sky, which is taken out with the stars);
    optional are ``offsets`` (by exposure, in the job's unit) and
    ``weights`` (by exposure, for the statistic WEIGHTED).
    """

    SUMS = True

    def __init__(self, job: Job) -> None:
        self.WHOLE = ("doFlat",) if job.config.get("type") == "fringe" else ()  # its underlay divides by the flat
        super().__init__(job)
        self._config = job.config
        self._statistics = Statistics.from_plain(job.config)
        self._cosmic = CosmicConfig(**job.config["cosmic"]) if job.config.get("cosmic") else None
        self._exposures: dict[str, Exposures] = {}
        self._planes = Planes(self.scratch)
        self._cut: dict[str, list[Piece]] = {}
        self._looks: dict[tuple[str, int], list[Look]] = {}
        self._subtracted: dict[str, Subtracted] = {}
        self._underlays: dict[str, Underlay] = {}

    def _pieces(self, task: Task) -> list[Piece]:
        if task.task not in self._cut:
            limit = int(self._config.get("piece_bytes", PIECE_BYTES))
            self._cut[task.task] = cut(self.detector(task), self.groups(task), self.raws(task), limit)
        return self._cut[task.task]

    def _open(self, task: Task) -> Exposures:
        if task.task not in self._exposures:  # one task at a time suffices: a rank's pieces are in order
            detector = self.detector(task)
            shape = (len(task.inputs["raw"]), len(detector.amplifiers))
            offsets = np.asarray(task.parameters.get("offsets", np.zeros(shape[0])), np.float64)[:, np.newaxis]
            if under := self._underlay(task):
                offsets = under.levels[:, np.newaxis]
                scales = np.broadcast_to(offsets, shape)
            elif "flatNormalization" in task.inputs:
                path = self.job.files[task.inputs["flatNormalization"][0]].path
                scales = scales_of(path, detector, task.parameters["exposures"])
            elif "flatMeasure" in task.inputs:
                path = self.job.files[task.inputs["flatMeasure"][0]].path
                scales = np.broadcast_to(means_of(path, task.parameters["exposures"])[:, np.newaxis], shape)
            else:
                scales = np.broadcast_to(np.asarray(task.parameters["scales"], np.float64)[:, np.newaxis], shape)
            _require_scales(task, self.raws(task), scales, offsets)
            self._exposures = {
                task.task: Exposures(
                    self.raws(task),
                    np.asarray(task.parameters["dark_times"], np.float32),
                    scales.astype(np.float32),
                    np.broadcast_to(offsets, shape).astype(np.float32),
                )
            }
        return self._exposures[task.task]

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each row block by the bytes read for it."""
        return [piece.bytes for piece in self._pieces(task)]

    def compute(self, task: Task, piece: int) -> list[Patch]:
        """Read, correct and combine one row block of all frames; a patch is valid until the next call."""
        exposures, what = self._open(task), self._pieces(task)[piece]
        reader = next(r for r in self.readers(task) if [c.number for c in r.channels] == list(what.amplifiers))
        seen = self._look(task, reader)
        halo = self._cosmic.halo if self._cosmic else 0
        rows = reader.rows(exposures, what.first, what.last, halo)
        step = reader.step(len(exposures.files), halo)
        under, weights = self._underlay(task), task.parameters.get("weights")
        weights = weights if under is None or under.weights is None else under.weights.tolist()
        stackers = [
            Stacker(channel, exposures, self._statistics, self._cosmic, weights, look)
            for channel, look in zip(reader.channels, seen, strict=True)
        ]
        boxes = [target(channel.amplifier, what.first, what.last) for channel in reader.channels]
        images = [self._planes.of(task.task, box, self.detector(task).size[::-1]) for box in boxes]
        for start, blocks in rows.blocks(what.first, what.last, step):
            for channel, planes, stacker, block in zip(reader.channels, images, stackers, blocks, strict=True):
                if under:
                    under.take_out(channel, block, start)
                at = slice(start - what.first, start - what.first + block.core.stop - block.core.start)
                for plane, reduced in zip(planes, stacker.reduce(block), strict=True):
                    oriented(plane, channel.amplifier)[at] = reduced
        patches = []
        for k, (channel, stacker) in enumerate(zip(reader.channels, stackers, strict=True)):
            if under and not self._statistics.plain:
                under.add(images[k][1], boxes[k])
            taken = Taken(stacker.weights, stacker.noise.offset)
            counts = rows.saturated[k], rows.blank[k], stacker.rejected
            samples, sums = rows.samples(k), rows.sums(k)
            patches.append(Patch(channel.number, boxes[k], *images[k], samples, *counts, stacker.used, taken, sums))
        return patches

    def _underlay(self, task: Task) -> Underlay | None:
        """Open what is to be taken out of each frame; `None` where nothing is."""
        if "fringeMeasure" not in task.inputs:
            return None
        if task.task not in self._underlays:  # one task at a time
            path = self.job.files[task.inputs["fringeMeasure"][0]].path
            opened = self.calibrations(task), self.isr, task.parameters["exposures"], self._statistics.weigh
            self._underlays = {task.task: Underlay.open(path, self.detector(task), *opened)}
        return self._underlays[task.task]

    def _bias_and_dark(self, task: Task) -> Subtracted:
        if task.task not in self._subtracted:  # one task at a time
            self._subtracted = {task.task: Subtracted(self.calibrations(task), task.provenance)}
        return self._subtracted[task.task]

    def _add_subtracted(self, task: Task, whole: Assembly) -> None:
        """Add the variance of bias and dark, amplifier by amplifier."""
        amplifiers, exposures = self.detector(task).amplifiers, self._open(task)
        parts = [(amplifiers[k].target, Coefficients.of(exposures, k, t.weights)) for k, t in whole.taken.items()]
        self._bias_and_dark(task).add(whole.variance, parts)

    def _look(self, task: Task, reader: Reader) -> Sequence[Look | None]:
        """Measure a band of the group's rows where the combination needs it."""
        exposures, kind = self._open(task), self._statistics.kind
        offset = kind != "bias" and len(exposures.files) < FEW_INPUTS and not all(c.zeroed for c in reader.channels)
        if not (offset or self._cosmic or self._statistics.weighs(exposures, task.parameters.get("weights"))):
            return [None] * len(reader.channels)
        key = (task.task, reader.channels[0].number)
        if key not in self._looks:
            self._looks = {key: look(reader, exposures)}
        return self._looks[key]

    def finish(self, task: Task, results: Iterable[list[Patch]]) -> dict[str, Any]:
        """Assemble the detector and publish the calibration, its binned images and the inputs table.

        Raises
        ------
        DataError
            Too many pixels are bad, or a frame is another detector's.
        """
        self.require_inputs(task)
        name, calibrations = self._config.get("product", self._config["type"]), self.calibrations(task)
        whole = Assembly.of(self._planes, task.task, calibrations, self.detector(task), results)
        whole.require_whole(self.frames, self.detector(task), self.raws(task))
        if not self._statistics.plain:
            self._add_subtracted(task, whole)
        inputs = whole.tabulate(self.job, task, self.detector(task), self.raws(task))
        if self._config["type"] == "flat":
            inputs = whole.hide_unlit(self.detector(task), inputs)
        whole.fill()
        bad = _require_good(self.job, task, self.detector(task), whole, inputs.dead)
        image, variance, mask = whole.image, whole.variance, whole.mask
        if radius := float(self._config.get("vignette_mm", 0.0)):
            mask[radius_mm(self.detector(task))[2] > radius] |= DARKENED
        scales = self._open(task).scales.astype(np.float64)
        cards = product_cards(self.job, task, self.camera, calibrations.detector, image, mask, scales)
        cards += self._definition(task, calibrations.detector, whole.taken)
        cards += calibrations.left_out
        cards += inputs_cards(calibrations.detector, inputs, bool(self._cosmic))
        files = {
            name: (task.outputs[name], partial(product.write, cards=cards, image=image, mask=mask, variance=variance))
        }
        for name, binning in self._config.get("bins", {}).items():
            small = binned(image, binning, mask)
            files[name] = task.outputs[name], partial(product.write, cards=cards, image=small)
        published = publish_all(files, self.stamp, self._config.get("permissions", {}))
        off = [calibrations.detector.amplifiers[k].name for k in inputs.dead]
        about: dict[str, Any] = {"bad_pixels": bad, **({"dead_amplifiers": off} if off else {})}
        about |= {"blank_pixels": inputs.blank} if inputs.blank else {}
        about |= {"left_out": list(calibrations.notes)} if calibrations.notes else {}
        if under := self._underlay(task):
            about |= {"pattern_rms": excess(image, variance, mask), "pixel_error": under.error(variance, mask)}
        return {"inputs_used": len(task.inputs["raw"]), **about, **published}

    def _definition(self, task: Task, detector: Detector, taken: Mapping[int, Taken]) -> list[Card]:
        """Make the cards that define VARIANCE and hold the frames' weights, as means over the amplifiers."""
        exposures = self._open(task)
        each = [Coefficients.of(exposures, k, t.weights) for k, t in taken.items()]
        mean = Coefficients(float(np.mean([c.bias for c in each])), float(np.mean([c.dark for c in each])))
        cards = self._bias_and_dark(task).cards(mean, self._statistics.plain)
        under = self._underlay(task)
        if under:
            cards += [(f"LEFTOUT{n}", f"{e}: {why}"[:60], "") for n, (e, why) in enumerate(under.plain().items())]
        weighted = under is not None and under.weights is not None
        if weighted or self._statistics.weighs(exposures, task.parameters.get("weights")):
            cards += _weight_cards(taken, of_sky=weighted)
        return [*cards, *_offset_cards(detector, taken)]


def _weight_cards(taken: Mapping[int, Taken], of_sky: bool) -> list[Card]:
    """Make the cards of the frames' weights, as means over the amplifiers."""
    rule = "(level / noise)^2 of the sky" if of_sky else "1 / (read noise^2 + dark current) x time^2"
    weights = np.mean([t.weights for t in taken.values()], axis=0)
    each = [(f"CPP_INPUT_WEIGHT_{n}", float(w), "of the weighted mean") for n, w in enumerate(weights)]
    return [("WEIGHTS", "noise", rule), *each]


def _offset_cards(detector: Detector, taken: Mapping[int, Taken]) -> list[Card]:
    """Make the cards of levels that the frames kept."""
    found = [(detector.amplifiers[k].name, t.offset) for k, t in taken.items() if t.offset]
    return [(f"AMP_{name}_OFFSET", offset, "taken to have no shot noise") for name, offset in found]


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
