"""`campaign import-calibs`: from the command line's names to an import, and its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.certification.certify import ChainReport, validity_range
from campaign.certification.command import begin_of
from campaign.errors import ConfigurationError, UsageError
from campaign.frames.ingest import camera_of
from campaign.home import Home
from campaign.imports import export
from campaign.imports.bring import Import, Standing, bring
from campaign.imports.examine import Found, examine
from campaign.imports.plan import Item, Names, plan
from campaign.imports.sources import Source, gather, is_export, valid
from campaign.problems import Problem, Problems
from campaign.wording import count

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.camera.model import Camera


@dataclass(frozen=True)
class Request:
    """An import, as the operator asks for it."""

    repository: str
    home: Home
    paths: Sequence[str]
    names: Names
    #: ISO-8601 TAI; `None`: $START_DATE, open.
    begin: str | None = None
    end: str | None = None
    #: Order of the axes of kernels whose files do not say it: ``xy`` or ``yx``.
    kernel_axes: str = ""
    #: Of flats whose files do not name theirs.
    physical_filter: str = ""
    chained: bool = True
    #: Put the calibrations in front of others for the same time, too.
    hide: bool = False
    dry: bool = False
    ranks: int = 1
    #: Variables, for $START_DATE.
    environment: Mapping[str, str] = field(default_factory=dict)


def instrument_of(repository: Repository, said: str | None) -> str:
    """Choose the instrument: the one that is said, else the only one of the repository.

    Raises
    ------
    ConfigurationError
        The repository has no such instrument.
    UsageError
        It has several, or none.
    """
    if said:
        repository.require_instrument(said)
        return said
    known = repository.known_instruments()
    if len(known) != 1:
        raise UsageError(
            f"the repository has {count(len(known), 'instrument')}: {', '.join(known) or 'ingest raws first'}",
            where=repository.root,
            do="give --instrument, or export INSTRUMENT",
        )
    return known[0]


def run(wanted: Request) -> dict[str, Any]:
    """Import calibrations, and record it in the history.

    Returns
    -------
    report : `dict`
        ``new`` and ``existing`` (numbers of calibrations), ``certified`` (number
        of new validity ranges), ``collections`` (a line each), ``chain`` (before
        and after, `None` where it stays), ``notes``, ``dry_run``.

    Raises
    ------
    ConfigurationError, SubmissionRefused, UsageError
        Nothing was changed.
    """
    from campaign.butler.repository import open_repository

    with open_repository(wanted.repository, writeable=not wanted.dry) as repository:
        names = replace(wanted.names, instrument=instrument_of(repository, wanted.names.instrument))
        names.require()
        camera = camera_of(wanted.home, names.instrument)
        options = {"axes": wanted.kernel_axes}
        sources, notes = _sources(wanted, camera)
        found = examine([source.path for source in sources], camera, wanted.ranks, options)
        items, unknown = plan(sources, found, camera, names)
        notes += _remarks(items, found, unknown)
        if not items:
            types = ", ".join(sorted({source.dataset_type for source in sources}))
            raise ConfigurationError(f"no dataset is of a type that is known here: {types}", where=wanted.paths[0])
        decided = Import(camera, names, items, wanted.chained, wanted.hide)
        before, chain = bring(repository, decided, wanted.ranks, options, wanted.dry)
    report = _report(decided, before, chain, notes, wanted.dry)
    if not wanted.dry:
        _note(wanted, decided, report, before.done)
    return report


def _note(wanted: Request, decided: Import, report: Mapping[str, Any], done: bool) -> None:
    """Record an import in the history; one that was ``done`` before only if a killed command has not."""
    detail = {
        "from": [str(Path(path).absolute()) for path in wanted.paths],
        "into": [one["collection"] for one in report["collections"]],
        "count": report["new"] + report["existing"],
        "chain": decided.names.chain if decided.chained else None,
    }
    said = (line["detail"] for line in wanted.home.history() if line["command"] == "import-calibs")
    if not done or not any(detail.items() <= one.items() for one in said):
        wanted.home.record("import-calibs", decided.names.ticket, {**detail, "notes": report["notes"]})


def _sources(wanted: Request, camera: Camera) -> tuple[list[Source], list[str]]:
    """List the files with what is said of them, and remarks."""
    if is_export(wanted.paths):
        if wanted.begin or wanted.end:
            raise UsageError("an export has the dates of its calibrations", do="leave --begin-date and --end-date out")
        found = export.read(Path(wanted.paths[0]))
        _require_detectors(found.detectors, camera, wanted.paths[0])
        if not found.sources:
            raise ConfigurationError("the export holds no certified calibration", where=wanted.paths[0])
        return list(found.sources), list(found.notes)
    sources = gather(wanted.paths)
    begin, end = wanted.begin, wanted.end
    if any(not source.ranges for source in sources):
        begin, end = validity_range(begin_of(begin, wanted.environment), end)
    sources = valid(sources, begin, end, bool(wanted.begin or wanted.end))
    filtered = {"physical_filter": wanted.physical_filter} if wanted.physical_filter else {}
    return [replace(source, data_id=filtered) for source in sources], []


def _require_detectors(detectors: Mapping[tuple[str, int], str], camera: Camera, where: str) -> None:
    """Refuse an export of another instrument, or with other detectors."""
    problems = []
    for (instrument, number), name in detectors.items():
        here = camera.by_id[number].name if number in camera.by_id else "none"
        if instrument != camera.name:
            problems.append(Problem(f"the export is of {instrument}, the repository's camera is {camera.name}"))
        elif here != name:
            problems.append(Problem(f"detector {number} is {name} in the export, {here} here"))
    if problems:
        raise Problems(where, list(dict.fromkeys(problems)))


def _remarks(items: Sequence[Item], found: Sequence[Found], unknown: int) -> list[str]:
    notes = list(dict.fromkeys(note for one in found for note in one.notes))
    if unknown:
        notes.append(f"{count(unknown, 'dataset')} of types that are not known here: left out")
    if unsealed := sum(bool(item.found.unsealed) for item in items):
        notes.append(f"{count(unsealed, 'file')} without checksums: their structure alone was checked")
    return notes


def _report(
    wanted: Import, before: Standing, chain: ChainReport | None, notes: Sequence[str], dry: bool
) -> dict[str, Any]:
    files = Counter(item.dataset_type for item in wanted.items)
    new = Counter(wanted.items[n].dataset_type for n, _ in before.missing)
    collections = [
        {
            "type": name,
            "collection": wanted.names.target(name),
            "calibrations": files[name],
            "certified": new[name],
            "ranges": sorted({span for i in wanted.items if i.dataset_type == name for span in i.ranges}, key=str),
        }
        for name in files
    ]
    return {
        "new": len(wanted.items) - len(before.there),
        "existing": len(before.there),
        "certified": len(before.missing),
        "collections": collections,
        "chain": asdict(chain) if chain else None,
        "notes": list(notes),
        "dry_run": dry,
    }
