"""Linearity of each amplifier, from flats of growing light."""

from __future__ import annotations

from typing import Final

from campaign.errors import ConfigurationError
from campaign.kinds import photodiode, ptc
from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft, settings
from campaign.kinds.model import Correction, CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.task import Field, PipelineTask, TaskClass, named, only

_DIMENSIONS: Final = ("instrument", "detector")
#: Linearizers against the monitor alone, and the light as the focal plane saw it.
UNNORMALISED: Final = "linearizerUnnormalized"
NORMALISATION: Final = "linearizerNormalization"
#: Settings that are counts of pixels, and their least values.
COUNTS: Final = {"edge": 0}
#: Curves of the same flats, for their turnoffs.
CURVES: Final = "linearizerPtc"
#: Of both of upstream's classes.
_LIGHT: Final = {
    # Upstream's default is the exposure time; lamps vary by more than a spline may be off.
    "usePhotodiode": Field(True, kernel="diode"),
    # Ours: what becomes of a flat without a reading.
    "missingPhotodiode": Field("LEAVE_OUT", ("LEAVE_OUT", "TIME"), "missing"),
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
    # The light is that of a task of `_NORMALISE` in the same pipeline.
    "useFocalPlaneNormalization": Field(False),
    # Turnoffs of curves that the same pipeline makes of the same flats.
    "useLinearizerPtc": Field(False),
}


def _solver(fields: dict[str, Field]) -> TaskClass:
    return TaskClass(
        "linearizer",
        "gang",
        _DIMENSIONS,
        {"dummy": "raw", "inputPtc": "ptc", "inputLinearizerPtc": CURVES, "inputNormalization": NORMALISATION},
        {"outputLinearizer": "linearity"},
        _LIGHT | fields,
        raws=True,
        optional={
            "inputNormalization": "useFocalPlaneNormalization",
            "missingPhotodiode": "missingPhotodiode=TIME",
            "inputLinearizerPtc": "useLinearizerPtc",
            "useLinearizerPtc": "useLinearizerPtc",
            "polynomialOrder": "linearityType=Polynomial|LookupTable",
        },
    )


_SOLVE: Final = _solver(
    {
        "linearityType": Field("Spline", ("Spline", "DoubleSpline", "Squared", "Polynomial", "LookupTable"), "type"),
        "polynomialOrder": Field(3, kernel="order", least=2),
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


#: Light of each exposure, from the linearizers of all detectors.
_NORMALISE: Final = TaskClass(
    "linear_light",
    "serial",
    ("instrument",),
    {"inputLinearizerHandles": UNNORMALISED},
    {"outputNormalization": NORMALISATION},
    {"minValidFraction": Field(0.5, (0.5,)), "doNormalizeAbsoluteLinearizer": Field(True, (True,))},
)


def _groups(planner: Planner) -> list[GroupDraft]:
    """Plan the linearity of each detector; by the light of the focal plane: that light between two of these.

    Raises
    ------
    ConfigurationError
        The pipeline's parts do not agree.
    """
    maker = planner.maker
    if not maker.config["useFocalPlaneNormalization"]:
        return [*corrected(planner), *_measured(planner, maker, planner.product)]
    first, light = [t for t in planner.some("linearizer") if t != maker], planner.only("linear_light")
    joined = [*first, light, maker]
    reads = [light.inputs["inputLinearizerHandles"], maker.inputs["inputNormalization"]]
    writes = [first[0].outputs["outputLinearizer"] if first else "", light.outputs["outputNormalization"]]
    if len(joined) != 3 or reads != writes or writes != [UNNORMALISED, NORMALISATION]:
        what = f"useFocalPlaneNormalization needs {UNNORMALISED} of another task, and {NORMALISATION} made of it"
        do = "see cpLinearizerFocalPlane.yaml"
        raise ConfigurationError(f"{maker.label}: {what}", where=planner.pipeline, do=do)
    return [
        *corrected(planner),
        *_measured(planner, first[0], UNNORMALISED),
        _light(planner, light, first[0]),
        _normalised(planner, first[0], light),
    ]


def _measured(planner: Planner, task: PipelineTask, product: str) -> list[GroupDraft]:
    """Plan what reads raw frames: the curves, where their turnoffs are asked for, and the linearity."""
    curves = [ptc.curves(planner, planner.only("ptc"), [CURVES])] if task.config.get("useLinearizerPtc") else []
    tasks = []
    for d in planner.detectors:
        inputs = planner.inputs(d) | ({CURVES: [f"{CURVES}:{d}"]} if curves else {})
        needs = [f"{group.label}:{d}" for group in curves]
        tasks.append(TaskDraft({"detector": d}, [product], inputs, planner.parameters(d), needs))
    fused, waits = [planner.only("isr").label], [group.label for group in curves]
    own = GroupDraft(task.label, task.kernel, task.kind, settings(planner, task, least=COUNTS), tasks, fused, waits)
    return [*curves, own]


def _light(planner: Planner, task: PipelineTask, first: PipelineTask) -> GroupDraft:
    inputs = {UNNORMALISED: [f"{UNNORMALISED}:{d}" for d in planner.detectors]}
    exposures = {str(d): planner.parameters(d)["exposures"] for d in planner.detectors}
    needs = [f"{first.label}:{d}" for d in planner.detectors]
    one = TaskDraft({}, [NORMALISATION], inputs, {"exposures_of": exposures}, needs)
    return GroupDraft(
        task.label, task.kernel, task.kind, settings(planner, first, least=COUNTS), [one], needs=[first.label]
    )


def _normalised(planner: Planner, first: PipelineTask, light: PipelineTask) -> GroupDraft:
    task, tasks = planner.maker, list[TaskDraft]()
    for d in planner.detectors:
        inputs = {UNNORMALISED: [f"{UNNORMALISED}:{d}"], NORMALISATION: [f"{NORMALISATION}:"]}
        needs = [f"{first.label}:{d}", f"{light.label}:"]
        tasks.append(TaskDraft({"detector": d}, [planner.product], inputs, planner.parameters(d), needs))
    waits = [first.label, light.label]
    return GroupDraft(task.label, task.kernel, task.kind, settings(planner, task, least=COUNTS), tasks, needs=waits)


_MODULES: Final = ("lsst.cp.pipe", "lsst.cp.pipe.linearity", "lsst.cp.pipe.cpLinearitySolve")

KIND = ProductKind(
    "linearizer",
    {
        "linearizer": DatasetType(_DIMENSIONS, "CalibTable", True, "Linearizer"),
        UNNORMALISED: DatasetType(_DIMENSIONS, "CalibTable", True, "Linearizer"),
        NORMALISATION: DatasetType(("instrument",), "StructuredDataDict"),
    },
    maker="linearizer",
    output="outputLinearizer",
    made_of=Frames("flat", least=12, one_filter=True),
    tasks={
        **ptc.TASKS,
        **named(_SOLVE, "LinearitySolveTask", *_MODULES),
        **named(_SOLVE_DOUBLE, "LinearityDoubleSplineSolveTask", *_MODULES),
        **named(_NORMALISE, "LinearityNormalizeTask", "lsst.cp.pipe", "lsst.cp.pipe.cpLinearityNormalize"),
    },
    groups=_groups,
    readings={photodiode.TYPE: "usePhotodiode"},
    correction=Correction("doLinearize", "linearity", from_zero=True),
    costs={"linearizer": CostModel(mpixels_per_second=30.0)},
)
