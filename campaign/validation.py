"""Translates pydantic's errors into sentences for the author of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from campaign.documents import Entry
from campaign.problems import unknown_key

#: Requirements, by the beginning of pydantic's name for their violation.
_MUST = {
    "int_": "must be a whole number",
    "float_": "must be a number",
    "finite_number": "must be a number",
    "decimal_": "must be a number",
    "bool_": "must be true or false",
    "string_type": "must be text: put it in quotes",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be keys with values",
    "model_type": "must be keys with values",
    "model_attributes_type": "must be keys with values",
}
#: Limits: the words before the limit, and pydantic's name of it.
_LIMITS = {
    "greater_than": ("must be greater than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
    "too_short": ("has too few values: at least", "min_length"),
    "too_long": ("has too many values: at most", "max_length"),
    "literal_error": ("must be", "expected"),
}
#: Beginning of the pattern of names; see `campaign.camera.parts.Name`.
_NAME = "[A-Za-z0-9][A-Za-z0-9_.+-]*"


def _place(loc: Sequence[str | int], plain: Any) -> str:
    """Spell a place in the file, list items by name rather than number."""
    words = []
    for key in loc:
        try:
            plain = plain[key]
        except (LookupError, TypeError):
            plain = None
        words.append(str(plain.get("name", key)) if isinstance(key, int) and isinstance(plain, dict) else str(key))
    return " ".join(words)


def line_of(tree: Entry, loc: Sequence[str | int]) -> str:
    """Give file and line of a value or, where it is missing, of the mapping around it."""
    where = tree.where
    for key in loc:
        try:
            tree = tree.value[key]
        except (LookupError, TypeError):
            break
        where = tree.where
    return where


def _siblings(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """List the keys allowed in place of the last one; empty where any key is."""
    kinds: list[Any] = [model]
    for key in loc:
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        fields = {name: field for kind in models for name, field in kind.model_fields.items()}
        if key is loc[-1]:
            return sorted(fields)
        kinds = _parts(fields[key].annotation) if key in fields else [part for kind in kinds for part in get_args(kind)]
        kinds = [part for kind in kinds for part in (kind, *get_args(kind))]
    return []


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(part for one in get_args(annotation) for part in _parts(one))]


def _must(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"{words} {context[key]}"
    if kind == "string_pattern_mismatch" and _NAME in str(context.get("pattern")):
        return "must be letters, digits and _ . + -, a letter or digit first"
    if kind == "string_too_long":
        return f"must have at most {context['max_length']} characters"
    if kind == "string_too_short":
        return "must not be empty"
    words = next((words for start, words in _MUST.items() if kind.startswith(start)), "")
    return words or str(error["msg"]).removeprefix("Value error, ")


def _sentence(error: Mapping[str, Any], plain: Any, model: type[BaseModel] | None) -> str:
    loc = [key for key in error["loc"] if key != "[key]"]
    place = _place(loc, plain) or "the file"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "extra_forbidden":
        known = _siblings(model, loc) if model else []
        return _unknown(place, str(loc[-1]), known)
    if "[key]" in error["loc"] and error["type"] == "literal_error":
        known = [word.strip().strip("'") for word in str(error["ctx"]["expected"]).replace(" or ", ", ").split(",")]
        return _unknown(place, str(loc[-1]), known)
    return f"{place}: {_must(error)} (found {error['input']!r:.60})"


def _unknown(place: str, key: str, known: Sequence[str]) -> str:
    problem = unknown_key(key, known, level=place.removesuffix(key))
    return f"{problem.what}: {problem.do}" if known else problem.what


def sentences(
    error: ValidationError, plain: Any, model: type[BaseModel] | None = None, tree: Entry | None = None
) -> list[str]:
    """Give a sentence for every error, with its place and reason.

    Parameters
    ----------
    plain
        Contents of the file.
    model : type, optional
        Model of the whole file, for suggestions in place of an unknown key.
    tree : `Entry`, optional
        Contents of the file with their lines.
    """
    found = []
    for one in error.errors():
        where = f"{line_of(tree, [key for key in one['loc'] if key != '[key]'])}: " if tree else ""
        found.append(where + _sentence(one, plain, model))
    return found
