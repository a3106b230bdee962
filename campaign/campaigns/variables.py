"""The variables of a campaign: the document's, the shell's and a file's, merged and expanded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from campaign.problems import Problem, Problems, suggest
from campaign.template import envfile
from campaign.template.selection import check_expression

#: Variables that name a campaign: another value is another campaign.
IDENTITY = ("TICKET", "TAG", "RERUN")
_USE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


class DocumentErrors(Problems):
    """All errors of a campaign's document."""


def variables(given: Mapping[str, str], path: Path, env_file: Path | None, shell: Mapping[str, str]) -> dict[str, str]:
    """Merge the variables of a campaign: the document's, overridden by the shell's, and these by a file's.

    ``$NAME`` in a value of the document takes the final value of NAME.

    Raises
    ------
    DocumentErrors, ConfigurationError
        A value uses itself, or a variable that is not set; the file cannot be read.
    """
    over = dict(shell)
    if env_file is not None:
        plain = {name: value for name, value in given.items() if "$" not in value}
        over = envfile.read(env_file, {**plain, **shell})
    values = {**given, **{k: v for k, v in over.items() if k in given}}
    raw = {k for k in given if k not in over}
    found, problems = {**over, **values}, []
    for name in raw:
        try:
            found[name] = _expanded(name, found, raw, ())
        except _Unset as error:
            known = [*given, *over]
            problems.append(Problem(f"variable {name}: {error}", do=suggest(str(error).split()[0].strip("$"), known)))
    for name, value in found.items():
        if name.startswith("SELECTION_") and (name in given or env_file is not None):
            problems += [Problem(f"{name}: {p}") for p in check_expression(value)]
    problems += [
        Problem(f"variable {name} is not set", do=f"{name} names the campaign")
        for name in IDENTITY
        if not found.get(name)
    ]
    if problems:
        raise DocumentErrors(str(path), problems)
    return found


class _Unset(Exception):
    """A value uses a variable that is not set."""


def _expanded(name: str, values: Mapping[str, str], raw: set[str], inside: tuple[str, ...]) -> str:
    if name in inside:
        raise _Unset(f"${name} is used by itself")

    def value(match: re.Match[str]) -> str:
        other = match[1] or match[2]
        if other not in values:
            raise _Unset(f"${other} is not set")
        return _expanded(other, values, raw, (*inside, name)) if other in raw else values[other]

    return _USE.sub(value, values[name]) if name in raw else values[name]
