"""The datasets of a `butler export-calibs` folder, each with the dates for which the export finds it.

The search of an export goes through its chains in their order, as the Butler's
does: where two collections hold a calibration for the same time, the first one
counts, and the other is valid for the rest of its range.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from campaign.butler.records import FIRST, LAST, to_iso, to_nsec
from campaign.documents import BUTLER_TAGS, MAX_FILE_BYTES, load, plain, read_text
from campaign.errors import ConfigurationError
from campaign.imports.sources import EXPORT, SUMS, Range, Source
from campaign.problems import Problem, Problems
from campaign.template.vocabulary import is_collection
from campaign.validation import sentences
from campaign.wording import count

#: First part of the versions of the document that are understood.
VERSION: Final = "1"

Span = tuple[int, int]


def _collection(name: str) -> str:
    """Require a name that leads nowhere else: a RUN's name is a part of its files' paths."""
    if not is_collection(name):
        raise ValueError("is no name of a collection")
    return name


Name = Annotated[str, AfterValidator(_collection)]


class _File(BaseModel):
    dataset_id: list[UUID]
    data_id: list[dict[str, int | str]]
    path: str


class _Datasets(BaseModel):
    type: Literal["dataset"]
    dataset_type: str
    run: Name
    records: list[_File]


class _Timespan(BaseModel):
    begin: str | None
    end: str | None


class _Validity(BaseModel):
    timespan: _Timespan
    dataset_ids: list[UUID]


class _Associations(BaseModel):
    type: Literal["associations"]
    collection: str
    collection_type: str
    validity_ranges: list[_Validity] = []


class _Collection(BaseModel):
    type: Literal["collection"]
    collection_type: str
    name: str
    children: list[str] = []


class _Dimension(BaseModel):
    type: Literal["dimension"]
    element: str
    records: list[dict[str, Any]]


class _Detector(BaseModel):
    instrument: str
    id: int
    full_name: str


class _Other(BaseModel):
    type: Literal["dataset_type"]


Part = Annotated[_Datasets | _Associations | _Collection | _Dimension | _Other, Field(discriminator="type")]


class _Document(BaseModel):
    version: str
    data: list[Part]


@dataclass(frozen=True)
class Export:
    """An export, as far as it is imported."""

    sources: tuple[Source, ...]
    #: Names of detectors by instrument and id.
    detectors: Mapping[tuple[str, int], str]
    #: What was left out or cut, and why.
    notes: tuple[str, ...]


def read(folder: Path) -> Export:
    """Read the document of an export.

    Raises
    ------
    ConfigurationError
        It cannot be read, or names files outside the folder.
    """
    path = folder / EXPORT
    try:
        tree = load(path, BUTLER_TAGS)
        content = plain(tree) if isinstance(tree.value, dict) else {}
        document = _Document.model_validate(content | {"version": str(content.get("version", ""))})
        if document.version.split(".")[0] != VERSION:
            raise ValueError(f"version {document.version} is not understood, {VERSION}.x is")
        return _export(folder.absolute(), document)
    except ValidationError as error:
        raise Problems(str(path), [Problem(text) for text in sentences(error, content, None, tree)]) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(path)) from error


def _export(folder: Path, document: _Document) -> Export:
    collections = [part for part in document.data if isinstance(part, _Collection)]
    associations = [part for part in document.data if isinstance(part, _Associations)]
    dimensions = [part for part in document.data if isinstance(part, _Dimension) and part.element == "detector"]
    detectors = [_Detector.model_validate(one) for part in dimensions for one in part.records]
    spans = _spans(associations)
    known = dict(_datasets(folder, document, _sums(folder)))
    order = _order(collections, associations)
    found, hidden, cut = _found(known, spans, order)
    notes = []
    if rest := len(known) - len(found) - hidden:
        notes.append(f"{count(rest, 'dataset')} of the export certified in none of its collections: left out")
    if hidden:
        notes.append(f"{count(hidden, 'dataset')} of the export found for no date, another being in front: left out")
    if cut:
        notes.append(f"{count(cut, 'dataset')} of the export valid for a part of the range, another being in front")
    names = {(one.instrument, one.id): one.full_name for one in detectors}
    return Export(tuple(found), names, tuple(notes))


def _sums(folder: Path) -> dict[str, str]:
    """Read the sums of an export's files, by path below its folder; none where it has none."""
    path = folder / SUMS
    lines = read_text(path, MAX_FILE_BYTES).splitlines() if path.exists() else ()
    return {name[1:]: digest for digest, _, name in (line.partition(" ") for line in lines)}


