"""Expands ``${VARIABLE}`` and ``{key}`` lazily in the values of a parsed template.

Expansion follows parsing and happens once.  A variable's value is never parsed
or expanded again: quotes, braces or line ends in a selection change nothing but
that string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from campaign.documents import MAX_BYTES, MAX_DEPTH, Entry
from campaign.problems import Problem, suggest
from campaign.template.variables import Variables
from campaign.template.vocabulary import vocabulary

Section = Mapping[str, Entry]

_REFERENCE: Final = re.compile(
    r"<ENV:(?P<env>\w+)>|\$\{(?P<braced>[^{}]*)\}|\$(?P<bare>[A-Za-z_]\w*)|(?P<open>\$\{)|(?P<twice>\{\{|\}\})|"
    r"\{(?P<key>[A-Za-z_]\w*)\}",
    re.ASCII,
)
_TRAILING: Final = re.compile(r"(\w+)(\s.*)", re.ASCII | re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def _is_late(key: str) -> bool:
    """Whether the names in braces of a key are known only when a job is made."""
    keys = vocabulary().keys
    return any(keys.get(part, {}).get("late", False) for part in key.split("."))


def _is_text(key: str) -> bool:
    """Whether a key is read as text: 1.10 is no number there, and true no switch."""
    return key.startswith("environment.") or vocabulary().keys.get(key.rpartition(".")[2], {}).get("kind") == "text"


@dataclass
class Expander:
    """Expands strings against the merged tree."""

    #: The environment.
    variables: Variables
    #: Values that are searched first.
    command_line: Section
    #: The merged tree.
    root: Section
    #: Gains an entry for each failed expansion.
    problems: list[Problem]
    #: Keys that were looked up.
    referenced: set[str] = field(default_factory=set)

    #: Entries are kept with their texts: an id is unique only as long as its object lives.
    _known: dict[int, tuple[Entry, str]] = field(default_factory=dict)
    _open: dict[int, str] = field(default_factory=dict)

    def section(self, name: str) -> Section:
        """Give a mapping of the outermost level; empty where it is missing."""
        entry = self.root.get(name)
        return entry.value if entry is not None and isinstance(entry.value, dict) else {}

    def tree(self, entry: Entry, key: str, own: Section | None = None) -> Any:
        """Expand every string of a value; ``own``, its task, group or site, is searched before the outermost level."""
        if isinstance(entry.value, dict):
            depth = key.count(".")
            inner = entry.value if depth == 1 else own
            return {
                name: self.tree(below, f"{key}.{name}" if key else name, inner) for name, below in entry.value.items()
            }
        if isinstance(entry.value, list):
            return [self.tree(below, key, own) for below in entry.value]
        if isinstance(entry.value, str):
            return self.string(entry, key, own or {})
        return entry.text if entry.written and _is_text(key) else entry.value

    def string(self, entry: Entry, key: str, own: Section) -> str:
        """Expand a string; a second call returns the first result."""
        if entry.final:
            return str(entry.value)
        if id(entry) in self._open:
            names = [*self._open.values(), key]
            chain = " -> ".join(names[names.index(self._open[id(entry)]) :])
            self.problems.append(Problem(f"{chain}: refers to itself", entry.where, "break the circle"))
            return ""
        if len(self._open) >= MAX_DEPTH:
            self.problems.append(Problem(f"{key}: more than {MAX_DEPTH} keys refer to each other", entry.where))
            return ""
        if id(entry) not in self._known:
            self._open[id(entry)] = key
            self._known[id(entry)] = entry, self._expand(entry, key, own)
            del self._open[id(entry)]
        return self._known[id(entry)][1]

    def _expand(self, entry: Entry, key: str, own: Section) -> str:
        pieces: list[str] = []
        position = size = 0
        for match in _REFERENCE.finditer(entry.value):
            pieces += entry.value[position : match.start()], self._replace(match, entry.where, key, own)
            position = match.end()
            size += len(pieces[-2]) + len(pieces[-1])
            if size > MAX_BYTES:
                self.problems.append(Problem(f"{key}: expands to more than {MAX_BYTES >> 20} MiB", entry.where))
                return ""
        return "".join([*pieces, entry.value[position:]])

    def _replace(self, match: re.Match[str], where: str, key: str, own: Section) -> str:
        name = match["env"] or match["bare"] or match["braced"]
        if match["twice"]:
            # As `str.format` writes single braces, with which ctrl_bps expands.
            return match[0] if _is_late(key) or "{{" not in match.string else match[0][0]
        if match["key"]:
            return match[0] if _is_late(key) else self._key(match["key"], where, key, own)
        if name and _NAME.fullmatch(name):
            return self._variable(name, where, key, own)
        if name and (trailing := _TRAILING.fullmatch(name)):
            self.variables.warnings[f"{where}: {match[0]} is taken as ${{{trailing[1]}}}{trailing[2]}"] = None
            return self._variable(trailing[1], where, key, own) + trailing[2]
        advice = "write ${NAME}; defaults as in ${NAME:-value} are the shell's"
        self.problems.append(Problem(f"{key}: {match[0]} is not a variable", where, advice))
        return ""

    def _variable(self, name: str, where: str, key: str, own: Section) -> str:
        value = self.variables.find(name)
        if value is not None:
            return value
        if self._find(name, own) is not None or name == "uniqProcName":
            guess = f"{where}: ${{{name}}} is taken as {{{name}}}: {name} is a key, not a variable"
            self.variables.warnings[guess] = None
            return self._key(name, where, key, own)
        if key.startswith("environment."):
            # As in the shell's A=x:$A: a variable that jobs extend may be unset.
            self.variables.warnings[f"{where}: the variable {name} is not set: nothing is put in its place"] = None
            return ""
        self.variables.missing(name, where)
        return ""

    def _find(self, name: str, own: Section) -> Entry | None:
        site = self.section("site").get(self.site)
        inside = site.value if site is not None and isinstance(site.value, dict) else {}
        for scope in (self.command_line, self.section("payload"), own, inside, self.root):
            if name in scope:
                return scope[name]
        return None

    @property
    def site(self) -> str:
        """Give the name under ``computeSite``, as written."""
        entry = self.command_line.get("computeSite") or self.root.get("computeSite")
        return str(entry.value) if entry is not None else ""

    def _key(self, name: str, where: str, key: str, own: Section) -> str:
        self.referenced.add(name)
        entry = self._find(name, own)
        if entry is None and name == "uniqProcName":
            return self._key("outputRun", where, key, own).replace("/", "_")
        if entry is None:
            known = [*self.command_line, *self.section("payload"), *own, *self.root]
            self.problems.append(Problem(f"{key}: there is no key {{{name}}}", where, suggest(name, known)))
            return ""
        if isinstance(entry.value, (dict, list)):
            self.problems.append(Problem(f"{key}: {{{name}}} is a section, not a value", where))
            return ""
        # A key from outside the section is expanded in its own scope, whichever reference is first.
        scope = own if name in own else {}
        return self.string(entry, name, scope) if isinstance(entry.value, str) else entry.written or str(entry.value)
