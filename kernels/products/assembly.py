"""Assembly of a detector from its combined pieces, and the statistics of its inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.applied import Calibrations
from kernels.camera.geometry import Box, Detector
from kernels.fits.product import BAD, Card
from kernels.fits.raw import Frames
from kernels.fits.rowbytes import Summed
from kernels.isr.load import SPAN
from kernels.jobs.job import File, Job, Task
from kernels.jobs.scratch import Scratch
from kernels.products import levels
from kernels.products.flatlevels import LIT
from kernels.statistics.percentiles import percentiles

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Taken:
    """Use of an amplifier's frames in the result."""

    #: [frame], float64: Weights in the mean, sum 1.
    weights: NDArray[np.float64]
    #: Signal attributed to the electronics, without shot noise; job's unit.
    offset: float


@dataclass(frozen=True)
class Patch:
    """One amplifier's part of a piece."""

    #: Its number in the detector.
    amplifier: int
    #: Where the pixels lie on the assembled detector.
    box: Box
    #: [y, x], float32: In the detector's orientation; NaN where no input is good. Views of the assembled planes where
    #: this rank assembles the detector.
    image: F32
    variance: F32
    #: [frame, sampled row, SAMPLED], float64: See `kernels.isr.load.sample`.
    samples: NDArray[np.float64]
    #: [frame], int64: Numbers of pixels that are saturated, hold no value, or were rejected as cosmic rays.
    saturated: NDArray[np.int64]
    blank: NDArray[np.int64]
    rejected: NDArray[np.int64]
    #: Input values used in the image.
    used: int
    #: Weights and offset of its frames.
    taken: Taken
    #: [frame]: Sums of their raw bytes: `kernels.isr.reader.Rows.sums`.
    sums: Sequence[Summed | None]


@dataclass(frozen=True)
class Inputs:
    """Use of a detector's input pixels, as fractions."""

    #: [exposure], float64: Rejected as cosmic rays.
    rejected: NDArray[np.float64]
    #: [amplifier], float64: Rejected as cosmic rays; not used in the image, because masked, rejected or clipped.
    rejected_by_amplifier: NDArray[np.float64]
    unused: NDArray[np.float64]
    #: Amplifiers that are off in all exposures, or do not respond to light.
    dead: tuple[int, ...]
    #: Pixels of all inputs that hold no value.
    blank: int


def inputs_cards(detector: Detector, inputs: Inputs, cosmic: bool) -> list[Card]:
    """Make the cards on the use of the input pixels."""
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


class Planes:
    """Memory for image and variance of patches: inside the detector that is being assembled, or beside it."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch, self._lent = scratch, 0
        self._assembled: dict[str, tuple[F32, F32]] = {}

    def of(self, task: str, box: Box, shape: tuple[int, int]) -> tuple[F32, F32]:
        """Lend image and variance [y, x] of a box of a task's detector of a shape, until the next assembly."""
        if task in self._assembled:
            image, variance = (plane[box.slices] for plane in self._assembled[task])
            return image, variance
        start = self._lent
        self._lent += box.nx * box.ny  # kept until its owner takes it: a detector's pieces lie side by side
        memory = (self._scratch.array(name, shape, np.float32).reshape(-1) for name in ("image", "variance"))
        image, variance = (plane[start : self._lent].reshape(box.ny, box.nx) for plane in memory)
        return image, variance

    def begin(self, task: str, shape: tuple[int, int]) -> tuple[F32, F32]:
        """Begin a task's assembly: image and variance [y, x] of the whole detector."""
        if self._lent:
            self._scratch.drop("image", "variance")
            self._lent = 0
        image, variance = (self._scratch.array(name, shape, np.float32) for name in ("image", "variance"))
        self._assembled = {task: (image, variance)}
        return image, variance

    def end(self) -> None:
        """End the assembly: the next patches lie beside the detector."""
        self._assembled = {}


