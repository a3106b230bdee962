"""Metadata of a table as header cards, with names in their own case and long texts whole.

cfitsio writes names in capitals and reads only the first card of a long text.
A name that the standard does not allow stands in a HIERARCH card, a long text
goes on in CONTINUE cards (FITS standard 4.0, section 4.2.1.2), a list is a card
an item (as astropy writes it), and `None` is a card without a value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kernels.fits.cards import CARD, Value, parsed

#: Value of an entry: as in a card, or a list of these.
Entry = Value | list[Value]

_PLAIN = re.compile(r"[A-Z0-9_-]{1,8}")
_NAMEABLE = re.compile(r"[ !-<>-~]{1,60}")
_OPEN = re.compile(r"'((?:[^']|'')*)&\s*'\s*(/.*)?$")
#: Cards that describe the file, not its content.
_STRUCTURE = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|EXTEND|TFIELDS|THEAP|LONGSTRN|EXTNAME|EXTVER|CHECKSUM|DATASUM"
    r"|COMMENT|HISTORY|(TTYPE|TFORM|TUNIT|TDIM|TNULL|TSCAL|TZERO|TDISP)\d+)?"
)


def _quoted(text: str) -> list[str]:
    """Split a text for one card and its continuations."""
    return re.findall(r"(?:''|[^']){1,30}", text.replace("'", "''")) or [""]


def _text(value: Any) -> str:
    """Write a value that is no text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "T" if value else "F"
    return repr(value).upper()


def _card(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict | list) or (isinstance(value, float) and not math.isfinite(value)):
        value = json.dumps(value, default=str)
    plain = _PLAIN.fullmatch(name)
    head = f"{name:8}= " if plain else f"HIERARCH {name} = "
    if not isinstance(value, str):
        yield head + (f"{_text(value):>20}" if plain else _text(value))
        return
    text = value.encode("ascii", "backslashreplace").decode()
    whole = head + "'" + f"{text.replace(chr(39), chr(39) * 2):8}'"
    if len(whole) <= CARD and not text.endswith("&"):
        yield whole
        return
    pieces = ["", *_quoted(text)] if len(head) > CARD - 63 else _quoted(text)
    for n, piece in enumerate(pieces):
        yield (head if not n else "CONTINUE  ") + f"'{piece}{'&' if n < len(pieces) - 1 else ''}'"


def write_cards(metadata: Mapping[str, Any]) -> list[bytes]:
    """Write metadata as cards of 80 characters; what describes a file's structure is left out.

    Raises
    ------
    ValueError
        A name has more than 60 characters, or one that no card can hold.
    """
    cards: list[bytes] = []
    for name, value in metadata.items():
        if _STRUCTURE.fullmatch(name):
            continue
        if not _NAMEABLE.fullmatch(name) or name != name.strip():
            raise ValueError(f"no header card can be named {name!r}")
        for item in value if isinstance(value, list) and value else [value]:
            cards += [text.ljust(CARD).encode("ascii") for text in _card(name, item)]
    return cards


def read_cards(cards: Sequence[bytes]) -> dict[str, Entry]:
    """Read metadata from a header's cards; a name that stands more than once becomes a list.

    Raises
    ------
    ValueError
        The text of a card is no FITS value.
    """
    found: list[tuple[str, str]] = []
    for card in (raw.decode("latin-1") for raw in cards):
        if card.startswith("CONTINUE") and found and (match := _OPEN.match(found[-1][1].strip())):
            more = card[8:].strip()
            found[-1] = found[-1][0], f"'{match[1]}{more[1:] if more.startswith(chr(39)) else chr(39)}"
        elif card.startswith("HIERARCH ") and "=" in card:
            name, text = card[9:].split("=", 1)
            found.append((name.strip(), text))
        elif card[8:10] == "= ":
            found.append((card[:8].rstrip(), card[10:]))
    metadata: dict[str, Entry] = {}
    for name, text in found:
        if _STRUCTURE.fullmatch(name):
            continue
        value, before = parsed(text), metadata.get(name)
        if name not in metadata:
            metadata[name] = value
        elif isinstance(before, list):
            before.append(value)
        else:
            metadata[name] = [before, value]
    return metadata
