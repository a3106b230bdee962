"""Agreement of products with the truth: numbers for each detector and for all, and their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RMS_Z = (0.97, 1.03)
FRACTION_BEYOND_5 = 2e-5
MEAN_Z = 5.0
LEVEL = 1e-3
#: Bounds of `Statistics.variance_ratio`, by the least number of inputs.
VARIANCE_RATIO = {6: (0.97, 1.03), 1: (0.95, 1.05)}


@dataclass(frozen=True)
class Statistics:
    """One detector's comparison."""

    detector: int
    good_pixels: int
    #: Over the good pixels.
    sum_z2: float
    #: Good pixels with \\|z\\| > 3, > 5.
    beyond_3: int
    beyond_5: int
    #: Mean z of each amplifier, in units of its own error.
    amplifier_z: Mapping[str, float]
    #: Injected defects and cosmic rays among ``beyond_5``.
    defects_showing: int
    #: Clipped mean of the product, in its unit.
    level: float
    #: Survivors of that clipped mean.
    level_pixels: int
    #: Sums of VARIANCE and of (IMAGE - expected)^2 over the good pixels.
    sum_variance: float
    sum_error2: float

    @property
    def variance_ratio(self) -> float:
        """Mean of VARIANCE over mean of (IMAGE - expected)^2: 1 where VARIANCE is right."""
        return _ratio(self.sum_variance, self.sum_error2)

    @property
    def worst(self) -> str:
        """Name of the amplifier with the largest deviation of its mean."""
        return max(self.amplifier_z, key=lambda name: abs(self.amplifier_z[name]))

    def plain(self) -> dict[str, Any]:
        """Convert to plain data for the result file."""
        return {
            "detector": self.detector,
            "good_pixels": self.good_pixels,
            "rms_z": _ratio(self.sum_z2, self.good_pixels) ** 0.5,
            "frac_gt3": _ratio(self.beyond_3, self.good_pixels),
            "frac_gt5": _ratio(self.beyond_5, self.good_pixels),
            "max_abs_amp_mean_z": abs(self.amplifier_z[self.worst]),
            "worst_amplifier": self.worst,
            "defects_showing": self.defects_showing,
            "level": self.level,
            "variance_ratio": self.variance_ratio,
        }


def _ratio(total: float, count: float) -> float:
    return total / count if count else 0.0


def overall(kind: str, parts: Sequence[Statistics]) -> dict[str, Any]:
    """Sum up all detectors."""
    pixels = sum(p.good_pixels for p in parts)
    return {
        "name": kind,
        "detectors": len(parts),
        "good_pixels": pixels,
        "rms_z": _ratio(math.fsum(p.sum_z2 for p in parts), pixels) ** 0.5,
        "frac_gt3": _ratio(sum(p.beyond_3 for p in parts), pixels),
        "frac_gt5": _ratio(sum(p.beyond_5 for p in parts), pixels),
        "max_abs_amp_mean_z": max((abs(p.amplifier_z[p.worst]) for p in parts), default=0.0),
        "defects_showing": sum(p.defects_showing for p in parts),
        "level": _ratio(math.fsum(p.level * p.level_pixels for p in parts), sum(p.level_pixels for p in parts)),
        "variance_ratio": _ratio(math.fsum(p.sum_variance for p in parts), math.fsum(p.sum_error2 for p in parts)),
    }


def problems(numbers: Mapping[str, Any], inputs: int) -> list[str]:
    """Describe every disagreement in one line; empty where there is none.

    Parameters
    ----------
    numbers : `dict`
        From `overall`.
    inputs : `int`
        Number of exposures: VARIANCE of few exposures is less certain.
    """
    o, found = numbers, []
    if not RMS_Z[0] <= o["rms_z"] <= RMS_Z[1]:
        found.append(f"rms(z) is {o['rms_z']:.3f}, not {RMS_Z[0]} to {RMS_Z[1]}")
    if o["max_abs_amp_mean_z"] >= MEAN_Z:
        found.append(f"the mean of an amplifier is off by {o['max_abs_amp_mean_z']:.1f} of its errors")
    if o["frac_gt5"] > FRACTION_BEYOND_5:
        found.append(f"|z| > 5 in {o['frac_gt5']:.1e} of the good pixels, more than {FRACTION_BEYOND_5:.0e}")
    if o["defects_showing"]:
        found.append(f"{o['defects_showing']} injected defects or cosmic rays show")
    if o["name"] == "flat" and abs(o["level"] - 1) > LEVEL:
        found.append(f"the focal plane's mean level is {o['level']:.5f}, not 1")
    low, high = next(bar for least, bar in VARIANCE_RATIO.items() if inputs >= least)
    if not low <= o["variance_ratio"] <= high:
        found.append(f"VARIANCE is {o['variance_ratio']:.3f} of the variance of IMAGE, not {low} to {high}")
    return found
