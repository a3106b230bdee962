"""The files of an import, with what their names say: kind, detector and validity.

Upstream publishes calibrations as ``<kind>/<detector>/<date>.ecsv``: a file is
valid from its date, UTC, until that of the next one of its kind and detector.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from campaign.butler.records import FIRST, LAST
from campaign.camera.translation import tai
from campaign.errors import ConfigurationError, UsageError
from campaign.problems import Problem, Problems
from campaign.wording import count

#: Ends of names of calibration files.
ENDS = (".fits", ".ecsv", ".yaml", ".yml")
#: Document of an export.
EXPORT = "export.yaml"
#: Sums of its files, where it has some (`campaign convert`), as ``sha256sum`` writes them.
SUMS = "SHA256SUMS"
_DATED = re.compile(r"(?P<date>\d{8}T\d{6})\.\w+")

Range = tuple[str | None, str | None]


@dataclass(frozen=True)
class Source:
    """A file, and what is said of it outside."""

    #: Absolute.
    path: str
    #: Kind (or OBSTYPE) and name of the detector, as folders have them; empty where they say nothing.
    kind: str = ""
    detector: str = ""
    #: Ranges of its validity: ISO-8601 TAI, `None` where open; empty: the operator's.
    ranges: tuple[Range, ...] = ()
    #: Last part of the name of the RUN that will hold it; empty: from the beginning of its validity.
    date: str = ""
    #: The same as in the repository that it comes from; only of an export.
    dataset_type: str = ""
    data_id: dict[str, Any] = field(default_factory=dict)
    dataset_id: str = ""
    run: str = ""
    #: SHA-256 that the export says; empty where it says none.
    sha256: str = ""


def is_export(paths: Sequence[str]) -> bool:
    """Tell whether the operator named the folder of an export.

    Raises
    ------
    UsageError
        An export and other files are named together.
    """
    exports = [path for path in paths if (Path(path) / EXPORT).is_file()]
    if exports and len(paths) > 1:
        raise UsageError("an export is imported alone", where=exports[0], do="give one command for each")
    return bool(exports)


def gather(paths: Sequence[str]) -> list[Source]:
    """List calibration files, and those below folders, with what their names say.

    Raises
    ------
    UsageError
        There is no file.
    Problems
        Files below a folder are no calibrations; two files are of the same date.
    """
    found, odd = dict[str, Source](), list[Problem]()
    for text in paths:
        path = Path(text).absolute()
        if not path.exists():
            raise UsageError("there is no such file or folder", where=text)
        for file in _below(path):
            if file.is_dir():
                odd.append(Problem("is a link to a folder, which is not followed", str(file), "name the folder itself"))
            elif not file.is_file():
                odd.append(Problem("is no file", str(file), "move it"))
            elif file.name.endswith(ENDS):
                found[str(file)] = _named(file)
            else:
                odd.append(Problem(f"is no calibration file ({', '.join(ENDS)})", str(file), "name files, or move it"))
    if not found and not odd:
        raise UsageError("no file to import", where=", ".join(paths))
    sources, twice = _dated(found.values())
    if problems := [*odd, *twice]:
        raise Problems(", ".join(paths), problems)
    return sources


def _below(path: Path) -> list[Path]:
    """List what a folder holds at any depth, links to folders and what is no file included, but for hidden names.

    Raises
    ------
    UsageError
        A folder cannot be read.
    """
    if not path.is_dir():
        return [path]

    def unread(error: OSError) -> None:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(error.filename)) from error

    found = list[Path]()
    for folder, folders, files in os.walk(path, onerror=unread):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [Path(folder, name) for name in (*files, *links) if not name.startswith(".")]
    return sorted(found)


def _named(file: Path) -> Source:
    dated = _DATED.fullmatch(file.name)
    if dated is None:
        return Source(str(file))
    return Source(str(file), file.parent.parent.name, file.parent.name, date=dated["date"])


def _dated(sources: Iterable[Source]) -> tuple[list[Source], list[Problem]]:
    """Give dated files their validity: until the next one of the same folder."""
    found, problems = list[Source](), list[Problem]()
    groups: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        if source.date:
            groups[str(Path(source.path).parent)].append(source)
        else:
            found.append(source)
    for some in groups.values():
        some.sort(key=lambda source: source.date)
        twice = [(a, b) for a, b in pairwise(some) if a.date == b.date]
        problems += [Problem(f"is of the same date as {Path(a.path).name}", b.path) for a, b in twice]
        for source, after in zip(some, [*some[1:], None], strict=True):
            try:
                span = _begin(source), _begin(after) if after else None
            except ValueError as error:
                problems.append(Problem(f"its name, or that of the next one, is no date: {error}", source.path))
                continue
            found.append(replace(source, ranges=(span,)))
    return found, problems


def _begin(source: Source) -> str:
    when = datetime.strptime(source.date, "%Y%m%dT%H%M%S")
    if not FIRST <= when.isoformat() < LAST:
        raise ValueError(f"it is not between {FIRST[:4]} and {LAST[:4]}")
    return tai(when, "utc").isoformat()


def valid(sources: Sequence[Source], begin: str | None, end: str | None, given: bool) -> list[Source]:
    """Give files whose names hold no date the operator's range of dates.

    Parameters
    ----------
    begin, end : `str` or `None`
        ISO-8601 TAI.
    given : `bool`
        Whether the operator gave a range for this command alone.

    Raises
    ------
    ConfigurationError
        All names hold dates, and a range was given.
    """
    undated = sum(not source.ranges for source in sources)
    if given and not undated:
        raise ConfigurationError(
            f"the names of all {count(len(sources), 'file')} hold their dates",
            do="leave --begin-date and --end-date out",
        )
    return [source if source.ranges else replace(source, ranges=((begin, end),)) for source in sources]
