"""Parts of a camera: filters, amplifiers, types of CCD, detectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StringConstraints

from campaign.camera.section import Section
from campaign.numbers import typed


def _parsed(value: Any) -> Any:
    return Section.parse(value) if isinstance(value, str) else value


Box = Annotated[Section, BeforeValidator(_parsed), PlainSerializer(str)]


#: pydantic alone would accept texts too.
Real = Annotated[float, BeforeValidator(typed)]
PositiveFloat = Annotated[pydantic.PositiveFloat, BeforeValidator(typed)]
PositiveInt = Annotated[pydantic.PositiveInt, BeforeValidator(typed)]

#: Most characters that the Butler takes in a key; names also become parts of paths and collections.
LONGEST = 32
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=LONGEST)]
NameOrNone = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.+-]*)?$", max_length=LONGEST)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]


class Part(BaseModel):
    """Part of a camera file, checked strictly: no unknown key, no infinity; frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Filter(Part):
    """Physical filter and its band."""

    name: Key
    band: Key


class Amplifier(Part):
    """Read-out channel of a CCD type."""

    name: str
    #: EXTNAME, or the HDU's number (0 the primary).
    hdu: str | int
    #: Width and height of the HDU, prescan and overscan included, pixels.
    raw: tuple[PositiveInt, PositiveInt]
    #: Regions of the HDU.
    data: Box
    serial_overscan: Box | None = None
    parallel_overscan: Box | None = None
    #: Region of ``data`` on the assembled detector; a range written backwards mirrors it.
    target: Box
    #: Side of the frame that is read first, ``left`` or ``right``; by default the side opposite the serial overscan.
    read_from: Literal["left", "right"] | None = None

    @property
    def leftwards(self) -> bool:
        """Whether columns are read from right to left: the serial overscan then begins at its highest column."""
        if self.read_from is None:
            return self.serial_overscan is not None and self.serial_overscan.x0 < self.data.x0
        return self.read_from == "right"

    @property
    def overscans(self) -> dict[str, Section]:
        """Overscan regions of the amplifier, by name."""
        both = {"serial_overscan": self.serial_overscan, "parallel_overscan": self.parallel_overscan}
        return {name: box for name, box in both.items() if box is not None}


class CcdType(Part):
    """Type of CCD: the properties that its detectors share."""

    #: Width and height of the assembled image, pixels.
    size: tuple[PositiveInt, PositiveInt]

    pixel_um: PositiveFloat
    #: Largest raw value that the electronics can write, ADU.
    adc_max: PositiveInt
    #: Electron; for detectors without figures of their own.
    saturation: PositiveFloat | None = None
    #: Whether the upper half of an unsigned frame's range stands for negative numbers.
    signed: bool = False

    amplifiers: tuple[Amplifier, ...]


class Detector(Part):
    """CCD: its place in the focal plane, and figures of each amplifier."""

    id: int
    name: Name
    raft: NameOrNone = ""
    slot: NameOrNone = ""
    type: str
    serial: str = ""
    purpose: Literal["SCIENCE", "GUIDER", "WAVEFRONT"] = "SCIENCE"
    #: Centre in focal-plane coordinates, and rotation, counter-clockwise.
    position_mm: tuple[Real, Real] = (0.0, 0.0)
    yaw_deg: Real = 0.0
    #: Electron / ADU, by amplifier.
    gains: tuple[PositiveFloat, ...]
    #: Electron, by amplifier.
    read_noises: tuple[PositiveFloat, ...]
    #: Electron, by amplifier.
    saturations: tuple[PositiveFloat, ...] | None = None
