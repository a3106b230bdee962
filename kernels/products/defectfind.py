"""Find a detector's defects in its bootstraps: pixels that glow in the dark, respond badly to light, or are unstable.

Each amplifier is examined alone.  Its clipped mean is subtracted from bias and
dark; the flat is divided by its own.  A pixel beyond a threshold in any of the
three is bad.  Then the rules of `kernels.products.defectgrow` are applied.
(After the documentation of cp_pipe's MeasureDefectsTask; a dark in ADU/s is
compared in electron/s, by the camera file's gains.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.calibrations import defects
from kernels.camera import geometry
from kernels.camera.geometry import Amplifier, Box, Detector
from kernels.errors import DataError, JobError
from kernels.fits.product import BAD, Product
from kernels.fits.rowbytes import verify
from kernels.fits.tables import check_identity
from kernels.jobs import gang
from kernels.jobs.job import Job, Task
from kernels.jobs.publish import publish
from kernels.products.defectgrow import Growth, boxes, grow_columns, mask_edges, mask_rings
from kernels.statistics.sample import clipped_mean

KERNEL: Final = "defects"

F32 = NDArray[np.float32]
KINDS = ("bias", "dark", "flat")
MODES = ("VALUE", "STDEV")
#: Least response of a live amplifier, where the mean of all detectors is 1.
LIT = 0.01


@dataclass(frozen=True)
class Thresholds:
    """Limits of a good pixel."""

    #: ``VALUE``, or ``STDEV``: dark and flat in standard deviations of the amplifier (``*_sigma``).
    mode: str = "VALUE"
    #: Largest absolute deviation, ADU.
    bias: float = 1000.0
    #: Largest excess over the amplifier's mean, electron/second.
    dark: float = 5.0
    #: Smallest response, relative.
    flat: float = 0.8
    #: Largest response, relative; pixels above it have their surroundings masked; 0: no limit.
    vampire: float = 1.9
    #: Largest deviation upwards, in dark and flat.
    bright_sigma: float = 4.8
    #: Largest deviation downwards, in the flat.
    dark_sigma: float = 5.0

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Thresholds:
        """Check and freeze.

        Raises
        ------
        JobError
            An unknown key or mode.
        """
        unknown = sorted(set(plain) - {f.name for f in fields(cls)})
        if unknown:
            raise JobError(f"thresholds: unknown key {unknown[0]!r}")
        made = cls(**plain)
        if made.mode not in MODES:
            raise JobError(f"thresholds.mode: {made.mode!r} is none of {', '.join(MODES)}")
        return made


@dataclass(frozen=True)
class Found:
    """An amplifier's bad pixels [y, x], and those that draw the light of others [n, (y, x)]."""

    bad: NDArray[np.bool_]
    vampires: NDArray[np.intp]


def _away(image: F32, box: Box) -> tuple[F32, float, float]:
    """Subtract the clipped mean of an amplifier's pixels; return also mean and standard deviation."""
    mean, sigma, _ = clipped_mean(image, box)
    return image - np.float32(mean), mean, sigma


def find(kind: str, image: F32, gain: float, wanted: Thresholds) -> Found:
    """Find the bad pixels of an amplifier in one product.

    Parameters
    ----------
    kind : `str`
        ``bias`` (ADU), ``dark`` (ADU/second) or ``flat`` (relative).
    image : `numpy.ndarray` [y, x], float32
        The amplifier's pixels; bad where not finite.
    gain : `float`
        electron/ADU.
    """
    none = np.zeros((0, 2), np.intp)
    difference, mean, sigma = _away(image, Box(0, 0, image.shape[1], image.shape[0]))
    if not np.isfinite(mean) or (kind == "flat" and not mean > LIT):
        return Found(np.ones(image.shape, np.bool_), none)  # a dead amplifier has only noise and crosstalk
    bad = ~np.isfinite(image)
    with np.errstate(invalid="ignore"):
        if kind == "bias":
            return Found(bad | (np.abs(difference) > wanted.bias), none)
        if wanted.mode == "STDEV":
            low = -wanted.dark_sigma * sigma if kind == "flat" else -np.inf
            return Found(bad | (difference > wanted.bright_sigma * sigma) | (difference < low), none)
        if kind == "dark":
            return Found(bad | (difference * np.float32(gain) > wanted.dark), none)
        relative = image / np.float32(mean)
        taking = relative > wanted.vampire if wanted.vampire else np.zeros(image.shape, np.bool_)
        return Found(bad | (relative < wanted.flat) | taking, np.argwhere(taking))


