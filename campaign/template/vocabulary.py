"""Vocabulary of templates: the packaged defaults, known keys and known variables, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from campaign.documents import Entry, parse, plain, read_text
from templates import ROOT

DEFAULTS: Final = "packaged defaults"
COMMAND_LINE: Final = "command line"

_PART: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_+-]|\.(?!\.))*"
_WORD: Final = re.compile(_PART, re.ASCII)
_PREFIX: Final = re.compile(rf"(?:{_PART}/)*", re.ASCII)
_COLLECTION: Final = re.compile(
    r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.+:@~-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+:@~-]*)*", re.ASCII
)
_SEPARATOR: Final = re.compile(r"(?:\\\r?\n|\s)*,(?:\\\r?\n|\s)*")


@dataclass(frozen=True)
class Vocabulary:
    """Contents of ``templates/defaults.yaml``."""

    #: Lowest layer.
    defaults: Mapping[str, Entry]
    #: Known keys of each level: ``{key: {"kind", "is", ...}}``.
    root: Mapping[str, Mapping[str, Any]]
    payload: Mapping[str, Mapping[str, Any]]
    resources: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Mapping[str, Any]]
    #: Known variables: ``{name: {"check", "example", ...}}``.
    variables: Mapping[str, Mapping[str, Any]]

    @property
    def keys(self) -> dict[str, Mapping[str, Any]]:
        """All known keys."""
        return {**self.root, **self.payload, **self.resources, **self.groups}


def _from_defaults(entry: Entry) -> Entry:
    value = entry.value
    if isinstance(value, dict):
        value = {key: _from_defaults(below) for key, below in value.items()}
    return Entry(value, DEFAULTS)


@cache
def vocabulary() -> Vocabulary:
    """Read ``templates/defaults.yaml`` once."""
    path = ROOT / "defaults.yaml"
    problems: list[Any] = []
    tree = parse(read_text(path), path.name, problems)
    assert tree is not None and not problems, problems
    tables = plain(tree)
    return Vocabulary(
        _from_defaults(tree.value["defaults"]).value, **{k: v for k, v in tables.items() if k != "defaults"}
    )


def split_collections(text: str) -> tuple[str, ...]:
    """Split names at commas; drop blanks and line continuations around them, and repetitions."""
    names = _SEPARATOR.split(re.sub(r"^(?:\\\r?\n|\s)+|(?:\\\r?\n|\s)+$", "", text))
    return tuple(dict.fromkeys(name for name in names if name))


def input_collections(value: Any) -> list[str]:
    """Read ``inCollection``: text, or a list."""
    parts = value if isinstance(value, list) else [value or ""]
    return [name for part in parts for name in split_collections(str(part))]


def is_collection(name: str) -> bool:
    """Whether a name is a valid collection name that does not lead out of the repository's root."""
    return _COLLECTION.fullmatch(name) is not None


def objection(check: str, value: str) -> str:
    """Say why a variable's value cannot be used; empty where it can be used.

    ``check`` is ``word``, ``prefix``, ``collections`` or ``filled``.
    """
    if check == "word" and not _WORD.fullmatch(value):
        return "is empty" if not value else "may hold letters, digits and _ . + - only, and no '..'"
    if check == "prefix" and not _PREFIX.fullmatch(value):
        return "must be empty, or end in '/' and hold letters, digits, '/' and _ . + - only, and no '..'"
    if check == "collections":
        wrong = [name for name in split_collections(value) if not is_collection(name)]
        return f"holds {wrong[0]!r}, which cannot be a collection's name" if wrong else ""
    return "is empty" if check == "filled" and not value.strip() else ""
