"""Defects of each detector, from its bias, dark and flat."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from campaign.documents import load_plain
from campaign.errors import ConfigurationError
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import Calibrations, Correction, DatasetType, ProductKind
from campaign.kinds.task import Field, TaskClass, also_by_filter, named

#: Numbers of pixels, which shrink with the camera's scale.
COUNTS: Final = ("column_bad", "column_gap", "column_whole", "edge_rows", "edge_columns", "ring")
#: Thresholds that a task sets, by the kind of its product.
THRESHOLDS: Final[Mapping[str, tuple[str, ...]]] = {
    "bias": ("bias",),
    "dark": ("mode", "dark", "bright_sigma"),
    "flat": ("flat", "vampire", "dark_sigma"),
}


#: Examines one product: upstream's names, and the thresholds among its fields.
_MEASURE: Final = TaskClass(
    "measure_defects",
    "fused",
    ("instrument", "detector"),
    {"inputExp": "dark"},
    {"outputDefects": "cpDefectsProc"},
    {
        # Ours: the kind of the product, which upstream reads from its header.
        "productType": Field("dark", tuple(THRESHOLDS)),
        "thresholdType": Field("VALUE", ("VALUE", "STDEV"), "mode"),
        "biasThreshold": Field(1000.0, kernel="bias", least=0),
        "darkCurrentThreshold": Field(5.0, kernel="dark", least=0),
        "fracThresholdFlat": Field(0.8, kernel="flat", least=0),
        "thresholdVampirePixels": Field(1.9, kernel="vampire", least=0),
        "nSigmaBright": Field(4.8, kernel="bright_sigma", least=0),
        "nSigmaDark": Field(5.0, kernel="dark_sigma", least=0),
    },
)
_MERGE: Final = TaskClass(
    "defects",
    "gang",
    ("instrument", "detector"),
    {"inputDefects": "cpDefectsProc"},
    {"mergedDefects": "defects"},
    {
        "badOnAndOffPixelColumnThreshold": Field(50, kernel="column_bad", least=0),
        "goodPixelColumnGapThreshold": Field(30, kernel="column_gap", least=0),
        "saturatedColumnThreshold": Field(0, kernel="column_whole", least=0),
        "nPixBorderUpDown": Field(7, kernel="edge_rows", least=0),
        "nPixBorderLeftRight": Field(8, kernel="edge_columns", least=0),
        "radiusVampirePixels": Field(8, kernel="ring", least=0),
        "combinationMode": Field("OR", ("OR",)),
        # Ours: a YAML file of boxes drawn by hand, by detector.
        "manualDefects": Field("", kernel="manual"),
    },
)


def _groups(planner: Planner) -> list[GroupDraft]:
    merge = planner.maker
    tasks = [TaskDraft({"detector": d}, [planner.product], planner.inputs(d)) for d in planner.detectors]
    fused = [task.label for task in planner.some("measure_defects")]
    return [GroupDraft(merge.label, merge.kernel, merge.kind, _config(planner), tasks, fused)]


def _config(planner: Planner) -> dict[str, Any]:
    measures = {str(task.config["productType"]): task for task in planner.some("measure_defects")}
    thresholds = {name: task.settings[name] for kind, task in measures.items() for name in THRESHOLDS[kind]}
    growth = dict(planner.maker.settings)
    drawn = growth.pop("manual")
    for name in COUNTS:
        growth[name] = max(1, round(growth[name] / planner.scale)) if growth[name] else 0
    config = {"thresholds": thresholds, "growth": growth, "permissions": planner.permissions}
    return {**config, "manual": read_boxes(drawn, set(planner.names.values()))} if drawn else config


def read_boxes(path: str, names: Collection[str]) -> dict[str, list[list[int]]]:
    """Read boxes that were drawn by hand: YAML, by a detector's name a list of [x0, y0, width, height], pixel.

    ``names`` are those of the camera's detectors.

    Raises
    ------
    ConfigurationError
        The file cannot be read, names a detector that the camera lacks, or holds something that is no box.
    """
    try:
        plain = load_plain(Path(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the boxes drawn by hand cannot be read: {error}", where=path) from error
    for name, drawn in plain.items() if isinstance(plain, dict) else [(path, None)]:
        whole = isinstance(drawn, list) and all(
            isinstance(box, list) and len(box) == 4 and all(type(n) is int for n in box) for box in drawn
        )
        if name not in names or not whole:
            raise ConfigurationError(
                f"{name!r}: {'a detector and a list of boxes was expected' if name in names else 'no such detector'}",
                where=path,
                do="write for example   R22_S11: [[120, 40, 5, 9]]   (x0, y0, width, height)",
            )
    return {str(name): drawn for name, drawn in plain.items()}


_MODULES: Final = ("lsst.cp.pipe", "lsst.cp.pipe.defects")

KIND = ProductKind(
    "defects",
    {"defects": DatasetType(("instrument", "detector"), "CalibTable", True, "Defects")},
    maker="defects",
    output="mergedDefects",
    made_of=Calibrations("measure_defects", "inputExp", "productType"),
    tasks={
        **also_by_filter(_MEASURE, "MeasureDefectsCombinedTask", "MeasureDefectsCombinedWithFilterTask", *_MODULES),
        **named(_MERGE, "MergeDefectsCombinedTask", *_MODULES),
    },
    groups=_groups,
    correction=Correction("doDefect", "defects"),
    picture="boxes",
)
