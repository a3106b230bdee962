"""Decide what an import registers: dataset types, data IDs, RUNs, collections and validity of every file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from campaign.camera.model import Camera
from campaign.certification.certify import overlap
from campaign.errors import ConfigurationError
from campaign.imports.examine import Found
from campaign.imports.sources import SUMS, Range, Source
from campaign.kinds import table
from campaign.problems import Problem, Problems, suggest
from campaign.template.vocabulary import is_collection

Key = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Names:
    """Names of an import's collections: those that `campaign certify` gives a ticket's products."""

    instrument: str
    ticket: str
    tag: str
    cert_rerun: str
    #: ``$USER_CALIB_PREFIX``.
    prefix: str = ""

    @property
    def chain(self) -> str:
        """The ticket's chain."""
        return f"{self.prefix}{self.instrument}/calib/{self.ticket}"

    def target(self, dataset_type: str) -> str:
        """Name the CALIBRATION collection of a dataset type."""
        return f"{self.chain}/{self.tag}/{dataset_type}.{self.cert_rerun}"

    def run(self, dataset_type: str, date: str) -> str:
        """Name the RUN of the files that are valid from a date."""
        return f"{self.chain}/{self.tag}/{dataset_type}Import.{self.cert_rerun}/{date}"

    def require(self) -> None:
        """Refuse names that no collection can have.

        Raises
        ------
        ConfigurationError
            A part is empty, or cannot be a part of a name.
        """
        parts = {"--ticket": self.ticket, "--tag": self.tag, "--cert-rerun": self.cert_rerun}
        for option, text in parts.items():
            if not text or not is_collection(text) or (option == "--ticket" and "/" in text):
                raise ConfigurationError(f"{option} {text!r} cannot be a part of a collection's name")


@dataclass(frozen=True)
class Item:
    """A calibration that the import registers."""

    found: Found
    dataset_type: str
    data_id: Mapping[str, Any]
    run: str
    ranges: tuple[Range, ...]
    #: In the repository that it comes from; empty: made from type, data ID and RUN.
    dataset_id: str = ""

    @property
    def key(self) -> Key:
        """The data ID, comparable."""
        return key_of(self.data_id)

    @property
    def text(self) -> str:
        """The dataset, for messages."""
        return " ".join([self.dataset_type, *(f"{k} {v}" for k, v in self.key if k != "instrument")])


def key_of(data_id: Mapping[str, Any]) -> Key:
    """Make a data ID comparable."""
    return tuple(sorted(data_id.items()))


def plan(sources: Sequence[Source], found: Sequence[Found], camera: Camera, names: Names) -> tuple[list[Item], int]:
    """Decide on every file; also count the files of dataset types that this program does not know.

    Parameters
    ----------
    sources, found : sequences
        What is said of each file, and what it says itself.

    Raises
    ------
    Problems
        With every file that cannot be imported, and the reason.
    """
    items, problems, unknown = list[Item](), list[Problem](), 0
    for source, one in zip(sources, found, strict=True):
        if source.dataset_type and source.dataset_type not in table.dataset_types():
            unknown += 1
            continue
        wrong = [one.error] if one.error else list(_objections(source, one, camera))
        problems += [Problem(text, source.path) for text in wrong]
        if not wrong:
            items.append(_item(source, one, camera, names))
    problems += _overlaps(items)
    if problems:
        do = "nothing was changed: mend these files or leave them out, and give the same command again"
        raise Problems("nothing is imported", problems, do)
    return items, unknown


def type_of(source: Source, found: Found) -> str:
    """Name the dataset type of a file: an export's, else the name of its kind."""
    return source.dataset_type or found.kind


def _objections(source: Source, found: Found, camera: Camera) -> Iterator[str]:
    """Say why a file that can be read is not what its place, or its export, says."""
    if source.sha256 not in ("", found.source):
        yield f"its bytes are not those of its SHA-256 in {SUMS}"
        return
    name = type_of(source, found)
    declared, kind = table.dataset_types().get(name), table.of_dataset(name)
    if declared is None or kind is None or not declared.calibration:
        known = [name for name, one in table.dataset_types().items() if one.calibration]
        yield f"{name} is no calibration that can be certified here: {suggest(name, known)}"
        return
    if kind.name != found.kind:
        yield f"is {found.obstype} (OBSTYPE), the export has it as {name}"
    if source.kind and source.kind.lower() not in (found.kind, found.obstype.lower()):
        yield f"is {found.obstype} (OBSTYPE), its folder is {source.kind}"
    detector = camera.by_id[found.detector].name
    if source.detector and source.detector.lower() != detector.lower():
        yield f"is of detector {detector}, its folder is {source.detector}"
    data_id = _data_id(source, found, camera)
    if "physical_filter" in declared.dimensions and data_id["physical_filter"] not in camera.bands:
        text = data_id["physical_filter"] or "none"
        yield f"a {name} is of one filter, {text} is no filter of {camera.name}: --filter names it"
    for key, value in source.data_id.items():
        if key in data_id and data_id[key] != value:
            yield f"is of {key} {data_id[key]}, the export has it as {value}"


def _data_id(source: Source, found: Found, camera: Camera) -> dict[str, Any]:
    data_id: dict[str, Any] = {"instrument": camera.name, "detector": found.detector}
    if "physical_filter" in table.dataset_types()[type_of(source, found)].dimensions:
        data_id["physical_filter"] = found.physical_filter or source.data_id.get("physical_filter", "")
    return data_id


def _item(source: Source, found: Found, camera: Camera, names: Names) -> Item:
    name = type_of(source, found)
    begin = source.ranges[0][0] or "1970-01-01T00:00:00"
    date = source.date or begin.partition(".")[0].replace("-", "").replace(":", "")
    data_id = _data_id(source, found, camera)
    return Item(found, name, data_id, source.run or names.run(name, date), source.ranges, source.dataset_id)


def _overlaps(items: Sequence[Item]) -> Iterator[Problem]:
    """Find files that would be valid for one detector at the same time."""
    groups: dict[tuple[str, Key], list[Item]] = {}
    for item in items:
        groups.setdefault((item.dataset_type, item.key), []).append(item)
    for some in groups.values():
        for a, b in combinations(some, 2):
            if a.run == b.run or any(overlap(one, other) for one in a.ranges for other in b.ranges):
                yield Problem(
                    f"{b.text}: is valid at the same time as {a.found.path}",
                    b.found.path,
                    "import them by two commands, with other dates or another --cert-rerun",
                )
