"""Photon transfer curve of each amplifier: its gain, read noise, turnoff and brighter-fatter coefficients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from campaign.kinds import photodiode
from campaign.kinds.corrected import corrected
from campaign.kinds.draft import GroupDraft, Planner, TaskDraft, settings
from campaign.kinds.model import Correction, CostModel, DatasetType, Frames, ProductKind
from campaign.kinds.ratios import FIELDS, reduced
from campaign.kinds.task import Field, PipelineTask, TaskClass, named, only
from campaign.wording import count, listed

_DIMENSIONS: Final = ("instrument", "detector")
#: Dataset types of curves: the product, and those that a linearizer and a brighter-fatter kernel are made with.
TYPES: Final = ("ptc", "linearizerPtc", "bfkPtc")

SEVERAL: Final = "allowSeveralFilters"

#: Measures each pair; done by the kernel that fits.
_EXTRACT: Final = TaskClass(
    "ptc_pairs",
    "fused",
    ("instrument", "exposure", "detector"),
    {"inputExp": "ptcInputExposurePairs"},
    {"outputCovariance": "ptcCovariance"},
    {
        "matchExposuresType": Field("TIME", ("TIME", "EXPID", "FLUX"), "matching"),
        "matchExposuresByFluxKeyword": Field("CCOBFLUX", kernel="flux"),
        "maximumRangeCovariancesAstier": Field(10, kernel="side", least=1),
        "nSigmaClipPtc": Field(5.5, kernel="nsigma", least=1),
        "nIterSigmaClipPtc": Field(3, kernel="passes", least=1),
        "minNumberGoodPixelsForCovariance": Field(10000, kernel="least_pixels", least=1),
        "numEdgeSuspect": Field(20, kernel="edge", least=0),
        "edgeMaskLevel": Field("DETECTOR", ("DETECTOR",)),
        "maskNameList": Field(["SUSPECT", "BAD", "NO_DATA", "SAT"], (["SUSPECT", "BAD", "NO_DATA", "SAT"],)),
        "detectorMeasurementRegion": Field("AMP", ("AMP",)),
        "binSize": Field(1, (1,)),
        **only(
            False,
            *("doKsHistMeasurement", "doExtractPhotodiodeData", "doVignetteFunctionRegionSelection"),
            "doOutputBinnedImages",
        ),
        # Ours: flats of several filters, whose pairs are of one each.
        SEVERAL: Field(False),
    },
    raws=True,
    optional={SEVERAL: SEVERAL},
)
_SOLVE: Final = TaskClass(
    "ptc",
    "gang",
    _DIMENSIONS,
    {"inputCovariances": "ptcCovariance"},
    {"outputPtcDataset": "ptcDatasetProposal"},
    {
        # Ours by default: EXACT, to all orders. Upstream's are fitted as upstream does, but weighted by the model.
        "ptcFitType": Field("EXACT", ("EXACT", "FULLCOVARIANCE", "FULLCOVARIANCE_NO_B", "EXPAPPROXIMATION"), "model"),
        "sigmaCutPtcOutliers": Field(5.0, kernel="outlier_cut", least=0.1),
        "maxIterationsPtcOutliers": Field(2, kernel="outlier_rounds", least=0),
        "maxSignalInitialPtcOutlierFit": Field(50000.0, kernel="outlier_signal", least=1),
        "maxDeltaInitialPtcOutlierFit": Field(9000.0, kernel="outlier_gap", least=0),
        "scaleMaxSignalInitialPtcOutlierFit": Field(True, kernel="outlier_scaled"),
        "doModelPtcRolloff": Field(False, kernel="rolloff"),
        "maxPtcRolloffDeviation": Field(0.01, kernel="rolloff_share", least=0),
        # Ours: one range for all amplifiers, ADU.
        "minMeanSignal": Field(0.0, kernel="least_mean", least=0),
        "maxMeanSignal": Field(1e6, kernel="most_mean", least=0),
        **only(False, "doSubtractLongRangeCovariances", "doFitBootstrap", "doAmpOffsetGainRatioFixup"),
    },
)


#: Gives the gains the ratios of the flats; done by the kernel that fits, in the same pass.
_RATIOS: Final = TaskClass(
    "ptc",
    "gang",
    _DIMENSIONS,
    {"exposures": "cpPtcIsrExp", "input_ptc": "ptcUnadjusted"},
    {"output_ptc": "ptc"},
    {
        **FIELDS,
        "min_adu": Field(1000.0, kernel="ratio_least", least=0),
        "max_adu": Field(20000.0, kernel="ratio_most", least=1),
        "n_flat": Field(50, kernel="ratio_flats", least=1),
        # Flats are chosen evenly, not by chance.
        "random_seed": Field(12345, (12345,)),
    },
)


def _solver(planner: Planner) -> PipelineTask:
    """Give the task that fits, which may have another behind it."""
    return next((task for task in planner.some("ptc") if "ptcFitType" in task.config), None) or planner.only("ptc")


def curves(planner: Planner, maker: PipelineTask | None = None, products: Sequence[str] = ()) -> GroupDraft:
    """Plan one gang that measures each detector's flats in pairs and fits their curves.

    By default it is that of the pipeline's product.
    """
    maker, products = maker or planner.maker, products or [planner.product]
    stages = [planner.only("ptc_pairs"), _solver(planner)]
    # a smaller camera has fewer pixels: an amplifier at scale 16 has 3,900
    config = settings(planner, *stages, maker, least={"edge": 0, "least_pixels": 1})
    if "ratio_flats" in config:
        config |= reduced(maker.settings, planner.scale)
    tasks = [
        TaskDraft({"detector": d}, products, _frames(planner.inputs(d)), planner.parameters(d))
        for d in planner.detectors
    ]
    fused = [planner.only("isr").label, *(task.label for task in stages if task != maker)]
    return GroupDraft(maker.label, maker.kernel, maker.kind, config, tasks, fused)


def _frames(inputs: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Leave out readings beside frames: the kernel takes none."""
    return {role: keys for role, keys in inputs.items() if role != photodiode.TYPE}


