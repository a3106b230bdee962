"""Read YAML from untrusted files, with line numbers; all YAML is read here.

PyYAML's safe loader gives a tree of nodes, which becomes plain values here:
every value keeps its line, a repeated key is an error, an alias bomb is stopped
by its expanded size, and there are no tags.

Scalars that YAML 1.1 reads as another number, date or switch than their author
(0640 as 416, 12:30:00 as 45000, ``no`` as false) stay text as written.  A reader
that wants a number or a switch converts the text, or refuses it with its line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from campaign.problems import Problem

MAX_BYTES = 1 << 20
"""Size of a file, byte."""
MAX_DEPTH = 32
"""Levels of nesting."""
MAX_VALUES = 100_000
"""Values in a template, pipeline or site file, aliases expanded."""
MAX_FILE_BYTES, MAX_FILE_VALUES = 1 << 24, 200_000
"""The same of a camera, a plan, or defects drawn by hand: of thousands of amplifiers, or boxes."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_BUILT = {_TAG + kind for kind in ("int", "float", "bool", "null")}
#: Tags of the Butler's values in its exports, which are text or mappings all the same.
BUTLER_TAGS = ("!uuid", "!lsst.daf.butler.Timespan", "!butler_time/tai/iso")
_TEXT = {_TAG + kind for kind in ("str", "timestamp", "value")}
_BRANCHES = {_TAG + kind for kind in ("map", "seq")}
#: Scalars that all versions of YAML read alike: decimal and hexadecimal numbers, true and false, nothing.
_PLAIN = {
    _TAG + "int": re.compile(r"[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)"),
    _TAG + "float": re.compile(
        r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|nan)", re.IGNORECASE
    ),
    _TAG + "bool": re.compile(r"true|false", re.IGNORECASE),
    _TAG + "null": re.compile(r"~|null|", re.IGNORECASE),
}

Scalar: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True)
class Entry:
    """A value and its place."""

    #: A scalar, a `list` or a `dict` of entries; as written, nothing expanded.
    value: Any
    #: ``file:line``, or another source.
    where: str
    #: Never expanded, since it does not come from a template.
    final: bool = False
    #: A number or a switch as written: where a text is wanted, 1.10 is not 1.1.
    written: str = ""

    @property
    def text(self) -> str:
        """The scalar as written; an empty text for nothing."""
        return self.written or ("" if self.value is None else str(self.value))


class _Stop(Exception):
    """Reading cannot continue."""


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """Read a file of at most ``most`` bytes as UTF-8, whatever the locale.

    Raises
    ------
    OSError, ValueError
        The file cannot be read, is too large, or is not UTF-8.
    """
    if not path.is_file():
        raise OSError("is not a file" if path.exists() else "does not exist")
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"is larger than {most >> 20} MiB")
    return content.decode("utf-8-sig")


def load(path: Path, tags: Collection[str] = ()) -> Entry:
    """Read a file that is no template; an empty file gives `None`.

    Values under one of ``tags`` (``!uuid``) are read as if they had none.

    Raises
    ------
    OSError, ValueError
        The file cannot be read, is too large, not UTF-8, not YAML, beyond the limits, or has repeated keys or tags;
        the error gives the lines.
    """
    text, problems = read_text(path, MAX_FILE_BYTES), list[Problem]()
    tree = parse(text, path.name, problems, MAX_FILE_VALUES, yaml.Node, tags)
    if problems:
        raise ValueError("\n  ".join(map(str, problems)))
    return tree or Entry(None, str(path))


def load_plain(path: Path) -> Any:
    """Read a file as plain values: dictionaries whose keys are text, lists, text, numbers, switches, `None`.

    See `load` for what is raised.
    """
    return plain(load(path))


