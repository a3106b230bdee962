"""Combined flat of one filter: measured, normalised over the focal plane, combined."""

from __future__ import annotations

from typing import Final

from campaign.kinds.combining import TASKS, combined, images, kind
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft, measured
from campaign.kinds.model import Correction, DatasetType, Frames
from campaign.kinds.task import Field, PipelineTask, TaskClass, named, only

_DIMENSIONS: Final = ("instrument", "physical_filter", "detector")
_MADE: Final = {
    "flatMeasure": DatasetType(_DIMENSIONS, "StructuredDataDict"),
    "flatNormalization": DatasetType(("instrument", "physical_filter"), "StructuredDataDict"),
}

_MEASURE: Final = TaskClass(
    "flat_measure",
    "gang",
    ("instrument", "exposure", "detector"),
    {"inputExp": "postISRCCD"},
    {"outputStats": "flatStats"},
    {
        "numSigmaClip": Field(3.0, kernel="nsigma", least=0.1),
        "clipMaxIter": Field(3, kernel="passes", least=1),
        "maskNameList": Field(["DETECTED", "BAD", "NO_DATA"], (["DETECTED", "BAD", "NO_DATA"],)),
        **only(False, "doVignette"),
    },
    raws=True,
)

_NORMALISE: Final = TaskClass(
    "flat_normalise",
    "serial",
    ("instrument", "physical_filter"),
    {"inputMDs": "cpFlatProc_metadata"},
    {"outputScales": "cpFlatNormScales"},
    {"level": Field("DETECTOR", ("DETECTOR", "AMP"), "level"), "scaleMaxIter": Field(10, kernel="iterations", least=1)},
)


def _groups(planner: Planner) -> list[GroupDraft]:
    found = []
    for measure in planner.some("flat_measure"):
        found.append(measured(planner, measure, "flatMeasure"))
        found += [_normalise(planner, task, measure) for task in planner.some("flat_normalise")]
    return [*found, *combined(planner)]


def _normalise(planner: Planner, task: PipelineTask, measure: PipelineTask) -> GroupDraft:
    inputs = {"flatMeasure": [f"flatMeasure:{d}" for d in planner.detectors]}
    needs = [f"{measure.label}:{d}" for d in planner.detectors]
    one = TaskDraft({}, ["flatNormalization"], inputs, needs=needs)
    config = {**task.settings, "permissions": planner.permissions}
    return GroupDraft(task.label, task.kernel, task.kind, config, [one], needs=[measure.label])


_MODULES: Final = ("lsst.cp.pipe", "lsst.cp.pipe.cpFlatMeasure", "lsst.cp.pipe.cpFlatNormTask")
KIND = kind(
    "flat",
    _DIMENSIONS,
    datasets={**images("flat", _DIMENSIONS), **_MADE},
    made_of=Frames("flat", one_filter=True, alike=True),
    tasks={
        **TASKS,
        **named(_MEASURE, "CpFlatMeasureTask", *_MODULES),
        **named(_NORMALISE, "CpFlatNormalizationTask", *_MODULES),
    },
    groups=_groups,
    correction=Correction("doFlat", "flat", needed=True, whole=True, silent=True),
    unit="relative",
)