def _datasets(folder: Path, document: _Document, sums: Mapping[str, str]) -> Iterable[tuple[str, Source]]:
    problems, seen = [], set[str]()
    for part in document.data:
        if not isinstance(part, _Datasets):
            continue
        for file in part.records:
            path = folder / file.path
            if len(file.dataset_id) != 1 or len(file.data_id) != 1:
                problems.append(Problem("holds several datasets in one file", file.path))
            elif not path.resolve().is_relative_to(folder.resolve()):
                problems.append(Problem("lies outside the export", file.path, "export with --transfer copy"))
            else:
                (identity,), (data_id,) = file.dataset_id, file.data_id
                name = str(identity)
                if name in seen:
                    problems.append(Problem(f"has the id of another file, {name}", file.path))
                seen.add(name)
                yield (
                    name,
                    Source(
                        str(path),
                        dataset_type=part.dataset_type,
                        data_id=dict[str, Any](data_id),
                        dataset_id=name,
                        run=part.run,
                        sha256=sums.get(file.path, ""),
                    ),
                )
    if problems:
        raise Problems(str(folder / EXPORT), problems)


def _spans(associations: Sequence[_Associations]) -> dict[str, dict[str, list[Span]]]:
    """Give the ranges of each CALIBRATION collection, by dataset."""
    found: dict[str, dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for part in associations:
        for one in part.validity_ranges:
            span = _span(one.timespan)
            for name in map(str, one.dataset_ids):
                found[part.collection][name].append(span)
    return found


def _span(said: _Timespan) -> Span:
    """Read a range, as far as the Butler can have it.

    Raises
    ------
    ValueError
        It is empty, or its ends are no times.
    """
    first, last = to_nsec(FIRST), to_nsec(LAST)
    begin, end = (
        instead if time is None else min(max(to_nsec(time.replace(" ", "T", 1)), first), last)
        for time, instead in ((said.begin, first), (said.end, last))
    )
    if begin >= end:
        raise ValueError(f"the validity range from {said.begin} to {said.end} is empty")
    return begin, end


def _order(collections: Sequence[_Collection], associations: Sequence[_Associations]) -> list[str]:
    """List the CALIBRATION collections in the order of the search: those of outermost chains first."""
    chains = {one.name: one.children for one in collections if one.collection_type == "CHAINED"}
    inner = {child for children in chains.values() for child in children}
    names: dict[str, None] = {}

    def add(name: str, above: tuple[str, ...] = ()) -> None:
        if name in chains and name not in above:
            for child in chains[name]:
                add(child, (*above, name))
        names[name] = None

    for name in chains:
        if name not in inner:
            add(name)
    if unreached := chains.keys() - names:
        raise ValueError(f"the chain {min(unreached)} is within itself")
    for one in associations:
        add(one.collection)
    return [name for name in names if name not in chains]


def _found(
    known: Mapping[str, Source], spans: Mapping[str, Mapping[str, Sequence[Span]]], order: Sequence[str]
) -> tuple[list[Source], int, int]:
    """Give each dataset the ranges for which it is found; count those found never, and for a part only."""
    taken: dict[tuple[Any, ...], list[Span]] = defaultdict(list)
    ranges: dict[str, list[Span]] = defaultdict(list)
    certified: dict[str, list[Span]] = defaultdict(list)
    for collection in order:
        new = []
        for name, some in spans.get(collection, {}).items():
            if name not in known:
                continue
            source = known[name]
            key = (source.dataset_type, *sorted((k, str(v)) for k, v in source.data_id.items()))
            certified[name] += some
            ranges[name] += [piece for span in some for piece in without(span, taken[key])]
            new += [(key, span) for span in some]
        for key, span in new:
            taken[key].append(span)
    found = [
        replace(known[name], ranges=tuple(_range(span) for span in sorted(some)))
        for name, some in ranges.items()
        if some
    ]
    hidden = sum(not ranges[name] for name in certified)
    whole = {name: sum(end - begin for begin, end in set(some)) for name, some in certified.items()}
    cut = sum(bool(some) and sum(end - begin for begin, end in some) < whole[name] for name, some in ranges.items())
    return found, hidden, cut


def without(span: Span, others: Iterable[Span]) -> list[Span]:
    """Give the parts of a range that no other covers."""
    left = [span]
    for begin, end in others:
        left = [piece for a, b in left for piece in ((a, min(b, begin)), (max(a, end), b)) if piece[0] < piece[1]]
    return left


def _range(span: Span) -> Range:
    begin, end = map(to_iso, span)
    return (None if begin == FIRST else begin), (None if end == LAST else end)
