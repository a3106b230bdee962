"""Resolves a template and the operator's environment to a step's configuration.

The conventions are those of the BPS templates of cp_pipe and cp_verify, whose
files resolve here unchanged.  Upstream keeps an unset variable literally, and
replaces an unknown ``{key}`` by nothing; here both are errors.  All errors of a
template are reported at once.

Layers, low to high: packaged defaults, included files, the template, the command
line.  A key is searched on the command line, in payload, in the group, in the
task, in the site, at the outermost level.  Values of variables are inserted
literally; text from the command line is expanded like text in the template.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from campaign.documents import Entry, merge
from campaign.problems import Problem, Problems
from campaign.template import check
from campaign.template.config import StepConfig, find
from campaign.template.expand import Expander
from campaign.template.files import Loader, locate
from campaign.template.selection import join_lines
from campaign.template.variables import Variables
from campaign.template.vocabulary import COMMAND_LINE, input_collections, vocabulary

__all__ = ["StepConfig", "TemplateErrors", "resolve"]


class TemplateErrors(Problems):
    """All problems of a template and its variables."""


def resolve(
    path_or_name: str,
    environment: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    site: str | None = None,
    now: datetime | None = None,
) -> StepConfig:
    """Resolve a template.

    Parameters
    ----------
    path_or_name : `str`
        A file, or a name (``bps_bias``, ``bps_bias.yaml``): then the working
        directory and the templates of cp_pipe and cp_verify are searched.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        The operator's variables.
    overrides : `~collections.abc.Mapping`, optional
        Values from the command line, by plain key (``dataQuery``, ``requestMemory``).
    site : `str`, optional
        Site that replaces the template's ``computeSite``.
    now : `~datetime.datetime`, optional
        Time of the submission; the current time by default.

    Raises
    ------
    TemplateErrors
        Every problem that was found.
    """
    source = locate(path_or_name, environment)
    if isinstance(source, Problem):
        raise TemplateErrors(path_or_name, [source])
    given = {**(overrides or {}), **({"computeSite": site} if site else {})}
    command_line = {key: _entry(value, COMMAND_LINE) for key, value in given.items()}
    variables, problems = Variables(environment), list[Problem]()
    names = Expander(variables, command_line, {}, problems)
    loaded = Loader(environment, lambda entry, key: names.string(entry, key, {}), problems).load(source)
    if loaded is None:
        raise TemplateErrors(str(source.path), problems)
    root = merge(_generated(environment, now), merge(dict(vocabulary().defaults), loaded))
    root = merge(root, _placed(command_line))
    wrong = check.sections(root)
    if wrong:
        raise TemplateErrors(str(source.path), [*problems, *wrong, *variables.problems()])
    problems += _fill(root)
    expander = Expander(variables, command_line, root, problems)
    values = expander.tree(Entry(root, ""), "")
    values.setdefault("uniqProcName", str(find(values, {}, "outputRun")).replace("/", "_"))
    origins = _origins(root, "") | ({} if "uniqProcName" in root else {"uniqProcName": "generated"})
    warnings = _inspect(values, origins, root, expander, problems)
    if "submitPath" not in loaded and "submitPath" not in command_line:
        warnings.append(f"{source.name}: no submitPath: {values['submitPath']} is taken")
    problems += variables.problems()
    if problems:
        raise TemplateErrors(str(source.path), list(dict.fromkeys(problems)))
    inside, warned = vocabulary().payload, (*variables.warnings, *warnings)
    chosen = {key: (values["payload"] if key in inside else values)[key] for key in command_line}
    return StepConfig(str(source.path), source.name, values, origins, variables.used, chosen, warned)


def _fill(root: dict[str, Entry]) -> list[Problem]:
    """Report missing keys once: references to them resolve to their own names, and are not reported too."""
    absent = check.missing(root)
    root |= {key: Entry(key, "", final=True) for key in absent}
    return [Problem(f"{key} is missing", "", vocabulary().keys[key]["is"]) for key in absent]


def _inspect(
    values: dict[str, Any],
    origins: Mapping[str, str],
    root: Mapping[str, Entry],
    expander: Expander,
    problems: list[Problem],
) -> list[str]:
    """Check the resolved values: add problems, return warnings."""
    payload = values["payload"]
    payload["inCollection"] = input_collections(find(values, {}, "inCollection"))
    payload["dataQuery"] = join_lines(str(find(values, {}, "dataQuery") or ""))
    found = {key: find(values, {}, key) for key in vocabulary().keys}
    unknown, warnings = check.keys(root, expander.referenced)
    problems += unknown + check.convert(values, origins)
    if not expander.variables.problems():
        # A name made with a wrong variable is not reported a second time.
        problems += check.collections(found, origins) + check.places(found, origins)
    return warnings + check.doubts(root, found, expander.variables.used, expander.variables.environment)


def _entry(value: Any, where: str) -> Entry:
    """Wrap a plain value as an entry."""
    if isinstance(value, Mapping):
        return Entry({str(key): _entry(below, where) for key, below in value.items()}, where)
    if isinstance(value, (list, tuple)):
        return Entry([_entry(below, where) for below in value], where)
    return Entry(value, where)


def _generated(environment: Mapping[str, str], now: datetime | None) -> dict[str, Entry]:
    stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    # In the order of `getpass.getuser`, which `ctrl_bps` asks: the same name for the same person.
    names = (environment.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME"))
    operator = next(filter(None, names), None) or getpass.getuser()
    return {"timestamp": Entry(stamp, "generated", final=True), "operator": Entry(operator, "environment", final=True)}


def _placed(command_line: Mapping[str, Entry]) -> dict[str, Entry]:
    """Place the command line's values where the template would have them."""
    inside = {key: entry for key, entry in command_line.items() if key in vocabulary().payload}
    outside = {key: entry for key, entry in command_line.items() if key not in inside}
    return {**outside, **({"payload": Entry(inside, COMMAND_LINE)} if inside else {})}


def _origins(section: Mapping[str, Entry], prefix: str) -> dict[str, str]:
    found = {}
    for key, entry in section.items():
        if isinstance(entry.value, dict):
            found.update(_origins(entry.value, f"{prefix}{key}."))
        else:
            found[prefix + key] = entry.where
    return found