def parse(
    text: str,
    name: str,
    problems: list[Problem],
    most: int = MAX_VALUES,
    outermost: type[yaml.Node] = yaml.MappingNode,
    tags: Collection[str] = (),
) -> Entry | None:
    """Turn a document into a tree, `None` where it cannot be read; by default its outermost level must be a mapping.

    ``name`` is the file's, for ``file:line``; ``problems`` takes the mistakes that are found; ``most`` counts the
    values, aliases expanded; values under one of ``tags`` are read as if they had none.
    """
    try:
        _limit_depth(text)
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None and outermost is yaml.Node:
                return None
            if not isinstance(node, outermost):
                raise _Stop("holds no keys")
            return _Tree(loader, name, problems, most, tags).entry(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        problems.append(Problem(f"not YAML: {error.problem}", name if mark is None else f"{name}:{mark.line + 1}"))
    except yaml.YAMLError as error:
        problems.append(Problem(f"not YAML: {' '.join(str(error).split())}", name))
    except _Stop as stop:
        problems.append(Problem(str(stop), name))
    return None


def _limit_depth(text: str) -> None:
    """Check the nesting event by event: composing nodes recurses in C."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _Stop(f"nested deeper than {MAX_DEPTH} levels")


class _Tree:
    """Converts nodes; `left` counts down over all values, aliases included."""

    def __init__(
        self, loader: yaml.CSafeLoader, name: str, problems: list[Problem], most: int, tags: Collection[str]
    ) -> None:
        self.loader, self.tags = loader, tags
        self.name = name
        self.problems = problems
        self.left = self.most = most
        self.depth = 0

    def entry(self, node: yaml.Node) -> Entry:
        """Build the entry of a node, with its place."""
        where = f"{self.name}:{node.start_mark.line + 1}"
        self.left -= 1
        self.depth += 1
        if self.left < 0 or self.depth > MAX_DEPTH:
            raise _Stop(f"aliases expand to more than {self.most} values or {MAX_DEPTH} levels")
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _BRANCHES and node.tag not in self.tags:
            self.refuse(node, where)
        if isinstance(node, yaml.MappingNode):
            value: Any = self.mapping(node)
        elif isinstance(node, yaml.SequenceNode):
            value = [self.entry(item) for item in node.value]
        else:
            value = self.scalar(node, where)
        self.depth -= 1
        return Entry(value, where, written="" if isinstance(value, str | dict | list) or value is None else node.value)

    def mapping(self, node: yaml.MappingNode) -> dict[str, Entry]:
        """Build the entries of a mapping; its own keys override merged ones."""
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            where = f"{self.name}:{key_node.start_mark.line + 1}"
            if key_node.tag == _MERGE:
                for part in self.merges(value_node):
                    merged = {**part, **merged}
                continue
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if not key:
                self.problems.append(Problem("a key must be a plain name", where))
            elif key in own:
                self.problems.append(Problem(f"{key}: given twice, first in {own[key].where}", where, "keep one"))
            else:
                entry = self.entry(value_node)
                own[key] = Entry(entry.value, where, written=entry.written)
        return {**merged, **own}

    def merges(self, node: yaml.Node) -> Iterator[dict[str, Entry]]:
        """Give the mappings that ``<<`` merges, the strongest first."""
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            entry = self.entry(part)
            if isinstance(entry.value, dict):
                yield entry.value
            else:
                self.problems.append(Problem("<<: is not a mapping", entry.where))

    def scalar(self, node: yaml.Node, where: str) -> Scalar:
        """Convert a scalar; an ambiguous one stays as written."""
        if node.tag in _TEXT or node.tag in self.tags or (node.tag in _BUILT and self.ambiguous(node)):
            return str(node.value)
        if node.tag in _BUILT:
            try:
                value: Scalar = self.loader.construct_object(node)
                return value
            except (ValueError, OverflowError) as error:
                self.problems.append(Problem(f"{node.value[:40]!r} is no number: {error}", where))
                return None
        self.refuse(node, where)
        return None

    def refuse(self, node: yaml.Node, where: str) -> None:
        self.problems.append(Problem(f"the tag {node.tag!r} is not supported", where, "write a plain value"))

    def ambiguous(self, node: yaml.Node) -> bool:
        """Whether a scalar is a number or a switch by YAML 1.1 alone, and not by its tag."""
        if _PLAIN[node.tag].fullmatch(node.value):
            return False
        return bool(self.loader.resolve(yaml.ScalarNode, node.value, (True, False)) == node.tag)


def merge(low: dict[str, Entry], high: dict[str, Entry]) -> dict[str, Entry]:
    """Lay one mapping over another: sections are merged, an empty value changes nothing, any other value replaces."""
    result = dict(low)
    for key, entry in high.items():
        below = low.get(key)
        if below is not None and entry.value is None:
            continue
        if below is not None and isinstance(below.value, dict) and isinstance(entry.value, dict):
            entry = Entry(merge(below.value, entry.value), entry.where)
        result[key] = entry
    return result


def plain(entry: Entry, as_text: bool = False) -> Any:
    """Strip the places off a tree; ``as_text`` gives scalars as written."""
    if isinstance(entry.value, dict):
        return {key: plain(value, as_text) for key, value in entry.value.items()}
    if isinstance(entry.value, list):
        return [plain(value, as_text) for value in entry.value]
    return entry.text if as_text else entry.value
