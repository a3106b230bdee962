"""Levels of a flat: clipped means of every amplifier and detector in every exposure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.errors import DataError
from kernels.isr.framekernel import FrameKernel
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products import levels
from kernels.products.bench import Bench
from kernels.products.flatlevels import LIT, write_json
from kernels.statistics.level import clipped_level

KERNEL: Final = "flat_measure"

#: Fraction of saturated pixels of an amplifier beyond that of hot pixels and cosmic rays.
SATURATED = 0.005
#: An exposure is measured again, on the pixels that are good in all exposures, if these leave out more than this
#: fraction of a detector, or of an amplifier; the effect of fewer pixels is below the noise.
MATTERS = 1e-4, 1e-3
#: Least fraction of a detector that gives an exposure's level.
ENOUGH = 0.05


def _lit(clipped: Sequence[tuple[float, int]]) -> list[bool]:
    """Tell by clipped means and counts which amplifiers respond to light: above one hundredth of the brightest."""
    brightest = max(mean if count else 0.0 for mean, count in clipped)
    return [not count or brightest <= 0 or mean > LIT * brightest for mean, count in clipped]


def _unpacked(bits: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Undo `numpy.packbits`."""
    return np.unpackbits(bits, count=shape[0] * shape[1]).astype(np.bool_).reshape(shape)


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

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each exposure by the bytes read for it."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> dict[str, Any]:
        """Measure one exposure: clipped means, amplifiers first and the detector last, and the missing pixels."""
        filled = self._fill(task, piece)
        return filled | self._measured(task)

    def _fill(self, task: Task, piece: int) -> dict[str, Any]:
        """Assemble an exposure, NaN where bad.

        Returns the pixels that it lacks, packed (`None` if the calibrations flag all of them); and by amplifier the
        saturated fraction and a checksum of the samples.
        """
        detector, file, lacks = self.detector(task), self.raws(task)[piece], False
        if self._type != detector.type:  # pixels that no amplifier covers stay NaN
            self._type, self._image = detector.type, np.full(detector.size[::-1], np.nan, np.float32)
        full, digests = [0.0] * len(detector.amplifiers), [""] * len(detector.amplifiers)
        for frame, _ in self.corrected(task, file, task.parameters["dark_times"][piece], self._image):
            k, lacks = frame.channel.number, lacks or frame.lacking > 0
            full[k] = float(frame.saturated[0]) / frame.pixels.size
            digests[k] = (levels.digest(frame.samples[0]) or b"").hex()
        return {
            "lacks": np.packbits(np.isnan(self._image)) if lacks else None,
            "saturated": full,
            "digest": digests,
        }

    def _measured(self, task: Task) -> dict[str, Any]:
        nsigma, passes = float(self.job.config["nsigma"]), int(self.job.config["passes"])
        amplifiers = self.detector(task).amplifiers
        clipped = [clipped_level(self._image, a.target, nsigma, passes) for a in amplifiers]
        for amplifier, lit in zip(amplifiers, _lit(clipped), strict=True):
            if not lit:
                self._image[amplifier.target.slices] = np.nan
        clipped.append(clipped_level(self._image, None, nsigma, passes))
        return {"mean": [mean for mean, _ in clipped], "count": [count for _, count in clipped]}

    def _flagged_pixels(self, task: Task) -> NDArray[np.bool_]:
        """Mark the pixels [y, x] that every exposure lacks: flagged, or covered by no amplifier."""
        detector, flags = self.detector(task), self.flags(task)
        never = np.ones(detector.size[::-1], np.bool_)
        for at in (amplifier.target.slices for amplifier in detector.amplifiers):
            never[at] = False if flags is None else flags[at]
        return never

    def _alike(self, task: Task, results: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
        """Measure all exposures on the pixels that all of them have; return also the number of pixels that some lack.

        An exposure that is saturated where others are not would be measured on its fainter part alone, and get too low
        a scale.

        Raises
        ------
        DataError
            Hardly any pixel is good in all exposures.
        """
        shape, lacking = self.detector(task).size[::-1], [r.pop("lacks") for r in results]
        if all(bits is None for bits in lacking):
            return results, 0
        never = self._flagged_pixels(task)
        nothing = np.packbits(never)
        packed = [nothing if bits is None else bits for bits in lacking]
        some = _unpacked(np.bitwise_or.reduce(packed, axis=0), shape)
        left_out, usable = int(np.count_nonzero(some & ~never)), int(np.count_nonzero(~never))
        self._require_some(task, packed, usable, usable - left_out)
        boxes = [amplifier.target.slices for amplifier in self.detector(task).amplifiers]
        for n, bits in enumerate(packed):
            more = some & ~_unpacked(bits, shape)
            if more.mean() > MATTERS[0] or max(more[at].mean() for at in boxes) > MATTERS[1]:
                self._fill(task, n)
                self._image[some] = np.nan
                results[n] = results[n] | self._measured(task)
        return results, left_out

    def _require_some(self, task: Task, packed: Sequence[NDArray[np.uint8]], usable: int, left: int) -> None:
        """Refuse exposures with hardly any good pixel in common; name the exposure that lacks most."""
        if left < ENOUGH * usable:
            lacks = [int(np.bitwise_count(bits).sum()) for bits in packed]
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
