"""Rows: every metric of every amplifier as columns of plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.verification.metric import Metric, Values

#: Columns and their types.  ``metric`` by `kernels.verification.metric`; ``exposure`` 0: of a product or a stack;
#: ``amplifier`` empty: of the detector; ``role``: ``construction`` if the exposure is among the product's inputs,
#: ``independent`` if not, empty where that makes no difference.  ``value``, ``expected`` and the variances are in the
#: metric's unit and its square; ``size`` has degrees of freedom, values of which one is the largest, or pixels.
COLUMNS: Final[Mapping[str, Any]] = {
    "metric": "U", "kind": "U", "exposure": np.int64, "mjd": np.float64, "detector": np.int32, "amplifier": "U",
    "role": "U", "value": np.float64, "expected": np.float64, "variance": np.float64, "shared": np.float64,
    "size": np.float64,
}  # fmt: skip

#: Columns [row] by name.
Rows = dict[str, NDArray[Any]]


class Sheet:
    """Collects the results of metrics of one detector."""

    def __init__(self, detector: int, amplifiers: Sequence[str], kind: str) -> None:
        self._detector, self._amplifiers, self._kind = detector, tuple(amplifiers), kind
        self._parts: list[tuple[str, tuple[str, ...], Values, int, float, str]] = []

    def add(self, metric: Metric, values: Values, exposure: int = 0, mjd: float = 0.0, role: str = "") -> None:
        """Add the values of one metric."""
        names = values.names or (self._amplifiers if metric.amplifiers else ("",))
        self._parts.append((metric.name, names, values, exposure, mjd, role))

    def rows(self) -> Rows:
        """Make the rows, metric by metric in the order in which they were added."""
        lengths = [len(part[1]) for part in self._parts]

        def repeated(values: Sequence[Any], kind: Any) -> NDArray[Any]:
            return np.repeat(np.array(values, kind), lengths)

        def numbers(name: str) -> NDArray[np.float64]:
            each = (np.broadcast_to(getattr(p[2], name), (n,)) for p, n in zip(self._parts, lengths, strict=True))
            return np.concatenate([np.asarray(one, np.float64) for one in each]) if lengths else np.empty(0)

        total = sum(lengths)
        return {
            "metric": repeated([p[0] for p in self._parts], "U"),
            "kind": np.full(total, self._kind),
            "exposure": repeated([p[3] for p in self._parts], np.int64),
            "mjd": repeated([p[4] for p in self._parts], np.float64),
            "detector": np.full(total, self._detector, np.int32),
            "amplifier": np.array([name for p in self._parts for name in p[1]], "U"),
            "role": repeated([p[5] for p in self._parts], "U"),
            **{name: numbers(name) for name in ("value", "expected", "variance", "shared", "size")},
        }


def join(parts: Iterable[Rows]) -> Rows:
    """Join rows of several exposures and detectors."""
    every = list(parts)
    return {
        name: np.concatenate([one[name] for one in every]) if every else np.empty(0, kind)
        for name, kind in COLUMNS.items()
    }
