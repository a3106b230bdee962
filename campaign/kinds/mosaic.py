"""Binned products, and mosaics of them: an image of the focal plane."""

from __future__ import annotations

from typing import Final

from campaign.errors import ConfigurationError
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import DatasetType, ProductKind
from campaign.kinds.task import Field, PipelineTask, TaskClass, also_by_filter, named

BINNINGS: Final = (8, 64)
_MODULE: Final = "lsst.pipe.tasks.visualizeVisit"
_FIELDS: Final = {"binning": Field(8, kernel="binning", least=1)}


_BIN: Final = TaskClass(
    "bin", "fused", ("instrument", "detector"), {"inputExp": "bias"}, {"outputExp": "biasBin"}, _FIELDS
)
_MOSAIC: Final = TaskClass(
    "mosaic", "serial", ("instrument",), {"inputExps": "biasBin"}, {"outputData": "biasMosaic"}, _FIELDS
)
#: The same of each exposure; its frames are binned by the signature removal (``doBinnedExposures``).
_OF_EXPOSURE: Final = TaskClass(
    "mosaic",
    "serial",
    ("instrument", "exposure"),
    {"inputExps": "calexpBin"},
    {"outputData": "calexpMosaic"},
    {**_FIELDS, "dimensions": Field("('instrument', 'exposure')", ("('instrument', 'exposure')",))},
)


def types(name: str, dimensions: tuple[str, ...]) -> dict[str, DatasetType]:
    """Give the dataset types of an image's bins and mosaics."""
    whole = tuple(d for d in dimensions if d != "detector")
    return {
        **{f"{name}Bin{n}": DatasetType(dimensions, "CalibImage", rubin="ExposureF") for n in BINNINGS},
        **{f"{name}Mosaic{n}": DatasetType(whole, "CalibImage", rubin="ImageF") for n in BINNINGS},
    }


def binnings(planner: Planner) -> dict[str, int]:
    """Give the binnings of the product, by dataset type."""
    return {task.outputs["outputExp"]: binning(planner, task) for task in planner.some("bin")}


def binning(planner: Planner, task: PipelineTask) -> int:
    """Give a task's binning, which shrinks with the camera's scale."""
    return max(1, round(task.config["binning"] / planner.scale))


def mosaics(planner: Planner) -> list[GroupDraft]:
    """Plan the pipeline's mosaics.

    Raises
    ------
    ConfigurationError
        No task makes the bins of a mosaic.
    """
    return [_group(planner, task) for task in planner.some("mosaic")]


def _group(planner: Planner, task: PipelineTask) -> GroupDraft:
    binned = task.inputs["inputExps"]
    if binned not in binnings(planner):
        raise ConfigurationError(
            f"{task.label} makes a mosaic of {binned}, and no task of the pipeline bins by {task.config['binning']}",
            where=planner.pipeline,
        )
    one = TaskDraft(
        {},
        [task.outputs["outputData"]],
        {"binned": [f"{binned}:{d}" for d in planner.detectors]},
        {"detectors": list(planner.detectors), "binning": binning(planner, task)},
        [f"{planner.maker.label}:{d}" for d in planner.detectors],
    )
    config = {"permissions": planner.permissions}
    return GroupDraft(task.label, task.kernel, task.kind, config, [one], needs=[planner.maker.label])


KIND: Final = ProductKind(
    "mosaic",
    {},  # of each image, see `types`
    tasks={
        **also_by_filter(_BIN, "VisualizeBinCalibTask", "VisualizeBinCalibFilterTask", _MODULE),
        **also_by_filter(_MOSAIC, "VisualizeMosaicCalibTask", "VisualizeMosaicCalibFilterTask", _MODULE),
        **named(_OF_EXPOSURE, "VisualizeMosaicExpTask", _MODULE),
    },
    picture="image",
)
