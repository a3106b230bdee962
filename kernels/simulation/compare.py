"""Compare products with the simulator's truth: z = (product - expected) / expected error, pixel by pixel.

A job's ``config``: ``result``, the path of the JSON file that rank 0 writes.

One task per detector, inputs ``product`` (IMAGE, MASK, VARIANCE) and
``truth`` (from `kernels.simulation.simulate`), one file each, and as parameters

- ``type``: ``bias`` (electron), ``dark`` (electron/second) or ``flat`` (relative);
- ``exposures``: ids that were combined; the truth knows their times and light;
- ``bias``, ``dark``: ids of the exposures in the subtracted calibrations;
  absent where none was subtracted.  A dark is assumed to be corrected by the
  same bias as the flat;
- ``physical_filter``: for a flat;
- ``isr``: as the combine had it (`kernels.calibrations.config.IsrConfig`): the overscans count.

A flat is known up to one factor for the whole focal plane, which is fitted to
all detectors at once: a first pass computes two sums for each detector, which
are added in the order of the detectors, so that bits do not depend on ranks.
The flat's level, the mean of the detectors' clipped means weighted by their
pixels, should be 1.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations.config import IsrConfig
from kernels.camera import geometry
from kernels.camera.geometry import Amplifier, Box, Camera, Detector
from kernels.errors import DataError, KernelError
from kernels.fits.fitsfile import opened
from kernels.fits.product import Product
from kernels.isr.framenoise import frame_noise
from kernels.jobs.job import Job, Task
from kernels.jobs.journal import Journal
from kernels.jobs.partition import shares
from kernels.simulation import truthfile
from kernels.simulation.agreement import Statistics, overall, problems
from kernels.simulation.expected import F64, Expected, Inputs, Pixels, expected
from kernels.statistics.sample import clipped_mean

KERNEL: Final = "compare"


@dataclass(frozen=True)
class Pair:
    """A detector's product and truth; images [y, x] on the assembled detector."""

    detector: Detector
    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    good: NDArray[np.bool_]
    truth: truthfile.Recorded
    parameters: Mapping[str, Any]

    def exposures(self, role: str) -> list[Any]:
        """List the rows of the truth's EXPOSURES for the inputs in a role."""
        return [self.truth.exposures[n] for n in self.parameters.get(role, ())]

    def injected(self) -> NDArray[np.bool_]:
        """Flag [y, x] defects, and pixels that a cosmic ray hit in any of the exposures."""
        used = [n for role in ("exposures", "bias", "dark") for n in self.parameters.get(role, ())]
        rays = self.truth.rays[np.isin(self.truth.rays["exposure"], used)]
        where = self.truth.defects.copy()
        where[rays["y"], rays["x"]] = True
        return where

    def amplifiers(self) -> Iterator[tuple[Amplifier, Expected]]:
        """Yield each amplifier with the expected values of its part of the product."""
        truth, isr = self.truth, IsrConfig.from_plain(self.parameters["isr"])
        inputs = Inputs(self.exposures("exposures"), self.exposures("bias"), self.exposures("dark"))
        for k, amplifier in enumerate(self.detector.amplifiers):
            at, gain = amplifier.target.slices, float(truth.gain[k])
            dark = truth.dark[at].astype(np.float64)
            light = np.zeros_like(dark) if truth.response is None else truth.response[at].astype(np.float64)
            pixels = Pixels(truth.structure[at].astype(np.float64) * gain, dark, light)
            noise = frame_noise(amplifier, gain, float(truth.read_noise[k]), isr)
            yield amplifier, expected(self.parameters["type"], pixels, noise, inputs)


def _bad(path: str) -> int:
    """Read the value of the mask's BAD plane."""
    with opened(path) as fits:
        header = fits["MASK"].read_header()
    if "MP_BAD" not in header:
        raise DataError(path, "MASK does not name its planes: no MP_BAD in its header")
    return 1 << int(header["MP_BAD"])


def _load(job: Job, camera: Camera, task: Task) -> Pair:
    """Read product and truth of a task, in electron; a product in ADU is multiplied by the true gains.

    Raises
    ------
    DataError
        A file cannot be read, is of another unit or size, holds a pixel that
        is neither finite nor BAD, or the truth lacks an exposure.
    """
    assert task.detector is not None
    detector, parameters = camera.detectors[task.detector], task.parameters
    (product_key,), (truth_key,) = task.inputs["product"], task.inputs["truth"]
    product, truth_path = Product.open(job.files[product_key].path, camera.unit), job.files[truth_key].path
    box = Box(0, 0, *detector.size)
    image, good = product.read(box), (product.read(box, "MASK") & _bad(product.path)) == 0
    if unmasked := np.count_nonzero(good & ~np.isfinite(image)):
        raise DataError(product.path, f"{unmasked} pixels are not finite and not flagged BAD")
    truth = truthfile.read(truth_path, parameters.get("physical_filter"))
    used = [n for role in ("exposures", "bias", "dark") for n in parameters.get(role, ())]
    if unknown := [n for n in used if n not in truth.exposures]:
        raise DataError(truth_path, f"has no exposure {unknown[0]}")
    variance = product.read(box, "VARIANCE")
    if camera.unit == "adu":
        gains = np.asarray(truth.gain, np.float64)
        if parameters["type"] == "flat":  # a flat is relative: remove the gains' steps, keep its level
            gains /= gains.mean()
        for amplifier, gain in zip(detector.amplifiers, gains, strict=True):
            image[amplifier.target.slices] *= np.float32(gain)
            variance[amplifier.target.slices] *= np.float32(gain**2)
    return Pair(detector, image, variance, good, truth, parameters)


