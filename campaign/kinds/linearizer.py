"""Linearity of each amplifier, from flats of growing light."""

from __future__ import annotations

from typing import Any, Final

from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import Correction, CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.task import Field, TaskClass, named, only

_DIMENSIONS: Final = ("instrument", "detector")
#: Of both of upstream's classes.
_LIGHT: Final = {
    # Upstream's default is the exposure time; lamps vary by more than a spline may be off.
    "usePhotodiode": Field(True, kernel="diode"),
    "minPhotodiodeCurrent": Field(0.0, kernel="least_charge", least=0),
    "doAutoGrouping": Field(False, kernel="grouping"),
    "autoGroupingUseExptime": Field(True, kernel="by_time"),
    "autoGroupingThreshold": Field(0.1, kernel="threshold", least=0),
    "autoGroupingMaxSignalFraction": Field(0.9, kernel="share", least=0),
    "maxFracLinearityDeviation": Field(0.01, kernel="deviation", least=1e-6),
    "minSignalFitLinearityTurnoff": Field(1000.0, (1000.0,)),
    # Fields of upstream's extraction, which is part of this kernel.
    "photodiodeIntegrationMethod": Field("TRIMMED_SUM", ("TRIMMED_SUM", "DIRECT_SUM"), "integration"),
    "photodiodeCurrentScale": Field(-1.0, kernel="diode_scale"),
    "nSigmaClipPtc": Field(5.5, kernel="nsigma", least=1),
    "nIterSigmaClipPtc": Field(3, kernel="passes", least=1),
    "numEdgeSuspect": Field(20, kernel="edge", least=0),
    "maxNoiseReference": Field(12.0, kernel="reference_noise", least=0),
    **only(False, "useFocalPlaneNormalization"),
}


def _solver(fields: dict[str, Field]) -> TaskClass:
    return TaskClass(
        "linearizer",
        "gang",
        _DIMENSIONS,
        {"dummy": "raw", "inputPtc": "ptc"},
        {"outputLinearizer": "linearity"},
        _LIGHT | fields,
        raws=True,
    )


_SOLVE: Final = _solver(
    {
        "linearityType": Field("Spline", ("Spline", "DoubleSpline"), "type"),
        "splineKnots": Field(10, kernel="knots", least=5),
        "absoluteSplineNodeSize": Field(3000.0, kernel="size", least=100),
        "nSigmaClipLinear": Field(5.0, kernel="outlier_cut", least=1),
        "splineFitMaxIter": Field(40, kernel="rounds", least=3),
        "splineFitMaxRejectionPerIteration": Field(5, kernel="outliers", least=1),
        "doSplineFitOffset": Field(True, kernel="offset"),
        **only(False, "doSplineFitTemperature", "doSplineFitTemporal", "applyPhotodiodeCorrection"),
    }
)
_SOLVE_DOUBLE: Final = _solver(
    {
        "linearityType": Field("DoubleSpline", ("DoubleSpline",), "type"),
        "splineKnots": Field(10, kernel="knots", least=5),
        "absoluteSplineNodeSize": Field(3000.0, kernel="size", least=100),
        "absoluteNSigmaClipLinear": Field(5.0, kernel="outlier_cut", least=1),
        "absoluteSplineFitMaxIter": Field(40, kernel="rounds", least=3),
        "absoluteSplineFitMaxRejectionPerIteration": Field(5, kernel="outliers", least=1),
        "doAbsoluteSplineFitOffset": Field(True, kernel="offset"),
        **only(False, "doAbsoluteSplineFitTemperature", "doAbsoluteSplineFitTemporal"),
    }
)


def _groups(planner: Planner) -> list[GroupDraft]:
    return [*corrected(planner), _linearity(planner)]


def _linearity(planner: Planner) -> GroupDraft:
    maker = planner.maker
    settings: dict[str, Any] = {**maker.settings, "edge": round(maker.settings["edge"] / planner.scale)}
    tasks = [
        TaskDraft({"detector": d}, [planner.product], planner.inputs(d), planner.parameters(d))
        for d in planner.detectors
    ]
    fused = [planner.only("isr").label]
    return GroupDraft(maker.label, maker.kernel, maker.kind, {**planner.shared, **settings}, tasks, fused)


_MODULES: Final = ("lsst.cp.pipe", "lsst.cp.pipe.linearity", "lsst.cp.pipe.cpLinearitySolve")

KIND = ProductKind(
    "linearizer",
    {"linearizer": DatasetType(_DIMENSIONS, "CalibTable", True, "Linearizer")},
    maker="linearizer",
    output="outputLinearizer",
    made_of=Frames("flat", least=12, one_filter=True),
    tasks={
        **named(_SOLVE, "LinearitySolveTask", *_MODULES),
        **named(_SOLVE_DOUBLE, "LinearityDoubleSplineSolveTask", *_MODULES),
    },
    groups=_groups,
    correction=Correction("doLinearize", "linearity", from_zero=True),
    costs={"linearizer": CostModel(mpixels_per_second=30.0)},
)
