"""YAML with line numbers, from files that are not trusted.

Templates, pipelines and what they include are read by PyYAML's safe loader as
a tree of nodes and turned into plain values here, so that every value keeps its
line, a key given twice is an error, and an alias bomb is stopped by what it
would expand to, not by what it is written as.
"""

from __future__ import annotations

from collections.abc import Iterator
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
"""Values in a file, aliases expanded."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_BUILT = {_TAG + kind for kind in ("int", "float", "bool", "null")}
_TEXT = {_TAG + kind for kind in ("str", "timestamp", "value")}

Scalar: TypeAlias = "str | int | float | bool | None"


@dataclass(frozen=True)
class Entry:
    """A value and where it stands.

    Parameters
    ----------
    value : scalar, `list` [`Entry`] or `dict` [`str`, `Entry`]
        As written, nothing expanded.
    where : `str`
        ``file:line``, or what else it comes from.
    final : `bool`
        Not to be expanded: it does not come from a template.
    """

    value: Any
    where: str
    final: bool = False


class _Stop(Exception):
    """Reading cannot go on."""


def read_text(path: Path) -> str:
    """Read a file of at most `MAX_BYTES` as UTF-8, whatever the locale.

    Raises
    ------
    OSError, ValueError
        It cannot be read, is too large, or is not UTF-8.
    """
    if not path.is_file():
        raise OSError("is not a file" if path.exists() else "does not exist")
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
    return content.decode("utf-8-sig")


def parse(text: str, name: str, problems: list[Problem]) -> Entry | None:
    """Turn a document into a tree; its outermost level must be a mapping.

    Parameters
    ----------
    text : `str`
        The document.
    name : `str`
        The file's name for ``file:line``.
    problems : `list` [`Problem`]
        Grows by what is wrong.

    Returns
    -------
    tree : `Entry` or `None`
        `None` where nothing can be made of it.
    """
    try:
        _limit_depth(text)
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise _Stop("holds no keys")
            return _Tree(loader, name, problems).entry(node)
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
    """Look at the nesting event by event: composing nodes recurses in C."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _Stop(f"nested deeper than {MAX_DEPTH} levels")


class _Tree:
    """Conversion of nodes; `left` counts down over everything that is made, aliases included."""

    def __init__(self, loader: yaml.CSafeLoader, name: str, problems: list[Problem]) -> None:
        self.loader = loader
        self.name = name
        self.problems = problems
        self.left = MAX_VALUES
        self.depth = 0

    def entry(self, node: yaml.Node) -> Entry:
        where = f"{self.name}:{node.start_mark.line + 1}"
        self.left -= 1
        self.depth += 1
        if self.left < 0 or self.depth > MAX_DEPTH:
            raise _Stop(f"aliases expand to more than {MAX_VALUES} values or {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            value: Any = self.mapping(node)
        elif isinstance(node, yaml.SequenceNode):
            value = [self.entry(item) for item in node.value]
        else:
            value = self.scalar(node, where)
        self.depth -= 1
        return Entry(value, where)

    def mapping(self, node: yaml.MappingNode) -> dict[str, Entry]:
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
                own[key] = Entry(self.entry(value_node).value, where)
        return {**merged, **own}

    def merges(self, node: yaml.Node) -> Iterator[dict[str, Entry]]:
        """Give what ``<<`` brings in, the strongest first."""
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            entry = self.entry(part)
            if isinstance(entry.value, dict):
                yield entry.value
            else:
                self.problems.append(Problem("<<: is not a mapping", entry.where))

    def scalar(self, node: yaml.Node, where: str) -> Scalar:
        # 1:30:00 is a number to base 60 in YAML 1.1 and a date an object: both stay as written.
        if node.tag in _TEXT or (node.tag in _BUILT and ":" in node.value):
            return str(node.value)
        if node.tag in _BUILT:
            try:
                value: Scalar = self.loader.construct_object(node)
                return value
            except (ValueError, OverflowError) as error:
                self.problems.append(Problem(f"{node.value[:40]!r} is no number: {error}", where))
                return None
        self.problems.append(Problem(f"the tag {node.tag!r} is not supported", where, "write a plain value"))
        return None


def merge(low: dict[str, Entry], high: dict[str, Entry]) -> dict[str, Entry]:
    """Lay one mapping over another: sections are merged, an empty value leaves all as is, anything else replaces."""
    result = dict(low)
    for key, entry in high.items():
        below = low.get(key)
        if below is not None and entry.value is None:
            continue
        if below is not None and isinstance(below.value, dict) and isinstance(entry.value, dict):
            entry = Entry(merge(below.value, entry.value), entry.where)
        result[key] = entry
    return result


def plain(entry: Entry) -> Any:
    """Strip the places off a tree."""
    if isinstance(entry.value, dict):
        return {key: plain(value) for key, value in entry.value.items()}
    return [plain(value) for value in entry.value] if isinstance(entry.value, list) else entry.value
