"""Checks a resolved template: errors, and values that are probably not meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from campaign import numbers
from campaign.documents import Entry
from campaign.problems import Problem, near, unknown_key
from campaign.template.selection import splits
from campaign.template.vocabulary import COMMAND_LINE, is_collection, vocabulary

REQUIRED: Final = ("pipelineYaml", "payloadName", "butlerConfig", "inCollection")
_SECTIONS: Final = ("payload", "cluster", "pipetask", "site", "environment")
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
_SWITCHES: Final = {"true": True, "false": False}


def sections(root: Mapping[str, Entry]) -> list[Problem]:
    """Find sections that are not mappings, including the named ones inside cluster, pipetask and site."""
    found = []
    for name in _SECTIONS:
        entry = root.get(name)
        if entry is None or entry.value is None:
            continue
        if not isinstance(entry.value, dict):
            found.append(Problem(f"{name}: must hold keys, not {entry.value!r}", entry.where))
        elif name in ("cluster", "pipetask", "site"):
            for label, inner in entry.value.items():
                if not isinstance(inner.value, (dict, type(None))):
                    found.append(Problem(f"{name}.{label}: must hold keys, not {inner.value!r}", inner.where))
    return found


def _levels(root: Mapping[str, Entry]) -> Iterator[tuple[str, Mapping[str, Entry], set[str]]]:
    """Yield each checked level, with the keys that it may hold."""
    words = vocabulary()
    shared = {*words.resources, "extraRunQuantumOptions", "runQuantumCommand"}
    yield "", root, {*words.root, *words.payload, *shared}
    inside = {"cluster": shared | {*words.groups}, "pipetask": shared, "site": shared}
    for name, known in {"payload": shared | {*words.payload}, **inside}.items():
        entry = root.get(name)
        value = entry.value if entry is not None and isinstance(entry.value, dict) else {}
        if name == "payload":
            yield "payload.", value, known
            continue
        for label, inner in value.items():
            if isinstance(inner.value, dict):
                yield f"{name}.{label}.", inner.value, known


def keys(root: Mapping[str, Entry], referenced: set[str]) -> tuple[list[Problem], list[str]]:
    """Find unknown keys: misspelt ones are problems, others warnings.

    On the command line every unknown key is a problem.  A key that some ``{key}`` refers to is allowed; a site may
    hold anything for its scheduler.
    """
    problems, warnings = [], []
    for level, section, known in _levels(root):
        for key, entry in section.items():
            if key in known or key in referenced:
                continue
            meant = near(key, known)
            if meant or entry.where == COMMAND_LINE:
                problems.append(unknown_key(key, known, entry.where, level))
            elif not level.startswith("site."):
                warnings.append(f"{entry.where}: nothing uses the key {level}{key}")
    return problems, warnings


def _converted(value: Any, kind: str) -> Any:
    """Convert a value to its kind; raise `ValueError` where that fails."""
    text = str(value).strip()
    if kind == "switch":
        return value if isinstance(value, bool) else _SWITCHES[text.lower()]
    if isinstance(value, bool):
        raise ValueError(value)
    if isinstance(value, str) and not _NUMBER.fullmatch(text):  # 0640 and 1_000 are ambiguous
        raise ValueError(value)
    number = numbers.whole(text) if kind == "integer" else numbers.real(text)
    if not 0 <= number < 2**53:
        raise ValueError(value)
    return number


def convert(values: dict[str, Any], origins: Mapping[str, str], prefix: str = "") -> list[Problem]:
    """Convert numbers and switches of a resolved section that came as text, in place; ``prefix`` ends in a dot."""
    found = []
    known = vocabulary().keys
    for key, value in values.items():
        where = origins.get(prefix + key, "")
        if isinstance(value, dict):
            if key != "environment":
                found += convert(value, origins, f"{prefix}{key}.")
            continue
        rule = known.get(key, {})
        if rule.get("kind") not in ("integer", "number", "switch") or value is None:
            if rule.get("kind") == "text" and isinstance(value, list):
                found.append(Problem(f"{prefix}{key}: a single value was expected, not a list", where))
            continue
        try:
            values[key] = _converted(value, rule["kind"])
        except (ValueError, KeyError):
            wanted = f"{rule['kind']} ({rule['unit']})" if "unit" in rule else "true or false"
            found.append(Problem(f"{prefix}{key}: {value!r} is not what is expected: {wanted}", where, rule["is"]))
    return found


def missing(root: Mapping[str, Entry]) -> list[str]:
    """List the required keys that the template lacks."""
    payload = root["payload"].value
    found = {key: payload.get(key) or root.get(key) for key in REQUIRED}
    return [key for key, entry in found.items() if entry is None or not entry.value]


def places(find: Mapping[str, Any], origins: Mapping[str, str]) -> list[Problem]:
    """Find places of a run that are empty; each has a default, which only an empty value takes away."""
    return [
        Problem(f"{key} is empty", origins.get(key, ""), vocabulary().keys[key]["is"])
        for key in ("submitPath", "outputRun")
        if not str(find[key] or "").strip()
    ]


def collections(find: Mapping[str, Any], origins: Mapping[str, str]) -> list[Problem]:
    """Find names that are no collection names, or that lead out of the repository's root."""
    output, run = str(find["output"]), str(find["outputRun"])
    # A wrong output makes the run inside it wrong for the same reason.
    named = [("output", output)] + [("outputRun", run)] * (is_collection(output) or not run.startswith(output))
    named += [("inCollection", name) for name in find["inCollection"]]
    return [
        Problem(
            f"{key}: {name!r} cannot be a collection's name",
            origins.get(f"payload.{key}", ""),
            "letters, digits, _ . + : @ ~ - and single slashes between them, no '..'",
        )
        for key, name in named
        if name and not is_collection(name)
    ]


def doubts(
    root: Mapping[str, Entry], find: Mapping[str, Any], used: Mapping[str, str], every: Mapping[str, str]
) -> list[str]:
    """List values that are allowed and probably not meant.

    Parameters
    ----------
    root : `dict` [`str`, `Entry`]
        The merged tree, unexpanded.
    find : `dict`
        Resolved values by plain key.
    used, every : `dict` [`str`, `str`]
        Variables that the template asked for, and all variables.
    """
    found = []
    output = str(find["output"])
    if output.rpartition("/")[2].startswith("verify") and "VERIFY_RERUN" not in used and "RERUN" in used:
        found.append(f"output {output} is a verification named by RERUN, not by VERIFY_RERUN as the others are")
    rerun, verify = every.get("RERUN", ""), used.get("VERIFY_RERUN", "")
    if rerun[:4].isdigit() and verify[:4].isdigit() and verify[:4] < rerun[:4]:
        found.append(f"VERIFY_RERUN={verify} is of an earlier year than RERUN={rerun}")
    if "SELECTION_GAIN_CORRECTION" in every and "SELECTION_GAIN_CORRECTION_FLAT" in used:
        found.append("SELECTION_GAIN_CORRECTION is set, but SELECTION_GAIN_CORRECTION_FLAT is what is read")
    query = root["payload"].value.get("dataQuery") or Entry("", "")
    for name in re.findall(r"\$\{(SELECTION_\w+)\} +and\b", str(query.value)):
        if splits(used.get(name, "")):
            what = f"{name} holds an 'or' outside parentheses: the 'and' behind it applies to its last part only"
            found.append(f"{query.where}: {what}")
    if not find["dataQuery"]:
        found.append("dataQuery is empty: everything in the input collections is selected")
    return found
