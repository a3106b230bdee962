"""Cameras as data: detectors, amplifier boxes, gains, filters, header translation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import StringConstraints, ValidationError

from campaign.camera.check import place_of, problems
from campaign.camera.headertable import Translation, suggest
from campaign.camera.parts import CcdType, Detector, Filter, Name, Part, PositiveInt
from campaign.camera.section import Section, cut, shrink
from campaign.documents import Entry, parse, read_text
from campaign.documents import plain as plain_of
from campaign.errors import ConfigurationError
from campaign.jobs.file import write_text
from campaign.problems import Problem
from campaign.validation import line_of, sentences
from templates import ROOT

FOLDER = ROOT / "cameras"


class Camera(Part):
    """A camera file, checked."""

    version: Literal[1]
    #: The Butler's instrument name.
    name: Name
    #: The Butler's instrument class.
    class_name: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    #: Unit of calibration products: ``electron`` or ``adu``.
    unit: Literal["electron", "adu"]
    #: Divisor of the imaging area.
    scale: PositiveInt = 1

    filters: tuple[Filter, ...]
    #: Rules for reading the header of a raw frame.
    translation: Translation

    types: dict[str, CcdType]
    detectors: tuple[Detector, ...]

    @cached_property
    def by_id(self) -> Mapping[int, Detector]:
        """Detectors by id."""
        return {d.id: d for d in self.detectors}

    @cached_property
    def by_name(self) -> Mapping[str, Detector]:
        """Detectors by name."""
        return {d.name: d for d in self.detectors}

    @cached_property
    def bands(self) -> Mapping[str, str]:
        """Band by physical filter."""
        return {f.name: f.band for f in self.filters}

    def detector_ids(self, purpose: str = "SCIENCE") -> tuple[int, ...]:
        """List the ids of the detectors of a purpose, ascending."""
        return tuple(sorted(d.id for d in self.detectors if d.purpose == purpose))

    def without_overscan(self, detector: int) -> bool:
        """Whether an amplifier of the detector has no overscan, so that its level stays in the frames."""
        return not all(a.overscans for a in self.types[self.by_id[detector].type].amplifiers)

    def plain(self, detectors: Iterable[int]) -> dict[str, Any]:
        """Give the geometry of some detectors as a job's ``camera`` section.

        Raises
        ------
        ConfigurationError
            The camera has no such detector.
        """
        wanted = sorted(set(detectors))
        missing = [d for d in wanted if d not in self.by_id]
        if missing:
            known = f"{min(self.by_id)} to {max(self.by_id)}"
            raise ConfigurationError(f"{self.name} has no detector {missing[0]}", do=f"its detectors are {known}")
        chosen = [self.by_id[d] for d in wanted]
        types = {d.type: _plain_type(self.types[d.type]) for d in chosen}
        aliases = [name for name in self.translation.accept.get("INSTRUME", ()) if name != self.name]
        plain = {"name": self.name, "aliases": aliases, "unit": self.unit, "scale": self.scale, "types": types}
        return {**plain, "detectors": [_plain_detector(d, self.types[d.type]) for d in chosen]}

    def scaled(self, n: int) -> Camera:
        """Divide the imaging area by ``n``; prescan and overscans keep their width.

        Raises
        ------
        ConfigurationError
            An amplifier would keep less than one pixel.
        """
        if n == 1:
            return self
        types = {name: _scaled_type(kind, n) for name, kind in self.types.items()}
        plain = {**self.model_dump(), "scale": self.scale * n, "types": types}
        return build(plain, f"{self.name} at scale {self.scale * n}")

    def dump(self, path: str | Path) -> None:
        """Write a camera file that loads back equal."""
        write_text(Path(path), self.text())

    def text(self) -> str:
        """Give the camera file's text: one filter, amplifier and detector a line."""
        return "".join(_lines(self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)))


def flow(value: Any) -> str:
    """Write a value as one line of YAML, a bare scalar without the document's end mark."""
    text = yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=True, width=100000)
    return text.removesuffix("\n").removesuffix("\n...")


