"""Fields of the fit of gain ratios, which two of upstream's tasks have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from campaign.kinds.task import Field

FIELDS: Final = {
    "max_noise_reference": Field(12.0, kernel="reference_noise", least=0),
    "turnoff_percentile_reference": Field(25.0, kernel="reference_percentile", least=0),
    "do_remove_radial_gradient": Field(True, kernel="radial"),
    "radial_gradient_n_spline_nodes": Field(20, kernel="nodes", least=4),
    "chebyshev_gradient_order": Field(1, kernel="order", least=0),
    "bin_factor": Field(8, kernel="bin", least=1),
    "amp_boundary": Field(20, kernel="boundary", least=0),
    "max_fractional_gain_ratio": Field(0.05, kernel="most", least=1e-4),
}


def reduced(settings: Mapping[str, Any], scale: int) -> dict[str, Any]:
    """Divide the numbers of pixels among the settings by the camera's scale."""
    pixels = {"bin": max(1, round(settings["bin"] / scale)), "boundary": round(settings["boundary"] / scale)}
    return {**settings, **pixels}
