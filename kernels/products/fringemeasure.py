"""Sky and stars of the frames that fringes are made of.

A piece is one exposure: the frame is corrected in memory, detections are masked, and the smooth background of the rest
is measured.  The combination (`kernels.products.combine`, through `kernels.products.underlay`) takes both out of each
frame, so that fringes alone are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.bench import Bench
from kernels.products.corrected import Correct
from kernels.products.flatlevels import write_json
from kernels.products.packed import pack
from kernels.products.skymeasure import Masked, require_enough, rule, usual_noise
from kernels.statistics.surface import Surface
from kernels.transfer import fringefit

KERNEL: Final = "fringe_measure"


class Measure(Correct):
    """The gang kernel: a piece is one exposure of one detector; output ``fringeMeasure``, JSON.

    ``config``: ``isr``, ``permissions``, and the rule of the detections
    (`kernels.products.skymeasure.rule`), whose ``cell`` is that of the
    background, too.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._rule = rule(job.config, self.camera.scale)

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each exposure by the bytes read for it."""
        return [float(file.bytes or 1) for file in self.raws(task)]

    def compute(self, task: Task, piece: int) -> dict[str, Any]:
        """Measure one exposure: level, noise of a pixel, background, detections."""
        frame, _ = super().compute(task, piece)
        image, mask, noise = frame.image, frame.mask, usual_noise(frame.variance, frame.mask)
        masked = Masked.of(image, mask, self._rule)
        about = {"level": masked.level, "noise": noise, "left": masked.left, "why": masked.objection(noise)}
        if about["why"]:
            return about
        surface, _ = Surface.of(masked.image, self._rule.cell)
        return {**about, "values": surface.values, "found": np.packbits(masked.found)}

    def finish(self, task: Task, results: Iterable[Any]) -> dict[str, Any]:
        """Publish one detector's measurements.

        Raises
        ------
        DataError
            Too few exposures have a sky.
        """
        self.require_inputs(task)
        measured, exposures = list(results), list(task.parameters["exposures"])
        detector = self.detector(task)
        left = {e: m["why"] for e, m in zip(exposures, measured, strict=True) if m["why"]}
        require_enough(left, exposures, detector.name, "fringe")
        used = [(e, m) for e, m in zip(exposures, measured, strict=True) if not m["why"]]
        content = {
            "detector": task.detector,
            "unit": self.camera.unit,
            "size": list(detector.size),
            "cell": self._rule.cell,
            "exposures": [e for e, _ in used],
            "level": [m["level"] for _, m in used],
            "noise": [m["noise"] for _, m in used],
            "values": [pack(m["values"]) for _, m in used],
            "found": [pack(m["found"]) for _, m in used],
            "left_out": {str(e): why for e, why in left.items()},
        }
        output = publish(
            task.outputs["fringeMeasure"], lambda p: write_json(p, content), self.stamp, self.job.config["permissions"]
        )
        about: dict[str, Any] = {"inputs_used": len(used), "sky_left": round(min(m["left"] for _, m in used), 4)}
        if left:
            about["look_at"] = [f"{detector.name} leaves out exposure {e}: {why}" for e, why in left.items()]
        return {"fringeMeasure": output, **about}


def execute(job: Job, comm: Any) -> int:
    """Measure every task's exposures; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Measure(job))


def warm(bench: Bench) -> None:
    """Measure a few pixels, binned as little as a fringe's are."""
    settings = {"threshold": 5.0, "smoothing": 1.0, "rounds": 1, "grow": 3, "cell": 128}
    bench.run(execute, {"raw": bench.raws}, "fringeMeasure", isr={}, **settings)
    pattern = np.sin(np.arange(64, dtype=np.float32))[None, :] * np.ones((64, 1), np.float32)
    ones, few = np.ones_like(pattern), np.full_like(pattern, 1e-4)
    fringefit.fit(pattern, ones, np.ones(ones.shape, np.bool_), pattern, few, fringefit.Rule(400, large=12, rounds=1))
