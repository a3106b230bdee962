"""Collects problems: an operator mends a file once, not once for each mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from campaign.errors import ConfigurationError
from campaign.wording import count


@dataclass(frozen=True)
class Problem:
    """Mistake in a file: the cause, its place (``file:line``), what to do."""

    what: str
    where: str = ""
    do: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n    -> {self.do}" if self.do else text


class Problems(ConfigurationError):
    """All problems of one file, in one error.

    Parameters
    ----------
    subject : `str`
        The file.
    problems : `~collections.abc.Sequence` [`Problem`]
        At least one.
    do : `str`, optional
        What to do about all of them.
    """

    def __init__(self, subject: str, problems: Sequence[Problem], do: str = "") -> None:
        self.problems = tuple(sorted(problems, key=_place))
        many = count(len(problems), "problem")
        super().__init__("\n  ".join([many, *map(str, self.problems)]), where=subject, do=do)


def _place(problem: Problem) -> tuple[str, int]:
    """Order by file, then by line as a number."""
    file, _, line = problem.where.rpartition(":")
    return (file, int(line)) if line.isdigit() else (problem.where, 0)


def near(name: str, known: Iterable[str], cutoff: float = 0.8) -> str:
    """Give the known name that ``name`` probably means; empty where none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else ""


def unknown_key(key: str, known: Iterable[str], where: str = "", level: str = "") -> Problem:
    """Report a key that a file cannot have; ``level`` leads to it, like ``payload.``."""
    return Problem(f"unknown key {level}{key}", where, suggest(key, known))


def suggest(name: str, known: Iterable[str]) -> str:
    """Suggest the closest known name, or list all."""
    names = sorted(set(known))
    match = near(name, names)
    return f"did you mean {match}?" if match else f"known: {', '.join(names) or 'none'}"
