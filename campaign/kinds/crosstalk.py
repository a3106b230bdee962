"""Crosstalk between the amplifiers of a detector, from exposures with spots or stars, or provided by a site."""

from __future__ import annotations

from typing import Any, Final

from campaign.errors import ConfigurationError
from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft
from campaign.kinds.model import Correction, CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.task import Field, TaskClass, named, only

_DIMENSIONS: Final = ("instrument", "detector")
#: Least distance from bright pixels at a reduced scale, where spots and stars are as wide in pixels as ever.
_LEAST_GROWTH: Final = 5
#: Corrections that come after crosstalk's.
_AFTER: Final = ("doLinearize", "doDeferredCharge")

#: Collects the pixels of each exposure; done by the kernel that fits.
_EXTRACT: Final = TaskClass(
    "crosstalk_pixels",
    "fused",
    ("instrument", "exposure", "detector"),
    {"inputExp": "crosstalkInputs"},
    {"outputRatios": "crosstalkRatios", "outputFluxes": "crosstalkFluxes"},
    {
        "threshold": Field(30000.0, kernel="bright", least=1),
        "growMaskRadius": Field(20, kernel="grow", least=0),
        "background.binSize": Field(64, kernel="box", least=8),
        # Ours: signal from which a target shows light of its own, electron.
        "ownLight": Field(300.0, kernel="own", least=1),
        "badMask": Field(["BAD", "INTRP"], (["BAD", "INTRP"],)),
        # Upstream's default is false: saturated pixels then count as sources with what was left of their signal.
        **only(True, "ignoreSaturatedPixels", "isTrimmed"),
        **only(False, "doMeasureInterchip"),
    },
    raws=True,
)
_SOLVE: Final = TaskClass(
    "crosstalk",
    "gang",
    _DIMENSIONS,
    {"inputRatios": "crosstalkRatios", "inputFluxes": "crosstalkFluxes"},
    {"outputCrosstalk": "crosstalkProposal"},
    {
        # Ours by default; upstream's is RATIOS.
        "estimator": Field("JOINT", ("JOINT", "RATIOS"), "estimator"),
        "rejIter": Field(3, kernel="passes", least=0),
        # Ours: 0, as the estimator needs (JOINT 5, RATIOS 2).
        "rejSigma": Field(0.0, kernel="nsigma", least=0),
        "fluxOrder": Field(1, (0, 1), "order"),
        "significanceLimit": Field(3.0, kernel="significant", least=0),
        # Ours: fewest bright pixels of a source.
        "minPixels": Field(20, kernel="least", least=3),
        # The unit is that of the camera's frames.
        **only(True, "doSignificanceScaling", "unitsAreElectrons"),
        **only(False, "rejectNegativeSolutions", "doFiltering"),
    },
)


def _groups(planner: Planner) -> list[GroupDraft]:
    isr, extract, maker = planner.only("isr"), planner.only("crosstalk_pixels"), planner.maker
    if asked := [name for name in _AFTER if isr.config[name]]:
        what = f"{isr.label}: crosstalk is measured, as it is corrected, before {' and '.join(asked)}"
        raise ConfigurationError(what, where=planner.pipeline, do=f"set {asked[0]}: false")
    settings: dict[str, Any] = {**extract.settings, **maker.settings}
    settings["grow"] = min(settings["grow"], max(_LEAST_GROWTH, round(settings["grow"] / planner.scale)))
    tasks = [
        TaskDraft({"detector": d}, [planner.product], planner.inputs(d), planner.parameters(d))
        for d in planner.detectors
    ]
    config = {**planner.shared, **settings}
    return [
        *corrected(planner),
        GroupDraft(maker.label, maker.kernel, maker.kind, config, tasks, [isr.label, extract.label]),
    ]


_MODULES: Final = ("lsst.cp.pipe", "lsst.cp.pipe.cpCrosstalk")

KIND = ProductKind(
    "crosstalk",
    {"crosstalk": DatasetType(_DIMENSIONS, "CalibTable", True, "CrosstalkCalib")},
    maker="crosstalk",
    output="outputCrosstalk",
    # Spots are exposures of a laboratory.
    made_of=Frames("science", also=("spot",), least=1),
    tasks={
        **named(_EXTRACT, "CrosstalkExtractTask", *_MODULES),
        **named(_SOLVE, "CrosstalkSolveTask", *_MODULES),
    },
    groups=_groups,
    correction=Correction("doCrosstalk", "crosstalk", from_zero=True),
    costs={"crosstalk": CostModel(mpixels_per_second=16.0, pixel_bytes=24)},
)
