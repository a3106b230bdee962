"""Variables from a file, as an operator exports them: no shell is started to read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from campaign.errors import ConfigurationError
from campaign.problems import near
from campaign.template_yaml import read_text

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: In place of a line's end after a backslash, which is a blank, and still counts as a line.
CONTINUED = "\0"
#: What a shell would run.
_COMMAND = re.compile(r"\$\(|`")
#: Of a variable, as Linux gives it to a process, byte.
MAX_VALUE = 1 << 17
#: Blanks, a comment, or a word with its quotes; and what a word is made of.
_BLANK = rf"[ \t\r\n{CONTINUED}]"
_WORD = re.compile(
    rf"""{_BLANK}++|\#[^\n]*+|(?P<word>(?:'[^']*+'|"(?:[^"\\]|\\.)*+"|\\.|[^ \t\r\n{CONTINUED}'"\\])++)""", re.DOTALL
)
_PIECE = re.compile(
    r"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*+)"|\\(?P<escaped>.)|(?P<bare>[^'"\\]+)""", re.DOTALL
)
_USE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def read(path: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Read ``export NAME=value`` lines; quoting and comments as in a shell.

    ``$NAME`` and ``${NAME}`` become what the file has set before, else what
    ``base`` has.

    Parameters
    ----------
    base : `dict`
        What the file adds to.

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
    values = dict(base)
    for line, word in _words(text, path):
        where = f"{path}:{line}"
        name, sign, value = word.partition("=")
        if not sign or not _NAME.fullmatch(name) or _COMMAND.search(value):
            raise ConfigurationError(
                f"{word!r} is not NAME=value", where=where, do="a file of variables holds export lines and comments"
            )
        if len(value.encode()) > MAX_VALUE:
            raise ConfigurationError(
                f"{name} is longer than {MAX_VALUE >> 10} KiB: no process could have it", where=where
            )
        home = value.replace("~", base.get("HOME", "~"), 1) if value.startswith("~/") else value
        values[name] = _USE.sub(partial(_value, values, where), home)
        if len(values[name]) > MAX_VALUE:
            raise ConfigurationError(f"{name} becomes longer than {MAX_VALUE >> 10} KiB", where=where)
    return values


def _words(text: str, path: Path) -> Iterator[tuple[int, str]]:
    """The words of the file, quotes removed, with their lines; without ``export``."""
    marked = text.replace("\\\n", CONTINUED)
    position, line = 0, 1
    while position < len(marked):
        match = _WORD.match(marked, position)
        if match is None:
            raise ConfigurationError("a quote is not closed", where=f"{path}:{line}", do="look at the last lines")
        position, read = match.end(), match[0]
        line += read.count("\n") + read.count(CONTINUED)
        if match["word"] and (word := "".join(map(_unquoted, _PIECE.finditer(match["word"])))) != "export":
            yield line, word.replace(CONTINUED, " ")


def _unquoted(piece: re.Match[str]) -> str:
    if piece["double"] is not None:
        return re.sub(r'\\(["\\])', r"\1", piece["double"])
    return str(next(text for text in (piece["single"], piece["escaped"], piece["bare"]) if text is not None))


def _value(values: Mapping[str, str], where: str, match: re.Match[str]) -> str:
    name = match[1] or match[2]
    if name not in values:
        meant = near(name, values, cutoff=0.7)
        do = f"did you mean ${meant}?" if meant else ""
        raise ConfigurationError(f"${name} is used before it is set", where=where, do=do)
    return values[name]
