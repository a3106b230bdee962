"""Signature removal and cosmic rays: stages of every kernel that reads raw frames.

Defaults are those of building calibrations (everything off but assembly and
variance), not those of science processing.  A field with a single value
lists that one: no kernel implements another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from campaign.kinds.model import Correction
from campaign.kinds.task import Field, TaskClass, named, only

_DIMENSIONS: Final = ("instrument", "exposure", "detector")

_COSMIC: Final = TaskClass(
    "cosmic",
    "fused",
    _DIMENSIONS,
    {"inputExp": "cpDarkISR"},
    {"outputExp": "cpDarkProc"},
    {"psfFwhm": Field(3.0, kernel="fwhm", least=0.1), "crGrow": Field(2, kernel="grow", least=0)},
)

_FIELDS: Final = {
    "doSaturation": Field(False, kernel="saturation"),
    "overscan.serial": Field("median", ("median", "meanclip", "none"), "serial"),
    "overscan.skipColumns": Field(3, kernel="skip_columns", least=0),
    "overscan.parallel": Field(True, kernel="parallel"),
    # Without gains everything stays in ADU; the camera file's unit says whether there are gains to apply.
    "doApplyGains": Field(True),
    # Ours: corrected frames go to disk, each by a quantum of its own.
    "doWrite": Field(False),
    "crosstalk.doQuadraticCrosstalkCorrection": Field(False, kernel="quadratic"),
    # CpCtiSolveTask asks for it; its kernel reads the last columns and the overscan itself.
    "isrStats.doCtiStatistics": Field(False),
    **only(True, "doAssembleCcd", "doNanMasking", "doVariance"),
    **only(
        False,
        *("doBootstrap", "doDiffNonLinearCorrection", "doSuspect"),
        *("doWidenSaturationTrails", "doInterpolate", "doSaveInterpPixels", "doSetBadRegions", "doAmpOffset"),
        *("maskNegativeVariance", "expectWcs", "doBinnedExposures", "doITLDipMask", "doITLEdgeBleedMask"),
        "doITLSatSagMask",
    ),
    # Statistics and provenance are always written.
    **only(True, "doStandardStatistics", "doCalculateStatistics", "doHeaderProvenance"),
}


#: Fields that count with ``doBrighterFatter``.
_BRIGHTER_FATTER: Final = {
    # Ours: STEPPED, and AUTO, which takes it for kernels that were made here.
    "brighterFatterCorrectionMethod": Field("AUTO", ("AUTO", "COULTON18", "STEPPED"), "brighter_fatter_method"),
    # Ours: 0, as many as the method needs.
    "brighterFatterMaxIter": Field(0, kernel="brighter_fatter_rounds", least=0),
    "brighterFatterLevel": Field("DETECTOR", ("DETECTOR",)),
}


def tasks(corrections: Mapping[str, Correction]) -> dict[str, TaskClass]:
    """Give upstream's task classes of both stages, with a connection and a switch for each correction, by kind."""
    asked = [c for c in corrections.values() if c.switch]
    switches = {c.switch: Field(False, kernel=c.setting if c.needed and not c.silent else "") for c in asked}
    optional = {c.connection or name: c.switch for name, c in corrections.items() if c.silent}
    if "doBrighterFatter" in switches:
        optional |= dict.fromkeys(_BRIGHTER_FATTER, "doBrighterFatter")
    isr = TaskClass(
        "isr",
        "fused",
        _DIMENSIONS,
        {"ccdExposure": "raw", **{c.connection or name: name for name, c in corrections.items()}},
        {"outputExposure": "postISRCCD", "outputStatistics": "isrStatistics"},
        {**switches, **_FIELDS, **(_BRIGHTER_FATTER if "doBrighterFatter" in switches else {})},
        raws=True,
        optional=optional,
    )
    modules = ("lsst.cp.pipe", "lsst.cp.pipe.cpDark", "lsst.cp.pipe.cpDarkTask")
    return {
        **named(isr, "IsrTaskLSST", "lsst.ip.isr", "lsst.ip.isr.isrTaskLSST"),
        **named(_COSMIC, "CpDarkTask", *modules),
    }
