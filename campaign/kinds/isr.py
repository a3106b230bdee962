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

_PLANES: Final = (["SAT", "BAD", "UNMASKEDNAN"], ["SAT", "BAD"], ["BAD", "UNMASKEDNAN"], ["BAD"], ["SAT"])
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
    # Of whole frames; kernels that correct frames in parts refuse them.
    "doSuspect": Field(False, kernel="suspect", quiet=True),
    "doSetBadRegions": Field(False, kernel="bad_regions", quiet=True),
    "doInterpolate": Field(False, kernel="interpolate", quiet=True),
    "doBinnedExposures": Field(False),
    **only(
        False,
        *("doBootstrap", "doDiffNonLinearCorrection", "doWidenSaturationTrails"),
        *("doSaveInterpPixels", "doAmpOffset", "maskNegativeVariance", "expectWcs"),
        *("doITLDipMask", "doITLEdgeBleedMask", "doITLSatSagMask"),
    ),
    # Statistics and provenance are always written.
    **only(True, "doStandardStatistics", "doCalculateStatistics", "doHeaderProvenance"),
}

#: Switches of corrections without a calibration that need whole frames.
WHOLE: Final = ("doSuspect", "doSetBadRegions", "doInterpolate", "doBinnedExposures")
#: All that a kernel of corrected frames makes.
OF_FRAMES: Final = ("doBrighterFatter", "doFlat", "doFringe", *WHOLE)
_TURNOFF: Final = Field("PTCTURNOFF", ("PTCTURNOFF",))
#: Fields that count where a switch is true, by switch.
_OPTIONAL: Final[Mapping[str, Mapping[str, Field]]] = {
    "doSuspect": {"defaultSuspectSource": _TURNOFF},
    "doFlat": {"flatScalingType": Field("USER", ("USER",)), "flatUserScale": Field(1.0, (1.0,))},
    "doInterpolate": {
        # The planes that a frame has; UNMASKEDNAN is upstream's, no pixel of ours has it.
        "maskListToInterpolate": Field(["SAT", "BAD", "UNMASKEDNAN"], _PLANES, "interpolated_planes"),
        "growSaturationFootprintSize": Field(1, kernel="grow_saturated", least=0),
        "useLegacyInterp": Field(True, (True,)),
    },
    "doBrighterFatter": {
        # Ours: STEPPED, and AUTO, which takes it for kernels that were made here.
        "brighterFatterCorrectionMethod": Field("AUTO", ("AUTO", "COULTON18", "STEPPED"), "brighter_fatter_method"),
        # Ours: 0, as many as the method needs.
        "brighterFatterMaxIter": Field(0, kernel="brighter_fatter_rounds", least=0),
        "brighterFatterLevel": Field("DETECTOR", ("DETECTOR",)),
    },
    "doFringe": {
        "doFringe": Field(False),
        "fringeAfterFlat": Field(True, (True,)),
        # Names of filters or of their bands; frames of others are left as they are.
        "fringe.filters": Field([]),
        "fringe.num": Field(30_000, kernel="fringe_places", least=1000),
        "fringe.small": Field(3, kernel="fringe_small", least=1),
        "fringe.large": Field(30, kernel="fringe_large", least=2),
        "fringe.iterations": Field(20, kernel="fringe_rounds", least=1),
        "fringe.clip": Field(3.0, kernel="fringe_clip", least=0.5),
        "fringe.stats.rngSeedOffset": Field(0, kernel="fringe_seed", least=0),
        "fringe.pedestal": Field(False, (False,)),
    },
    "doBinnedExposures": {"binFactor1": Field(8, least=2), "binFactor2": Field(64, least=2)},
}
#: Outputs of ``doBinnedExposures``, with the field of their binning.
BINNED: Final = {"outputBin1Exposure": "binFactor1", "outputBin2Exposure": "binFactor2"}


def tasks(corrections: Mapping[str, Correction]) -> dict[str, TaskClass]:
    """Give upstream's task classes of both stages, with a connection and a switch for each correction, by kind."""
    asked = [c for c in corrections.values() if c.switch]
    switches = {c.switch: Field(False, kernel=c.setting if c.needed and not c.silent else "") for c in asked}
    optional = {c.connection or name: c.switch for name, c in corrections.items() if c.silent}
    fields = {**switches, **_FIELDS}
    for switch in [switch for switch in _OPTIONAL if switch in fields]:
        fields |= _OPTIONAL[switch]
        optional |= dict.fromkeys(
            _OPTIONAL[switch], switch
        )  # a switch among its own fields is left out where it is off
    isr = TaskClass(
        "isr",
        "fused",
        _DIMENSIONS,
        {"ccdExposure": "raw", **{c.connection or name: name for name, c in corrections.items()}},
        {
            "outputExposure": "postISRCCD",
            "outputStatistics": "isrStatistics",
            "outputBin1Exposure": "postIsrBin1",
            "outputBin2Exposure": "postIsrBin2",
        },
        fields,
        raws=True,
        optional={**optional, **dict.fromkeys(BINNED, "doBinnedExposures")},
    )
    modules = ("lsst.cp.pipe", "lsst.cp.pipe.cpDark", "lsst.cp.pipe.cpDarkTask")
    return {
        **named(isr, "IsrTaskLSST", "lsst.ip.isr", "lsst.ip.isr.isrTaskLSST"),
        **named(_COSMIC, "CpDarkTask", *modules),
    }
