"""Fringes of one filter: science exposures without sky and stars, combined; and frames corrected by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Final

from campaign.errors import ConfigurationError
from campaign.kinds.combining import TASKS, combined, kind
from campaign.kinds.draft import GroupDraft, Planner, measured
from campaign.kinds.isr import OF_FRAMES
from campaign.kinds.model import Correction, CostModel, DatasetType, Frames
from campaign.kinds.mosaic import types
from campaign.kinds.task import Field, TaskClass, named

_DIMENSIONS: Final = ("instrument", "physical_filter", "detector")

_MEASURE: Final = TaskClass(
    "fringe_measure",
    "gang",
    ("instrument", "exposure", "detector"),
    {"inputExp": "cpFringeISR"},
    {"outputExp": "cpFringeProc"},
    {
        "detection.thresholdValue": Field(5.0, kernel="threshold", least=0.1),
        "detectSigma": Field(1.0, kernel="smoothing", least=0.5),
        # Cells of background and noise; ours: rounds of the search, and growth of what is found.
        "subtractBackground.binSize": Field(128, kernel="cell", least=32),
        "detection.nIter": Field(3, kernel="rounds", least=1),
        "detection.growMask": Field(3, kernel="grow", least=0),
    },
    raws=True,
)


def _groups(planner: Planner) -> Sequence[GroupDraft]:
    """Plan two groups besides bins and mosaics: sky and stars of each frame, and the combination without them.

    Raises
    ------
    ConfigurationError
        The pipeline asks for a correction that a combination from rows cannot make.
    """
    if planner.only("isr").config["doBrighterFatter"]:
        what = "doBrighterFatter needs whole frames, and fringes are combined from rows of all frames"
        raise ConfigurationError(what, where=planner.pipeline, do="set doBrighterFatter: false; skies are faint")
    first = replace(measured(planner, planner.only("fringe_measure"), "fringeMeasure"), whole=OF_FRAMES)
    maker = planner.maker.label
    return [first, *(replace(draft, whole=OF_FRAMES) if draft.label == maker else draft for draft in combined(planner))]


def _numbers(made: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Tell the size of the fringes and the error of a pixel."""
    rms = {name: float(one["pattern_rms"]) for name, one in made.items()}
    most = max(rms, key=rms.__getitem__)
    error = median(float(one["pixel_error"]) for one in made.values())
    text = f"fringes {100 * median(rms.values()):.3f} % of the sky rms, at most {100 * rms[most]:.3f} % ({most})"
    return [f"{text}; a pixel is good to {100 * error:.3f} %"]


_COMBINED: Final = kind(
    "fringe",
    _DIMENSIONS,
    datasets={
        "fringe": DatasetType(_DIMENSIONS, "CalibImage", True, "ExposureF"),
        **types("fringe", _DIMENSIONS),
        "fringeMeasure": DatasetType(_DIMENSIONS, "StructuredDataDict"),
    },
    made_of=Frames("science", one_filter=True),
    tasks={**TASKS, **named(_MEASURE, "CpFringeTask", "lsst.cp.pipe", "lsst.cp.pipe.cpFringeTask")},
    groups=_groups,
    correction=Correction("doFringe", "fringe", needed=True, filters="fringe.filters", whole=True, silent=True),
    unit="relative",
    each="fringeBin8",
    numbers=_numbers,
)
_MEASURED: Final = {"fringe_measure": CostModel(mpixels_per_second=5.0, pixel_bytes=48)}
KIND: Final = replace(_COMBINED, costs={**_COMBINED.costs, **_MEASURED})
