"""Wording of messages: commands to give, and counts."""

from __future__ import annotations

import shlex


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
