"""Levels of a flat: clipped means of every amplifier and detector in every exposure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera.geometry import Box, Detector
from kernels.errors import DataError
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products import levels
from kernels.products.bench import Bench
from kernels.products.flatlevels import LIT, write_json
from kernels.statistics import pool
from kernels.statistics.level import clipped_level, thinned

KERNEL: Final = "flat_measure"

#: Fraction of saturated pixels of an amplifier beyond that of hot pixels and cosmic rays.
SATURATED = 0.005
#: An exposure is measured again, on the pixels that are good in all exposures, if these leave out more than this
#: fraction of a detector, or of an amplifier; the effect of fewer pixels is below the noise.
MATTERS = 1e-4, 1e-3
F32 = NDArray[np.float32]
#: Packed truth values.
Bits = NDArray[np.uint8]
#: Clipped mean and number of pixels.
Clipped = tuple[float, int]
#: Least fraction of a detector that gives an exposure's level.
ENOUGH = 0.05


def _lit(clipped: Sequence[Clipped]) -> list[bool]:
    """Tell by clipped means and counts which amplifiers respond to light: above one hundredth of the brightest."""
    brightest = max(mean if count else 0.0 for mean, count in clipped)
    return [not count or brightest <= 0 or mean > LIT * brightest for mean, count in clipped]


def _unpacked(bits: Bits, box: Box) -> NDArray[np.bool_]:
    """Undo `numpy.packbits` of a box."""
    return np.unpackbits(bits, count=box.nx * box.ny).view(np.bool_).reshape(box.ny, box.nx)


def _number(bits: Bits) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


@dataclass
class _Seen:
    """Findings on one exposure, by amplifier."""

    #: Saturated fraction, and checksum of the samples.
    saturated: list[float]
    digest: list[str]
    #: Pixels that the exposure lacks and the calibrations do not, and those that these flag: packed, by amplifier.
    lacks: dict[int, Bits] = field(default_factory=dict)
    #: Clipped means, in the order of the amplifiers; the detector's last.
    clipped: list[Clipped] = field(default_factory=list)
    thins: list[F32] = field(default_factory=list)

    @classmethod
    def of(cls, detector: Detector) -> _Seen:
        """Make room for a detector's amplifiers."""
        return cls([0.0] * len(detector.amplifiers), [""] * len(detector.amplifiers))

    def result(self) -> dict[str, Any]:
        """Give the result of a piece."""
        found = {"lacks": self.lacks, "saturated": self.saturated, "digest": self.digest}
        return {**found, "mean": [mean for mean, _ in self.clipped], "count": [count for _, count in self.clipped]}


