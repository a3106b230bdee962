"""What pydantic finds wrong with a file, said for whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError


def _place(loc: Sequence[str | int], plain: Any) -> str:
    """Say where in the file: list items by their name rather than their number."""
    words = []
    for key in loc:
        try:
            plain = plain[key]
        except (LookupError, TypeError):
            plain = None
        words.append(str(plain.get("name", key)) if isinstance(key, int) and isinstance(plain, dict) else str(key))
    return " ".join(words)


def _sentence(error: Mapping[str, Any], plain: Any) -> str:
    place = _place(error["loc"], plain) or "the file"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "extra_forbidden":
        return f"{place} is no known key"
    return f"{place}: {error['msg'].removeprefix('Value error, ')} (found {error['input']!r:.60})"


def sentences(error: ValidationError, plain: Any) -> list[str]:
    """Say of every error where in the file it is, and why.

    Parameters
    ----------
    plain
        What the file holds.
    """
    return [_sentence(e, plain) for e in error.errors()]
