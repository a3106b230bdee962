"""Variables from a file, as an operator exports them: no shell is started to read it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from campaign.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
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
        text = path.read_text(encoding="utf-8")
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(path)) from error
    values = dict(base)
    for word in words:
        if word == "export":
            continue
        name, sign, value = word.partition("=")
        if not sign or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{word!r} is not NAME=value", where=str(path), do="the file may hold export lines and comments only"
            )
        values[name] = _USE.sub(lambda m: _value(m, values, path), value)
    return values


def _value(match: re.Match[str], values: Mapping[str, str], path: Path) -> str:
    name = match[1] or match[2]
    if name not in values:
        raise ConfigurationError(f"${name} is used before it is set", where=str(path))
    return values[name]
