"""The combine: frames of each detector become one image; shared by bias, dark and flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from campaign.errors import ConfigurationError, SubmissionRefused
from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.mosaic import binnings, mosaics, types
from campaign.kinds.task import Field, TaskClass, also_by_filter
from campaign.wording import listed

KERNEL: Final = "combine"
_MASKS: Final = (["SAT", "DETECTED", "INTRP"], ["DETECTED", "INTRP"], ["SAT", "DETECTED", "INTRP", "CR"])

_FIELDS: Final = {
    "calibrationType": Field("calibration", kernel="type"),
    "exposureScaling": Field("Unity", ("Unity", "ExposureTime", "DarkTime", "MeanStats", "InputList")),
    "scalingLevel": Field("DETECTOR", ("DETECTOR", "AMP")),
    "combine": Field("MEANCLIP", ("MEANCLIP", "MEDIAN", "MEAN"), "statistic"),
    "clip": Field(3.0, kernel="nsigma", least=0.1),
    "nIter": Field(3, kernel="passes", least=1),
    # Ours: VARIANCE is the variance of IMAGE, or upstream's: that of the survivors over their number.
    "varianceDefinition": Field("ESTIMATOR", ("ESTIMATOR", "PLAIN"), "variance"),
    # Ours: darks of unlike times are weighted by their noise.
    "inputWeights": Field("AUTO", ("AUTO", "NONE"), "weighting"),
    "maxVisitsToCalcErrorFromInputVariance": Field(5, (5,)),
    # Upstream's names for the pixels that signature removal and cosmic-ray task flag, and that are left out.
    "mask": Field(["SAT", "DETECTED", "INTRP"], _MASKS),
    "distributionPercentiles": Field([0, 5, 16, 50, 84, 95, 100], ([0, 5, 16, 50, 84, 95, 100],)),
    # Ours: a detector with a larger bad fraction, from its calibrations or its frames, fails.
    "maxBadFraction": Field(0.5, kernel="max_bad", least=0),
    # NO_DATA and VIGNETTED beyond a radius in the focal plane, mm.
    "doVignette": Field(False),
    "vignette.radius": Field(350.0, least=1),
}


@dataclass(frozen=True)
class _Measured:
    """Source of scales that are measured before frames are combined."""

    #: Kernel that measures them, and their dataset type.
    kernel: str
    type: str
    #: Whether each detector has its own file.
    each: bool


#: By ``exposureScaling``.
_MEASURED: Final = {
    "InputList": _Measured("flat_normalise", "flatNormalization", False),
    "MeanStats": _Measured("flat_measure", "flatMeasure", True),
}
#: Sky and stars that are taken out of each frame first.
_SKY: Final = _Measured("fringe_measure", "fringeMeasure", True)


_TASK: Final = TaskClass(
    KERNEL,
    "gang",
    ("instrument", "detector"),
    {"inputExpHandles": "cpInputs", "inputScales": "cpScales"},
    {"outputData": "cpProposal"},
    _FIELDS,
    raws=True,
)
TASKS: Final[Mapping[str, TaskClass]] = also_by_filter(
    _TASK, "CalibCombineTask", "CalibCombineByFilterTask", "lsst.cp.pipe", "lsst.cp.pipe.cpCombine"
)


def images(name: str, dimensions: tuple[str, ...]) -> dict[str, DatasetType]:
    """Give the dataset types of a combined calibration and of its bootstrap, with their bins and mosaics.

    A bootstrap is in ADU, of frames that only other bootstraps correct.
    """
    found: dict[str, DatasetType] = {}
    for one in (name, f"{name}Bootstrap"):
        found |= {one: DatasetType(dimensions, "CalibImage", True, "ExposureF"), **types(one, dimensions)}
    return found


def kind(name: str, dimensions: tuple[str, ...], **more: Any) -> ProductKind:
    """Make a kind of combined image; ``more`` are further fields of `ProductKind`."""
    common: dict[str, Any] = {
        "datasets": images(name, dimensions),
        "made_of": Frames(name, alike=True),
        "tasks": TASKS,
        "groups": combined,
    }
    fixed: dict[str, Any] = {
        "maker": KERNEL,
        "output": "outputData",
        "config": {"calibrationType": name},
        "costs": {KERNEL: CostModel(output_bytes=12)},
        "picture": "image",
    }
    return ProductKind(name, **{**common, **more, **fixed})


def combined(planner: Planner) -> list[GroupDraft]:
    """Plan the combine, its mosaics, and corrected frames if they are asked for.

    Raises
    ------
    ConfigurationError
        The pipeline's parts do not agree.
    SubmissionRefused
        An exposure has no time to scale by.
    """
    return [*corrected(planner), _combine(planner), *mosaics(planner)]


def _combine(planner: Planner) -> GroupDraft:
    task, bins, cosmic = planner.maker, binnings(planner), planner.some("cosmic")
    require_mask(planner)
    measured = _SKY if planner.some(_SKY.kernel) else _MEASURED.get(task.config["exposureScaling"])
    waits = [planner.only(measured.kernel).label] if measured else []
    tasks = []
    for d in planner.detectors:
        inputs, parameters = planner.inputs(d), planner.parameters(d)
        own = str(d) if measured and measured.each else ""
        if measured:
            inputs[measured.type] = [f"{measured.type}:{own}"]
        else:
            parameters["scales"] = _scales(planner, parameters)
        needs = [f"{label}:{own}" for label in waits]
        tasks.append(TaskDraft({"detector": d}, [planner.product, *bins], inputs, parameters, needs))
    config = {
        **planner.shared,
        **task.settings,
        "product": planner.product,
        "bins": bins,
        "inputs_table": f"{planner.folder}/inputs",
    }
    if task.config["doVignette"]:
        config["vignette_mm"] = task.config["vignette.radius"]
    if cosmic:
        config["cosmic"] = dict(cosmic[0].settings)
    fused = [t.label for t in [planner.only("isr"), *cosmic, *planner.some("bin")]]
    return GroupDraft(task.label, task.kernel, task.kind, config, tasks, fused, waits)


def require_mask(planner: Planner) -> None:
    """Refuse a mask whose planes differ from those that the pipeline flags; a task without a mask leaves out none.

    Raises
    ------
    ConfigurationError
        Naming the plane.
    """
    mask = planner.maker.config.get("mask", ())
    flagged = {"SAT": planner.only("isr").config["doSaturation"], "CR": bool(planner.some("cosmic"))}
    for plane, done in flagged.items():
        if done != (plane in mask):
            what = f"the combine's mask {mask} {'lacks' if done else 'has'} {plane}"
            raise ConfigurationError(
                f"{what}, which the pipeline {'flags' if done else 'does not flag'}",
                where=planner.pipeline,
                do="change mask together with doSaturation (SAT) and the cosmic-ray task (CR)",
            )


def _scales(planner: Planner, parameters: Mapping[str, Any]) -> list[float]:
    scaling, exposures = planner.maker.config["exposureScaling"], parameters["exposures"]
    times: dict[str, Sequence[float]] = {
        "Unity": [1.0] * len(exposures),
        "ExposureTime": parameters["exposure_times"],
        "DarkTime": parameters["dark_times"],
    }
    zero = [e for e, s in zip(exposures, times[scaling], strict=True) if s <= 0]
    if zero:
        raise SubmissionRefused(f"exposure {listed(zero)} has no time to be scaled by ({scaling})")
    return list(times[scaling])
