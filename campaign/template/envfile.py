"""Reads variables from a file as a shell reads assignments, without starting a shell.

Only the assignments of a shell's grammar are read: ``NAME=value`` and
``export NAME=value``, any number of them on a line, comments, and

- ``'...'``: every character literally;
- ``"..."``: ``$NAME`` and ``${NAME}`` are replaced, a backslash takes ``$``, a
  backtick, ``"`` and itself literally; a backslash at a line's end joins the lines;
- unquoted: the same, except that a backslash takes any character literally, and ``~``
  at the beginning is the home.

Commands and all other expansions are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from campaign.documents import read_text
from campaign.errors import ConfigurationError
from campaign.problems import near

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
#: Literal text up to the next special character, by the enclosing quote.
_PLAIN = {"": re.compile(r"(?:[^ \t\r\n'\"\\$`~;&|<>()\0]|\r(?!\n))+"), '"': re.compile(r'[^"\\$`\0]+')}
#: End of a word.
_END = re.compile(r"[ \t\n;]|\r\n|\Z")
#: Characters that a backslash takes literally between double quotes; outside, it takes any.
_ESCAPED = '$`"\\'
#: After a dollar: text that a shell would run, compute or look up in itself, by the enclosing quote.
_SHELLS = {"": re.compile(r"[({'\"0-9@*#?!$-]"), '"': re.compile(r"[({0-9@*#?!$-]")}
#: Most bytes that the system allows in one variable.
MOST = 1 << 17


def read(path: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Read a file of variables, over those of ``base``.

    ``$NAME`` and ``${NAME}`` take the value that the file has set before, else
    that of ``base``.

    Raises
    ------
    ConfigurationError
        The file cannot be read, a line is no assignment, a variable is unset.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot be read: {why}", where=str(path)) from error
    if "\r\n" in text and text.count("\n") == text.count("\r\n"):  # line ends of Windows
        text = text.replace("\r\n", "\n")
    return _Reader(text, str(path), dict(base)).read()


@dataclass
class _Reader:
    """Reads the text in one pass."""

    text: str
    path: str
    values: dict[str, str]
    at: int = 0
    exported: dict[str, str] | None = None  # of the export being read: all words are expanded first

    def read(self) -> dict[str, str]:
        while self._skip():
            self._word()
        self._end()
        return self.values

    def _end(self) -> None:
        """End a line, or a command."""
        self.values |= self.exported or {}
        self.exported = None

    def _skip(self) -> bool:
        """Go to the next word; tell whether there is one."""
        while self.at < len(self.text):
            here = self.text[self.at]
            if here in " \t\n;" or self.text.startswith("\r\n", self.at):
                if here in "\n;":
                    self._end()
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.at += 2
            elif here == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def _word(self) -> None:
        """Read one word: ``export``, an exported name, or an assignment."""
        began, name = self.at, _NAME.match(self.text, self.at)
        if name and self.text.startswith("=", name.end()):
            self.at = name.end() + 1
            value = self._value(began)
            if len(value.encode()) + len(name[0]) + 2 > MOST:
                raise self._wrong(began, f"{name[0]} is longer than the {MOST} bytes that a variable may have")
            (self.values if self.exported is None else self.exported)[name[0]] = value
            return
        word = self._value(began)
        if self.exported is None and word == "export":
            self.exported = {}
        elif self.exported is None or word not in {**self.values, **self.exported}:
            raise self._wrong(began, f"{self._shown(began)!r} is not NAME=value")

    def _value(self, began: int) -> str:
        """Read the rest of a word, without its quotes."""
        parts, quote, opened, bare = [""], "", began, ":"
        while quote or not _END.match(self.text, self.at):
            here = self.text[self.at : self.at + 1]
            if not here:
                raise self._unclosed(opened)
            if self.text.startswith("\\\n", self.at):
                self.at += 2
                continue
            if here == quote or (quote == "" and here == '"'):
                quote, opened = "" if here == quote else here, self.at
                self.at += 1
            elif quote == "" and here == "'":
                parts.append(self._literal())
            elif quote == "" and here == "~":
                parts.append(self._home(bare))
            elif here == "\\":
                parts.append(self._escape(quote))
            elif here == "$":
                parts.append(self._use(began, quote))
            elif plain := _PLAIN[quote].match(self.text, self.at):
                parts.append(plain[0])
                self.at = plain.end()
            else:
                what = "no variable can hold this character" if here == "\0" else f"{here} is for a shell to run"
                raise self._wrong(began, f"{self._shown(began)!r} is not NAME=value: {what}")
            bare = "" if quote or here in "'\"\\" else parts[-1]
        return "".join(parts)

    def _literal(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise self._unclosed(self.at)
        found, began = self.text[self.at + 1 : end], self.at
        self.at = end + 1
        if "\0" in found:
            raise self._wrong(began, "no variable can hold a NUL character")
        return found

    def _home(self, before: str) -> str:
        """Read a tilde: the home at the beginning of a value or after an unquoted colon, as in a shell."""
        first = before.endswith(":")
        self.at += 1
        ends = _END.match(self.text, self.at) or self.text.startswith(("/", ":"), self.at)
        return self.values.get("HOME", "~") if first and ends else "~"

    def _escape(self, quote: str) -> str:
        taken = self.text[self.at + 1 : self.at + 2]
        if not taken and quote:
            raise self._unclosed(self.at)
        self.at += 1 + len(taken)
        return taken if taken and (taken in _ESCAPED or not quote) else f"\\{taken}"

    def _use(self, began: int, quote: str) -> str:
        match = _USE.match(self.text, self.at)
        if match is None:
            if _SHELLS[quote].match(self.text, self.at + 1) or self.text.startswith("\\\n", self.at + 1):
                raise self._wrong(began, f"{self._shown(began)!r} is not NAME=value: it is for a shell to work out")
            self.at += 1
            return "$"
        name, self.at = match[1] or match[2], match.end()
        if name not in self.values:
            meant = near(name, self.values, cutoff=0.7)
            do = f"did you mean ${meant}?" if meant else f"set {name} in a command above this one, or in the shell"
            raise self._wrong(began, f"${name} is used before it is set", do)
        return self.values[name]

    def _shown(self, began: int) -> str:
        """Quote the beginning of a word, for messages."""
        return (self.text[began : began + 60].split() or [""])[0]

    def _unclosed(self, opened: int) -> ConfigurationError:
        return self._wrong(opened, "a quote is not closed", "it is opened here, or is one too many")

    def _wrong(
        self, at: int, what: str, do: str = "a file of variables holds export lines and comments"
    ) -> ConfigurationError:
        return ConfigurationError(what, where=f"{self.path}:{1 + self.text.count(chr(10), 0, at)}", do=do)
