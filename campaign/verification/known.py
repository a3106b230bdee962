"""Tests that limits can name: those of the kernels' metrics, and those derived from rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

#: Propagation of a value's statistical error; see `kernels.verification.metric.Model`, which a test compares.
Model = Literal["normal", "chi2", "poisson", "maximum", "exact"]
DERIVED: Final = "derived"


@dataclass(frozen=True)
class Known:
    """A test's declaration."""

    unit: str
    model: Model = "normal"
    #: ``frame``, ``stack``, ``pair``, ``product``, ``table``, ``crosstalk``, or `DERIVED`.
    of: tuple[str, ...] = ("frame",)


def _normal(unit: str, *names: str, of: str = "frame") -> dict[str, Known]:
    return {name: Known(unit, of=(of,)) for name in names}


#: By name.
TESTS: Final[Mapping[str, Known]] = MappingProxyType(
    {
        **_normal("electron", "MEAN", "NOISE", "AMP_CORNER", "READ_NOISE", "NOISE_SIGNAL_INDEPENDENCE", "FLUX"),
        **_normal("electron", "GRADIENT_X", "GRADIENT_Y", "MEAN_PLAIN"),
        **_normal("", "NOISE_RATIO", "NOISE_SHOT", "CR_NOISE", "SATURATED", "MASKED", "LEVEL", "SCATTER", "STEP"),
        **_normal("", "EPER_SERIAL", "EPER_PARALLEL", "CTI"),
        **_normal("electron/second", "RATE"),
        **_normal("adu", "OVERSCAN_LEVEL"),
        **_normal("pixel", "COSMIC"),
        "TAIL": Known("pixel", "poisson"),
        "STRUCTURE": Known("chi2", "chi2"),
        "BIAS_SHIFT": Known("adu", "maximum"),
        "DIVISADERO": Known("", "maximum"),
        **{name: Known("", "exact") for name in ("UNIT", "DETECTOR", "FILTER", "VALIDITY")},
        "PROFILE_ROW": Known("chi2", "chi2", ("stack",)),
        "PROFILE_COLUMN": Known("chi2", "chi2", ("stack",)),
        "MAX_RESIDUAL_ERROR": Known("", "maximum", ("stack", "table")),
        **_normal("", "AMP_CORR", of="stack"),
        "HOT": Known("pixel", of=("stack", "product")),
        "COLD": Known("pixel", of=("stack", "product")),
        **_normal("", "GAIN_FROM_FLAT_PAIR", of="pair"),
        **_normal("", "ADDED_NOISE", of="product"),
        "FRAC": Known("", of=("product", "table")),
        "COMPLETE": Known("pixel", of=("product",)),
        "NUMBERS": Known("", of=("table",)),
        **_normal("electron/second", "DARK_95", of="product"),
        **_normal("", "PTC_GAIN", "PTC_NOISE", "ROW_MEAN_VARIANCE", of="table"),
        **_normal("electron", "BAD_AMP", "PTC_TURNOFF", of="table"),
        **_normal("1/electron", "PTC_BFE_A00", of="table"),
        **_normal("", "NO_SIGNIFICANT_DETECTION", of="crosstalk"),
        **_normal("", "DETECTOR_LEVEL", "EXPOSURE_LEVEL", "EXPOSURE_SCATTER", of=DERIVED),
        **_normal("adu", "OVERSCAN_JUMP", of=DERIVED),
        "ABSENT": Known("exposure", "exact", (DERIVED,)),
        **_normal("electron/day", "MEAN_DRIFT", of=DERIVED),
        **_normal("electron/second/day", "RATE_DRIFT", of=DERIVED),
        **_normal("1/day", "GAIN_DRIFT", of=DERIVED),
        "MEAN_STABILITY": Known("electron", "chi2", (DERIVED,)),
        "GAIN_STABILITY": Known("", "chi2", (DERIVED,)),
        **_normal("electron/second", "RATE_HALVES", of=DERIVED),
        **_normal("electron", "MEAN_HALVES", of=DERIVED),
    }
)
#: Kinds of frames and products.
KINDS: Final = ("bias", "dark", "flat", "ptc", "linearizer", "cti", "crosstalk", "defects")
