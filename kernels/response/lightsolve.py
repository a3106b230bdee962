"""Light of each flat as the whole focal plane saw it, from the linearizers of all detectors.

The solution is one least squares of all amplifiers and exposures (`kernels.transfer.commonlight`).  Detectors are taken
in the order of their numbers in one process, so that the bits of the sum depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.camera import geometry
from kernels.errors import DataError
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.response import linearflats
from kernels.response.linearflats import NORMALISATION, UNNORMALISED, Flats
from kernels.response.linearize import Settings
from kernels.transfer import commonlight, lineardetector
from kernels.transfer.linearmodel import Light, Model, Unlinear

KERNEL: Final = "linear_light"

F64 = NDArray[np.float64]


def spread(flats: Flats, exposures: Sequence[int], every: Sequence[int]) -> Flats:
    """Put a detector's flats at their places among all exposures; NaN and group -1 elsewhere."""
    at = [every.index(e) for e in exposures]
    signals, amount = np.full((len(flats.signals), len(every)), np.nan), np.full(len(every), np.nan)
    group = np.full(len(every), -1, np.int64)
    signals[:, at], amount[at], group[at] = flats.signals, flats.light.amount, flats.light.group
    return replace(flats, signals=signals, light=Light(amount, group))


class LightSolve(gang.Kernel):
    """The serial kernel; input ``linearizerUnnormalized`` of every detector, output ``linearizerNormalization``."""

    def __init__(self, job: Job) -> None:
        self._job, self._settings = job, Settings.from_plain(job.config)
        self._camera = geometry.camera(job.camera)

    def _flats(self, task: Task) -> list[tuple[int, Flats]]:
        """Read the flats of all detectors, among all exposures."""
        by_detector = {int(d): list(e) for d, e in task.parameters["exposures_of"].items()}
        every = sorted({e for some in by_detector.values() for e in some})
        found = []
        for (number, exposures), key in zip(by_detector.items(), task.inputs[UNNORMALISED], strict=True):
            path = self._job.files[key].path
            flats = linearflats.read(path, self._camera, self._camera.detectors[number])[0]
            if flats.signals.shape[1] != len(exposures):
                raise DataError(path, f"holds {flats.signals.shape[1]} flats, the step has {len(exposures)}")
            found.append((number, spread(flats, exposures, every)))
        return sorted(found, key=lambda one: one[0])

    def compute(self, task: Task, piece: int) -> dict[str, Any]:
        """Solve for the light.

        Raises
        ------
        DataError
            A linearizer cannot be read, or the flats determine no light.
        """
        models, without = list[Model](), dict[str, str]()
        flats = self._flats(task)
        for number, one in flats:
            rule = replace(self._settings.solve.fit, photon=one.photon)
            try:
                ready = lineardetector.prepare(one.signals, one.light, one.ptc, one.noises, self._settings.solve)
                models += ready.models(one.light, rule)
            except Unlinear as error:
                without[self._camera.detectors[number].name] = str(error)
        rule = replace(self._settings.solve.fit, photon=float(np.median([one.photon for _, one in flats])))
        try:
            found = commonlight.solve(models, rule)
        except Unlinear as error:
            raise DataError(self._job.files[task.inputs[UNNORMALISED][0]].path, str(error)) from error
        return self._plain(task, found, len(flats) - len(without)) | {"without": without}

    def _plain(self, task: Task, found: commonlight.CommonLight, detectors: int) -> dict[str, Any]:
        every = sorted({int(e) for some in task.parameters["exposures_of"].values() for e in some})
        seen = np.isfinite(found.error)
        return {
            "exposures": every,
            "factor": found.factor.tolist(),
            "error": [float(e) if ok else None for e, ok in zip(found.error, seen, strict=True)],
            "off": [e for e, off in zip(every, found.off.tolist(), strict=True) if off],
            "unseen": [e for e, ok in zip(every, seen.tolist(), strict=True) if not ok],
            "monitor": found.monitor,
            "common": found.common,
            "detectors": detectors,
            "points": found.points,
            "rejected": found.rejected,
            "chi2": found.chi2,
        }

    def finish(self, task: Task, results: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Publish the light."""
        (content,) = results
        output = publish(
            task.outputs[NORMALISATION],
            lambda path: linearflats.write_normalisation(path, content),
            f"{self._job.run}.{self._job.attempt}",
            self._job.config["permissions"],
        )
        said = []
        if content["off"]:
            many = f"{len(content['off'])} of {len(content['exposures'])} readings of the light are off by far"
            said.append(f"{many}, and left to the frames: exposure {', '.join(map(str, content['off'][:5]))}")
        if content["without"]:
            said.append(f"no part in the light of the focal plane: {', '.join(content['without'])}")
        return {NORMALISATION: output, "monitor": content["monitor"], **({"look_at": said} if said else {})}


def execute(job: Job, comm: Any) -> int:
    """Solve; return the number of failed tasks."""
    return gang.execute(job, comm, LightSolve(job))
