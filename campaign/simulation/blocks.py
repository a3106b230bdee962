"""Reads a campaign's ``simulation:`` block: exposures block by block, and truths to certify beforehand.

::

    simulation:
      camera: LSSTComCam
      scale: 16
      seed: 1
      rates: {cti: 8.0e-6}
      calibrations: {LSSTComCam/calib/DM-48650: [crosstalk, linearizer, ptc]}
      exposures:
        - {for: [SELECTION_BIAS], type: bias, day_obs: 20241206, first: 427, count: 10}
        - {for: [SELECTION_FLAT_r], type: flat, filter: r_03, day_obs: 20241111, first: 17, count: 20, time: 10}
        - {for: [], type: bias, day_obs: 20241206, first: 1, count: 1}     # selected by nothing

``time``, ``electrons``, ``sky`` and ``fringe`` are a number, or the first and the last of a ramp;
``spacing: log`` has its values at equal ratios, ``pairs: true`` takes each twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

if TYPE_CHECKING:
    from campaign.camera.model import Camera
    from campaign.simulation.shots import Exposure

Ramp = float | tuple[float, float]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True, allow_inf_nan=False)


class Block(_Model):
    """Consecutive exposures of one kind."""

    #: ``for``: the variables whose selections must find them.
    selected_by: tuple[str, ...] = Field(default=(), alias="for")
    #: ``bias``, ``dark``, ``flat``, ``spot``, ``science``, or ``sky``: science exposures of the night sky.
    type: str
    #: Night, first sequence number, number of exposures.
    day_obs: int
    first: PositiveInt = Field(le=99_999)
    count: PositiveInt = Field(le=99_999)
    #: Sequence numbers that are left out.
    skip: tuple[int, ...] = ()
    #: Physical filter.
    filter: str | None = None
    #: Second.
    time: Ramp = 0.0
    #: Light in a pixel of response 1; by default the lamp's rate x time.
    electrons: Ramp | None = None
    #: Values of a ramp at equal distances, or at equal ratios; each for one exposure, or for two in a row.
    spacing: Literal["even", "log"] = "even"
    pairs: bool = False
    #: Values of the header.
    program: str = "BLOCK-SIM"
    reason: str = ""
    #: See `kernels.simulation.simulate`.
    leak: NonNegativeFloat = 0.0
    jump: float = 0.0
    #: Spots in one amplifier of each detector: the first exposure lights the first amplifier, and so on, in turns.
    spots: NonNegativeInt = 0
    stars: NonNegativeInt = 0
    #: Level of the night sky in a pixel of response 1, electron; amplitude of its fringes, relative.
    sky: Ramp = 0.0
    fringe: Ramp = 0.0
    #: Factor of the photodiode's readings, such as another filter before the diode brings.
    diode_scale: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _ratios(self) -> Self:
        values = (self.time, self.electrons or 0.0, self.sky, self.fringe)
        ramps = [ramp for ramp in values if isinstance(ramp, tuple)]
        if self.spacing == "log" and any(min(ramp) <= 0 for ramp in ramps):
            raise ValueError("spacing: log needs values above 0")
        if any(value < 0 for ramp in values for value in _ends(ramp)):
            raise ValueError("time, electrons, sky and fringe cannot be below 0")
        if self.type == "sky" and (min(_ends(self.sky)) <= 0 or not self.filter):
            raise ValueError("type: sky needs a filter, and a level above 0 (sky: 3000)")
        if self.type != "sky" and (self.sky or self.fringe):
            raise ValueError(f"sky and fringe are of type: sky, this block is type: {self.type}")
        if self.pairs and len(self.numbers) % 2:
            raise ValueError(f"pairs: {len(self.numbers)} exposures are no whole number of pairs")
        return self

    def along(self, ramp: Ramp, n: int) -> float:
        """Give the value of the n-th exposure of the block."""
        if not isinstance(ramp, tuple):
            return ramp
        each = 2 if self.pairs else 1
        at = (n // each) / max(len(self.numbers) // each - 1, 1)
        if self.spacing == "log":
            return ramp[0] * (ramp[1] / ramp[0]) ** at
        return ramp[0] + (ramp[1] - ramp[0]) * at

    @field_validator("day_obs")
    @classmethod
    def _a_date(cls, value: int) -> int:
        datetime.strptime(str(value), "%Y%m%d")
        return value

    @property
    def numbers(self) -> list[int]:
        """Sequence numbers of the block."""
        return [n for n in range(self.first, self.first + self.count) if n not in self.skip]


def _ends(ramp: Ramp) -> tuple[float, ...]:
    return ramp if isinstance(ramp, tuple) else (ramp,)


class Simulation(_Model):
    """Simulation block; see the module's text."""

    camera: str
    scale: PositiveInt = 1
    seed: int = 1
    detectors: tuple[int, ...] = ()
    rates: Mapping[str, Any] = Field(default_factory=dict)
    calibrations: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    exposures: tuple[Block, ...]
    gap: PositiveFloat = 3.0


def exposures(simulation: Simulation, camera: Camera) -> tuple[list[Exposure], dict[str, set[int]]]:
    """List the exposures by time and, by variable, those that its selection must find."""
    from campaign.simulation.shots import exposure_at

    made: list[Exposure] = []
    wanted: dict[str, set[int]] = {}
    for block in simulation.exposures:
        numbers, evening = block.numbers, datetime.strptime(str(block.day_obs), "%Y%m%d") + timedelta(hours=18)
        for k, number in enumerate(numbers):
            electrons = None if block.electrons is None else block.along(block.electrons, k)
            one = exposure_at(
                camera,
                block.day_obs,
                number,
                evening + timedelta(seconds=60.0 * number),
                kind="science" if block.type == "sky" else block.type,
                seconds=block.along(block.time, k),
                physical_filter=block.filter,
                reason=block.reason or block.type,
                program=block.program,
                electrons=electrons,
                leak=block.leak,
                jump=block.jump,
                spots=block.spots,
                lit=k if block.spots else 0,
                stars=block.stars,
                sky=block.along(block.sky, k),
                fringe=block.along(block.fringe, k),
                diode_scale=block.diode_scale,
            )
            made.append(one)
            for name in block.selected_by:
                wanted.setdefault(name, set()).add(one.exposure)
    return sorted(made, key=lambda e: e.exposure), wanted


def problems(simulation: Simulation, variables: Mapping[str, str]) -> Iterator[str]:
    """List contradictions between blocks: numbers taken twice, selections that are no variables."""
    taken: dict[tuple[int, int], int] = {}
    for k, block in enumerate(simulation.exposures, 1):
        for number in block.numbers:
            if other := taken.get((block.day_obs, number)):
                yield f"blocks {other} and {k} both have exposure {number} of {block.day_obs}"
                break
            taken[block.day_obs, number] = k
        for name in block.selected_by:
            if name not in variables:
                yield f"block {k} is for {name}, which is no variable"


def filters(blocks: Sequence[Block]) -> tuple[str, ...]:
    """List the physical filters in use."""
    return tuple(sorted({b.filter for b in blocks if b.filter}))