def _lines(plain: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Write nested mappings in block style, and each item of a list of tables on one line."""
    for key, value in plain.items():
        head = f"{indent}{flow(key)}:"
        if isinstance(value, dict) and any(isinstance(v, dict | list) for v in value.values()):
            yield f"{head}\n"
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield "\n".join([head, *(f"{indent}  - {flow(item)}" for item in value), ""])
        else:
            yield f"{head} {flow(value)}\n"


def _plain_type(kind: CcdType) -> dict[str, Any]:
    return {
        "size": list(kind.size),
        "pixel_um": kind.pixel_um,
        "adc_max": kind.adc_max,
        "amplifiers": [
            {
                "name": a.name,
                "hdu": a.hdu,
                "raw": list(a.raw),
                "data": a.data.box,
                "serial_overscan": a.serial_overscan and a.serial_overscan.box,
                "parallel_overscan": a.parallel_overscan and a.parallel_overscan.box,
                "target": a.target.box,
                "flip_x": a.target.flip_x,
                "flip_y": a.target.flip_y,
                **({"leftwards": True} if a.leftwards else {}),
                **({"signed": True} if kind.signed else {}),
            }
            for a in kind.amplifiers
        ],
    }


def _plain_detector(d: Detector, kind: CcdType) -> dict[str, Any]:
    own = ("id", "name", "type", "position_mm", "yaw_deg", "gains", "read_noises")
    saturations = list(d.saturations or [kind.saturation] * len(d.gains))
    return {**d.model_dump(mode="json", include=set(own)), "saturations": saturations}


def _scaled_type(kind: CcdType, n: int) -> dict[str, Any]:
    targets = [a.target for a in kind.amplifiers]
    if min(min(t.nx, t.ny) for t in targets) < n:
        raise ConfigurationError(f"scale {n} leaves nothing of an amplifier of {targets[0].nx}x{targets[0].ny} pixels")
    xs = shrink((v for t in targets for v in (t.x0, t.x1)), n)
    ys = shrink((v for t in targets for v in (t.y0, t.y1)), n)
    amplifiers = []
    for a in kind.amplifiers:
        t, frame = a.target, cut(Section(0, 0, *a.raw), a.data, n)
        target = Section(xs[t.x0], ys[t.y0], xs[t.x1] - xs[t.x0], ys[t.y1] - ys[t.y0], t.flip_x, t.flip_y)
        boxes = {name: cut(box, a.data, n) for name, box in {"data": a.data, **a.overscans}.items()}
        amplifiers.append({**a.model_dump(), "raw": (frame.nx, frame.ny), "target": target, **boxes})
    size = (max(xs.values()), max(ys.values()))
    return {**kind.model_dump(), "size": size, "pixel_um": kind.pixel_um * n, "amplifiers": amplifiers}


def build(plain: Any, where: str, tree: Entry | None = None) -> Camera:
    """Check a camera's plain data and freeze it; ``tree`` is the same data with the lines of the file.

    Raises
    ------
    ConfigurationError
        Every problem that was found, one a line.
    """
    try:
        camera = Camera.model_validate(plain)
        found = list(problems(camera.filters, camera.detectors, camera.types, camera.translation))
        found = [f"{line_of(tree, place_of(text, plain))}: {text}" for text in found] if tree else found
    except ValidationError as error:
        found = sentences(error, plain, Camera, tree)
    if found:
        raise ConfigurationError("\n  - ".join([f"problems in the camera file: {len(found)}", *found]), where=where)
    return camera


def known() -> list[str]:
    """Names of the packaged cameras."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def load(name_or_path: str | Path) -> Camera:
    """Load a packaged camera by name, or a camera file.

    Raises
    ------
    ConfigurationError
        There is no such camera, or the file has problems; the error lists all of them.
    """
    names, path = known(), Path(name_or_path)
    if str(name_or_path) in names:
        path = FOLDER / f"{name_or_path}.yaml"
    elif not path.is_file():
        raise ConfigurationError(
            f"no camera {str(name_or_path)!r}", do=f"{suggest(str(name_or_path), names)}, or give the path of a file"
        )
    try:
        return _read(str(path), read_text(path))
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"not a camera file: {error}", where=str(path)) from error


@lru_cache(maxsize=2)  # a command takes its camera several times, and a large one takes a fifth of a second
def _read(path: str, text: str) -> Camera:
    """Read the text of a camera file."""
    found: list[Problem] = []
    tree = parse(text, path, found)
    if tree is None or found:
        raise ConfigurationError("\n  - ".join(["not a camera file:", *map(str, found)]), where=path)
    return build(plain_of(tree), path, tree)
