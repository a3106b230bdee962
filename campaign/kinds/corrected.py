"""Corrected frames: the result of the signature removal, written if a pipeline asks for it."""

from __future__ import annotations

from typing import Final

from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import DatasetType, ProductKind

TYPE: Final = "postISRCCD"


def corrected(planner: Planner) -> list[GroupDraft]:
    """Plan a quantum for each raw frame, if ``doWrite`` asks for it; nothing waits for them."""
    isr = planner.only("isr")
    if not isr.config["doWrite"]:
        return []
    tasks = [
        TaskDraft({"exposure": e, "detector": d}, [TYPE], planner.inputs(d, e), planner.parameters(d, e))
        for e, d in planner.raws
    ]
    return [GroupDraft(isr.label, "correct", "quantum", planner.shared, tasks, whole=("doBrighterFatter", "doFlat"))]


_DIMENSIONS: Final = ("instrument", "exposure", "detector")
KIND: Final = ProductKind("corrected", {TYPE: DatasetType(_DIMENSIONS, "CalibImage", rubin="Exposure")})
