"""Header cards of simulated frames of any camera, by the table that reads its real ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from campaign.camera.headertable import Field, TypeRule, parts, pattern
from campaign.camera.model import Camera
from campaign.errors import ConfigurationError
from campaign.simulation.shots import PREFIX, Exposure

if TYPE_CHECKING:
    from campaign.camera.parts import Detector

#: Between the alternatives of a rule's pattern, and around its optional parts.
_OPERATORS: Final = re.compile(r"[|()?*+\\]")


def require_writable(camera: Camera) -> None:
    """Refuse a camera whose headers and files cannot be made up from its camera file.

    Raises
    ------
    ConfigurationError
        With all reasons.
    """
    if found := list(_obstacles(camera)):
        raise ConfigurationError(
            f"frames of {camera.name} cannot be simulated: {'; '.join(found)}",
            do="change a copy of the camera file, and simulate with that",
        )


def _obstacles(camera: Camera) -> Iterator[str]:
    table = camera.translation
    if camera.name in PREFIX:
        return
    if 0 not in table.headers:
        yield "its header is not read from HDU 0"
    if table.exposure_ids != "timestamp":
        yield f"its exposure_ids are {table.exposure_ids}, not timestamp"
    for field, (source, *_) in table.keywords.items():
        if parts(source) != (source,):
            yield f"{field} is composed of keywords ({source})"
    for name, kind in camera.types.items():
        numbers = sorted({a.hdu for a in kind.amplifiers if isinstance(a.hdu, int)})
        if (numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers)))) or numbers[:1] > [1]:
            yield f"the HDUs of type {name} are not numbered on from 0 or 1"
        if any(a.leftwards for a in kind.amplifiers) or kind.signed:
            yield "amplifiers that are read leftwards, and negative pixels, are not simulated"


def cards(camera: Camera, detector: Detector, shot: Exposure) -> dict[str, Any]:
    """Make the cards of a frame's header; `campaign.camera.translation.translate` reads ``shot`` back from them.

    Raises
    ------
    ConfigurationError
        No rule of the camera file gives this type of exposure.
    """
    table = camera.translation
    rule = next((rule for rule in table.types if rule.type == shot.observation_type), None)
    values: dict[Field, Any] = {
        "exposure_time": float(shot.exposure_time),
        "dark_time": float(shot.dark_time),
        "begin": shot.begin,
        "observation_reason": shot.reason,
        "science_program": shot.program,
        "obs_id": shot.obs_id,
        "physical_filter": _filter(camera, shot.physical_filter),
        "detector": detector.name,
    }
    if rule is not None:
        values |= {name: example(text) for name, text in rule.when.items() if name not in values}
    if values.get("observation_type") is None:
        raise ConfigurationError(
            f"{camera.name} has no frames of type {shot.observation_type} that the simulator could label",
            do=f"add a rule under translation: types; there are {', '.join(_types(table.types))}",
        )
    accepted = {keyword: accepts[0] for keyword, accepts in table.accept.items()}
    found = {table.keywords[name][0]: value for name, value in values.items() if name in table.keywords}
    return {**accepted, **{keyword: value for keyword, value in found.items() if value is not None}}


def _types(rules: tuple[TypeRule, ...]) -> list[str]:
    return sorted({rule.type for rule in rules})


def _filter(camera: Camera, name: str | None) -> str | None:
    """Spell a physical filter as headers have it."""
    labels: Mapping[str, str] = camera.translation.filters
    return next((label for label, meant in labels.items() if meant == name), name)


def example(text: str) -> str | None:
    """Give a value that a rule's pattern matches, or `None` where none of its words alone does.

    Examples
    --------
    >>> example("flat field|flat frame")
    'flat field'
    >>> example("(sky,|dome,)?flat(,sky)?")
    'flat'
    """
    return next((word for word in _OPERATORS.split(text) if word and pattern(text).fullmatch(word)), None)