def groups(planner: Planner) -> list[GroupDraft]:
    """Plan corrected frames, if a pipeline asks for them, and the gang."""
    return [*corrected(planner), curves(planner)]


def notes(planner: Planner) -> list[str]:
    """Name exposure times that occur an odd number of times."""
    if planner.only("ptc_pairs").config["matchExposuresType"] != "TIME" or not planner.detectors:
        return []
    times = Counter(round(t, 2) for t in planner.parameters(planner.detectors[0])["exposure_times"])
    odd = sorted(t for t, n in times.items() if n % 2)
    if not odd:
        return []
    what = f"{count(len(odd), 'exposure time')} without a whole number of pairs ({listed([f'{t:g} s' for t in odd])})"
    return [f"{what}: a flat without a partner next to it is left out"]


_MODULES: Final = ("lsst.cp.pipe", "lsst.cp.pipe.ptc", "lsst.cp.pipe.ptc.cpPtcExtract", "lsst.cp.pipe.ptc.cpPtcSolve")
_ADJUST: Final = "lsst.cp.pipe.ptc.cpPtcAdjustGainRatios"

TASKS: Final = {
    **named(_EXTRACT, "PhotonTransferCurveExtractPairTask", *_MODULES),
    **named(_EXTRACT, "PhotonTransferCurveExtractTask", *_MODULES),
    **named(_SOLVE, "PhotonTransferCurveSolveTask", *_MODULES),
    **named(_RATIOS, "PhotonTransferCurveAdjustGainRatiosTask", *_MODULES[:2], _ADJUST),
}
#: Flats that curves are measured on.
FLATS: Final = Frames("flat", least=8, one_filter=True, filters_field=SEVERAL)

KIND = ProductKind(
    "ptc",
    dict.fromkeys(TYPES, DatasetType(_DIMENSIONS, "CalibTable", True, "PhotonTransferCurveDataset")),
    maker="ptc",
    output="outputPtcDataset",
    made_of=FLATS,
    tasks=TASKS,
    groups=groups,
    notes=notes,
    correction=Correction("", "ptc"),
    costs={"ptc": CostModel(mpixels_per_second=15.0)},
    picture="amplifiers",
)
