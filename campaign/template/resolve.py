"""From a template and the operator's environment to a step's configuration.

The conventions are those of the BPS templates of cp_pipe and cp_verify, whose
files resolve here unchanged.  Where upstream leaves an unset variable as it
stands, or makes nothing of an unknown ``{key}``, this is an error: all errors
of a template are found in one go.

Layers, low to high: packaged defaults, the files that the template includes,
the template, the command line.  A key is looked for on the command line, in
payload, in the group, in the task, in the site, at the outermost level.
Values of variables are put in as they are; a text from the command line is
expanded as one in the template.
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
    """Everything that is wrong with a template and its variables."""


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
        A file, or a name (``bps_bias``, ``bps_bias.yaml``) that is looked for
        in the working directory and in the templates of cp_pipe and cp_verify.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        The operator's variables.
    overrides : `~collections.abc.Mapping`, optional
        Values from the command line, by plain key (``dataQuery``, ``requestMemory``).
    site : `str`, optional
        In place of the template's ``computeSite``.
    now : `~datetime.datetime`, optional
        The time of the submission; the current one by default.

    Raises
    ------
    TemplateErrors
        With every problem that was found.
    """
    source = locate(path_or_name, environment)
    if isinstance(source, Problem):
        raise TemplateErrors(path_or_name, [source])
    problems: list[Problem] = []
    variables = Variables(environment)
    given = {**(overrides or {}), **({"computeSite": site} if site else {})}
    command_line = {key: _entry(value, COMMAND_LINE) for key, value in given.items()}
    names = Expander(variables, command_line, {}, problems)
    loaded = Loader(environment, lambda entry, key: names.string(entry, key, {}), problems).load(source)
    if loaded is None:
        raise TemplateErrors(str(source.path), problems)
    root = merge(_generated(environment, now), merge(dict(vocabulary().defaults), loaded))
    root = merge(root, _placed(command_line))
    wrong = check.sections(root)
    if wrong:
        raise TemplateErrors(str(source.path), [*problems, *wrong, *variables.problems()])
    absent = check.missing(root)
    problems += [Problem(f"{key} is missing", "", vocabulary().keys[key]["is"]) for key in absent]
    # Said once: what refers to it is not complained of too, as its own name stands for it.
    root |= {key: Entry(key, "", final=True) for key in absent}
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
    inside = vocabulary().payload
    given_values = {key: (values["payload"] if key in inside else values)[key] for key in command_line}
    return StepConfig(
        str(source.path), source.name, values, origins, variables.used, given_values, (*variables.warnings, *warnings)
    )


def _inspect(
    values: dict[str, Any],
    origins: Mapping[str, str],
    root: Mapping[str, Entry],
    expander: Expander,
    problems: list[Problem],
) -> list[str]:
    """Check what was resolved: problems are added, warnings given back."""
    payload = values["payload"]
    payload["inCollection"] = input_collections(find(values, {}, "inCollection"))
    payload["dataQuery"] = join_lines(str(find(values, {}, "dataQuery") or ""))
    found = {key: find(values, {}, key) for key in vocabulary().keys}
    unknown, warnings = check.keys(root, expander.referenced)
    problems += unknown + check.convert(values, origins)
    if not expander.variables.problems():
        # A name made with a variable that is wrong is not worth a second complaint.
        problems += check.collections(found, origins)
    return warnings + check.doubts(root, found, expander.variables.used, expander.variables.environment)


def _entry(value: Any, where: str) -> Entry:
    """Dress a plain value."""
    if isinstance(value, Mapping):
        return Entry({str(key): _entry(below, where) for key, below in value.items()}, where)
    if isinstance(value, (list, tuple)):
        return Entry([_entry(below, where) for below in value], where)
    return Entry(value, where)


def _generated(environment: Mapping[str, str], now: datetime | None) -> dict[str, Entry]:
    stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    operator = environment.get("USER") or environment.get("LOGNAME") or getpass.getuser()
    return {
        "timestamp": Entry(stamp, "generated", final=True),
        "operator": Entry(operator, "environment", final=True),
    }


def _placed(command_line: Mapping[str, Entry]) -> dict[str, Entry]:
    """Put what the command line gives where the template would have it."""
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
