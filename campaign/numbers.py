"""Numbers as people write them in headers, variables and camera files: in ASCII digits, not in Python.

Python takes ``1_0`` for ten, digits of any script, ``nan`` and ``infinity``.
"""

from __future__ import annotations

import math
import re
from typing import Any

_WHOLE = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([EeDd][+-]?[0-9]+)?")


def whole(text: str) -> int:
    """Read a whole number.

    Raises
    ------
    ValueError
        The text is no whole number, or too long.
    """
    if not _WHOLE.fullmatch(text.strip()) or len(text) > 40:
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def real(text: str) -> float:
    """Read a number; an exponent may be FITS's ``D``.

    Raises
    ------
    ValueError
        The text is no number, or too large.
    """
    text = text.strip()
    value = float(text.upper().replace("D", "E")) if _REAL.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def typed(value: Any) -> Any:
    """Refuse texts that only pydantic would read as numbers; return any other value.

    Raises
    ------
    ValueError
        The value is a switch, or a text that is no number.
    """
    if isinstance(value, bool):
        raise ValueError("must be a number")
    try:
        return real(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a number") from None  # the value stands beside it
