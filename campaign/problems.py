"""Problems that are reported together, so that an operator mends a file once, not once per mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from campaign.errors import ConfigurationError
from campaign.wording import count


@dataclass(frozen=True)
class Problem:
    """One mistake: the cause, its place (``file:line``), and what to do."""

    what: str
    where: str = ""
    do: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n    -> {self.do}" if self.do else text


class Problems(ConfigurationError):
    """All mistakes of one file, in one error.

    Parameters
    ----------
    subject : `str`
        The file.
    problems : `~collections.abc.Sequence` [`Problem`]
        At least one.
    """

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=_place))
        many = count(len(problems), "problem")
        super().__init__("\n  ".join([many, *map(str, self.problems)]), where=subject)


def _place(problem: Problem) -> tuple[str, int]:
    """Order by file, then by line as a number."""
    file, _, line = problem.where.rpartition(":")
    return (file, int(line)) if line.isdigit() else (problem.where, 0)


def near(name: str, known: Iterable[str], cutoff: float = 0.8) -> str:
    """Find the known name that is probably meant by ``name``; empty where there is none."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """Suggest the name that was probably meant, or list the known ones."""
    names = sorted(set(known))
    match = near(name, names)
    return f"did you mean {match}?" if match else f"known: {', '.join(names) or 'none'}"
