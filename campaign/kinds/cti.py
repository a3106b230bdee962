"""Deferred charge of each amplifier, from flats of a faint ramp."""

from __future__ import annotations

from typing import Final

from campaign.kinds.combining import require_mask
from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, measured
from campaign.kinds.model import Correction, DatasetType, Frames, ProductKind
from campaign.kinds.task import Field, TaskClass, named

_SOLVE: Final = TaskClass(
    "cti",
    "gang",
    ("instrument", "detector"),
    {"inputMeasurements": "cpCtiMeas"},
    {"outputCalib": "cpCtiCalib"},
    {
        "maxImageMean": Field(150000.0, kernel="offset_signal", least=0),
        "localOffsetColumnRange": Field([3, 13], kernel="offset_columns"),
        "maxSignalForCti": Field(10000.0, kernel="cti_signal", least=0),
        "globalCtiColumnRange": Field([1, 2], kernel="cti_columns"),
    },
    raws=True,
)


def _groups(planner: Planner) -> list[GroupDraft]:
    require_mask(planner)
    return [*corrected(planner), measured(planner)]


KIND = ProductKind(
    "cti",
    {"cti": DatasetType(("instrument", "detector"), "CalibTable", True, "IsrCalib")},
    maker="cti",
    output="outputCalib",
    made_of=Frames("flat", one_filter=True, alike=True),
    tasks=named(_SOLVE, "CpCtiSolveTask", "lsst.cp.pipe", "lsst.cp.pipe.deferredCharge"),
    groups=_groups,
    correction=Correction("doDeferredCharge", "deferred", connection="deferredChargeCalib", from_zero=True),
    picture="amplifiers",
)
