"""Layouts of the calibrations that are tables: upstream's (lsst.ip.isr), one entry a kind, and ours of before.

A file has one or two tables.  Columns that a version does not have are absent;
columns that the layout does not name are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

#: Arrangement of a table in a YAML file: one row of values, lists of equal length, a mapping of values under each
#: amplifier, or a mapping of amplifiers under each key.
Arrangement = Literal["row", "lists", "amplifiers", "keys"]


@dataclass(frozen=True)
class Column:
    """A column."""

    name: str
    #: Key in a YAML file; empty if it has none.
    key: str = ""
    #: Its unit, where the file says one; ``{unit}`` stands for that of the frames.
    unit: str = ""
    #: Whether a file without it is refused.
    needed: bool = False
    #: Value of a cell where nothing was measured; `None`: the column is left out then.
    blank: Any = None


@dataclass(frozen=True)
class TableLayout:
    """A table."""

    columns: tuple[Column, ...]
    arrangement: Arrangement = "keys"
    #: Key of a YAML file that holds the whole table; empty: the file itself.
    within: str = ""
    #: Column of the names of amplifiers (or detectors); empty if the rows have none.
    names: str = ""


@dataclass(frozen=True)
class Layout:
    """A kind's files."""

    #: Our name of the kind.
    kind: str
    #: OBSTYPE of upstream's files, which begins the names of their SCHEMA and VERSION.
    obstype: str
    schema: str
    #: Newest version that is understood.
    version: float
    #: Upstream's class (CALIBCLS).
    calibcls: str
    table: TableLayout
    second: TableLayout | None = None
    #: Oldest version that can be understood.
    oldest: float = 0.0
    #: Further OBSTYPEs.
    also: tuple[str, ...] = ()
    #: Columns of our earlier layout, and the names that they have here.
    before: Mapping[str, str] = field(default_factory=dict)
    #: Entry of the metadata that names the unit of the frames; empty: the kind holds for any.
    unit: str = ""


def _named(columns: Mapping[str, str], unit: str = "", blank: Any = math.nan) -> tuple[Column, ...]:
    return tuple(Column(name, key, unit, blank=blank) for name, key in columns.items())


#: Blank of a column with a list a cell.  Two, because a list of one reads back as a number.
_LIST: Final = (math.nan, math.nan)


_BOX: Final = tuple(Column(name, name, "pixel", needed=True) for name in ("x0", "y0", "width", "height"))

CROSSTALK: Final = Layout(
    "crosstalk",
    "CROSSTALK",
    "Gen3 Crosstalk",
    1.2,
    "lsst.ip.isr.crosstalk.CrosstalkCalib",
    TableLayout(
        (
            Column("CT_COEFFS", "coeffs", needed=True),
            *_named({"CT_ERRORS": "coeffErr", "CT_COUNTS": "coeffNum", "CT_VALID": "coeffValid"}, blank=None),
            *_named({"CT_COEFFS_SQR": "coeffsSqr", "CT_ERRORS_SQR": "coeffErrSqr"}, "1/{unit}", None),
            Column("CT_AMP_GAIN_RATIOS", "ampGainRatios"),
            Column("CT_FIT_GAINS", "fitGains", "electron/adu"),
        ),
        "row",
    ),
    TableLayout((Column("IC_SOURCE_DET"), Column("IC_COEFFS", "interChip")), names="IC_SOURCE_DET"),
    unit="CROSSTALK_RATIOS_UNITS",
)

DEFECTS: Final = Layout(
    "defects",
    "defects",
    "",
    2.0,
    "lsst.ip.isr.defects.Defects",
    TableLayout(_BOX, "lists"),
    also=("manual_defects",),
    before={"X0": "x0", "Y0": "y0", "WIDTH": "width", "HEIGHT": "height"},
)

LINEARIZER: Final = Layout(
    "linearizer",
    "LINEARIZER",
    "Gen3 Linearizer",
    1.8,
    "lsst.ip.isr.linearize.Linearizer",
    TableLayout(
        (
            Column("AMPLIFIER_NAME", needed=True),
            Column("TYPE", "linearityType", needed=True),
            Column("COEFFS", "linearityCoeffs", needed=True),
            *_named({"BBOX_X0": "", "BBOX_Y0": "", "BBOX_DX": "", "BBOX_DY": ""}, "pixel", None),
            *_named({"INPUT_GAIN": "inputGain"}, "electron/adu"),
            *_named({"INPUT_TURNOFF": "inputTurnoff"}, "adu"),
            *_named({"INP_ABSCISSA": "inputAbscissa", "INP_ORDINATE": "inputOrdinate"}, blank=_LIST),
            Column("INP_MASK", "inputMask", blank=(False, False)),
            Column("INP_GROUPING_INDEX", "inputGroupingIndex", blank=(-1, -1)),
            *_named({"INP_NORMALIZATION": "inputNormalization"}, blank=_LIST),
            *_named({"FIT_PARAMS": "fitParams", "FIT_PARAMS_ERR": "fitParamsErr"}, blank=_LIST),
            *_named({"RED_CHI_SQ": "fitChiSq"}),
            *_named({"FIT_RES": "fitResiduals"}, "adu", _LIST),
            *_named({"FIT_RES_SIGMAD": "fitResidualsSigmaMad"}, "adu"),
            *_named({"FIT_RES_UNMASKED": "fitResidualsUnmasked", "FIT_RES_MODEL": "fitResidualsModel"}, "adu", _LIST),
            *_named({"LIN_FIT": "linearFit"}, blank=_LIST),
            *_named({"LINEARITY_TURNOFF": "linearityTurnoff", "LINEARITY_MAX_SIGNAL": "linearityMaxSignal"}, "adu"),
            Column("ABS_REF_AMP", "absoluteReferenceAmplifier", blank=""),
        ),
        "amplifiers",
        "amplifiers",
        "AMPLIFIER_NAME",
    ),
    TableLayout((Column("LOOKUP_VALUES", "tableData", "adu"),), "lists"),
    before={"AMPLIFIER": "AMPLIFIER_NAME", "NODES": "", "VALUES": ""},
)

