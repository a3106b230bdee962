"""Nights of biases, darks and flats in memory: products, and the rows of frames that they correct."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campaign.verification import derive, judging, limits, lines, rows
from campaign.verification.lines import Line
from campaign.verification.rows import Rows
from kernels.calibrations.config import IsrConfig
from kernels.calibrations.defects import Defects
from kernels.camera.geometry import Detector
from kernels.simulation import simulate
from kernels.verification import applied, evaluate, stack
from kernels.verification import frame as framed
from kernels.verification.frame import Frame, Header
from tests.verification.darkroom import ISR, Darkroom, Held, Raws, combine

F32 = NDArray[np.float32]
KINDS = ("bias", "dark", "flat")
SECONDS = {"bias": 0.0, "dark": 30.0, "flat": 5.0}
#: First exposure of the inputs by kind; those of other frames begin `LATER` after.
FIRST = {"bias": 1, "dark": 201, "flat": 401}
LATER = 1000
BEGIN = 60652.0

Change = Callable[[F32], F32]


@dataclass(frozen=True)
class Products:
    """Products in use, by detector."""

    bias: Mapping[int, Held]
    dark: Mapping[int, Held]
    flat: Mapping[int, Held]
    defects: Mapping[int, Defects]
    #: Light of the inputs of the flats, electron.
    light: tuple[float, ...] = ()

    def changed(self, kind: str, detector: int, change: Change) -> Products:
        """Change the pixels of one product."""
        held = getattr(self, kind)
        one = held[detector]
        return replace(self, **{kind: {**held, detector: replace(one, image=change(one.image.copy()))}})


@dataclass(frozen=True)
class Night:
    """A camera in its true state, and the products that were made of its frames."""

    room: Darkroom = field(default_factory=Darkroom)
    inputs: int = 20

    def ids(self, kind: str) -> list[int]:
        """Give the exposures of the inputs."""
        return list(range(FIRST[kind], FIRST[kind] + self.inputs))

    def later(self, kind: str, number: int) -> list[int]:
        """Give other exposures."""
        return list(range(FIRST[kind] + LATER, FIRST[kind] + LATER + number))

    def expose(self, kind: str, detector: int, exposure: int, room: Darkroom | None = None, **more: Any) -> Raws:
        return (room or self.room).expose(detector, exposure, kind, more.pop("seconds", SECONDS[kind]), **more)

    @cached_property
    def products(self) -> Products:
        """Combine the inputs, as the steps of the campaign do."""
        bias, dark, defects = {}, {}, {}
        flats: dict[int, list[F32]] = {}
        for d in self.room.detectors:
            detector, truth = self.room.camera.detectors[d], self.room.truths[d]
            y, x = np.nonzero(truth.hot | truth.dead | truth.vampire | truth.edge)
            defects[d] = Defects(np.column_stack([x, y, np.ones_like(x), np.ones_like(x)]).astype(np.int64))
            raws = {kind: [self.expose(kind, d, e) for e in self.ids(kind)] for kind in KINDS}
            bias[d] = combine([self.room.correct(detector, r)[0] for r in raws["bias"]], self.ids("bias"))
            held: dict[str, Any] = {"bias": bias[d], "defects": defects[d]}
            seconds = SECONDS["dark"]
            darks = [self.room.correct(detector, r, seconds, bias=bias[d])[0] for r in raws["dark"]]
            dark[d] = combine(darks, self.ids("dark"), [seconds] * self.inputs)
            held["dark"] = dark[d]
            flats[d] = [self.room.correct(detector, r, SECONDS["flat"], **held)[0] for r in raws["flat"]]
        means = [float(np.mean([np.nanmean(flats[d][k]) for d in flats])) for k in range(self.inputs)]
        flat = {d: combine(images, self.ids("flat"), means) for d, images in flats.items()}
        return Products(bias, dark, flat, defects, tuple(means))

    def applied(self, kind: str, products: Products, detector: int) -> list[applied.Applied]:
        made = {"bias": products.bias[detector]}
        if kind != "bias":
            made["dark"] = products.dark[detector]
        if kind == "flat":
            made["flat"] = products.flat[detector]
        scales: Mapping[str, tuple[float, ...]] = {"dark": (SECONDS["dark"],) * self.inputs, "flat": products.light}
        return [applied.Applied(name, one.exposures, scales.get(name, ())) for name, one in made.items()]

    def frame(
        self, kind: str, detector: int, exposure: int, room: Darkroom | None = None, products: Products | None = None,
        use: Detector | None = None, header: Header | None = None, raws: Callable[[Raws], Raws] | None = None,
        also: Mapping[str, Any] = MappingProxyType({}), **more: Any,
    ) -> Frame:  # fmt: skip
        """Expose, correct and describe one frame.

        ``room`` is the camera as it is now (by default as it was), ``use`` the detector with the gains and read noises
        in use, ``raws`` a change of the raw pixels, ``also`` further calibrations, ``more`` parameters of the exposure,
        and ``claimed`` the dark time that its header claims.
        """
        products, use = products or self.products, use or self.room.camera.detectors[detector]
        claimed = more.pop("claimed", None)
        seconds = more.get("seconds", SECONDS[kind])
        taken = self.expose(kind, detector, exposure, room, **more)
        taken = raws(taken) if raws else taken
        seconds = claimed or seconds
        held: dict[str, Any] = {"bias": products.bias[detector], "defects": products.defects[detector], **also}
        if kind != "bias":
            held["dark"] = products.dark[detector]
        image, saturated = self.room.correct(use, taken, seconds, **held)
        if kind == "flat":
            flat = products.flat[detector]
            image = np.where(flat.bad, np.float32(np.nan), image / np.where(flat.bad, 1, flat.image))
        return Frame(
            exposure, kind, use, image, IsrConfig.from_plain(dict(ISR)), self.room.scale,
            seconds=seconds, mjd=BEGIN + exposure / 1000, applied=self.applied(kind, products, detector),
            raw=[framed.overscans(raw, a) for raw, a in zip(taken, use.amplifiers, strict=True)], saturated=saturated,
            dark=self._current(kind, detector), response=self._response(kind, detector, products),
            deferrals=also.get("deferrals"), header=header,
        )  # fmt: skip

    def _current(self, kind: str, detector: int) -> NDArray[np.float64] | float:
        dark = self.products.dark[detector]
        return 0.0 if kind == "bias" else applied.means(self.room.camera.detectors[detector], dark.image, dark.bad)

    def _response(self, kind: str, detector: int, products: Products) -> NDArray[np.float64] | float:
        if kind != "flat":
            return 1.0
        flat = products.flat[detector]
        return applied.means(self.room.camera.detectors[detector], flat.image, flat.bad)

    def frames(self, kind: str, exposures: Iterable[int], detectors: Sequence[int] = (), **more: Any) -> list[Frame]:
        return [self.frame(kind, d, e, **more) for d in detectors or self.room.detectors for e in exposures]

    def rows(self, kind: str, exposures: Iterable[int], detectors: Sequence[int] = (), **more: Any) -> Rows:
        """Measure frames and their stacks."""
        return measured(self.frames(kind, exposures, detectors, **more))

    @cached_property
    def limits(self) -> limits.Limits:
        return limits.load("ours", self.room.model)

    def judge(self, *parts: Rows, **more: Any) -> list[Line]:
        """Judge rows and those derived from them."""
        some = rows.join(parts)
        return judging.judge(rows.join([some, derive.derive(some, **more)]), self.limits, self.room.model)


def measured(frames: Sequence[Frame]) -> Rows:
    """Measure frames and the stack of each detector."""
    parts = [Rows.of(evaluate.evaluate(one)) for one in frames]
    for detector in sorted({one.detector.id for one in frames}):
        shares = [stack.share(one) for one in frames if one.detector.id == detector]
        parts.append(Rows.of(stack.stacked(shares, frames[0].mjd)))
    return rows.join(parts)


def named(found: Sequence[Line]) -> set[tuple[str, str]]:
    """Give test and place of all that fails."""
    return {(one.test, one.where) for one in lines.findings(found)}


def light(room: Darkroom, exposure: int, **more: Any) -> float:
    """Give the light of a flat, electron."""
    parameters = {"exposure": exposure, "observation_type": "flat", "physical_filter": "r_03", "exposure_time": 5.0}
    return simulate.light(room.seed, parameters | more, room.settings)
