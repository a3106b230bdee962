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


#: What pydantic alone would take from texts, too.
Real = Annotated[float, BeforeValidator(typed)]
PositiveFloat = Annotated[pydantic.PositiveFloat, BeforeValidator(typed)]
PositiveInt = Annotated[pydantic.PositiveInt, BeforeValidator(typed)]

#: Names become parts of paths and collections, and keys of the Butler, which takes so many characters.
LONGEST = 32
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=LONGEST)]
NameOrNone = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.+-]*)?$", max_length=LONGEST)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]


class Part(BaseModel):
    """Checked strictly: no unknown key, no infinity, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Filter(Part):
    """A physical filter and the band that it stands for."""

    name: Key
    band: Key


class Amplifier(Part):
    """One read-out channel of a CCD type.

    Parameters
    ----------
    hdu : `str` or `int`
        EXTNAME, or the HDU's number (0 the primary).
    raw : `tuple` [`int`, `int`]
        Width and height of the HDU, prescan and overscan included, pixels.
    data, serial_overscan, parallel_overscan : `Section`
        Regions of the HDU.
    target : `Section`
        Where ``data`` lies on the assembled detector; a range written
        backwards mirrors it on its way there.
    read_from : `str`, optional
        The side of the frame that is read first, ``left`` or ``right``; by
        default the one where the serial overscan is not.
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
        """Whether columns are read from right to left, so that the serial overscan's first is its highest."""
        if self.read_from is None:
            return self.serial_overscan is not None and self.serial_overscan.x0 < self.data.x0
        return self.read_from == "right"

    @property
    def overscans(self) -> dict[str, Section]:
        """The overscan regions that this amplifier has, by name."""
        both = {"serial_overscan": self.serial_overscan, "parallel_overscan": self.parallel_overscan}
        return {name: box for name, box in both.items() if box is not None}


class CcdType(Part):
    """What all detectors of a kind share.

    Parameters
    ----------
    size : `tuple` [`int`, `int`]
        Of the assembled image, pixels.
    adc_max : `int`
        Largest raw value that the electronics can write, ADU.
    saturation : `float`, optional
        electron; for the detectors that have no figures of their own.
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
    """One CCD: its place in the focal plane and, per amplifier, its figures.

    Parameters
    ----------
    position_mm, yaw_deg
        Centre in focal-plane coordinates, and rotation, counter-clockwise.
    gains : `tuple` [`float`]
        electron / ADU.
    read_noises : `tuple` [`float`]
        electron.
    saturations : `tuple` [`float`], optional
        electron.
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