@dataclass
class Assembly:
    """An assembled detector."""

    #: [y, x], float32: NaN where no input is good, until `fill`.
    image: F32
    variance: F32
    #: [y, x], int32
    mask: NDArray[np.int32]
    #: Samples and counts of the frames.
    found: levels.Found
    #: [amplifier], int64: Input values used in the image.
    used: NDArray[np.int64]
    #: Use of the frames, by amplifier.
    taken: dict[int, Taken]
    #: Some pixels may have no good input.
    hollow: bool
    #: By amplifier, the sums of the raw bytes of each patch's frames.
    sums: dict[int, list[Sequence[Summed | None]]]

    @classmethod
    def of(
        cls, planes: Planes, task: str, calibrations: Calibrations, detector: Detector, results: Iterable[list[Patch]]
    ) -> Assembly:
        """Place the row blocks."""
        image, variance = planes.begin(task, detector.size[::-1])
        mask = np.zeros(image.shape, np.int32)  # hardly a page of it is ever touched
        hollow = sum(a.target.nx * a.target.ny for a in detector.amplifiers) != image.size
        if hollow:
            image[:], variance[:] = np.nan, np.nan
        used = np.zeros(len(detector.amplifiers), np.int64)
        whole = cls(image, variance, mask, levels.Found(detector), used, {}, hollow, {})
        for patches in results:
            for patch in patches:
                whole._place(patch, calibrations)
        planes.end()
        return whole

    def _place(self, patch: Patch, calibrations: Calibrations) -> None:
        self.taken.setdefault(patch.amplifier, patch.taken)
        self.sums.setdefault(patch.amplifier, []).append(patch.sums)
        at = patch.box.slices
        if not np.may_share_memory(patch.image, self.image):  # another rank's
            self.image[at], self.variance[at] = patch.image, patch.variance
        if calibrations.flags:
            self.mask[at][calibrations.flagged(patch.box)] = BAD
        self.hollow |= bool(np.isnan(patch.variance).any())
        self.found.add(patch.amplifier, patch.samples, patch.saturated, patch.blank, patch.rejected)
        self.used[patch.amplifier] += patch.used

    def require_whole(self, frames: Frames, detector: Detector, raws: Sequence[File]) -> None:
        """Compare the frames' raw bytes with their DATASUM, where pieces have only added them up.

        Raises
        ------
        DataError
            A frame is corrupt.
        """
        for k, patches in self.sums.items():
            for file, *sums in zip(raws, *patches, strict=True):
                frames.compare(file, detector.amplifiers[k], sums)

    def tabulate(self, job: Job, task: Task, detector: Detector, raws: Sequence[File]) -> Inputs:
        """Write the inputs table; refuse a frame that occurs twice.

        Raises
        ------
        DataError
            Two frames have the same pixels.
        """
        exposures, whole = task.parameters["exposures"], self.found.frame()
        rows = levels.table(detector, whole, exposures, levels.Light.of(job, task))
        levels.write(levels.path_of(job, task), rows)
        for row in rows:
            path = raws[exposures.index(row[0])].path
            levels.require_different(path, row[0], row[-1], f"amplifier {row[2]} of {detector.name}")
        pixels = np.array([a.data.nx * a.data.ny for a in detector.amplifiers])
        rejected = np.array([whole[k][1][levels.REJECTED] for k in range(len(pixels))])
        return Inputs(
            rejected.sum(axis=0) / pixels.sum(),
            rejected.sum(axis=1) / pixels / len(exposures),
            1 - self.used / pixels / len(exposures),
            tuple(k for k in range(len(pixels)) if not whole[k][0][:, :, SPAN].any()),
            sum(int(whole[k][1][levels.BLANK].sum()) for k in range(len(pixels))),
        )

    def hide_unlit(self, detector: Detector, inputs: Inputs) -> Inputs:
        """Count amplifiers that do not respond to light as dead: their pixels have no good input."""
        found = [percentiles(self.image, None, a.target, (50,)) for a in detector.amplifiers]
        brightest = max((float(median) for (median,), good in found if good), default=0.0)
        unlit = [k for k, ((median,), good) in enumerate(found) if good and median < LIT * brightest]
        for k in unlit:
            self.image[detector.amplifiers[k].target.slices] = np.nan
        self.hollow |= bool(unlit)
        return replace(inputs, dead=tuple(sorted({*inputs.dead, *unlit})))

    def fill(self) -> None:
        """Flag pixels without good input BAD, and give them the median of the good pixels."""
        if not self.hollow:
            return
        hollow = np.isnan(self.image) | np.isnan(self.variance)
        self.mask[hollow] = BAD
        for plane in (self.image, self.variance):
            (median,), _ = percentiles(plane, self.mask, Box(0, 0, plane.shape[1], plane.shape[0]), (50,))
            plane[hollow] = median

    def bad(self, detector: Detector, dead: Collection[int]) -> tuple[int, float]:
        """Count the bad pixels, and compute their share in the amplifiers that are not dead."""
        bad = int(np.count_nonzero(self.mask))
        off = sum(a.target.nx * a.target.ny for k, a in enumerate(detector.amplifiers) if k in dead)
        return bad, (bad - off) / (self.mask.size - off) if off < self.mask.size else 1.0
