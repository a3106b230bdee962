"""Read the files of a pipeline with their imports, before anything is mapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from campaign import plugins
from campaign.documents import MAX_DEPTH, Entry, parse, plain, read_text
from campaign.problems import Problem, suggest, unknown_key
from campaign.template.expand import Expander
from campaign.template.variables import Variables

_KEYS: Final = ("description", "instrument", "imports", "tasks", "parameters", "subsets", "contracts")
_IMPORT_KEYS: Final = ("location", "include", "exclude", "importContracts", "labeledSubsetModifyMode")
_CODE: Final = ("python", "file", "dataId")
_RESOURCES: Final = {
    "resource://lsst.cp.pipe/resources/": "${CP_PIPE_DIR}/",
    "resource://lsst.cp.verify/resources/": "${CP_VERIFY_DIR}/",
}


@dataclass(frozen=True)
class Draft:
    """A task as read: its class and its configuration by dotted name, later files last."""

    cls: Entry
    config: Mapping[str, Entry]


@dataclass
class DraftPipeline:
    """A pipeline as read."""

    description: str = ""
    instrument: str = ""
    tasks: dict[str, Draft] = field(default_factory=dict)
    parameters: dict[str, Entry] = field(default_factory=dict)
    subsets: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _flat(section: Mapping[str, Entry], prefix: str = "") -> dict[str, Entry]:
    """Write nested configuration with dots, as upstream does."""
    found: dict[str, Entry] = {}
    for key, entry in section.items():
        inside = _flat(entry.value, f"{prefix}{key}.") if isinstance(entry.value, dict) else {prefix + key: entry}
        found.update(inside)
    return found


class Reader:
    """Reads files and collects their problems."""

    def __init__(self, instrument: str, environment: Mapping[str, str]) -> None:
        self.instrument = instrument
        self.problems: list[Problem] = []
        self.warnings: dict[str, None] = {}
        self.variables = Variables(environment)
        self.expander = Expander(self.variables, {}, {}, self.problems)

    def all_problems(self) -> list[Problem]:
        """List the problems, unset variables included."""
        return self.problems + (self.variables.problems() if self.variables.unset else [])

    def find(self, location: Entry, beside: Path) -> Path | None:
        """Find a file: as its location says, else among those for any instrument, else among other distributions'."""
        text = str(location.value)
        for prefix, folder in _RESOURCES.items():
            text = text.replace(prefix, folder) if text.startswith(prefix) else text
        name = self.expander.string(Entry(text, location.where), "location", {})
        path = beside / name
        places = [path]
        if path.parent.name == self.instrument:
            shared = [path.parent.parent, *(folder / "pipelines" for folder in plugins.folders())]
            places += [folder / one / path.name for folder in shared for one in (self.instrument, "any")]
        if found := next((place for place in places if place.is_file()), None):
            return found
        if not self.variables.unset:
            there = sorted({p.name for place in places for p in place.parent.glob("*.yaml")})
            self.problems.append(Problem(f"there is no pipeline {path}", location.where, suggest(path.name, there)))
        return None

    def read(self, path: Path, chain: tuple[Path, ...]) -> DraftPipeline:
        """Read a file; its own tasks are merged over imported ones."""
        draft = DraftPipeline()
        try:
            tree = parse(read_text(path), path.name, self.problems)
        except (OSError, ValueError) as error:
            self.problems.append(Problem(f"cannot be read: {error}", str(path)))
            return draft
        sections = tree.value if tree else {}
        for key, entry in sections.items():
            if key not in _KEYS:
                self.problems.append(unknown_key(key, _KEYS, entry.where))
        for entry in _listed(sections.get("imports")):
            self._import(entry, path, (*chain, path.resolve()), draft)
        draft.description = str(plain(sections["description"]) if "description" in sections else draft.description)
        draft.instrument = str(plain(sections["instrument"]) if "instrument" in sections else draft.instrument)
        draft.parameters.update(self._section(sections, "parameters"))
        for label, entry in self._section(sections, "tasks").items():
            self._add(label, entry, draft)
        for name, entry in self._section(sections, "subsets").items():
            draft.subsets[name] = self._subset(entry, draft)
        if "contracts" in sections:
            self.warnings[f"{sections['contracts'].where}: contracts are not looked at"] = None
        return draft

    def _section(self, sections: Mapping[str, Entry], name: str) -> dict[str, Entry]:
        entry = sections.get(name)
        if entry is None or entry.value is None:
            return {}
        if not isinstance(entry.value, dict):
            self.problems.append(Problem(f"{name}: must hold keys", entry.where))
            return {}
        return entry.value

    def _import(self, entry: Entry, path: Path, chain: tuple[Path, ...], draft: DraftPipeline) -> None:
        section = entry.value if isinstance(entry.value, dict) else {"location": entry}
        for key, inner in section.items():
            if key not in _IMPORT_KEYS:
                self.problems.append(Problem(f"imports: unknown key {key}", inner.where, suggest(key, _IMPORT_KEYS)))
        location = section.get("location")
        if location is None or not isinstance(location.value, str):
            self.problems.append(Problem("imports: location is missing", entry.where))
            return
        found = self.find(location, path.parent)
        if found is None:
            return
        if found.resolve() in chain or len(chain) >= MAX_DEPTH:
            circle = " -> ".join([file.name for file in chain] + [found.name])
            self.problems.append(Problem(f"imports: {circle}: imports itself", location.where, "break the circle"))
            return
        other = self.read(found, chain)
        include = {str(label.value) for label in _listed(section.get("include"))} or set(other.tasks)
        exclude = {str(label.value) for label in _listed(section.get("exclude"))}
        for label in sorted((include | exclude) - set(other.tasks)):
            where = section["include" if label in include else "exclude"].where
            self.problems.append(Problem(f"imports: there is no task {label}", where, suggest(label, other.tasks)))
        for label in [label for label in other.tasks if label in include - exclude]:
            self._merge(label, other.tasks[label], draft)
        draft.parameters.update(other.parameters)
        kept = {
            name: tuple(label for label in labels if label in draft.tasks) for name, labels in other.subsets.items()
        }
        draft.subsets.update({name: labels for name, labels in kept.items() if labels})
        draft.description, draft.instrument = other.description, other.instrument

    def _add(self, label: str, entry: Entry, draft: DraftPipeline) -> None:
        """Read one task: a class, or a class and its configuration."""
        section = entry.value if isinstance(entry.value, dict) else {"class": entry}
        cls = section.get("class")
        if cls is None or not isinstance(cls.value, str):
            self.problems.append(Problem(f"{label}: class is missing", entry.where))
            return
        for key, inner in section.items():
            if key not in ("class", "config"):
                self.problems.append(Problem(f"{label}: unknown key {key}", inner.where, "a task has class and config"))
        config: dict[str, Entry] = {}
        for part in _listed(section.get("config")):
            if isinstance(part.value, dict):
                config.update(_flat(part.value))
            else:
                self.problems.append(Problem(f"{label}: config: must hold keys", part.where))
        for name in [name for name in config if name in _CODE]:
            what = f"{label}: config.{name} is not supported"
            self.problems.append(Problem(what, config.pop(name).where, "write the fields as name: value"))
        self._merge(label, Draft(cls, config), draft)

    def _merge(self, label: str, task: Draft, draft: DraftPipeline) -> None:
        """Merge a task over that of the same label; a task of another class replaces it."""
        below = draft.tasks.get(label)
        same = below is not None and below.cls.value == task.cls.value
        draft.tasks[label] = Draft(task.cls, {**(below.config if below and same else {}), **task.config})

    def _subset(self, entry: Entry, draft: DraftPipeline) -> tuple[str, ...]:
        inner = entry.value.get("subset") if isinstance(entry.value, dict) else entry
        labels = tuple(str(label.value) for label in _listed(inner))
        for label in labels:
            if label not in draft.tasks:
                self.problems.append(
                    Problem(f"subset: there is no task {label}", entry.where, suggest(label, draft.tasks))
                )
        return labels


def _listed(entry: Entry | None) -> list[Entry]:
    """Give one or several values as a list."""
    if entry is None or entry.value is None:
        return []
    return list(entry.value) if isinstance(entry.value, list) else [entry]