class Measure(FrameKernel):
    """The gang kernel of flatMeasure: clipped mean and count of every amplifier and detector of every exposure.

    A piece is one exposure of one detector.  ``config``: ``isr``, ``nsigma``,
    ``passes``, ``permissions``; output ``flatMeasure``: JSON with ``mean`` and
    ``count`` [exposure][amplifier], and ``detector_mean`` and
    ``detector_count`` [exposure], in the job's unit; ``left_out``, the number
    of pixels that some exposure lacks (saturated, blank) and that no mean
    includes.  An amplifier that does not respond to light is left out of its
    detector's mean.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._image, self._type = np.empty((0, 0), np.float32), ""
        self._how = float(job.config["nsigma"]), int(job.config["passes"])
        self._earlier: dict[str, pool.Earlier | None] = {}  # one task at a time; `None`: its exposures are too unlike

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each exposure by the bytes read for it."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> dict[str, Any]:
        """Measure one exposure: clipped means, amplifiers first and the detector last, and the missing pixels.

        Brackets from the exposure before let an amplifier be measured for the detector, too, while the cache holds its
        pixels.  The first exposure is assembled, and so are all others once the brackets of one were wrong.
        """
        earlier, first = self._earlier.get(task.task), task.task not in self._earlier
        seen = None if earlier is None else self._pooled(task, piece, earlier)
        alike = first or seen is not None
        if seen is None:
            seen = self._assembled(task, piece)
        self._earlier = {task.task: self._as_earlier(task, seen) if alike else None}
        return seen.result()

    def _as_earlier(self, task: Task, seen: _Seen) -> pool.Earlier | None:
        """Describe an exposure for those after it."""
        means, lit = [mean for mean, _ in seen.clipped[:-1]], _lit(seen.clipped[:-1])
        sizes = [a.target.nx * a.target.ny for a in self.detector(task).amplifiers]
        earlier = pool.Earlier([n if light else 0 for n, light in zip(sizes, lit, strict=True)], means, seen.thins)
        return earlier if earlier.some else None

    def _pooled(self, task: Task, piece: int, earlier: pool.Earlier) -> _Seen | None:
        """Measure an exposure amplifier by amplifier; `None` where the brackets were wrong."""
        seen, whole = _Seen.of(self.detector(task)), pool.Pool(earlier, *self._how)
        for k, image, box in self._amplifiers(task, piece, seen, None):
            self._measure(image, box, seen)
            whole.add(k, image, box, seen.clipped[-1][0])
        level = whole.level()
        if level is None or _lit(seen.clipped) != [n > 0 for n in earlier.pixels]:
            return None
        seen.clipped.append(level)
        return seen

    def _assembled(self, task: Task, piece: int, hidden: Mapping[int, Bits] | None = None) -> _Seen:
        """Measure an exposure and the image that is assembled from it, without unlit amplifiers and hidden pixels."""
        detector, seen = self.detector(task), _Seen.of(self.detector(task))
        if self._type != detector.type:  # pixels that no amplifier covers stay NaN
            self._type, self._image = detector.type, np.full(detector.size[::-1], np.nan, np.float32)
        for k, image, box in self._amplifiers(task, piece, seen, self._image):
            if hidden and k in hidden:
                image[box.slices][_unpacked(hidden[k], box)] = np.nan
            self._measure(image, box, seen)
        for amplifier, lit in zip(detector.amplifiers, _lit(seen.clipped), strict=True):
            if not lit:
                self._image[amplifier.target.slices] = np.nan
        seen.clipped.append(clipped_level(self._image, None, *self._how))
        return seen

    def _measure(self, image: F32, box: Box, seen: _Seen) -> None:
        """Append an amplifier's level, measured while its pixels are in cache."""
        seen.thins.append(thinned(image, box))
        seen.clipped.append(clipped_level(image, box, *self._how, seen.thins[-1]))

    def _amplifiers(self, task: Task, piece: int, seen: _Seen, image: F32 | None) -> Iterator[tuple[int, F32, Box]]:
        """Correct an exposure, in the detector's image or in one an amplifier, NaN where bad.

        Yields each amplifier's number, the image, and the amplifier's box of it.
        """
        canvas, dark_time = self.canvas(task, image), task.parameters["dark_times"][piece]
        for frame, _ in self.corrected(task, self.raws(task)[piece], dark_time, canvas):
            k, target = frame.channel.number, frame.channel.amplifier.target
            seen.saturated[k] = float(frame.saturated[0]) / frame.pixels.size
            seen.digest[k] = (levels.digest(frame.samples[0]) or b"").hex()
            if frame.lacking:
                seen.lacks[k] = np.packbits(np.isnan(frame.pixels))
            yield (k, frame.pixels, Box(0, 0, target.nx, target.ny)) if image is None else (k, image, target)

    def _alike(self, task: Task, results: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
        """Measure all exposures on the pixels that all of them have; return also the number of pixels that some lack.

        An exposure that is saturated where others are not would be measured on its fainter part alone, and get too low
        a scale.

        Raises
        ------
        DataError
            Hardly any pixel is good in all exposures.
        """
        lacking: list[dict[int, Bits]] = [r.pop("lacks") for r in results]
        if not any(lacking):
            return results, 0
        boxes = [amplifier.target for amplifier in self.detector(task).amplifiers]
        never = {k: self._hidden(task, boxes[k]) for k in set().union(*lacking)}
        some = {k: np.bitwise_or.reduce([bits[k] for bits in lacking if k in bits]) for k in never}
        left_out = sum(_number(some[k] & ~never[k]) for k in some)
        self._require_some(task, [{k: bits[k] & ~never[k] for k in bits} for bits in lacking], left_out)
        width, height = self.detector(task).size
        for n, bits in enumerate(lacking):
            more = {k: _number(some[k] & ~bits.get(k, never[k])) for k in some}
            parts = [count / (boxes[k].nx * boxes[k].ny) for k, count in more.items()]
            if sum(more.values()) / (width * height) > MATTERS[0] or max(parts) > MATTERS[1]:
                seen = self._assembled(task, n, some).result()
                results[n] = results[n] | {key: seen[key] for key in ("mean", "count")}
        return results, left_out

    def _hidden(self, task: Task, box: Box) -> Bits:
        """Pack the flags of an amplifier's pixels."""
        flags = self.flags(task)
        return np.packbits(np.zeros((box.ny, box.nx), np.bool_) if flags is None else flags[box.slices])

    def _require_some(self, task: Task, lacking: Sequence[Mapping[int, Bits]], left_out: int) -> None:
        """Refuse exposures with hardly any good pixel in common; name the exposure that lacks most."""
        flags, boxes = self.flags(task), [amplifier.target for amplifier in self.detector(task).amplifiers]
        usable = sum(b.nx * b.ny - (0 if flags is None else int(np.count_nonzero(flags[b.slices]))) for b in boxes)
        if usable - left_out < ENOUGH * usable:
            lacks = [sum(map(_number, bits.values())) for bits in lacking]
            n = int(np.argmax(lacks))
            what = f"{100 * lacks[n] / usable:.0f} % of its pixels are saturated or blank"
            exposure = f"exposure {task.parameters['exposures'][n]}"
            raise DataError(
                self.raws(task)[n].path, f"{exposure}: {what}, hardly any is good in all exposures; leave it out"
            )

    def finish(self, task: Task, results: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Publish one detector's levels.

        Raises
        ------
        DataError
            An exposure has no light on this detector, is another detector's, is a
            copy of another exposure, or leaves no pixel that is good in all.
        """
        assert task.detector is not None
        self.require_inputs(task)
        results = list(results)
        for n, result in enumerate(results):
            if not result["mean"][-1] > 0:
                path = self.job.files[task.inputs["raw"][n]].path
                level = f"its mean level is {result['mean'][-1]:.3g} {self.camera.unit}"
                nothing = "none of its pixels is good: saturated, or of one value along every row"
                raise DataError(path, f"{level if result['count'][-1] else nothing}: not a flat")
        self._require_different(task, results)
        results, left_out = self._alike(task, results)
        content = {
            "detector": task.detector,
            "unit": self.camera.unit,
            "exposures": list(task.parameters["exposures"]),
            "amplifiers": [a.name for a in self.detector(task).amplifiers],
            "mean": [r["mean"][:-1] for r in results],
            "count": [r["count"][:-1] for r in results],
            "detector_mean": [r["mean"][-1] for r in results],
            "detector_count": [r["count"][-1] for r in results],
            "left_out": left_out,
        }
        output = publish(
            task.outputs["flatMeasure"], lambda p: write_json(p, content), self.stamp, self.job.config["permissions"]
        )
        return {
            "flatMeasure": output,
            "inputs_used": len(results),
            "pixels_left_out": left_out,
            **self._saturated(task, results),
        }

    def _require_different(self, task: Task, results: Sequence[dict[str, list[Any]]]) -> None:
        exposures, detector = task.parameters["exposures"], self.detector(task)
        for k, amplifier in enumerate(detector.amplifiers):
            alike = levels.first_alike([r["digest"][k] or None for r in results], exposures)
            for file, exposure, same in zip(self.raws(task), exposures, alike, strict=True):
                levels.require_different(file.path, exposure, same, f"amplifier {amplifier.name} of {detector.name}")

    def _saturated(self, task: Task, results: Sequence[dict[str, list[Any]]]) -> dict[str, Any]:
        """Describe the most saturated exposure for the operator; empty where none is."""
        exposures, detector = task.parameters["exposures"], self.detector(task)
        shares = np.array([r["saturated"] for r in results])
        many = int((shares.max(axis=1) > SATURATED).sum())
        if not many:
            return {}
        n, k = np.unravel_index(int(np.argmax(shares)), shares.shape)
        what = f"{100 * shares[n, k]:.1f} % of amplifier {detector.amplifiers[k].name} of {detector.name} saturated"
        more = f", more than {100 * SATURATED:g} % in {many} exposures" if many > 1 else ""
        return {"look_at": [f"exposure {exposures[n]}: {what}{more}; --exclude {exposures[n]} leaves it out"]}


def execute(job: Job, comm: Any) -> int:
    """Measure every task's exposures; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Measure(job))


def warm(bench: Bench) -> None:
    """Measure a few pixels; and as many as are needed for a thin sample of them."""
    bench.run(execute, {"raw": bench.raws}, "flatMeasure", isr={})
    clipped_level(np.random.default_rng(1).normal(1000, 5, (300, 300)).astype(np.float32))
