"""Wording of messages: commands to give, and counts."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

#: Items of a list that a message names.
SHOWN = 8


def command(*words: object) -> str:
    """Write a command, quoted so that it can be given as it stands.

    Parameters
    ----------
    words : `object`
        The words after ``campaign``, unquoted.
    """
    return shlex.join(["campaign", *map(str, words)])


def count(number: int, singular: str, plural: str = "") -> str:
    """Write a count: ``1 run``, ``2 runs``.

    Parameters
    ----------
    plural : `str`, optional
        The plural, if not formed with an s.
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def ranks_text(ranks: int, by: str) -> str:
    """Write a number of ranks with the setting or limit that decided: ``2 (cores)``."""
    return f"{ranks} ({by})" if by else f"{ranks}"


def listed(items: Iterable[object]) -> str:
    """Write a few of many: ``1, 2, 3 and 7 more``."""
    words = [str(item) for item in items]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def times(seconds: Sequence[float]) -> str:
    """List exposure times, second; many of them by their range.

    Examples
    --------
    >>> times([1.0, 30.0])
    '1, 30'
    >>> times([0.1 * n for n in range(1, 11)])
    '0.1 to 1 (10 values)'
    """
    if len(seconds) <= SHOWN:
        return ", ".join(f"{t:g}" for t in seconds)
    return f"{min(seconds):g} to {max(seconds):g} ({len(seconds)} values)"
