"""Variables from a file, as an operator exports them: no shell is started to read it."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from campaign.errors import ConfigurationError
from campaign.problems import near

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: In place of a line's end after a backslash, which is a blank, and still counts as a line.
CONTINUED = "\0"
#: What a shell would run.
_COMMAND = re.compile(r"\$\(|`")
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
        text = path.read_text(encoding="utf-8-sig")  # an editor may have put a mark before it
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"cannot be read: {why}", where=str(path)) from error
    values = dict(base)
    for line, word in _words(text, path):
        where = f"{path}:{line}"
        name, sign, value = word.partition("=")
        if not sign or not _NAME.fullmatch(name) or _COMMAND.search(value):
            raise ConfigurationError(
                f"{word!r} is not NAME=value", where=where, do="a file of variables holds export lines and comments"
            )
        home = value.replace("~", base.get("HOME", "~"), 1) if value.startswith("~/") else value
        values[name] = _USE.sub(partial(_value, values, where), home)
    return values


def _words(text: str, path: Path) -> Iterator[tuple[int, str]]:
    """The words of the file, quotes removed, with their lines; without ``export``."""
    marked = text.replace("\\\n", CONTINUED)
    stream = io.StringIO(marked)
    lexer = shlex.shlex(stream, posix=True)
    lexer.whitespace_split = True
    lexer.whitespace += CONTINUED
    try:
        for word in lexer:
            read = marked[: stream.tell() - 1]
            if word != "export":
                yield 1 + read.count("\n") + read.count(CONTINUED), word.replace(CONTINUED, " ")
    except ValueError as error:
        raise ConfigurationError("a quote is not closed", where=str(path), do="look at the last lines") from error


def _value(values: Mapping[str, str], where: str, match: re.Match[str]) -> str:
    name = match[1] or match[2]
    if name not in values:
        meant = near(name, values, cutoff=0.7)
        do = f"did you mean ${meant}?" if meant else ""
        raise ConfigurationError(f"${name} is used before it is set", where=where, do=do)
    return values[name]
