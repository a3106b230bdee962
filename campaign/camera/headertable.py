"""Table of a camera file for reading the headers of raw frames."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field as Limits
from pydantic import NonNegativeFloat, StringConstraints, field_validator, model_validator

from campaign.camera.parts import Part
from campaign.problems import near

#: Types of the frames that calibrations are made of.
CALIBRATIONS = ("bias", "dark", "flat")
Field = Literal[
    "observation_type",
    "observation_reason",
    "science_program",
    "physical_filter",
    "exposure_time",
    "dark_time",
    "begin",
    "day_obs",
    "seq_num",
    "controller",
    "obs_id",
    "detector",
]

#: An HDU, by number or EXTNAME.
Hdu = int | str

_NEEDED: dict[str, tuple[Field, ...]] = {
    "timestamp": ("observation_type", "exposure_time", "begin"),
    "numbered": ("observation_type", "exposure_time", "begin", "seq_num"),
    "lsst": ("observation_type", "exposure_time", "begin", "day_obs", "seq_num", "controller"),
}


@cache
def pattern(text: str) -> re.Pattern[str]:
    """Compile a rule's pattern, once."""
    return re.compile(text, re.IGNORECASE)


@cache
def parts(source: str) -> tuple[str, ...]:
    """Give the keywords of a source: itself, or those in braces."""
    return tuple(re.findall(r"\{([^{}]+)\}", source)) or (source,)


def normal(source: str) -> str:
    """Spell a source's keywords as headers are searched: in capitals, ESO's without the word HIERARCH."""

    def keyword(text: str) -> str:
        words = text.upper().split()
        return " ".join(words[1:] if words[:1] == ["HIERARCH"] else words)

    if "{" not in source:
        return keyword(source)
    return re.sub(r"\{([^{}]+)\}", lambda match: f"{{{keyword(match[1])}}}", source)


def suggest(value: str, known: Iterable[str]) -> str:
    """Suggest the closest of some short names, and list all."""
    names = sorted(known)
    close = near(value, names, cutoff=0.5)
    return f"{f'did you mean {close}? ' if close else ''}known are {', '.join(names)}"


class TypeRule(Part):
    """Observation type, and the patterns that the header's fields must match for it.

    A pattern is a regular expression for the whole value; case does not matter.
    """

    type: str
    when: dict[Field, str]

    @field_validator("type")
    @classmethod
    def _meant(cls, name: str) -> str:
        """Refuse a near miss of a calibration's type: no selection would find the frames. Other names are free."""
        close = difflib.get_close_matches(name.lower(), CALIBRATIONS, n=1, cutoff=0.75)
        if close and name not in CALIBRATIONS and not name.endswith(CALIBRATIONS):
            raise ValueError(f"is no type of frame that a calibration is made of: did you mean {close[0]}?")
        return name

    @field_validator("when")
    @classmethod
    def _compiles(cls, when: dict[Field, str]) -> dict[Field, str]:
        for text in when.values():
            try:
                pattern(text)
            except re.error as error:
                raise ValueError(f"{text!r} is not a regular expression: {error}") from error
        return when


class Setting(Part):
    """Setting of the camera that all frames of a step must share."""

    #: Sources of its value, in order of preference, as in `Translation`.
    keywords: Annotated[tuple[str, ...], Limits(min_length=1)]
    #: Largest allowed difference of two frames; texts must be equal.
    within: NonNegativeFloat = 0.0


class Translation(Part):
    """Rules for reading the header of a camera's raw frames."""

    #: Accepted values of each keyword. A frame with another value belongs to another camera.
    accept: dict[str, tuple[str, ...]]
    #: Time scale of ``begin`` in the header.
    clock: Literal["tai", "utc"]
    #: ``lsst`` (`lsst_id`), ``timestamp`` (`timestamp_id`) or ``numbered`` (`numbered_id`).
    exposure_ids: Literal["lsst", "timestamp", "numbered"]
    #: HDUs whose keywords are read; the first HDU with a keyword counts.
    headers: tuple[Hdu, ...] = (0,)
    #: Whether the header's DATASEC must be the camera file's.
    datasec: bool = False
    #: Sources of each field, in order of preference: a keyword, or several combined as in ``{RAFTBAY}_{CCDSLOT}``.
    #: Without ``detector`` the camera has one detector.
    keywords: dict[Field, tuple[str, ...]]
    #: The first match gives the observation type.
    types: tuple[TypeRule, ...]
    #: Physical filter of each header value that is not itself a physical filter's name.
    filters: dict[str, str] = Limits(default_factory=dict)
    #: Physical filter of frames without one in the header.
    no_filter: str = "unknown"
    #: Settings that the frames of a step must share.
    agree: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")], Setting] = Limits(
        default_factory=dict
    )

    @field_validator("accept", mode="after")
    @classmethod
    def _normal_accept(cls, accept: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {normal(keyword): values for keyword, values in accept.items()}

    @field_validator("keywords", mode="after")
    @classmethod
    def _normal_keywords(cls, keywords: dict[Field, tuple[str, ...]]) -> dict[Field, tuple[str, ...]]:
        return {field: tuple(map(normal, sources)) for field, sources in keywords.items()}

    @field_validator("headers", mode="after")
    @classmethod
    def _some_headers(cls, headers: tuple[Hdu, ...]) -> tuple[Hdu, ...]:
        if not headers or any(isinstance(hdu, int) and hdu < 0 for hdu in headers):
            raise ValueError("HDUs by number, from 0, or by name were expected")
        return headers

    @model_validator(mode="after")
    def _complete(self) -> Translation:
        missing = [f for f in _NEEDED[self.exposure_ids] if not self.keywords.get(f)]
        if missing:
            raise ValueError(f"keywords are missing for {', '.join(missing)}")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """Give a kernel the means to identify the detector of a frame; see ``kernels.fits.identity``."""
        accept = {keyword: list(values) for keyword, values in self.accept.items()}
        return {
            "accept": accept,
            "detector": list(self.keywords.get("detector", ())),
            **({"headers": list(self.headers)} if self.headers != (0,) else {}),
        }

    def wanted(self) -> list[str]:
        """List the header keywords of the table, each once."""
        sources = [s for field in self.keywords.values() for s in field]
        return list(dict.fromkeys([*self.accept, *(k for s in sources for k in parts(s))]))
