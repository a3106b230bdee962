"""Changes of the gains of each detector's amplifiers since a reference flat, from flats of a new date."""

from __future__ import annotations

from typing import Final

from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import Correction, CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.ratios import FIELDS, reduced
from campaign.kinds.task import Field, TaskClass, named

_DIMENSIONS: Final = ("instrument", "detector")
_MEASURE: Final = TaskClass(
    "gain_correction",
    "gang",
    _DIMENSIONS,
    # Upstream's reads a combined flat; ours the frames, divided by the reference as the signature removal finds it.
    {"input_reference_flat": "flat", "input_reference_ptc": "ptc", "input_flat": "postISRCCD"},
    {"output_gain_correction": "gain_correction"},
    {
        **FIELDS,
        "chebyshev_gradient_nsig_clip": Field(5.0, kernel="nsigma", least=1),
        "ratio_outlier_nsig_clip": Field(5.0, kernel="outlier_cut", least=1),
    },
    raws=True,
)


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
