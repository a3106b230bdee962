"""Sky frames of one filter: what the focal plane's background leaves of science exposures, in small bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from campaign.errors import ConfigurationError
from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft, measured
from campaign.kinds.isr import OF_FRAMES
from campaign.kinds.model import CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.task import Field, TaskClass, named

_DIMENSIONS: Final = ("instrument", "physical_filter", "detector")
_BOTH: Final = "includeAlternateBackground"
#: Detections of a frame, as a kernel has them by name; the first field is the threshold's, with its default.
_PLANES: Final = ["DETECTED", "BAD", "NO_DATA", "SAT"]
_BAD: Final = ["BAD", "SAT", "INTRP", "DETECTED", "DETECTED_NEGATIVE", "EDGE", "NO_DATA"]

_IMAGE: Final = TaskClass(
    "sky_measure",
    "gang",
    ("instrument", "physical_filter", "exposure", "detector"),
    {"inputExp": "cpSkyIsrExp", "camera": "camera"},
    {"maskedExp": "cpSkyMaskedIsrExp", "maskedBkg": "cpSkyDetectorBackground"},
    {
        "maskThresh": Field(3.0, kernel="threshold", least=0.1),
        "maskList": Field(_PLANES, (_PLANES,)),
        "maskTask.detectSigma": Field(5.0, kernel="smoothing", least=0.5),
        "maskTask.nIter": Field(3, kernel="rounds", least=1),
        # Ours: the noise is measured in these cells, too; what is found grows by so many pixels.
        "maskTask.subtractBackground.binSize": Field(256, kernel="cell", least=32),
        "maskTask.growMask": Field(2, kernel="grow", least=0),
        "largeScaleBackground.xSize": Field(40.96, kernel="size", least=1.0),
        "largeScaleBackground.ySize": Field(40.96),
        "largeScaleBackground.pixelSize": Field(0.01, (0.01,)),
        "largeScaleBackground.minFrac": Field(0.1, least=1e-6),
        "largeScaleBackground.mask": Field(_BAD, (_BAD,)),
        "largeScaleBackground.interpolation": Field("AKIMA_SPLINE", ("AKIMA_SPLINE",)),
        "largeScaleBackground.doSmooth": Field(False, (False,)),
    },
    raws=True,
)

_SCALE: Final = TaskClass(
    "sky_scale",
    "serial",
    ("instrument", "physical_filter", "exposure"),
    {"inputBkgs": "cpSkyDetectorBackground", "camera": "camera"},
    {
        "outputBkg": "cpSkyExpBackground",
        "outputBkgAlternate": "cpSkyExpBackgroundAlternate",
        "outputScale": "cpSkyExpScale",
    },
    {_BOTH: Field(False, kernel="apart")},
)

_SUBTRACT: Final = TaskClass(
    "sky_subtract",
    "fused",
    ("instrument", "physical_filter", "exposure", "detector"),
    {
        "inputExp": "cpSkyMaskedIsrExp",
        "inputBkg": "cpSkyExpBackground",
        "inputBkgAlternate": "cpSkyExpBackgroundAlternate",
        "inputScale": "cpSkyExpScale",
    },
    {"outputBkg": "cpSkyExpResidualBackground"},
    {
        _BOTH: Field(False),
        "sky.background.xBinSize": Field(32, kernel="bin", least=1),
        "sky.background.yBinSize": Field(32, least=1),
        "sky.background.statistic": Field("MEANCLIP", ("MEANCLIP",)),
        "sky.background.algorithm": Field("NATURAL_SPLINE", ("NATURAL_SPLINE",)),
    },
)

_COMBINE: Final = TaskClass(
    "sky",
    "gang",
    _DIMENSIONS,
    {"inputBkgs": "cpSkyExpResidualBackground", "inputExpHandles": "cpSkyMaskedIsrExp"},
    {"outputCalib": "sky"},
    {
        # Ours: statistic over the exposures, and weights of exposures of unlike noise.
        "combine": Field("MEANCLIP", ("MEANCLIP", "MEDIAN", "MEAN"), "statistic"),
        "clip": Field(3.0, kernel="nsigma", least=0.1),
        "nIter": Field(3, kernel="passes", least=1),
        "inputWeights": Field("AUTO", ("AUTO", "NONE"), "weighting"),
    },
)


def _groups(planner: Planner) -> Sequence[GroupDraft]:
    """Plan three groups: bins and superpixels of each detector, the focal plane's backgrounds, the sky frames."""
    measure, scale, subtract = (planner.only(name) for name in ("sky_measure", "sky_scale", "sky_subtract"))
    _require_agreement(planner)
    first = measured(planner, measure, "skyMeasure")
    config = {**first.config, **subtract.settings}
    first = GroupDraft(
        first.label, first.kernel, first.kind, config, first.tasks, [*first.fused, subtract.label], whole=OF_FRAMES
    )
    needs = [f"{measure.label}:{d}" for d in planner.detectors]
    inputs = {"skyMeasure": [f"skyMeasure:{d}" for d in planner.detectors]}
    settings = {
        **scale.settings,
        "least": measure.config["largeScaleBackground.minFrac"],
        "permissions": planner.permissions,
    }
    whole = GroupDraft(
        scale.label, scale.kernel, scale.kind, settings, [TaskDraft({}, ["skyScale"], inputs, needs=needs)],
        needs=[measure.label],
    )  # fmt: skip
    return [*corrected(planner), first, whole, _combine(planner, scale.label)]


