"""Simulated frames in memory, corrected by the reader that kernels use: no file, no job, no command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.camera import model as cameras
from kernels.calibrations.applied import Calibrations
from kernels.calibrations.config import IsrConfig
from kernels.camera import geometry
from kernels.camera.geometry import Amplifier, Box, Camera, Detector
from kernels.isr.channel import Canvas
from kernels.isr.reader import Reader
from kernels.jobs.job import File
from kernels.jobs.scratch import Scratch
from kernels.simulation import simulate
from kernels.simulation.rates import Rates
from kernels.simulation.truth import Truth, make
from kernels.statistics import clip
from kernels.statistics.network import workspace

F32 = NDArray[np.float32]
Raws = list[NDArray[np.int32]]

PLAIN: Mapping[str, Any] = {"vignetting_mm": [9e5, 1e6]}
ISR: Mapping[str, Any] = {"parallel": True}
#: Switches of `IsrConfig` by fields of `Calibrations`, where they differ.
SWITCHES = {"deferrals": "deferred"}


@dataclass(frozen=True)
class Held:
    """A product in memory, as `kernels.fits.product.Product` gives its pixels."""

    image: F32
    variance: F32
    bad: NDArray[np.bool_]
    exposures: tuple[int, ...] = ()
    path: str = "held in memory"

    def read(self, box: Box, plane: str = "IMAGE") -> F32:
        return (self.image if plane == "IMAGE" else self.variance)[box.slices]

    def flagged(self, box: Box, bit: int) -> NDArray[np.bool_]:
        return self.bad[box.slices]


class _Rows:
    blanks: Sequence[int] = ()

    def __init__(self, raws: Sequence[NDArray[np.int32]]) -> None:
        self._raws = raws

    def rows(self, first: int, last: int, out: NDArray[np.int32]) -> None:
        for frame, raw in zip(out, self._raws, strict=True):
            frame[:] = raw[first:last]


class _Memory:
    """Stands for `kernels.fits.raw.Frames`: a file's path is the key of its raws."""

    def __init__(self, detector: Detector, frames: Mapping[str, Raws]) -> None:
        self._index, self._frames = {a.name: k for k, a in enumerate(detector.amplifiers)}, frames

    def stack(
        self, files: Sequence[File], amplifier: Amplifier, first: int, last: int, slot: int = 0, summed: object = None
    ) -> _Rows:
        return _Rows([self._frames[f.path][self._index[amplifier.name]] for f in files])


@dataclass(frozen=True)
class Darkroom:
    """A camera whose detectors are exposed and corrected."""

    seed: int = 1
    scale: int = 16
    detectors: tuple[int, ...] = (4,)
    rates: Mapping[str, Any] = field(default_factory=dict)
    #: Factors of the true read noises by (detector, amplifier), and a change of the truth; `use` knows neither.
    noises: Mapping[tuple[int, str], float] = field(default_factory=dict)
    alter: Callable[[Truth], Truth] | None = None
    name: str = "LSSTComCam"

    @cached_property
    def model(self) -> cameras.Camera:
        return cameras.load(self.name).scaled(self.scale)

    @cached_property
    def camera(self) -> Camera:
        return geometry.camera(self.model.plain(self.detectors))

    @cached_property
    def settings(self) -> Rates:
        return Rates.from_plain({**PLAIN, **self.rates})

    @cached_property
    def truths(self) -> dict[int, Truth]:
        made = {d: make(self.seed, self._real(d), ["r_03", "i_06"], self.settings) for d in self.detectors}
        return {d: self.alter(one) if self.alter else one for d, one in made.items()}

    def _real(self, detector: int) -> Detector:
        plain = self.camera.detectors[detector]
        amplifiers = (
            replace(a, read_noise=a.read_noise * self.noises.get((detector, a.name), 1.0)) for a in plain.amplifiers
        )
        return replace(plain, amplifiers=tuple(amplifiers))

    def expose(self, detector: int, exposure: int, kind: str, seconds: float = 0.0, **more: Any) -> Raws:
        """Draw the raws of one exposure."""
        parameters = {
            "exposure": exposure, "day_obs": 20241208, "observation_type": kind, "exposure_time": seconds,
            "dark_time": seconds, "physical_filter": "r_03" if kind == "flat" else None, **more,
        }  # fmt: skip
        return simulate.frame(self.seed, self.truths[detector], self.scale, parameters, self.settings)

    def correct(
        self,
        detector: Detector,
        raws: Raws,
        seconds: float = 0.0,
        isr: Mapping[str, Any] = ISR,
        unit: str = "electron",
        **held: Any,
    ) -> tuple[F32, list[int]]:
        """Correct raws by all that is ``held`` (fields of `Calibrations`).

        Gives the detector's image [y, x] in the unit, NaN where masked, and the numbers of saturated pixels.
        """
        config = IsrConfig.from_plain({**isr, **{SWITCHES.get(name, name): True for name in held}})
        calibrations = Calibrations(detector, **held)
        image = np.full(detector.size[::-1], np.nan, np.float32)
        flags = calibrations.flagged(Box(0, 0, *detector.size)) if calibrations.flags else None
        canvas = Canvas(image, np.empty((0, 0), np.bool_) if flags is None else np.ascontiguousarray(flags))
        numbers = list(range(len(detector.amplifiers)))
        groups = [numbers] if config.crosstalk else [[k] for k in numbers]
        file, scratch, memory, saturated = File("frame"), Scratch(), _Memory(detector, {"frame": raws}), list[int]()
        for group in groups:
            reader = Reader(memory, scratch, group, config, unit, calibrations)  # type: ignore[arg-type]
            saturated += [int(f.saturated[0]) for f in reader.frame(file, seconds, canvas=canvas)]
        return image, saturated


def combine(images: Sequence[F32], exposures: Sequence[int] = (), scales: Sequence[float] = ()) -> Held:
    """Take the clipped mean of corrected images, each over its scale, as the kernel ``combine`` does."""
    n, shape = len(images), images[0].shape
    cube = workspace(n, images[0].size)
    for row, image, scale in zip(cube, images, scales or [1.0] * n, strict=False):
        pixels = image.reshape(-1) / np.float32(scale)
        row[: pixels.size] = np.where(np.isfinite(pixels), pixels, np.inf)
    width = cube.shape[1]
    image, variance, count = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.int16)
    clip.collapse(cube, n, clip.Rule(), image, variance, count)
    mean, spread = (v[: images[0].size].reshape(shape) for v in (image, variance))
    bad = ~np.isfinite(mean)
    return Held(np.where(bad, 0, mean).astype(np.float32), spread, bad, tuple(exposures))