PTC: Final = Layout(
    "ptc",
    "PTC",
    "Gen3 Photon Transfer Curve",
    2.6,
    "lsst.ip.isr.ptcDataset.PhotonTransferCurveDataset",
    TableLayout(
        (
            Column("AMPLIFIER_NAME", needed=True),
            Column("PTC_FIT_TYPE", blank="EXPAPPROXIMATION"),
            Column("COV_MATRIX_SIDE", blank=1),
            Column("COV_MATRIX_SIDE_FULL_COV_FIT", blank=1),
            Column("INPUT_EXP_ID_PAIRS", "inputExpIdPairs", blank=((-1, -1), (-1, -1))),
            *_named({"INPUT_EXP_PAIR_MJD_START": "inputExpPairMjdStartList"}, "d", _LIST),
            *_named({"EXP_ID_MASK": "expIdMask", "EXP_ID_ROLLOFF_MASK": "expIdRolloffMask"}, blank=(False, False)),
            *_named({"RAW_EXP_TIMES": "rawExpTimes"}, "s", _LIST),
            *_named({"RAW_MEANS": "rawMeans", "RAW_DELTAS": "rawDeltas"}, "adu", _LIST),
            *_named({"RAW_VARS": "rawVars", "ROW_MEAN_VARIANCE": "rowMeanVariance"}, "adu2", _LIST),
            Column("GAIN", "gain", "electron/adu", needed=True),
            *_named({"GAIN_ERR": "gainErr", "GAIN_UNADJUSTED": "gainUnadjusted"}, "electron/adu"),
            *_named({"GAIN_LIST": "gainList"}, "electron/adu", _LIST),
            *_named({"OVERSCAN_MEDIAN_LIST": "overscanMedianLevelList", "NOISE_LIST": "noiseList"}, "adu", _LIST),
            *_named({"OVERSCAN_MEDIAN": "overscanMedian", "OVERSCAN_MEDIAN_SIGMA": "overscanMedianSigma"}, "adu"),
            Column("NOISE", "noise", "electron", needed=True),
            *_named({"NOISE_ERR": "noiseErr"}, "electron"),
            *_named({"HIST_VARS": "histVars"}, "adu2", _LIST),
            *_named({"HIST_CHI2_DOFS": "histChi2Dofs", "KS_PVALUES": "kspValues"}, blank=_LIST),
            *_named({"PTC_FIT_PARS": "ptcFitPars", "PTC_FIT_PARS_ERROR": "ptcFitParsError"}, blank=(math.nan,) * 3),
            *_named({"PTC_FIT_CHI_SQ": "ptcFitChiSq"}),
            *_named({"PTC_TURNOFF": "ptcTurnoff", "PTC_TURNOFF_SAMPLING_ERROR": "ptcTurnoffSamplingError"}, "adu"),
            *_named({"PTC_ROLLOFF": "ptcRolloff", "PTC_ROLLOFF_ERROR": "ptcRolloffError"}, "adu"),
            *_named({"PTC_ROLLOFF_TAU": "ptcRolloffTau", "PTC_ROLLOFF_TAU_ERROR": "ptcRolloffTauError"}, "adu"),
            *_named({"A_MATRIX": "aMatrix", "B_MATRIX": "bMatrix"}, "1/electron"),
            *_named({"NOISE_MATRIX": "noiseMatrix"}, "electron2"),
            Column("BAD_AMPS", blank=""),
            *_named({"PHOTO_CHARGE": "photoCharges", "PHOTO_CHARGE_DELTAS": "photoChargeDeltas"}, blank=_LIST),
            *_named({"AMP_OFFSETS": "ampOffsets"}, "adu", _LIST),
            Column("NPIXEL_COVARIANCES", "nPixelCovariances", blank=-1),
            *_named({"COVARIANCES": "covariances", "COVARIANCES_MODEL": "covariancesModel"}, "adu2", _LIST),
            *_named({"COVARIANCES_SQRT_WEIGHTS": "covariancesSqrtWeights"}, "1/adu2", _LIST),
            *_named({"FINAL_VARS": "finalVars", "FINAL_MODEL_VARS": "finalModelVars"}, "adu2", _LIST),
            *_named({"FINAL_MEANS": "finalMeans"}, "adu", _LIST),
        ),
        names="AMPLIFIER_NAME",
    ),
    before={"AMPLIFIER": "AMPLIFIER_NAME", "GAIN": "GAIN", "NOISE": "NOISE", "TURNOFF": "PTC_TURNOFF"},
)

