"""Finds, renders and merges the files of a template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from campaign import plugins
from campaign.documents import MAX_DEPTH, Entry, merge, parse, read_text
from campaign.problems import Problem, suggest
from campaign.template import unmade
from campaign.template.environment import render, render_apart
from templates import ROOT

INCLUDE: Final = "includeConfigs"
MOST_FILES: Final = 200
"""Files that a template may include, each as often as it is included."""
BANDS: Final = "ugrizy"
_BAND: Final = re.compile(rf"(?P<stem>.+)_(?P<band>[{BANDS}])")


@dataclass(frozen=True)
class Source:
    """File to be read."""

    #: The file; ``*.j2`` goes through Jinja.
    path: Path
    #: Name in messages: the name that was asked for.
    name: str
    #: Band for which a source shared by all bands is read, else empty.
    band: str = ""


def folders(environment: Mapping[str, str]) -> list[Path]:
    """List the folders searched for templates without a folder, in order."""
    packages = (("CP_PIPE_DIR", "cp_pipe"), ("CP_VERIFY_DIR", "cp_verify"))
    homes = [Path(environment.get(variable) or ROOT / package) for variable, package in packages]
    return [Path.cwd(), *(home / "bps" / "templates" for home in [*homes, *plugins.folders()])]


def _served(path: Path) -> Source | None:
    """Give the file that serves a path: itself, its ``.j2``, or the ``.j2`` of all bands."""
    if path.is_file():
        return Source(path, path.name)
    shared = path.with_name(path.name + ".j2")
    if shared.is_file():
        return Source(shared, path.name)
    band = _BAND.fullmatch(path.stem)
    if band:
        shared = path.with_name(f"{band['stem']}{path.suffix}.j2")
        if shared.is_file():
            return Source(shared, path.name, band["band"])
    return None


def _other_band(path: Path) -> str:
    """Say which bands a template serves, where another is asked for; empty for a template without bands."""
    stem, sign, _ = path.stem.rpartition("_")
    shared = path.with_name(f"{stem}{path.suffix}.j2")
    if not sign or not _for_bands(shared):
        return ""
    return f"{stem} is one for each band: {', '.join(f'{stem}_{band}' for band in BANDS)}"


def _for_bands(path: Path) -> bool:
    return path.is_file() and path.suffix == ".j2" and "band" in path.read_text(encoding="utf-8", errors="replace")


def names(folder: Path) -> list[str]:
    """List the names under which a folder's templates can be requested."""
    found = []
    for path in sorted(folder.glob("bps_*.yaml*")):
        stem = path.name.removesuffix(".j2").removesuffix(".yaml")
        found += [f"{stem}_{band}.yaml" for band in BANDS] if _for_bands(path) else [f"{stem}.yaml"]
    return found


def locate(path_or_name: str, environment: Mapping[str, str]) -> Source | Problem:
    """Find a template.

    Parameters
    ----------
    path_or_name : `str`
        A path, or a name without a folder: then the working directory and the
        templates of cp_pipe and cp_verify are searched.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        ``CP_PIPE_DIR``, ``CP_VERIFY_DIR``; the packaged templates where unset.
    """
    path = Path(path_or_name)
    path = path if path.suffix else path.with_name(path.name + ".yaml") if path.name else path
    places = folders(environment) if path.parent == Path() else [Path()]
    for place in places:
        source = _served(place / path)
        if source:
            return source
    if lacking := unmade.problem(path.stem):
        return lacking
    if wrong := next((text for place in places if (text := _other_band(place / path))), ""):
        return Problem(f"there is no template {path.name!r}", "" if len(places) > 1 else path_or_name, wrong)
    if len(places) > 1:
        known = [name for place in places for name in names(place)]
        return Problem(f"there is no template {path.name!r}", "", suggest(path.name, known))
    packaged = [name for place in folders(environment)[1:] for name in names(place)]
    beside = names(path.parent)
    hint = suggest(path.name, beside) if beside else "give a path or a template's name"
    if path.name in packaged:
        hint = f"say {path.name} alone for the one of cp_pipe or cp_verify"
    return Problem("there is no such file", path_or_name, hint)


@dataclass(frozen=True)
class Loader:
    """Reads files with all their includes."""

    #: Variables for Jinja.
    environment: Mapping[str, str]
    #: Expands variables in an include's name.
    expand: Callable[[Entry, str], str]
    #: Gains every problem that is found.
    problems: list[Problem]

    included: list[str] = field(default_factory=list)

    def load(self, source: Source, chain: tuple[Path, ...] = ()) -> dict[str, Entry] | None:
        """Read a file and merge it over its includes; `None` where it cannot be read."""
        tree = self._read(source)
        if tree is None:
            return None
        return self._included(tree.value, source, (*chain, source.path.resolve()))

    def _read(self, source: Source) -> Entry | None:
        try:
            text = read_text(source.path)
            if source.path.suffix == ".j2":
                packaged = source.path.resolve().is_relative_to(ROOT)
                text = (render if packaged else render_apart)(text, source.band, self.environment)
            return parse(text, source.name, self.problems)
        except (OSError, ValueError) as error:
            self.problems.append(Problem(f"cannot be read: {error}", str(source.path)))
            return None

    def _included(self, section: dict[str, Entry], source: Source, chain: tuple[Path, ...]) -> dict[str, Entry]:
        low: dict[str, Entry] = {}
        for entry in self._wanted(section.get(INCLUDE)):
            found = self._find(entry, source, chain) if len(self.included) <= MOST_FILES else None
            if found and self._counted(entry):
                low = merge(low, self.load(found, chain) or {})
        own = {
            key: Entry(self._included(entry.value, source, chain), entry.where)
            if isinstance(entry.value, dict)
            else entry
            for key, entry in section.items()
            if key != INCLUDE
        }
        return merge(low, own)

    def _counted(self, entry: Entry) -> bool:
        """Count an include; report too many of them once."""
        self.included.append(entry.where)
        if len(self.included) == MOST_FILES + 1:
            self.problems.append(Problem(f"{INCLUDE}: more than {MOST_FILES} files are included", entry.where))
        return len(self.included) <= MOST_FILES

    def _wanted(self, entry: Entry | None) -> list[Entry]:
        if entry is None or entry.value is None:
            return []
        files = entry.value if isinstance(entry.value, list) else [entry]
        wrong = [file.where for file in files if not isinstance(file.value, str)]
        self.problems.extend(Problem(f"{INCLUDE}: a file's name was expected", where) for where in wrong)
        return [file for file in files if isinstance(file.value, str)]

    def _find(self, entry: Entry, source: Source, chain: tuple[Path, ...]) -> Source | None:
        name = self.expand(entry, INCLUDE)
        if not name:
            return None
        places = [Path.cwd() / name, source.path.parent / name]
        found = next((served for served in map(_served, places) if served), None)
        if found is None:
            looked = " or ".join(dict.fromkeys(str(place) for place in places))
            self.problems.append(Problem(f"{INCLUDE}: there is no {name}", entry.where, f"looked for {looked}"))
        elif found.path.resolve() in chain or len(chain) >= MAX_DEPTH:
            circle = " -> ".join([path.name for path in chain] + [found.path.name])
            self.problems.append(Problem(f"{INCLUDE}: {circle}: includes itself", entry.where, "break the circle"))
            return None
        return found