class Finder:
    """The gang kernel; an amplifier is a piece.

    ``config``: ``thresholds`` (`Thresholds`), ``growth``
    (`kernels.products.defectgrow.Growth`), ``manual`` (boxes by the detector's name:
    x0, y0, width, height), ``permissions``.  Task: inputs ``bias``, ``dark``,
    ``flat`` (any of them; several flats), output ``defects``.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._camera = geometry.camera(job.camera)
        self._thresholds = Thresholds.from_plain(job.config.get("thresholds", {}))
        self._growth = Growth.from_plain(job.config.get("growth", {}))
        self._opened: dict[str, Product] = {}

    def _detector(self, task: Task) -> Detector:
        assert task.detector is not None
        return self._camera.detectors[task.detector]

    def _products(self, task: Task) -> list[tuple[str, Product]]:
        """Read the bootstraps, by kind.

        Raises
        ------
        DataError
            One is another detector's, or not in ADU.
        """
        found = []
        for kind, key in ((name, key) for name in KINDS for key in task.inputs.get(name, ())):
            path = self._job.files[key].path
            if path not in self._opened:
                self._opened[path] = Product.open(path, "adu")
                check_identity(path, self._opened[path].header, kind, self._camera, self._detector(task), "adu")
                verify(path, ("IMAGE", "MASK"))
            found.append((kind, self._opened[path]))
        return found

    def weights(self, task: Task) -> Sequence[float]:
        """Weigh each amplifier by its pixels."""
        return [float(a.target.nx * a.target.ny) for a in self._detector(task).amplifiers]

    def compute(self, task: Task, piece: int) -> Found:
        """Find the bad pixels of one amplifier."""
        amplifier = self._detector(task).amplifiers[piece]
        found = [self._find(kind, product, amplifier) for kind, product in self._products(task)]
        bad = np.logical_or.reduce([one.bad for one in found])
        corner = np.array([amplifier.target.y0, amplifier.target.x0])
        vampires = np.concatenate([one.vampires for one in found]) + corner
        return Found(grow_columns(bad, self._growth), vampires)

    def _find(self, kind: str, product: Product, amplifier: Amplifier) -> Found:
        image = np.asarray(product.read(amplifier.target), np.float32)
        image[(product.read(amplifier.target, "MASK") & BAD) != 0] = np.nan
        return find(kind, image, amplifier.gain, self._thresholds)

    def finish(self, task: Task, results: Iterable[Found]) -> dict[str, Any]:
        """Join the amplifiers, grow the bad pixels, and publish the boxes."""
        detector = self._detector(task)
        bad, vampires = np.zeros(detector.size[::-1], np.bool_), []
        for amplifier, found in zip(detector.amplifiers, results, strict=True):
            bad[amplifier.target.slices] = found.bad
            vampires += [found.vampires.copy()]  # another rank's result is valid until the next one
        mask_rings(bad, np.concatenate(vampires), self._growth)
        mask_edges(bad, self._growth)
        for x0, y0, width, height in self._manual(detector):
            bad[y0 : y0 + height, x0 : x0 + width] = True
        cards = [(f"DEFECTS_{key.upper()}", value, "") for key, value in vars(self._thresholds).items()]
        cards += [(f"GROWTH_{key.upper()}", value, "pixel") for key, value in vars(self._growth).items()]
        cards += [(key, value, "") for key, value in task.provenance.items()]
        write = partial(defects.write, camera=self._camera, detector=detector, boxes=boxes(bad), cards=cards)
        output = publish(task.outputs["defects"], write, self._stamp, self._job.config.get("permissions", {}))
        return {"bad_pixels": int(np.count_nonzero(bad)), "defects": output}

    @property
    def _stamp(self) -> str:
        return f"{self._job.run}.{self._job.attempt}"

    def _manual(self, detector: Detector) -> Sequence[Sequence[int]]:
        """List the boxes drawn by hand.

        Raises
        ------
        DataError
            A box is not on the detector.
        """
        drawn: Sequence[Sequence[int]] = self._job.config.get("manual", {}).get(detector.name, ())
        for x0, y0, width, height in drawn:
            inside = x0 + width <= detector.size[0] and y0 + height <= detector.size[1]
            if min(x0, y0) < 0 or min(width, height) < 1 or not inside:
                what = f"the manual box of {width} x {height} pixels at ({x0}, {y0})"
                size = f"{detector.size[0]} x {detector.size[1]}"
                raise DataError(f"detector {detector.name}", f"{what} is not on its {size} pixels")
        return drawn


def execute(job: Job, comm: Any) -> int:
    """Find the defects of every task's detector; return the number of tasks of this rank that failed."""
    return gang.execute(job, comm, Finder(job))
