"""Register metrics: one decorated function each, with its unit, needs and error model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Propagation of a value's statistical error:
#:
#: - ``normal``: value - expected has ``variance`` of its own and ``shared`` with the exposures of its role;
#: - ``chi2``: value is a sum of ``size`` squares, in units of their variance, of which exposures share ``shared``;
#: - ``poisson``: value is a count, ``expected`` its mean;
#: - ``maximum``: value is the largest of ``size`` absolute deviations, each of ``variance``;
#: - ``exact``: value has no error; anything but ``expected`` is a mistake.
Model = Literal["normal", "chi2", "poisson", "maximum", "exact"]
KINDS: Final = ("bias", "dark", "flat")
#: Parts of a subject that metrics may need; without them a metric is left out, which is no failure.
NEEDS: Final = (
    "frame", "overscans", "parallel overscans", "saturated", "dark time", "header", "cti", "inputs", "pair",
    "neighbours", "several amplifiers", "product", "variance", "defects", "residuals", "a00", "row means", "turnoff",
)  # fmt: skip


@dataclass(frozen=True)
class Values:
    """Results of one metric, each a number or an array [amplifier], broadcast together."""

    value: F64 | float
    #: Value without a fault, and the variance of the value about it.
    expected: F64 | float = 0.0
    variance: F64 | float = 0.0
    #: Part of the variance that exposures of one role share; below 0 where it cancels in their mean.
    shared: F64 | float = 0.0
    #: Degrees of freedom, values of which one is the largest, or pixels.
    size: NDArray[Any] | float = 0
    #: Amplifiers, where they are not the detector's in order; pairs as ``C10 C11``.
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Metric:
    """A metric and its declaration."""

    name: str
    unit: str
    model: Model
    needs: frozenset[str]
    #: Kinds of frames, or of products, that it is measured in.
    kinds: frozenset[str]
    #: Whether it has one value an amplifier, or one a detector.
    amplifiers: bool
    compute: Callable[[Any], Values] = field(repr=False)
    #: First line of its docstring.
    about: str = ""


#: Metrics by the class of their subject (a frame, a pair, a product, a table, a stack), then by name.
REGISTRY: dict[str, dict[str, Metric]] = {}


def metric(
    name: str,
    unit: str,
    of: str = "frame",
    model: Model = "normal",
    needs: Collection[str] = (),
    kinds: Collection[str] = KINDS,
    amplifiers: bool = True,
) -> Callable[[Callable[[Any], Values]], Callable[[Any], Values]]:
    """Declare a function as a metric.

    Parameters
    ----------
    name, unit : `str`
        As in rows and limits.
    of : `str`, optional
        Subject that it measures: ``frame``, ``pair``, ``product``, ``table`` or ``stack``.
    model : `Model`, optional
        Propagation of its statistical error.
    needs : collection of `str`, optional
        Parts of the subject without which it is left out (`NEEDS`).
    kinds : collection of `str`, optional
        Kinds of the subject.
    amplifiers : `bool`, optional
        False: it has one value a detector.

    Raises
    ------
    ValueError
        The name is taken, or a need is unknown.
    """

    def register(compute: Callable[[Any], Values]) -> Callable[[Any], Values]:
        of_subject, unknown = REGISTRY.setdefault(of, {}), set(needs) - set(NEEDS)
        if name in of_subject or unknown:
            raise ValueError(f"metric {name} of {of}: {f'needs {unknown}' if unknown else 'registered twice'}")
        about = (compute.__doc__ or "").strip().split("\n")[0]
        of_subject[name] = Metric(name, unit, model, frozenset(needs), frozenset(kinds), amplifiers, compute, about)
        return compute

    return register


def wanted(of: str, kind: str, there: Collection[str]) -> list[Metric]:
    """List the metrics of a kind of subject whose needs are met, by name."""
    every = REGISTRY.get(of, {}).values()
    return sorted((m for m in every if kind in m.kinds and m.needs <= set(there)), key=lambda m: m.name)
