"""The one table from upstream's task classes to kernels.

Names of classes, fields and connections are those of the LSST pipelines.
Defaults of the signature removal are those of building calibrations (everything
off but the assembly and the variance), not those of science processing; a field
whose other values no kernel can do lists only the one that it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal["fused", "gang", "serial", "quantum"]


@dataclass(frozen=True)
class Field:
    """A configuration field.

    Parameters
    ----------
    default
        Its value where a pipeline does not set it; its type is the field's.
    choices : `tuple`, optional
        The values that are possible; any of the type where empty.
    kernel : `str`, optional
        Its name among the kernel's settings; empty where only the planner reads it.
    least : `float`, optional
        The smallest value that is possible.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    kernel: str = ""
    least: float | None = None

    def objection(self, value: Any) -> str:
        """Say why a value cannot be the field's; empty where it can."""
        wanted = type(self.default)
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or isinstance(value, bool) is not isinstance(self.default, bool):
            return f"a value of the type {wanted.__name__} was expected"
        if isinstance(value, list) and not all(isinstance(item, type(self.default[0])) for item in value):
            return f"a list of {type(self.default[0]).__name__} was expected"
        if self.least is not None and not self.least <= value < float("inf"):
            return f"at least {self.least:g} was expected"
        if self.choices and value not in self.choices:
            known = " | ".join(
                str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in self.choices
            )
            return f"only {known} is implemented" if len(self.choices) == 1 else f"possible are {known}"
        return ""


@dataclass(frozen=True)
class TaskClass:
    """What stands for an upstream task class here.

    Parameters
    ----------
    kernel : `str`
        The kernel, or the part of one that a fused task is.
    kind : `str`
        ``fused`` (done in the memory of the gang that reads its output, or
        writes its input), ``gang`` (one MPI job over the focal plane),
        ``serial`` (one process) or ``quantum`` (one of many).
    dimensions : `tuple` [`str`]
        Of a task's data ids.
    inputs, outputs : `dict` [`str`, `str`]
        Dataset types by connection, as far as a pipeline may rename them.
    fields : `dict` [`str`, `Field`]
        The configuration.
    """

    kernel: str
    kind: Kind
    dimensions: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    fields: Mapping[str, Field] = field(default_factory=dict)


def _only(value: bool, *names: str) -> dict[str, Field]:
    return {name: Field(value, (value,)) for name in names}


_ISR: Final = TaskClass(
    "isr",
    "fused",
    ("instrument", "exposure", "detector"),
    {
        **{name: name for name in ("bias", "dark", "defects", "linearizer", "crosstalk", "ptc")},
        "ccdExposure": "raw",
        "deferredChargeCalib": "cti",
    },
    {"outputExposure": "postISRCCD", "outputStatistics": "isrStatistics"},
    {
        "doBias": Field(False, kernel="bias"),
        "doDark": Field(False, kernel="dark"),
        "doSaturation": Field(False, kernel="saturation"),
        "overscan.serial": Field("median", ("median", "meanclip", "none"), "serial"),
        "overscan.skipColumns": Field(3, kernel="skip_columns", least=0),
        "overscan.parallel": Field(True, kernel="parallel"),
        # Without, everything stays in ADU; the camera file's unit says whether there are gains to apply.
        "doApplyGains": Field(True),
        # Ours: corrected frames go to disk, each by a quantum of its own.
        "doWrite": Field(False),
        "doDefect": Field(False),
        "doLinearize": Field(False),
        "doCrosstalk": Field(False),
        "crosstalk.doQuadraticCrosstalkCorrection": Field(False, kernel="quadratic"),
        "doDeferredCharge": Field(False),
        # What CpCtiSolveTask wants: it takes the last columns and the overscan as they are.
        "isrStats.doCtiStatistics": Field(False),
        **_only(True, "doAssembleCcd", "doNanMasking", "doVariance"),
        **_only(
            False,
            *("doFlat", "doBootstrap", "doBrighterFatter", "doDiffNonLinearCorrection", "doCorrectGains", "doSuspect"),
            *("doWidenSaturationTrails", "doInterpolate", "doSaveInterpPixels", "doSetBadRegions", "doAmpOffset"),
            *("maskNegativeVariance", "expectWcs", "doBinnedExposures", "doITLDipMask", "doITLEdgeBleedMask"),
            "doITLSatSagMask",
        ),
        # Statistics and provenance are always written.
        **_only(True, "doStandardStatistics", "doCalculateStatistics", "doHeaderProvenance"),
    },
)

_COSMIC: Final = TaskClass(
    "cosmic",
    "fused",
    ("instrument", "exposure", "detector"),
    {"inputExp": "cpDarkISR"},
    {"outputExp": "cpDarkProc"},
    {"psfFwhm": Field(3.0, kernel="fwhm", least=0.1), "crGrow": Field(2, kernel="grow", least=0)},
)

_MASKS: Final = (["SAT", "DETECTED", "INTRP"], ["DETECTED", "INTRP"], ["SAT", "DETECTED", "INTRP", "CR"])

