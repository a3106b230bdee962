"""Verification of combined images by frames that they correct: a table of statistics of each detector."""

from __future__ import annotations

from typing import Final

from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.task import Field, TaskClass, named

KERNEL: Final = "verify"
#: Format of the tables: Parquet.
FORMAT: Final = "ArrowAstropy"


def _task(name: str, dimensions: tuple[str, ...]) -> TaskClass:
    """Make upstream's class; its statistics of each exposure are rows of one table a detector."""
    return TaskClass(
        KERNEL,
        "gang",
        dimensions,
        {"inputExp": "postISRCCD"},
        {"outputResults": f"verify{name.capitalize()}Rows"},
        {
            "stageName": Field(name.upper(), (name.upper(),)),
            "numSigmaClip": Field(5.0, (5.0,)),
            "clipMaxIter": Field(3, (3,)),
            "psfFwhm": Field(3.0, (3.0,)),
        },
        raws=True,
    )


def _groups(planner: Planner) -> list[GroupDraft]:
    maker = planner.maker
    tasks = [
        TaskDraft({"detector": d}, [planner.product], planner.inputs(d), planner.parameters(d))
        for d in planner.detectors
    ]
    config = {**planner.shared, "kind": str(maker.config["stageName"]).lower()}
    fused = [planner.only("isr").label]
    return [*corrected(planner), GroupDraft(maker.label, KERNEL, maker.kind, config, tasks, fused, whole=("doFlat",))]


def kind(name: str, dimensions: tuple[str, ...] = ("instrument", "detector")) -> ProductKind:
    """Make the kind that verifies a kind of combined image."""
    title = name.capitalize()
    return ProductKind(
        f"verify_{name}",
        {f"verify{title}Rows": DatasetType(dimensions, FORMAT, rubin=FORMAT)},
        maker=KERNEL,
        output="outputResults",
        config={"stageName": name.upper()},
        made_of=Frames(name, least=1, one_filter="physical_filter" in dimensions),
        tasks=named(_task(name, dimensions), f"CpVerify{title}Task", "lsst.cp.verify", f"lsst.cp.verify.verify{title}"),
        groups=_groups,
        costs={KERNEL: CostModel(mpixels_per_second=5.0, pixel_bytes=60)},
    )
