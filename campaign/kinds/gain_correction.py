"""Changes of the gains of each detector's amplifiers since a reference flat, from flats of a new date."""

from __future__ import annotations

from typing import Any, Final

from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import Correction, CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.task import Field, TaskClass, named

_DIMENSIONS: Final = ("instrument", "detector")
#: Fields of the fit, which upstream's task of gain ratios has too.
RATIOS: Final = {
    "max_noise_reference": Field(12.0, kernel="reference_noise", least=0),
    "turnoff_percentile_reference": Field(25.0, kernel="reference_percentile", least=0),
    "do_remove_radial_gradient": Field(True, kernel="radial"),
    "radial_gradient_n_spline_nodes": Field(20, kernel="nodes", least=4),
    "chebyshev_gradient_order": Field(1, kernel="order", least=0),
    "bin_factor": Field(8, kernel="bin", least=1),
    "amp_boundary": Field(20, kernel="boundary", least=0),
    "max_fractional_gain_ratio": Field(0.05, kernel="most", least=1e-4),
}

_MEASURE: Final = TaskClass(
    "gain_correction",
    "gang",
    _DIMENSIONS,
    # Upstream's reads a combined flat; ours the frames, divided by the reference as the signature removal finds it.
    {"input_reference_flat": "flat", "input_reference_ptc": "ptc", "input_flat": "postISRCCD"},
    {"output_gain_correction": "gain_correction"},
    {
        **RATIOS,
        "chebyshev_gradient_nsig_clip": Field(5.0, kernel="nsigma", least=1),
        "ratio_outlier_nsig_clip": Field(5.0, kernel="outlier_cut", least=1),
    },
    raws=True,
)


def reduced(settings: dict[str, Any], scale: int) -> dict[str, Any]:
    """Divide the numbers of pixels among the settings of the fit by the camera's scale."""
    return settings | {
        "bin": max(1, round(settings["bin"] / scale)),
        "boundary": round(settings["boundary"] / scale),
    }


def _groups(planner: Planner) -> list[GroupDraft]:
    maker = planner.maker
    settings = {**planner.shared, **reduced(dict(maker.settings), planner.scale)}
    tasks = [
        TaskDraft({"detector": d}, [planner.product], planner.inputs(d), planner.parameters(d))
        for d in planner.detectors
    ]
    fused = [planner.only("isr").label]
    one = GroupDraft(maker.label, maker.kernel, maker.kind, settings, tasks, fused, whole=("doFlat",))
    return [*corrected(planner), one]


KIND = ProductKind(
    "gain_correction",
    {"gain_correction": DatasetType(_DIMENSIONS, "CalibTable", True, "IsrCalib")},
    maker="gain_correction",
    output="output_gain_correction",
    made_of=Frames("flat", least=3, one_filter=True),
    tasks=named(_MEASURE, "CpMeasureGainCorrectionTask", "lsst.cp.pipe", "lsst.cp.pipe.cpGainCorrection"),
    groups=_groups,
    correction=Correction("doCorrectGains", "gain_correction", connection="gainCorrection", needed=True, silent=True),
    costs={"gain_correction": CostModel(mpixels_per_second=20.0, pixel_bytes=60)},
    picture="amplifiers",
)
