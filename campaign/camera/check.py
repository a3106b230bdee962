"""Checks of a camera file beyond its form: boxes, counts, names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from campaign.camera.headertable import Translation
from campaign.camera.parts import Amplifier, CcdType, Detector, Filter

#: Beginning of a problem with one part of the file.
_PART: Final = re.compile(r"type (?P<type>[^,:]+)(?:, amplifier (?P<amplifier>[^:]+))?:|detector (?P<detector>-?\d+) ")


def place_of(text: str, plain: Any) -> list[str | int]:
    """Give the keys and numbers that lead to the part that a problem concerns."""
    found = _PART.match(text)
    if text.startswith("translation"):
        return ["translation"]
    if not found:
        return ["filters"] if "filters" in text else ["detectors"] if "detectors" in text else []
    if found["detector"]:
        numbers = [d.get("id") for d in plain["detectors"]]
        return ["detectors", numbers.index(int(found["detector"]))]
    names = [a.get("name") for a in plain["types"][found["type"]]["amplifiers"]]
    more: list[str | int] = ["amplifiers", names.index(found["amplifier"])] if found["amplifier"] in names else []
    return ["types", found["type"], *more]


def _twice(values: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    return [v for v in values if v in seen or seen.add(v)]  # type: ignore[func-returns-value]


def _amplifier_problems(a: Amplifier, size: tuple[int, int]) -> Iterator[str]:
    for name, box in {"data": a.data, **a.overscans}.items():
        if not box.inside(a.raw):
            yield f"{name} {box} is outside the frame of {a.raw[0]}x{a.raw[1]} pixels"
    for (one, box), (two, other) in itertools.combinations({"data": a.data, **a.overscans}.items(), 2):
        if box.overlaps(other):
            yield f"{one} {box} and {two} {other} overlap"
    if (a.data.nx, a.data.ny) != (a.target.nx, a.target.ny):
        yield f"data {a.data} is {a.data.nx}x{a.data.ny}, target {a.target} is {a.target.nx}x{a.target.ny} pixels"
    if not a.target.inside(size):
        yield f"target {a.target} is outside the detector of {size[0]}x{size[1]} pixels"


def _type_problems(name: str, kind: CcdType) -> Iterator[str]:
    where = f"type {name}"
    if not kind.amplifiers:
        yield f"{where}: no amplifiers"
    for twice in _twice(a.name for a in kind.amplifiers):
        yield f"{where}: two amplifiers are called {twice}"
    for a in kind.amplifiers:
        yield from (f"{where}, amplifier {a.name}: {text}" for text in _amplifier_problems(a, kind.size))
    for a, b in itertools.combinations(kind.amplifiers, 2):
        if a.target.overlaps(b.target):
            yield f"{where}: targets of {a.name} {a.target} and {b.name} {b.target} overlap"
    covered, area = sum(a.target.nx * a.target.ny for a in kind.amplifiers), kind.size[0] * kind.size[1]
    if covered < area:
        yield f"{where}: the targets cover {covered} of the {area} pixels of {kind.size[0]}x{kind.size[1]}"


def _detector_problems(d: Detector, types: Mapping[str, CcdType]) -> Iterator[str]:
    where = f"detector {d.id} {d.name}"
    if d.type not in types:
        yield f"{where}: type {d.type!r} is not one of {', '.join(types)}"
        return
    expected = len(types[d.type].amplifiers)
    for name in ("gains", "read_noises", "saturations"):
        values = getattr(d, name)
        if values is not None and len(values) != expected:
            yield f"{where}: {len(values)} {name} for the {expected} amplifiers of type {d.type}"


def problems(
    filters: Iterable[Filter], detectors: Sequence[Detector], types: Mapping[str, CcdType], translation: Translation
) -> Iterator[str]:
    """Yield every problem of a camera, one sentence each."""
    yield from (f"two filters are called {name}" for name in _twice(f.name for f in filters))
    yield from (f"two detectors have the id {twice}" for twice in _twice(d.id for d in detectors))
    yield from (f"two detectors are called {name}" for name in _twice(d.name for d in detectors))
    yield from (p for name, kind in types.items() for p in _type_problems(name, kind))
    yield from (p for d in detectors for p in _detector_problems(d, types))
    if "detector" not in translation.keywords and len(detectors) != 1:
        yield f"translation: {len(detectors)} detectors, and no keyword tells which one a frame is of"
    known = {f.name for f in filters}
    wanted = {translation.no_filter, *translation.filters.values()}
    yield from (f"translation: {name!r} is not among the filters" for name in sorted(wanted - known))
