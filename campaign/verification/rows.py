"""Rows of statistics as columns, text as codes: what verdicts are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from campaign.errors import CampaignError

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Columns of `kernels.verification.rows.COLUMNS`, which a test compares.
TEXTS: Final = ("metric", "kind", "amplifier", "role")
WHOLE: Final = ("exposure", "detector")
NUMBERS: Final = ("mjd", "value", "expected", "variance", "shared", "size")
#: Detector of rows and lines of the whole camera.
CAMERA: Final = -1


class RowsUnreadable(CampaignError):
    """Rows cannot be read, or lack a column."""

    exit_code = 65


@dataclass(frozen=True)
class Text:
    """A column of text: a name for each code."""

    codes: I64
    names: tuple[str, ...]

    @classmethod
    def of(cls, texts: Any) -> Text:
        """Encode an array of text."""
        names, codes = np.unique(np.asarray(texts, np.str_), return_inverse=True)
        return cls(codes.astype(np.int64), tuple(map(str, names)))

    @classmethod
    def all(cls, text: str, number: int) -> Text:
        """Repeat one text."""
        return cls(np.zeros(number, np.int64), (text,))

    def is_(self, *names: str) -> Bool:
        """Flag the rows with one of some texts."""
        wanted = [k for k, name in enumerate(self.names) if name in names]
        return np.isin(self.codes, wanted)

    def __getitem__(self, which: Any) -> Text:
        return Text(np.atleast_1d(self.codes[which]), self.names)

    def list(self) -> list[str]:
        """Give the texts."""
        return [self.names[k] for k in self.codes.tolist()]


@dataclass(frozen=True)
class Rows:
    """Rows; see `kernels.verification.rows.COLUMNS` for the meaning of the columns."""

    metric: Text
    kind: Text
    amplifier: Text
    role: Text
    exposure: I64
    detector: I64
    mjd: F64
    value: F64
    expected: F64
    variance: F64
    shared: F64
    size: F64

    def __len__(self) -> int:
        return len(self.value)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Rows:
        """Take columns of plain arrays, as the kernels give them.

        Raises
        ------
        RowsUnreadable
            A column is missing.
        """
        if missing := [name for name in (*TEXTS, *WHOLE, *NUMBERS) if name not in plain]:
            raise RowsUnreadable(f"rows have no column {missing[0]}", do="measure again with this version")
        columns: dict[str, Any] = {
            **{name: plain[name] if isinstance(plain[name], Text) else Text.of(plain[name]) for name in TEXTS},
            **{name: np.asarray(plain[name], np.int64) for name in WHOLE},
            **{name: np.asarray(plain[name], np.float64) for name in NUMBERS},
        }
        return cls(**columns)

    def where(self, which: Any) -> Rows:
        """Select rows."""
        return Rows(**{name: getattr(self, name)[which] for name in (*TEXTS, *WHOLE, *NUMBERS)})

    def named(self, *metrics: str) -> Rows:
        """Select the rows of some metrics."""
        return self.where(self.metric.is_(*metrics))


def join(parts: Iterable[Rows]) -> Rows:
    """Join rows."""
    every = [part for part in parts if len(part)]
    if len(every) == 1:
        return every[0]
    texts = {}
    for name in TEXTS:
        names = {text: k for k, text in enumerate(sorted({n for p in every for n in getattr(p, name).names}))}
        codes = [np.array([names[n] for n in getattr(p, name).names], np.int64)[getattr(p, name).codes] for p in every]
        texts[name] = Text(np.concatenate(codes) if codes else np.empty(0, np.int64), tuple(names))
    numbers: dict[str, Any] = {
        name: np.concatenate([getattr(p, name) for p in every]) if every else [] for name in (*WHOLE, *NUMBERS)
    }
    return Rows.of({**texts, **numbers})


@dataclass(frozen=True)
class Groups:
    """Rows in groups of equal keys."""

    #: [row]: order in which the groups' rows follow one another, and [group]: place of the first of each.
    order: I64
    starts: I64

    @classmethod
    def by(cls, *keys: I64) -> Groups:
        """Group by keys [row]."""
        order = np.lexsort(keys[::-1])
        same = np.ones(len(order), bool)
        for key in keys:
            some = key[order]
            same[1:] &= some[1:] == some[:-1]
        same[:1] = False
        return cls(order, np.flatnonzero(~same))

    @property
    def sizes(self) -> I64:
        """Rows [group]."""
        return np.diff(np.append(self.starts, len(self.order)))

    @property
    def firsts(self) -> I64:
        """First row [group]."""
        return self.order[self.starts]

    def sum(self, values: F64) -> F64:
        """Sum values [row] by group."""
        return np.add.reduceat(values[self.order], self.starts) if len(self.starts) else np.empty(0)

    def spread(self, values: Any) -> Any:
        """Give each row [row] its group's value [group]."""
        out = np.empty(len(self.order), np.asarray(values).dtype)
        out[self.order] = np.repeat(values, self.sizes)
        return out

    def median(self, values: F64) -> F64:
        """Take medians [group] of the values [row] that are numbers; NaN where none is."""
        parts = np.split(values[self.order], self.starts[1:]) if len(self.starts) else []
        good = [part[np.isfinite(part)] for part in parts]
        return np.array([np.median(part) if part.size else np.nan for part in good])


def made(rows: Rows, metric: str, firsts: I64, columns: Mapping[str, Any]) -> Rows:
    """Make rows of a derived metric after the first row of each group; ``columns`` replace those of the rows."""
    some: Rows = rows.where(firsts)
    plain: dict[str, Any] = {name: getattr(some, name) for name in (*TEXTS, *WHOLE, *NUMBERS)}
    zero: Sequence[str] = ("expected", "variance", "shared", "size")
    plain |= {name: np.zeros(len(some)) for name in zero}
    return Rows.of({**plain, "metric": Text.all(metric, len(some)), **columns})
