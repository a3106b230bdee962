"""Brighter-fatter kernels of each detector and its amplifiers, from flats in pairs, or provided by a site."""

from __future__ import annotations

from typing import Final

from campaign.kinds import ptc
from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner
from campaign.kinds.model import Correction, CostModel, DatasetType, ProductKind
from campaign.kinds.task import Field, TaskClass, named, only

_DIMENSIONS: Final = ("instrument", "detector")

_SOLVE: Final = TaskClass(
    "bfk",
    "gang",
    _DIMENSIONS,
    {"inputBfkPtc": "bfkPtc"},
    {"outputBFK": "brighterFatterKernel"},
    {
        "level": Field("AMP", ("AMP", "DETECTOR"), "level"),
        "ignoreAmpsForAveraging": Field([], kernel="ignored"),
        "nSigmaClip": Field(5.0, kernel="nsigma_mean", least=0.1),
        # The source is -a of the fit in the same pipeline, whose sum is made 0; a sine transform solves it exactly.
        **only(True, "useAmatrix", "useBfkPtc", "forceZeroSum", "doCheckValidity"),
        **only(False, "useCovModelSample", "correlationQuadraticFit"),
        "fractionK00ForKernelMax": Field(0.025, (0.025,)),
    },
)


def _groups(planner: Planner) -> list[GroupDraft]:
    """Plan the gang of the photon transfer curve, which makes kernels too, and publishes the curves beside them."""
    made = planner.only("ptc").outputs["outputPtcDataset"]
    curves = [made] if made == planner.maker.inputs["inputBfkPtc"] == "bfkPtc" else []
    return [*corrected(planner), ptc.curves(planner, products=[planner.product, *curves])]


KIND = ProductKind(
    "bfk",
    {"bfk": DatasetType(_DIMENSIONS, "CalibTable", True, "BrighterFatterKernel")},
    maker="bfk",
    output="outputBFK",
    made_of=ptc.FLATS,
    tasks={**ptc.TASKS, **named(_SOLVE, "BrighterFatterKernelSolveTask", "lsst.cp.pipe", "lsst.cp.pipe.cpBfk")},
    groups=_groups,
    notes=ptc.notes,
    correction=Correction(
        "doBrighterFatter", "brighter_fatter", connection="bfKernel", needed=True, whole=True, silent=True
    ),
    costs={"bfk": CostModel(mpixels_per_second=15.0)},
)