def _combine(planner: Planner, scale: str) -> GroupDraft:
    maker = planner.maker
    tasks = [
        TaskDraft(
            {"detector": d},
            [planner.product],
            {"skyMeasure": [f"skyMeasure:{d}"], "skyScale": ["skyScale:"]},
            planner.parameters(d),
            [f"{scale}:"],
        )
        for d in planner.detectors
    ]
    config = {**planner.shared, **maker.settings, "type": "sky"}
    return GroupDraft(maker.label, maker.kernel, maker.kind, config, tasks, needs=[scale], whole=OF_FRAMES)


def _require_agreement(planner: Planner) -> None:
    """Refuse superpixels and bins that are no squares, and settings that upstream's contracts have equal.

    Raises
    ------
    ConfigurationError
        Naming the fields.
    """
    measure, scale, subtract = (planner.only(name).config for name in ("sky_measure", "sky_scale", "sky_subtract"))
    for config, one, other in (
        (measure, "largeScaleBackground.xSize", "largeScaleBackground.ySize"),
        (subtract, "sky.background.xBinSize", "sky.background.yBinSize"),
    ):
        if config[one] != config[other]:
            what = f"{one} is {config[one]:g}, {other} {config[other]:g}: only squares are implemented"
            raise ConfigurationError(what, where=planner.pipeline, do="set both to the same value")
    if scale[_BOTH] != subtract[_BOTH]:
        what = f"{_BOTH} is {scale[_BOTH]} where backgrounds are measured, {subtract[_BOTH]} where they are subtracted"
        raise ConfigurationError(what, where=planner.pipeline, do="set both to the same value")


def _numbers(made: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Tell the pattern's size, the error of a bin, and bins without a value."""
    rms = {name: float(one["pattern_rms"]) for name, one in made.items()}
    most = max(rms, key=rms.__getitem__)
    error, empty = (
        median(float(one["bin_error"]) for one in made.values()),
        sum(int(o["empty_bins"]) for o in made.values()),
    )
    text = f"pattern {100 * median(rms.values()):.3f} % rms, at most {100 * rms[most]:.3f} % ({most})"
    lost = f"; {empty} bins without a value" if empty else ""
    return [f"{text}; a bin is good to {100 * error:.3f} %{lost}"]


_MODULES: Final = ("lsst.cp.pipe", "lsst.cp.pipe.cpSky")
KIND: Final = ProductKind(
    "sky",
    {
        "sky": DatasetType(_DIMENSIONS, "CalibImage", True, "ExposureF"),
        "skyMeasure": DatasetType(_DIMENSIONS, "StructuredDataDict"),
        "skyScale": DatasetType(("instrument", "physical_filter"), "StructuredDataDict"),
    },
    maker="sky",
    output="outputCalib",
    made_of=Frames("science", one_filter=True),
    tasks={
        **named(_IMAGE, "CpSkyImageTask", *_MODULES),
        **named(_SCALE, "CpSkyScaleMeasureTask", *_MODULES),
        **named(_SUBTRACT, "CpSkySubtractBackgroundTask", *_MODULES),
        **named(_COMBINE, "CpSkyCombineTask", *_MODULES),
    },
    groups=_groups,
    costs={"sky_measure": CostModel(mpixels_per_second=10.0, pixel_bytes=48)},
    unit="relative",
    picture="bins",
    numbers=_numbers,
)