CTI: Final = Layout(
    "cti",
    "CTI",
    "Deferred Charge",
    1.3,
    "lsst.ip.isr.deferredCharge.DeferredChargeCalib",
    TableLayout(
        (
            Column("AMPLIFIER", needed=True),
            Column("DRIFT_SCALE", "driftScale", needed=True),
            Column("DECAY_TIME", "decayTime", "pixel", needed=True),
            Column("GLOBAL_CTI", "globalCti", needed=True),
            *_named({"SIGNALS": "signals"}, "electron", _LIST),
            *_named({"INPUT_GAIN": "inputGain"}, "electron/adu"),
            *_named({"SERIAL_EPER": "serialEper", "PARALLEL_EPER": "parallelEper"}, blank=_LIST),
            *_named(
                {
                    "SERIAL_CTI_TURNOFF": "serialCtiTurnoff",
                    "PARALLEL_CTI_TURNOFF": "parallelCtiTurnoff",
                    "SERIAL_CTI_TURNOFF_SAMPLING_ERR": "serialCtiTurnoffSamplingErr",
                    "PARALLEL_CTI_TURNOFF_SAMPLING_ERR": "parallelCtiTurnoffSamplingErr",
                },
                "electron",
            ),
            # ours
            *_named({"DRIFT_SCALE_ERROR": "", "GLOBAL_CTI_ERROR": "", "EPER": "", "EXPOSURES": ""}, blank=None),
        ),
        names="AMPLIFIER",
    ),
    TableLayout(
        (
            Column("AMPLIFIER"),
            Column("SIZE", "size", "electron"),
            Column("EMISSION_TIME", "emissionTime", "pixel"),
            Column("PIXEL", "pixel", "pixel"),
            Column("TYPE", "trap_type"),
            Column("COEFFS", "coeffs"),
        ),
        "amplifiers",
        "serialTraps",
        "AMPLIFIER",
    ),
    oldest=1.1,  # before, the unit was that of the frames, whatever that was
    before={
        "AMPLIFIER": "AMPLIFIER",
        "CTI": "GLOBAL_CTI",
        "CTI_ERROR": "GLOBAL_CTI_ERROR",
        "DRIFT": "DRIFT_SCALE",
        "DRIFT_ERROR": "DRIFT_SCALE_ERROR",
        "DECAY": "DECAY_TIME",
        "EPER": "EPER",
        "EXPOSURES": "EXPOSURES",
    },
)

BFK: Final = Layout(
    "bfk",
    "bfk",
    "Brighter-fatter kernel",
    1.1,
    "lsst.ip.isr.brighterFatterKernel.BrighterFatterKernel",
    TableLayout(
        (
            Column("AMPLIFIER"),
            Column("EXP_ID_MASK", "expIdMask", blank=(False, False)),
            *_named({"RAW_MEANS": "rawMeans"}, "adu", _LIST),
            *_named({"RAW_VARIANCES": "rawVariances"}, "adu2", _LIST),
            *_named({"MEANS": "means"}, "adu", None),
            *_named({"VARIANCES": "variances"}, "adu2", None),
            *_named({"RAW_XCORRS": "rawXcorrs"}, "adu2", None),
            *_named({"GAIN": "gain"}, "electron/adu"),
            *_named({"NOISE": "noise"}, "electron"),
            *_named({"MEAN_XCORRS": "meanXcorrs", "KERNEL": "ampKernels"}, "1/electron", None),
            Column("VALID", "valid"),
        ),
        names="AMPLIFIER",
    ),
    TableLayout((Column("DETECTOR"), Column("KERNEL", "detKernels", "1/electron")), "keys", names="DETECTOR"),
)

GAIN_CORRECTION: Final = Layout(
    "gain_correction",
    "gainCorrection",
    "GainCorrection",
    1.0,
    "lsst.ip.isr.gainCorrection.GainCorrection",
    TableLayout(
        (
            Column("AMP_NAME", "ampNames", needed=True),
            Column("GAIN_ADJUSTMENT", "gainAdjustments", needed=True),
            # ours
            Column("GAIN_ADJUSTMENT_ERR"),
            Column("INPUT_GAIN", unit="electron/adu"),
        ),
        "lists",
        names="AMP_NAME",
    ),
)

#: By our name of the kind.
LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {layout.kind: layout for layout in (CROSSTALK, DEFECTS, LINEARIZER, PTC, CTI, BFK, GAIN_CORRECTION)}
)


def layout_of(obstype: str) -> Layout | None:
    """Find the layout of the files of an OBSTYPE, in any case; `None` if no kind has it."""
    wanted = obstype.strip().lower()
    every = LAYOUTS.values()
    return next((one for one in every if wanted in (one.obstype.lower(), *map(str.lower, one.also))), None)
