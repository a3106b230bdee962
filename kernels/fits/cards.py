"""FITS headers: values of cards, and size and checksum of the data (FITS standard 4.0).

NULs count as blanks.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import prod
from typing import cast

from kernels.errors import DataError
from kernels.fits.seal import ones_sum

BLOCK = 2880
"""Bytes of a block of a FITS file."""

CARD = 80
BITPIX = (8, 16, 32, 64, -32, -64)
LARGEST = 1 << 48
"""Largest accepted count in a header."""

_STRING = re.compile(r"\s*'((?:[^']|'')*)'")
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([EDed][+-]?\d+)?")
_LOGICAL = {"T": True, "F": False, "": None}

_CONTINUED = re.compile(r"\s*'((?:[^']|'')*)&\s*'")
NO_NAME = "COMPRESSED_IMAGE"
"""EXTNAME that fpack adds to an image; if the image has its own, both are in the header."""

Value = str | int | float | bool | None


@lru_cache(maxsize=4096)  # the headers of successive frames are mostly alike
def parsed(text: str) -> Value:
    """Parse the value of a card (FITS standard 4.0, section 4.2) from the text after its ``=``.

    Raises
    ------
    ValueError
        The text is no FITS value.
    """
    if match := _STRING.match(text):
        return match[1].replace("''", "'").rstrip()
    text = text.split("/", 1)[0].strip()
    if text in _LOGICAL:
        return _LOGICAL[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.upper().replace("D", "E"))
    raise ValueError(text)


def _value_or_none(text: str) -> Value:
    try:
        return parsed(text)
    except ValueError:
        return None


class Cards:
    """A header: the text after ``=`` by keyword; the first card of a name counts.

    An EXTNAME that fpack has put before the image's own is ignored.
    """

    def __init__(self, path: str, hdu: int) -> None:
        self.path, self._hdu = path, hdu
        self._texts: dict[str, str] = {}
        self._open = ""  # keyword that CONTINUE cards may continue
        self.ended = False
        self.data_start = 0  # byte of the file, set once the header has been read
        self._blocks: list[bytes] = []

    def add(self, block: bytes) -> None:
        """Read the cards of one more block; NULs count as blanks."""
        self._blocks.append(block)
        text, texts = (block.replace(b"\0", b" ") if b"\0" in block else block).decode("latin-1"), self._texts
        for k in range(0, len(text), CARD):
            name = text[k : k + 8]
            if text[k + 8 : k + 10] == "= ":
                key, value = name.rstrip(), text[k + 10 : k + CARD]
                if key in texts or "&" in value or not key.isupper():
                    self._put(key, value)
                else:
                    texts[key], self._open = value, ""
                continue
            card = text[k : k + CARD]
            if name == "END     " and not card.strip("END "):
                self.ended = True
                return
            if name == "HIERARCH" and "=" in card and card[8] == " ":
                key, value = card[9:].split("=", 1)
                self._put(" ".join(key.split()), value)
            elif name == "CONTINUE" and self._open:
                self._continue(card[8:])
            elif name.strip():  # blank cards may stand between
                self._open = ""

    def _put(self, key: str, text: str) -> None:
        key = key.upper()
        first = key not in self._texts
        if key == "EXTNAME" and not first and _value_or_none(self._texts[key]) == NO_NAME:
            first = True
        self._open = key if first and "&" in text and _CONTINUED.match(text) else ""
        if first:
            self._texts[key] = text

    def _continue(self, text: str) -> None:
        """Add the text of a CONTINUE card (FITS standard 4.0, section 4.2.1.2)."""
        before, more = _CONTINUED.match(self._texts[self._open]), _STRING.match(text)
        if before is None or more is None:
            self._open = ""
            return
        self._texts[self._open] = f"'{before[1]}{more[1]}'"
        if not _CONTINUED.match(text):
            self._open = ""

    def get(self, keyword: str) -> Value:
        """Return the value of a keyword (in capitals); `None` if the header has none.

        Raises
        ------
        DataError
            The text is no FITS value.
        """
        if keyword not in self._texts:
            return None
        try:
            return parsed(self._texts[keyword])
        except ValueError as error:
            raise DataError(self.path, f"HDU {self._hdu}: {keyword} is {error}, which is no FITS value") from error

    def text(self, keyword: str) -> str | None:
        """Return the value of a keyword as text."""
        value = self.get(keyword)
        return None if value is None else str(value).strip()

    def count(self, keyword: str, default: int | None = None) -> int:
        """Return the value of a keyword as a whole number from 0 on."""
        value = self.get(keyword)
        number = default if value is None else value
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < LARGEST:
            raise DataError(self.path, f"HDU {self._hdu}: {keyword} is {number!r}, not a whole number")
        return number

    def has(self, keyword: str) -> bool:
        """Tell whether the header has the keyword."""
        return keyword in self._texts

    def axes(self, prefix: str = "") -> list[int]:
        """Read the lengths of the axes, NAXIS1 first."""
        return [self.count(f"{prefix}NAXIS{n + 1}") for n in range(self.count(f"{prefix}NAXIS"))]

    def shape(self, prefix: str = "") -> list[int]:
        """Read the lengths of the axes without those of length 1 behind the second."""
        axes = self.axes(prefix)
        while len(axes) > 2 and axes[-1] == 1:
            axes.pop()
        return axes

    @property
    def hdu(self) -> int:
        """Number of the HDU in the file, from 0."""
        return self._hdu

    @property
    def compressed(self) -> bool:
        """Whether the HDU is an image compressed by tiles."""
        return self.get("ZIMAGE") is True

    @property
    def is_image(self) -> bool:
        """Whether the HDU may hold an image: primary, IMAGE, or tiles."""
        return self.compressed or self.text("XTENSION") in (None, "IMAGE")

    @property
    def summed_by(self) -> str:
        """Name of the card that `datasum` reads."""
        return "DATASUM" if self.text("DATASUM") else "CHECKSUM"

    def datasum(self) -> int | None:
        """Compute the sum that the data must have; `None` if the header has none.

        Without DATASUM it follows from CHECKSUM: header and data sum to all ones (FITS standard 4.0, section 4.4.2.7).
        """
        text, whole = self.text("DATASUM") or "", self.text("CHECKSUM") or ""
        if text:
            return int(text) if text.isdecimal() else None
        if len(whole) != 16 or whole == "0" * 16:
            return None
        return 0xFFFFFFFF - ones_sum(b"".join(self._blocks).ljust(len(self._blocks) * BLOCK))

    def holds(self) -> bool:
        """Whether the header is the one that CHECKSUM and DATASUM seal, as far as it has both."""
        text, whole = self.text("DATASUM") or "", self.text("CHECKSUM") or ""
        if not text.isdecimal() or len(whole) != 16 or whole == "0" * 16:
            return True
        return same_sum(ones_sum(b"".join(self._blocks).ljust(len(self._blocks) * BLOCK)) + int(text), 0)

    def cards(self) -> list[bytes]:
        """List the cards as they are, with blanks for NULs, without END."""
        text = b"".join(self._blocks).replace(b"\0", b" ")
        every = [text[k : k + CARD].ljust(CARD) for k in range(0, len(text), CARD)]
        return every[: next(k for k, card in enumerate(every) if card.startswith(b"END ") and not card.strip(b"END "))]

    def bytes(self) -> int:
        """Compute the size of the data that follow, without padding (FITS standard 4.0, equation 2)."""
        bits = self.get("BITPIX")
        if bits not in BITPIX:
            raise DataError(self.path, f"HDU {self._hdu}: BITPIX is {bits!r}")
        axes = self.axes()
        pixels = self.count("GCOUNT", 1) * (self.count("PCOUNT", 0) + prod(axes)) if axes else 0
        return pixels * abs(cast(int, bits)) // 8

    def data_bytes(self) -> int:
        """Compute the size of the data that follow, padding included."""
        return -(-self.bytes() // BLOCK) * BLOCK


def same_sum(one: int, other: int) -> bool:
    """Whether two ones' complement sums are equal: zero has two forms."""
    return (one - other) % 0xFFFFFFFF == 0