_COMBINE_FIELDS: Final = {
    "calibrationType": Field("calibration", kernel="type"),
    "exposureScaling": Field("Unity", ("Unity", "ExposureTime", "DarkTime", "MeanStats", "InputList")),
    "scalingLevel": Field("DETECTOR", ("DETECTOR", "AMP")),
    "combine": Field("MEANCLIP", ("MEANCLIP", "MEDIAN", "MEAN"), "statistic"),
    "clip": Field(3.0, kernel="nsigma", least=0.1),
    "nIter": Field(3, kernel="passes", least=1),
    # Ours: VARIANCE is the variance of IMAGE, or upstream's of the survivors over their number.
    "varianceDefinition": Field("ESTIMATOR", ("ESTIMATOR", "PLAIN"), "variance"),
    # Ours: darks of unlike times are weighted by their noise.
    "inputWeights": Field("AUTO", ("AUTO", "NONE"), "weighting"),
    "maxVisitsToCalcErrorFromInputVariance": Field(5, (5,)),
    # What is left out is what the signature removal and the cosmic-ray task flag; these are upstream's words for it.
    "mask": Field(["SAT", "DETECTED", "INTRP"], _MASKS),
    "distributionPercentiles": Field([0, 5, 16, 50, 84, 95, 100], ([0, 5, 16, 50, 84, 95, 100],)),
    # Ours: a detector of which more is bad, through its calibrations or its frames, fails.
    "maxBadFraction": Field(0.5, kernel="max_bad", least=0),
    # NO_DATA and VIGNETTED beyond a radius in the focal plane, mm.
    "doVignette": Field(False),
    "vignette.radius": Field(350.0, least=1),
}


def _combine(*more: str) -> TaskClass:
    return TaskClass(
        "combine",
        "gang",
        ("instrument", "detector", *more),
        {"inputExpHandles": "cpInputs", "inputScales": "cpScales"},
        {"outputData": "cpProposal"},
        _COMBINE_FIELDS,
    )


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
        **_only(False, "doVignette"),
    },
)

_CTI: Final = TaskClass(
    "cti",
    "gang",
    ("instrument", "detector"),
    {"inputMeasurements": "cpCtiMeas"},
    {"outputCalib": "cpCtiCalib"},
    {
        "maxImageMean": Field(150000.0, kernel="offset_signal", least=0),
        "localOffsetColumnRange": Field([3, 13], kernel="offset_columns"),
        "maxSignalForCti": Field(10000.0, kernel="cti_signal", least=0),
        "globalCtiColumnRange": Field([1, 2], kernel="cti_columns"),
    },
)

_NORMALIZE: Final = TaskClass(
    "flat_normalise",
    "serial",
    ("instrument", "physical_filter"),
    {"inputMDs": "cpFlatProc_metadata"},
    {"outputScales": "cpFlatNormScales"},
    {"level": Field("DETECTOR", ("DETECTOR", "AMP"), "level"), "scaleMaxIter": Field(10, kernel="iterations", least=1)},
)


def _bin(*more: str) -> TaskClass:
    dimensions = ("instrument", "detector", *more)
    return TaskClass(
        "bin",
        "fused",
        dimensions,
        {"inputExp": "bias"},
        {"outputExp": "biasBin"},
        {"binning": Field(8, kernel="binning", least=1)},
    )


def _mosaic(*more: str) -> TaskClass:
    return TaskClass(
        "mosaic",
        "serial",
        ("instrument", *more),
        {"inputExps": "biasBin"},
        {"outputData": "biasMosaic"},
        {"binning": Field(8, kernel="binning", least=1)},
    )


def _defects(*more: str) -> TaskClass:
    """Looks at one product; upstream's names, of upstream's fields those that are thresholds."""
    return TaskClass(
        "measure_defects",
        "fused",
        ("instrument", "detector", *more),
        {"inputExp": "dark"},
        {"outputDefects": "cpDefectsProc"},
        {
            # Ours: what the product is; upstream goes by its header.
            "productType": Field("dark", ("bias", "dark", "flat")),
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


def _named(task: TaskClass, name: str, *modules: str) -> dict[str, TaskClass]:
    return {f"{module}.{name}": task for module in modules}


_PIPE: Final = "lsst.cp.pipe"
_VISUALIZE: Final = "lsst.pipe.tasks.visualizeVisit"

TASKS: Final[Mapping[str, TaskClass]] = {
    **_named(_ISR, "IsrTaskLSST", "lsst.ip.isr", "lsst.ip.isr.isrTaskLSST"),
    **_named(_COSMIC, "CpDarkTask", _PIPE, f"{_PIPE}.cpDark", f"{_PIPE}.cpDarkTask"),
    **_named(_combine(), "CalibCombineTask", _PIPE, f"{_PIPE}.cpCombine"),
    **_named(_combine("physical_filter"), "CalibCombineByFilterTask", _PIPE, f"{_PIPE}.cpCombine"),
    **_named(_MEASURE, "CpFlatMeasureTask", _PIPE, f"{_PIPE}.cpFlatMeasure", f"{_PIPE}.cpFlatNormTask"),
    **_named(_NORMALIZE, "CpFlatNormalizationTask", _PIPE, f"{_PIPE}.cpFlatMeasure", f"{_PIPE}.cpFlatNormTask"),
    **_named(_CTI, "CpCtiSolveTask", _PIPE, f"{_PIPE}.deferredCharge"),
    **_named(_defects(), "MeasureDefectsCombinedTask", _PIPE, f"{_PIPE}.defects"),
    **_named(_defects("physical_filter"), "MeasureDefectsCombinedWithFilterTask", _PIPE, f"{_PIPE}.defects"),
    **_named(_MERGE, "MergeDefectsCombinedTask", _PIPE, f"{_PIPE}.defects"),
    **_named(_bin(), "VisualizeBinCalibTask", _VISUALIZE),
    **_named(_bin("physical_filter"), "VisualizeBinCalibFilterTask", _VISUALIZE),
    **_named(_mosaic(), "VisualizeMosaicCalibTask", _VISUALIZE),
    **_named(_mosaic("physical_filter"), "VisualizeMosaicCalibFilterTask", _VISUALIZE),
}
"""Task classes by their full name, with the modules that upstream has kept them in."""