class Fit(NamedTuple):
    """A detector's share in the fit of the factor: sums of P E / sigma^2 and E^2 / sigma^2."""

    product: float
    square: float


def _fit(pair: Pair) -> Fit:
    product = square = 0.0
    for amplifier, e in pair.amplifiers():
        at = amplifier.target.slices
        weight = pair.good[at] / e.variance
        product += float(np.sum(weight * e.value * pair.image[at]))
        square += float(np.sum(weight * e.value**2))
    return Fit(product, square)


def _statistics(pair: Pair, factor: float) -> Statistics:
    """Compare a detector; ``factor`` multiplies the expected values."""
    injected, z2, beyond_3, beyond_5, showing = pair.injected(), 0.0, 0, 0, 0
    variance = error2 = 0.0
    amplifier_z = {}
    for amplifier, e in pair.amplifiers():
        at = amplifier.target.slices
        good = pair.good[at]
        z: F64 = np.where(good, (pair.image[at] - factor * e.value) / (factor * np.sqrt(e.variance)), 0)
        far = np.abs(z) > 5
        z2 += float(np.sum(z**2))
        beyond_3 += int(np.count_nonzero(np.abs(z) > 3))
        beyond_5 += int(np.count_nonzero(far))
        showing += int(np.count_nonzero(far & injected[at]))
        variance += float(np.sum(pair.variance[at], where=good, dtype=np.float64))
        error2 += float(np.sum((pair.image[at] - factor * e.value) ** 2, where=good))
        if good.any():
            amplifier_z[amplifier.name] = float(z.sum() / np.count_nonzero(good) / e.mean_error(good))
    count = int(np.count_nonzero(pair.good))
    if not count:
        raise DataError(f"detector {pair.detector.name}", "the product has no good pixel")
    level, _, level_pixels = clipped_mean(pair.image[pair.good][np.newaxis])
    numbers = (count, z2, beyond_3, beyond_5, amplifier_z, showing, level, level_pixels, variance, error2)
    return Statistics(pair.detector.id, *numbers)


class _Attempts:
    """Runs steps on tasks; a task that fails is journalled once and left out of the next step."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self.errors = journal, {}  # type: Journal, dict[str, str]

    def each(self, tasks: Sequence[Task], step: Callable[[Task], Any]) -> dict[int, Any]:
        """Run a step on the tasks that have not failed; return the results by detector."""
        results = {}
        for task in (t for t in tasks if t.task not in self.errors):
            try:
                results[task.detector or 0] = step(task)
            except KernelError as error:
                self.errors[task.task] = str(error)
                detail = {"error": str(error), "kind": type(error).__name__, "cause": "data"}
                self._journal.write(task.task, "failed", detail)
        return results


def _gathered(comm: Any, results: Mapping[int, Any]) -> list[Any]:
    """Gather the results of all ranks, in the order of the detectors, on every rank."""
    parts = comm.allgather(results) if comm else [results]
    merged = {key: value for part in parts for key, value in part.items()}
    return [merged[key] for key in sorted(merged)]


def _write(path: str, result: Mapping[str, Any]) -> None:
    temporary = Path(f"{path}.{os.getpid()}.{token_hex(4)}.tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, path)


def execute(job: Job, comm: Any) -> int:
    """Compare all detectors of one product; give the number of this rank's tasks that could not be compared.

    The result file holds ``name``, ``detectors``, ``good_pixels``, ``rms_z``,
    ``frac_gt3``, ``frac_gt5``, ``max_abs_amp_mean_z``, ``defects_showing``, ``level``,
    ``variance_ratio``, ``problems`` (texts, empty where all is well) and the
    numbers of each detector in ``per_detector``.

    The module's text describes a task's parameters.
    """
    rank, size = (comm.rank, comm.size) if comm else (0, 1)
    mine = [job.tasks[n] for n in shares([1.0] * len(job.tasks), size)[rank]]
    camera = geometry.camera(job.camera)
    parameters = job.tasks[0].parameters
    with Journal(job, rank) as journal:
        attempts, factor = _Attempts(journal), 1.0
        if parameters["type"] == "flat":
            fits = _gathered(comm, attempts.each(mine, lambda task: _fit(_load(job, camera, task))))
            square = math.fsum(f.square for f in fits)
            factor = math.fsum(f.product for f in fits) / square if square else 1.0
        done = attempts.each(mine, lambda task: _statistics(_load(job, camera, task), factor))
        parts = _gathered(comm, done)
        errors = [e for part in (comm.allgather(attempts.errors) if comm else [attempts.errors]) for e in part.values()]
    if rank == 0:
        numbers = overall(parameters["type"], parts)
        found = errors + problems(numbers, len(parameters["exposures"]))
        _write(job.config["result"], {**numbers, "problems": found, "per_detector": [p.plain() for p in parts]})
    return len(attempts.errors)
