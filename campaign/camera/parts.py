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
    """Read-out channel of a CCD type.

    Parameters
    ----------
    hdu : `str` or `int`
        EXTNAME, or the HDU's number (0 the primary).
    raw : `tuple` [`int`, `int`]
        Width and height of the HDU, prescan and overscan included, pixels.
    data, serial_overscan, parallel_overscan : `Section`
        Regions of the HDU.
    target : `Section`
        Region of ``data`` on the assembled detector; a range written backwards
        mirrors it.
    read_from : `str`, optional
        Side of the frame that is read first, ``left`` or ``right``; by default
        the side opposite the serial overscan.
    """

    name: str
    hdu: str | int
    raw: tuple[PositiveInt, PositiveInt]
    data: Box
    serial_overscan: Box | None = None
    parallel_overscan: Box | None = None
    target: Box
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
    """Type of CCD: the properties that its detectors share.

    Parameters
    ----------
    size : `tuple` [`int`, `int`]
        Width and height of the assembled image, pixels.
    adc_max : `int`
        Largest raw value that the electronics can write, ADU.
    saturation : `float`, optional
        Electron; for detectors without figures of their own.
    signed : `bool`
        Whether the upper half of an unsigned frame's range stands for negative
        numbers.
    """

    size: tuple[PositiveInt, PositiveInt]
    pixel_um: PositiveFloat
    adc_max: PositiveInt
    saturation: PositiveFloat | None = None
    signed: bool = False
    amplifiers: tuple[Amplifier, ...]


class Detector(Part):
    """CCD: its place in the focal plane, and figures of each amplifier.

    Parameters
    ----------
    position_mm, yaw_deg
        Centre in focal-plane coordinates, and rotation, counter-clockwise.
    gains : `tuple` [`float`]
        Electron / ADU, by amplifier.
    read_noises : `tuple` [`float`]
        Electron, by amplifier.
    saturations : `tuple` [`float`], optional
        Electron, by amplifier.
    """

    id: int
    name: Name
    raft: NameOrNone = ""
    slot: NameOrNone = ""
    type: str
    serial: str = ""
    purpose: Literal["SCIENCE", "GUIDER", "WAVEFRONT"] = "SCIENCE"
    position_mm: tuple[Real, Real] = (0.0, 0.0)
    yaw_deg: Real = 0.0
    gains: tuple[PositiveFloat, ...]
    read_noises: tuple[PositiveFloat, ...]
    saturations: tuple[PositiveFloat, ...] | None = None
